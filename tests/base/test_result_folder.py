"""A result folder: whole under its name, or not there; and --force cannot delete what is not ours."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rtseg.base.errors import ConfigError, OutputError
from rtseg.base.result_folder import atomic_folder, check_apart, result_folder


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
    with pytest.raises(ConfigError, match="not empty.*is in .*out-2"), atomic_folder(out) as folder:
        (folder / "run.json").write_text("ours")
        out.mkdir()
        (out / "thesis.txt").write_text("precious")
    assert [p.name for p in out.iterdir()] == ["thesis.txt"]
    assert sorted(os.listdir(tmp_path)) == ["out", "out-2"]  # hours of work are not thrown away
    assert (tmp_path / "out-2/run.json").read_text() == "ours"


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
        "import os, pathlib, sys; from rtseg.base.result_folder import atomic_folder, check_apart, result_folder\n"
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
        with pytest.raises(ConfigError, match="another run is at work on it .process .*, since .*"):
            write(tmp_path / "out", "second", force=True)
        write(tmp_path / "out2", "another")  # the control: it is of another name
        assert (folder / "run.json").read_text() == "first"
    assert sorted(os.listdir(tmp_path)) == sorted(["out", "out2", file.name, foreign.name])


def test_what_has_just_been_made_is_left_alone(tmp_path: Path) -> None:
    """Its maker may not have locked it yet."""
    (tmp_path / "out.partial-01234567").mkdir()
    write(tmp_path / "out", "1")
    assert sorted(os.listdir(tmp_path)) == ["out", "out.partial-01234567"]


def test_two_runs_into_one_empty_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with atomic_folder(out) as folder:
        with pytest.raises(ConfigError, match="another run is at work on it"):
            write(tmp_path / "elsewhere" / ".." / "out", "second")
        (folder / "run.json").write_text("first")
    assert (out / "run.json").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]


def test_only_one_of_many_that_begin_at_once_gets_a_folder(tmp_path: Path) -> None:
    code = (
        "import pathlib, sys, time; from rtseg.base.result_folder import atomic_folder, check_apart, result_folder\n"
        "with atomic_folder(pathlib.Path(sys.argv[1])) as f: (f / 'run.json').write_text('1'); time.sleep(1.5)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "out")]
    runs = [subprocess.Popen(words, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [run.communicate(timeout=60)[1] for run in runs]
    assert sorted(run.returncode for run in runs) == [0, 1, 1, 1]
    assert all("ConfigError" in text for run, text in zip(runs, said, strict=True) if run.returncode)
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_run_began_is_kept_and_told(tmp_path: Path) -> None:
    kills_itself = (
        "import os, pathlib, sys; from rtseg.base.result_folder import result_folder\n"
        "with result_folder(pathlib.Path(sys.argv[1])) as p:\n"
        "    (p.path / 'run.json').write_text('1'); os.kill(os.getpid(), 9)"
    )
    out = tmp_path / "out"
    assert subprocess.run([sys.executable, "-c", kills_itself, str(out)], check=False).returncode == -9
    with result_folder(out) as part:
        (part.path / "run.json").write_text("2")
        (left,) = part.left
    assert (left / "run.json").read_text() == "1" and (out / "run.json").read_text() == "2"
    write(tmp_path / "other", "3")
    with result_folder(tmp_path / "third") as part:
        assert part.left == ()  # the control


@pytest.mark.parametrize(("before", "now", "taken"), [(True, False, False), (False, False, True), (True, True, True)])
def test_what_is_incomplete_takes_no_complete_ones_place(tmp_path: Path, before: bool, now: bool, taken: bool) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "run.json").write_text(json.dumps({"complete": before}))
    with result_folder(out, force=True) as part:
        (part.path / "run.json").write_text("new")
        part.incomplete = not now
    assert part.final == (out if taken else tmp_path / "out-2")
    assert ((out / "run.json").read_text() == "new") is taken
    assert (part.final / "run.json").read_text() == "new"


def test_force_names_what_it_would_have_deleted(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "1")
    (out / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match="move away notes.txt"):
        write(out, "2", force=True)
    (out / "notes.txt").unlink()
    (out / ".DS_Store").write_text("")
    write(out, "2", force=True)


def test_what_is_worth_keeping_stays_where_it_is_when_it_cannot_be_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt), result_folder(tmp_path / "out") as part:
        (part.path / "run.json").write_text("1")
        part.keep = True
        raise KeyboardInterrupt
    assert (part.path / "run.json").read_text() == "1"

    def refuse(self: Path, target: Path) -> Path:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OutputError, match="the result of this run is in .*other.partial-"):
        write(tmp_path / "other", "2")
    assert len(list(tmp_path.glob("other.partial-*/run.json"))) == 1


def test_a_mount_point_is_replaced_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    write(out, "1")
    inode = out.stat().st_ino
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == out)
    write(out, "2", force=True)
    assert out.stat().st_ino == inode
    assert (out / "run.json").read_text() == "2" and os.listdir(out) == ["run.json"]


@pytest.mark.parametrize("name", ["n" * 256, "ü" * 128, "deep/" + "n" * 256, "file/out", "file", "loop/out", "a\0b"])
def test_a_name_that_cannot_be_is_one_line_and_leaves_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(OutputError) as caught, atomic_folder(tmp_path / name):
        pytest.fail("the work has begun")
    assert "\n" not in str(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "loop"]


@pytest.mark.parametrize("name", ["n" * 255, "ü" * 127, "a\nb", "10:20:30", "link", "deep/er/out", "-o", "%05d"])
def test_a_name_that_can_be_is_taken(tmp_path: Path, name: str) -> None:
    (tmp_path / "link").symlink_to("target")
    write(tmp_path / name, "1")
    write(tmp_path / name, "2", force=True)
    assert (tmp_path / name / "run.json").read_text() == "2"


def long_ago(path: Path) -> None:
    os.utime(path, (time.time() - 3600,) * 2)


def test_an_evaluation_replaces_no_segmentation_and_nothing_replaces_what_it_reads(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, "1")
    with pytest.raises(ConfigError, match=r"no eval\.json in it"), atomic_folder(out, True, "eval.json"):
        pytest.fail("the work has begun")
    for source in (out, out / "run.json", str(out)):
        with pytest.raises(ConfigError, match="lies in it, and would be replaced"):
            check_apart([source], out)
    check_apart([tmp_path, "rtsp://host/path", "-", "a\0b"], out)  # the control
    assert (out / "run.json").read_text() == "1"
