"""Scheduling priorities, for machines with fewer processors than work: the picture comes before the network.

The workers of the picture have short work and run early, while the network keeps its fair share of the time. A `nice`
value would not do: with it, any other program on the machine would take nine tenths of the network's time. Where a GPU
does the network's work, the thread that launches it also has short work, and the whole frame waits for it, so it runs
early, too. No privilege is needed, and a kernel without support for it changes nothing.
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


def raise_priority() -> None:
    """For a thread with short work that must not wait: short time slices, which the kernel schedules early.

    Linux has them from 6.12 on. They apply to the calling thread and to those that it starts from then on, and undo
    `lower_priority`.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    number = _SET_ATTR.get(os.uname().machine)
    if number is not None:
        wanted = _Attributes(size=ctypes.sizeof(_Attributes), nice=os.nice(0), runtime=_SLICE_NS)
        ctypes.CDLL(None).syscall(number, 0, ctypes.byref(wanted), 0)


def lower_priority() -> None:
    """For a thread with long work: when it wakes up, it does not preempt the running thread.

    Threads inherit it as for `raise_priority`.
    """
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
