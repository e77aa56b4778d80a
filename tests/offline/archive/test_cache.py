"""The cache of fetched sources: bounded, shared, and whole after a worker died."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from rtseg.base.errors import ConfigError
from rtseg.base.lock import lock, open_folder
from rtseg.offline.archive.cache import Cache
from rtseg.offline.archive.manifest import Row
from rtseg.offline.archive.options import Options


def row(name: str, size: int) -> Row:
    return Row(2, (f"memory://ward/{name}",), "p.json", name, Options(), ({"bytes": size},))


class Fetched:
    """What was fetched; `fetch` writes a file of the source's name."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, uri: str, target: Path) -> None:
        self.names.append(uri.rpartition("/")[2])
        target.write_text(uri)


def test_a_source_is_fetched_under_its_name_and_removed_after_use(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "c", 100, Fetched())
    with cache.sources(row("a.mp4", 60), "out/a") as (path,):
        assert Path(path).name == "a.mp4" and Path(path).read_text() == "memory://ward/a.mp4"
    assert list((tmp_path / "c").iterdir()) == []


def test_local_sources_are_used_where_they_are(tmp_path: Path) -> None:
    fetched = Fetched()
    local = replace(row("a", 5), sources=(str(tmp_path / "a.mp4"),))
    with Cache(tmp_path / "c", 1, fetched).sources(local, "out/a") as sources:
        assert sources == [str(tmp_path / "a.mp4")]
    assert not fetched.names and not (tmp_path / "c").exists()


def test_a_source_that_never_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="raise --cache-gb"):
        Cache(tmp_path, 100, Fetched()).sources(row("a.mp4", 101), "out/a").__enter__()


def test_who_finds_no_room_waits_for_it(tmp_path: Path) -> None:
    cache, fetched = Cache(tmp_path, 100, Fetched()), threading.Event()

    def second() -> None:
        with cache.sources(row("b.mp4", 60), "out/b"):
            fetched.set()

    thread = threading.Thread(target=second)
    with cache.sources(row("a.mp4", 60), "out/a"):
        with cache.sources(row("c.mp4", 40), "out/c"):  # fits beside it at once
            pass
        thread.start()
        assert not fetched.wait(0.8)
    assert fetched.wait(20)
    thread.join()


def test_what_a_dead_worker_left_is_used_again_or_makes_room(tmp_path: Path) -> None:
    fetched = Fetched()
    cache = Cache(tmp_path, 100, fetched)
    left = cache.sources(row("a.mp4", 60), "out/a")
    left.__enter__()
    (entry,) = tmp_path.iterdir()
    descriptors = {int(link.name): link for link in Path("/proc/self/fd").iterdir()}
    held = next(number for number, link in descriptors.items() if link.exists() and link.samefile(entry))
    os.dup2(os.open(tmp_path, os.O_RDONLY), held)  # as after a kill -9: the lock is gone, the files are not
    with cache.sources(row("a.mp4", 60), "out/a"):
        assert fetched.names == ["a.mp4"]  # it was whole: not fetched again
        handle = open_folder(entry)
        assert lock(handle) == "held"
        os.close(handle)
    other = tmp_path / "0123"
    other.mkdir()
    (other / ".bytes").write_text("90")
    with cache.sources(row("b.mp4", 60), "out/b"):
        assert not other.exists()


def test_a_fetch_that_breaks_off_leaves_nothing_that_is_taken_for_whole(tmp_path: Path) -> None:
    def broken(uri: str, target: Path) -> None:
        target.write_text("hal")
        raise OSError("connection reset")

    with pytest.raises(OSError, match="reset"):
        Cache(tmp_path, 100, broken).sources(row("a.mp4", 60), "out/a").__enter__()
    fetched = Fetched()
    with Cache(tmp_path, 100, fetched).sources(row("a.mp4", 60), "out/a") as (path,):
        assert Path(path).read_text() == "memory://ward/a.mp4"
    assert fetched.names == ["a.mp4"]
