"""A result folder: whole under its name, or not there; and --force cannot delete what is not ours."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtseg.errors import ConfigError, OutputError
from rtseg.publish.folder import atomic_folder


def write(out: Path, text: str, force: bool = False) -> None:
    with atomic_folder(out, force) as folder:
        (folder / "run.json").write_text(text)


def test_a_folder_appears_when_it_is_complete(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    with atomic_folder(out) as folder:
        (folder / "x").write_text("1")
        assert not out.exists()
        assert folder.parent == out.parent
    assert (out / "x").read_text() == "1"
    assert os.listdir(out.parent) == ["out"]
    plain = tmp_path / "plain"
    plain.mkdir()
    assert out.stat().st_mode == plain.stat().st_mode


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt()])
def test_a_failure_leaves_nothing(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), atomic_folder(tmp_path / "out") as folder:
        (folder / "x").write_text("1")
        raise error
    assert os.listdir(tmp_path) == []


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written .No space left on device") as caught:
        with atomic_folder(tmp_path / "out"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_an_error_about_a_file_names_it_as_the_user_knows_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, atomic_folder(tmp_path / "out") as folder:
        raise OutputError(f"{folder / 'x.png'}: cannot be written")
    assert str(caught.value) == f"{tmp_path / 'out' / 'x.png'}: cannot be written"


def test_what_is_there_is_kept_unless_forced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "1")
    with pytest.raises(ConfigError, match="not empty"):
        write(out, "2")
    assert (out / "run.json").read_text() == "1"
    write(out, "3", force=True)
    assert (out / "run.json").read_text() == "3"
    assert os.listdir(tmp_path) == ["out"]


def test_a_failed_replacement_keeps_the_old(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "1")
    with pytest.raises(ValueError, match="x"), atomic_folder(out, force=True):
        raise ValueError("x")
    assert (out / "run.json").read_text() == "1"


def test_force_does_not_delete_what_is_not_ours(tmp_path: Path) -> None:
    (tmp_path / "thesis.doc").write_text("years of work")
    with pytest.raises(ConfigError, match=r"no run\.json"):
        write(tmp_path, "2", force=True)
    assert (tmp_path / "thesis.doc").exists()


def test_an_empty_folder_is_filled_and_a_file_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write(tmp_path / "empty", "1")
    assert (tmp_path / "empty/run.json").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="is a file"):
        write(tmp_path / "file", "1")


def test_what_came_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="not empty"), atomic_folder(out) as folder:
        (folder / "run.json").write_text("ours")
        out.mkdir()
        (out / "thesis.txt").write_text("precious")
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]


def test_an_empty_folder_is_filled_from_within_as_a_mount_point_must_be(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    inode = out.stat().st_ino
    with atomic_folder(out) as folder:
        assert folder.parent == out
        (folder / "masks").mkdir()
        (folder / "run.json").write_text("1")
    assert out.stat().st_ino == inode
    assert sorted(p.name for p in out.iterdir()) == ["masks", "run.json"]


@pytest.mark.parametrize("empty", [False, True])
def test_what_a_killed_run_left_behind_is_removed_by_the_next(tmp_path: Path, empty: bool) -> None:
    out = tmp_path / "out"
    if empty:
        out.mkdir()
    kills_itself = (
        "import os, pathlib, sys; from rtseg.publish.folder import atomic_folder\n"
        "with atomic_folder(pathlib.Path(sys.argv[1])) as f: (f / 'x').write_text('1'); os.kill(os.getpid(), 9)"
    )
    assert subprocess.run([sys.executable, "-c", kills_itself, str(out)], check=False).returncode == -9
    (left,) = (out if empty else tmp_path).iterdir()
    long_ago(left)
    write(out, "2")
    assert os.listdir(tmp_path) == ["out"] and os.listdir(out) == ["run.json"]


def test_what_another_run_is_at_work_in_is_left_alone_and_so_is_what_is_not_ours(tmp_path: Path) -> None:
    foreign, file = tmp_path / "out.partial-old", tmp_path / "out.partial-01234567"
    foreign.mkdir()
    file.write_text("mine")
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "run.json").write_text("first")
        for path in (folder, foreign, file):
            long_ago(path)
        with pytest.raises(ValueError, match="x"), atomic_folder(tmp_path / "out"):
            raise ValueError("x")
        assert (folder / "run.json").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == sorted(["out", file.name, foreign.name])


def test_what_has_just_been_made_is_left_alone(tmp_path: Path) -> None:
    """Its maker may not have locked it yet."""
    (tmp_path / "out.partial-01234567").mkdir()
    write(tmp_path / "out", "1")
    assert sorted(os.listdir(tmp_path)) == ["out", "out.partial-01234567"]


def long_ago(path: Path) -> None:
    os.utime(path, (time.time() - 3600,) * 2)
