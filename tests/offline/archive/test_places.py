"""Clouds: what is one, and results that are there only when they are whole."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar
from unittest.mock import patch

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from rtseg.base.errors import ConfigError, SourceError
from rtseg.offline.archive.places import about, fetch, is_cloud, join, open_cloud, read, upload


def result(folder: Path, text: str, *names: str) -> Path:
    (folder / "masks").mkdir(parents=True)
    for name in ("run.json", "masks.json", *names):
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(("uri", "expected"), [
    ("s3://b/x", True), ("gs://b/x", True), ("memory://x", True), ("a/b.mp4", False), ("/a.mp4", False),
    ("https://host/x.mp4", False), ("rtsp://host/x", False), ("synthetic:laparoscopy", False), ("c:d.mp4", False),
])  # fmt: skip
def test_what_is_a_cloud(uri: str, expected: bool) -> None:
    assert is_cloud(uri) is expected


def test_paths_are_joined() -> None:
    assert join("s3://b/x/", "a/b") == "s3://b/x/a/b"
    assert join("x/", "a") == "x/a"


def test_a_cloud_that_is_not_installed_or_unknown_is_one_line() -> None:
    with pytest.raises(ConfigError, match="Protocol not known"):
        open_cloud("s9://b/x")
    with patch("rtseg.offline.archive.places.import_module", side_effect=ImportError("Install s3fs to access S3")):
        with pytest.raises(ConfigError, match=r"s3://b/x: Install s3fs to access S3: pip install 'rtseg\[s3\]'"):
            open_cloud("s3://b/x")


def test_the_proof_of_a_result_comes_last_and_goes_first(tmp_path: Path) -> None:
    order: list[str] = []

    class Watched(MemoryFileSystem):
        protocol = "watched"
        store: ClassVar[dict[str, object]] = {}
        pseudo_dirs: ClassVar[list[str]] = [""]

        def put_file(self, lpath: str, rpath: str, *args: object, **keywords: object) -> None:
            order.append(f"put {rpath.rpartition('/')[2]}")
            if len(order) == fails:
                raise OSError("connection reset")
            super().put_file(lpath, rpath, *args, **keywords)

        def _rm(self, path: str) -> None:
            order.append(f"rm {path.rpartition('/')[2]}")
            super()._rm(path)

    fails = 0
    fsspec.register_implementation("watched", Watched, clobber=True)
    upload(result(tmp_path / "a", "old", "masks/0.png", "masks/1.png"), "watched://ward/a")
    assert order[-1] == "put run.json"
    order.clear()
    fails = 3
    with pytest.raises(OSError, match="reset"):
        upload(result(tmp_path / "b", "new", "masks/0.png"), "watched://ward/a")
    assert order[0] == "rm run.json"
    assert read("watched://ward/a/run.json") is None  # neither the old result nor the new one is there
    fails = 0
    upload(tmp_path / "b", "watched://ward/a")
    assert read("watched://ward/a/run.json") == b"new"
    assert read("watched://ward/a/masks/1.png") is None  # of the old result


def test_files_and_folders_are_fetched(tmp_path: Path) -> None:
    cloud = fsspec.filesystem("memory")
    cloud.pipe({"/images/1.png": b"1", "/images/sub/2.png": b"22", "/v.mp4": b"333"})
    fetch("memory://v.mp4", tmp_path / "v.mp4")
    fetch("memory://images", tmp_path / "images")
    assert (tmp_path / "v.mp4").read_bytes() == b"333"
    assert (tmp_path / "images/sub/2.png").read_bytes() == b"22"
    assert about("memory://images") == {"bytes": 3, "files": 2}
    assert about("memory://v.mp4")["bytes"] == 3
    with pytest.raises(SourceError, match="no such file"):
        about("memory://none.mp4")
