"""What lies in the file system under a name. What exists there is what it is, however its name looks."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal

from ..base.errors import SourceError
from .secret import redact

Kind = Literal["", "file", "folder", "pipe", "other"]


def kind_of(name: str) -> Kind:
    """What exists under this name, "" for nothing; `SourceError` where we may not look."""
    try:
        mode = Path(name).stat().st_mode if name else 0  # "" would be the current folder
    except ValueError:  # a zero in it
        return ""
    except OSError as e:
        if e.errno in (errno.EACCES, errno.EPERM):
            raise SourceError(f"{redact(name)}: cannot be read ({e.strerror}); check the permissions") from e
        return ""
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "folder"
    if stat.S_ISFIFO(mode):
        return "pipe"
    return "other" if mode else ""


def for_ffmpeg(path: str | os.PathLike[str]) -> str:
    """A file's name as FFmpeg takes it for one: `10:20.mp4` would be of the protocol `10`."""
    return f"file:{os.fspath(path)}"
