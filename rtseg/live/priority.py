"""Who gets a processor first, where there are fewer than there is work: the picture's processes before the network's.

First, but not more: their work is short, and the network keeps its fair share of what time there is. (With a higher
`nice` it would lose nine tenths of it to anything else that runs on the machine.) Where a GPU does the network's work,
the thread that launches it has short work, too, and a whole frame waits for it: it is one of the first. Neither needs a
privilege, and what a kernel does not know it leaves as it is.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress

_SLICE_NS = 100_000
_SET_ATTR = {"x86_64": 314, "aarch64": 274}  # the system call sched_setattr, which glibc has no function for


class _Attributes(ctypes.Structure):
    """`struct sched_attr` of linux/sched/types.h."""

    _fields_ = (
        ("size", ctypes.c_uint32), ("policy", ctypes.c_uint32), ("flags", ctypes.c_uint64), ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32), ("runtime", ctypes.c_uint64), ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )  # fmt: skip


def first() -> None:
    """For a process with short work that must not wait: short slices of time, and so early ones (Linux 6.12 on).

    It is for the thread that calls it, and for those that it begins from then on; an earlier `last` is over.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    number = _SET_ATTR.get(os.uname().machine)
    if number is not None:
        wanted = _Attributes(size=ctypes.sizeof(_Attributes), nice=os.nice(0), runtime=_SLICE_NS)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0)


def last() -> None:
    """For the process with the long work: when it wakes, it does not take the processor from who has it.

    Threads inherit it as `first`.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
