"""Descriptors 0, 1 and 2 for a process that was started without them (`<&-`, `>&-`, a service manager)."""

from __future__ import annotations

import os
import sys

_STREAMS = (("stdin", "r"), ("stdout", "w"), ("stderr", "w"))


def fill_standard() -> None:
    """Open what is missing of stdin, stdout and stderr on /dev/null.

    Otherwise the next files that are opened get their numbers: a child process would be given one as its stdin, and
    what is printed would be written into another.
    """
    for fd, (name, mode) in enumerate(_STREAMS):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            os.set_inheritable(fd, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(fd, mode, encoding="utf-8", errors="backslashreplace", closefd=False))  # noqa: SIM115
