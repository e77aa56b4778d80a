"""What a name is in the file system. An existing file is a file, even if its name looks like a uri."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Literal

from ..base.errors import SourceError
from .redact import redact

Kind = Literal["", "file", "folder", "pipe", "other"]


def kind_of(name: str) -> Kind:
    """What exists under this name, "" for nothing; `SourceError` if permissions hide that."""
    try:
        mode = Path(name).stat().st_mode if name else 0  # "" would be the current folder
    except ValueError:  # it holds a zero byte
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
    """A file's name as a uri for FFmpeg, which would take `10:20.mp4` for an address of the protocol `10`."""
    return f"file:{os.fspath(path)}"
