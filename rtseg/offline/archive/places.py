"""Local and cloud paths, through fsspec: `s3://`, `gs://`, `memory://` and whatever else it knows.

A cloud has no folders and cannot rename one. So `upload` sends the file that proves a result last: a result is there
when that file is, and each file appears only when it is whole.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from typing import Any

from ...base.errors import ConfigError, SourceError
from ...grab.address import LIVE
from ...grab.paths import kind_of

PROOF = "run.json"
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_OWN = (*LIVE, "synthetic", "coded", "file")  # what `open_source` opens itself


def is_cloud(uri: str) -> bool:
    """Whether a uri is a cloud's: SCHEME://..., and neither an existing file nor what `open_source` opens itself."""
    found = _SCHEME.match(uri)
    return found is not None and found[1].lower() not in _OWN and kind_of(uri) not in ("file", "folder")


def join(folder: str, name: str) -> str:
    """The path of `name` in a local or cloud folder."""
    return f"{folder.rstrip('/')}/{name}" if is_cloud(folder) else str(Path(folder) / name)


def open_cloud(uri: str) -> tuple[Any, str]:
    """fsspec's file system for a uri, and the path in it. Raises `ConfigError` if it is unknown or not installed."""
    try:
        cloud, path = import_module("fsspec.core").url_to_fs(uri)
        return cloud, str(path)
    except ModuleNotFoundError as e:
        if e.name and e.name.startswith("fsspec"):
            raise ConfigError(f"{uri}: needs fsspec, which is not installed: pip install 'rtseg[ray]'") from e
        raise ConfigError(f"{uri}: needs {e.name}, which is not installed: pip install {e.name}") from e
    except ImportError as e:  # fsspec's own line, such as "Install s3fs to access S3"
        remedy = ": pip install 'rtseg[s3]'" if uri.startswith(("s3:", "s3a:")) else ""
        raise ConfigError(f"{uri}: {e}{remedy}") from e
    except ValueError as e:  # an unknown protocol
        raise ConfigError(f"{uri}: {e}; expected a path, or a uri such as s3://BUCKET/NAME") from e


def about(uri: str) -> dict[str, Any]:
    """What tells one state of a source from another: `bytes`, and `changed` or a tag where there is one.

    Empty for what is no file: a stream, a synthetic source. Raises `SourceError` if a file is not there.
    """
    if is_cloud(uri):
        return _about_cloud(uri)
    kind = kind_of(uri)
    if kind == "file":
        stat = Path(uri).stat()
        return {"bytes": stat.st_size, "changed": stat.st_mtime_ns}
    if kind == "folder":
        files = [path.stat() for path in Path(uri).iterdir() if path.is_file()]
        newest = max((stat.st_mtime_ns for stat in files), default=0)
        return {"bytes": sum(stat.st_size for stat in files), "changed": newest}
    if _SCHEME.match(uri) or uri.startswith(("synthetic:", "coded:")):
        return {}
    raise SourceError(f"{uri}: no such file; expected a video file, a folder of images, or a uri")


def _about_cloud(uri: str) -> dict[str, Any]:
    cloud, path = open_cloud(uri)
    try:
        if cloud.isdir(path):
            files = list(cloud.find(path, detail=True).values())
            return {"bytes": sum(int(file["size"] or 0) for file in files), "files": len(files)}
        info = cloud.info(path)
    except FileNotFoundError as e:
        raise SourceError(f"{uri}: no such file; expected a video file or a folder of images") from e
    except Exception as e:  # each cloud has errors of its own
        raise SourceError(f"{uri}: cannot be read ({_why(e)}); check its address and the credentials") from e
    tag = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("mtime") or info.get("created")
    return {"bytes": int(info["size"] or 0), "tag": str(tag)}


def read(uri: str) -> bytes | None:
    """The content of a local or cloud file; None if it is not there. Other failures are an `OSError`."""
    try:
        if not is_cloud(uri):
            return Path(uri).read_bytes()
        cloud, path = open_cloud(uri)
        cloud.invalidate_cache()  # another machine may have written since
        return bytes(cloud.cat_file(path))
    except FileNotFoundError:
        return None


def write(uri: str, data: bytes) -> None:
    """Write a cloud file, which appears when it is whole."""
    cloud, path = open_cloud(uri)
    cloud.pipe_file(path, data)


def fetch(uri: str, target: Path) -> None:
    """Copy a cloud file, or all that lies in a cloud folder, to a local path, which must not exist."""
    cloud, path = open_cloud(uri)
    folder = cloud.isdir(path)
    cloud.get(f"{path.rstrip('/')}/" if folder else path, f"{target}/" if folder else str(target), recursive=folder)


def upload(folder: Path, uri: str) -> None:
    """Copy a result to a cloud: an earlier one's proof goes first, the proof of this one comes last."""
    cloud, path = open_cloud(uri)
    path = path.rstrip("/")
    cloud.invalidate_cache()
    before = set(cloud.find(path)) if cloud.exists(path) else set()
    proof = f"{path}/{PROOF}"
    if proof in before:
        cloud.rm_file(proof)
    names = [file.relative_to(folder).as_posix() for file in sorted(folder.rglob("*")) if file.is_file()]
    names = [name for name in names if name != PROOF]
    if names:
        cloud.put([str(folder / name) for name in names], [f"{path}/{name}" for name in names])
    stale = before - {f"{path}/{name}" for name in names} - {proof}
    if stale:
        cloud.rm(sorted(stale))
    cloud.put_file(str(folder / PROOF), proof)


def _why(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
