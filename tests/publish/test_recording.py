from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from rtseg.base.errors import ConfigError, OutputError
from rtseg.publish import recording
from rtseg.publish.event_log import GENESIS, encode_line
from rtseg.publish.recording import Recording, new_run_name
from rtseg.publish.verify import verify

MS = 10**6


def _header(seq: int, **more) -> dict:
    captured_ns = 10**15 + seq * 40 * MS
    header = {"v": 1, "seq": seq, "session": "s1", "pts": seq, "captured_ns": captured_ns, "engine": "nano"}
    header |= {"published_ns": captured_ns + 9 * MS, "mask_seq": seq - 1, "mask_age_ms": 40.0, "state": "fresh"}
    return header | {"objects": []} | more


def _picture(seq: int, height: int = 48, width: int = 64) -> np.ndarray:
    return np.full((height, width, 3), (4 * seq % 256, 60, 120), np.uint8)


def _record(folder: Path, seqs=range(60), close: bool = True, **more) -> Recording:
    about = {"stream": "demo", "engine": "nano cpu", "config_hash": "c", "recipe_hash": "e", "fps": 25}
    run = Recording(folder, **(about | more))
    for seq in seqs:
        run.show(_header(seq), _picture(seq))
    if close:
        run.close()
    return run


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> Path:
    return _record(tmp_path_factory.mktemp("records") / "patients").folder


@pytest.fixture
def run(recorded, tmp_path) -> Path:
    """A copy, to be tampered with."""
    return Path(shutil.copytree(recorded, tmp_path / recorded.name))


def _events(path: Path) -> list[dict]:
    return [json.loads(line) for line in (path / "events.jsonl").read_bytes().split(b"\n")[:-1]]


def _kinds(path: Path) -> list[str]:
    return [event["event"] for event in _events(path) if event["event"] not in ("frame", "seal")]


def _decoded(path: Path) -> int:
    with av.open(str(path)) as container:
        return sum(1 for _ in container.decode(video=0))


def test_a_run_is_a_private_folder_of_a_video_and_what_is_in_it(recorded):
    assert recorded.name.startswith("demo-20")
    assert sorted(path.name for path in recorded.iterdir()) == ["events.jsonl", "video-001.mp4"]
    assert {oct(path.stat().st_mode & 0o777) for path in recorded.iterdir()} == {"0o600"}
    assert [folder.stat().st_mode & 0o777 for folder in (recorded, recorded.parent)] == [0o700] * 2
    assert _kinds(recorded) == ["start", "file", "state", "end"]
    start, *_ = events = _events(recorded)
    told = {"stream": "demo", "engine": "nano cpu", "config": "c", "recipe": "e", "fps": 25, "format": 1}
    assert start.items() >= told.items()
    assert start["clock"].startswith("monotonic:")
    frames = [event for event in events if event["event"] == "frame"]
    expected = {key: _header(7)[key] for key in ("seq", "session", "mask_seq", "mask_age_ms", "state", "captured_ns")}
    assert frames[7].items() >= {**expected, "shown_ns": 10**15 + 289 * MS, "file": "video-001.mp4", "index": 7}.items()
    assert [frame["index"] for frame in frames] == list(range(60))
    assert _decoded(recorded / "video-001.mp4") == 60


def test_an_untouched_recording_is_verified(recorded):
    found = verify(recorded)
    assert (found["ok"], found["closed"], found["torn"], found["why"]) == (True, True, False, "")
    assert found["unchanged"] is True
    assert (found["frames"], found["files"], found["lost"], found["missed"]) == (60, 1, 0, 0)
    assert (found["lines"], found["head"]) == (len(_events(recorded)), _events(recorded)[-1]["hash"])


def _tamper(lines: list[bytes], how: str) -> list[bytes]:
    return {
        "a number": [*lines[:20], lines[20].replace(b"40.0", b"10.0"), *lines[21:]],
        "removed": [*lines[:20], *lines[21:]],
        "swapped": [*lines[:20], lines[21], lines[20], *lines[22:]],
        "inserted": [*lines[:20], encode_line({"event": "note"}, json.loads(lines[19])["hash"])[0], *lines[20:]],
    }[how]


@pytest.mark.parametrize(("how", "bad_line"), [("a number", 21), ("removed", 21), ("swapped", 21), ("inserted", 22)])
def test_an_edit_of_the_log_is_found(run, how, bad_line):
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    (run / "events.jsonl").write_bytes(b"".join(_tamper(lines, how)))
    found = verify(run)
    assert (found["ok"], found["unchanged"], found["bad_line"]) == (False, False, bad_line)
    assert "its hash does not fit" in found["why"]
    assert "\n" not in found["why"]


def test_an_edit_of_the_video_is_found_wherever_it_is(run):
    path = run / "video-001.mp4"
    data = path.read_bytes()
    seals = [event for event in _events(run) if event["event"] == "seal"]
    for at in (0, 700, seals[1]["start"], seals[2]["start"] + 99, len(data) - 1):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        found = verify(run)
        (seal,) = (seal for seal in seals if seal["start"] <= at < seal["end"])
        assert (found["ok"], _events(run)[found["bad_line"] - 1]) == (False, seal)
        assert f"video-001.mp4: bytes {seal['start']}..{seal['end']}" in found["why"]
    for damaged in (data[:-1], data[: seals[2]["start"]], data + b"\0"):
        path.write_bytes(damaged)
        assert not verify(run)["ok"]
    path.unlink()
    assert "video-001.mp4: cannot be read" in verify(run)["why"]
    path.write_bytes(data)
    assert verify(run)["ok"]
    shutil.copy(path, run / "video-002.mp4")
    assert "video-002.mp4: the log does not know it" in verify(run)["why"]


def test_what_can_be_known_of_lines_missing_at_the_end(run):
    """The chain cannot know; the video does, as soon as it has a frame that the log has not."""
    lines = (run / "events.jsonl").read_bytes().splitlines(keepends=True)
    seen = []
    for removed in range(13):
        (run / "events.jsonl").write_bytes(b"".join(lines[: len(lines) - removed]))
        found = verify(run)
        assert found["ok"] == (removed == 0)
        seen.append((found["unchanged"], found["closed"]))
        assert found["closed"] == (removed == 0)
    # The end; the last seal; then ten frames.
    assert seen == [(True, True), (True, False), (True, False), *[(False, False)] * 10]
    assert "it has 60 frames, and the log 51; lines are missing at the end" in found["why"]


def test_a_chain_of_what_no_recording_writes_is_refused(run):
    begin = [{"event": "start", "format": 1}, {"event": "file", "file": "video-001.mp4"}]
    seal = {"event": "seal", "file": "video-001.mp4", "start": 0, "end": 9, "frames": 0, "sha256": "0", "closed": False}
    for wrong, why in (
        ([{"event": "file", "file": "video-001.mp4"}], "expected one start"),
        ([{"event": "start", "format": 2}], "expected one start, of 1"),
        ([*begin, begin[0]], "expected one start"),
        ([begin[0], {"event": "file", "file": "../x.mp4"}], "expected a new name"),
        ([*begin, {"event": "frame"}], "not an event of format 1"),
        ([*begin, seal | {"start": 3}], "expected the next from 0 on"),
        ([*begin, seal | {"end": "x"}], "not an event of format 1"),
        ([*begin, seal], "are not what was recorded"),
        ([*begin, {"event": "end", "error": ""}], "were not recorded"),
        ([*begin, {"event": "end", "error": ""}, {"event": "note"}], "after the end"),
    ):
        head, data = GENESIS, b""
        for event in wrong:
            line, head = encode_line(event, head)
            data += line
        (run / "events.jsonl").write_bytes(data)
        found = verify(run)
        assert not found["ok"]
        assert re.search(why, found["why"]), (wrong, found["why"])


def test_another_size_begins_another_file(tmp_path):
    run = _record(tmp_path, range(30), close=False)
    for seq in range(30, 50):
        run.show(_header(seq), _picture(seq, 31, 33))
    run.show(_header(50 + 25 * 7200), _picture(50, 31, 33))  # two hours later
    run.close()
    run.close()
    assert [_decoded(run.folder / f"video-00{n}.mp4") for n in (1, 2, 3)] == [30, 20, 1]
    found = verify(run.folder)
    assert (found["ok"], found["closed"], found["frames"], found["files"]) == (True, True, 51, 3)


def test_what_else_happened_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(recording, "WARN_MINUTES", 10**9)
    run = _record(tmp_path, range(2), close=False)
    run.missed(2, 4, "the recorder was slower than the display")
    run.note("reconnect", attempt=2)
    run.show(_header(5, state="stale", mask_age_ms=200.0), _picture(5))
    run.close()
    events = _events(run.folder)
    assert _kinds(run.folder) == ["start", "warning", "file", "state", "missed", "note", "state", "end"]
    assert "room for about" in run.warning
    told = {event["event"]: event for event in events}
    assert (
        told["missed"].items() >= {"first": 2, "last": 4, "cause": "the recorder was slower than the display"}.items()
    )
    assert told["note"].items() >= {"kind": "reconnect", "facts": {"attempt": 2}}.items()
    assert told["state"].items() >= {"was": "fresh", "now": "stale", "seq": 5}.items()
    assert verify(run.folder)["missed"] == 3


def test_misuse_is_one_line_and_ends_nothing(tmp_path):
    run = _record(tmp_path, range(2), close=False)
    lame = {key: value for key, value in _header(2).items() if key != "mask_seq"}
    for call in (
        lambda: run.show(_header(2), _picture(2)[:, :, :2]),
        lambda: run.show(_header(2), _picture(2).astype(np.float32)),
        lambda: run.show(_header(2), _picture(2)[:0]),
        lambda: run.show(lame, _picture(2)),
        lambda: run.show(_header(2, captured_ns=None), _picture(2)),
        lambda: run.show(_header(2, mask_age_ms=float("nan")), _picture(2)),
        lambda: run.missed(5, 4, "x"),
        lambda: run.note("x", what=object()),
        lambda: _record(tmp_path, resume=run.folder),
        lambda: _record(tmp_path, stream="../x"),
        lambda: _record(run.folder / "events.jsonl"),
    ):
        with pytest.raises(OutputError) as caught:
            call()
        assert "\n" not in str(caught.value)
        assert not run.closed
    run.show(_header(2), _picture(2))
    run.close()
    assert (verify(run.folder)["ok"], verify(run.folder)["frames"]) == (True, 3)
    for call in (lambda: run.show(_header(3), _picture(3)), lambda: run.note("x")):
        with pytest.raises(OutputError, match="is closed"):
            call()
    with pytest.raises(OutputError, match="has ended"):
        _record(tmp_path, resume=run.folder)
    with pytest.raises(ConfigError, match=f"expected the folder of one run, such as: {run.folder.name}"):
        verify(tmp_path)
    with pytest.raises(ConfigError, match="expected the folder of one run$"):
        verify(tmp_path / "none")


@pytest.mark.parametrize("name", ["", "video-001.mp4", "events.jsonl"])
@pytest.mark.parametrize("how", ["removed", "moved", "replaced"])
def test_a_recording_that_loses_its_files_says_so(tmp_path, monkeypatch, name, how):
    run = _record(tmp_path / "records", range(2), close=False)
    monkeypatch.setattr(recording, "_CHECK_S", 0)
    run.show(_header(2), _picture(2))  # all is there
    lost = run.folder / name
    lost.rename(tmp_path / "elsewhere")
    if how == "replaced":
        shutil.copytree(tmp_path / "elsewhere", lost) if not name else lost.touch()
    if how == "removed":
        (shutil.rmtree if not name else os.remove)(tmp_path / "elsewhere")
    why = "another file has its name" if how == "replaced" else "no such file or directory"
    with pytest.raises(OutputError, match=rf"{run.folder}.*lost while it was written \({why}\)") as caught:
        run.show(_header(3), _picture(3))
    assert "\n" not in str(caught.value) and run.closed


def test_the_files_are_looked_for_once_a_second_and_at_the_end(tmp_path, monkeypatch):
    looked = []
    monkeypatch.setattr(Recording, "_check_files", lambda run: looked.append(1))
    _record(tmp_path, range(60)).close()
    assert len(looked) <= 2
    monkeypatch.undo()
    run = _record(tmp_path, range(2), close=False)
    shutil.rmtree(run.folder)
    with pytest.raises(OutputError, match="lost while it was written"):
        run.close()
    assert run.closed


def test_a_file_in_the_way_is_named(tmp_path):
    (tmp_path / "a").touch()
    for folder in (tmp_path / "a", tmp_path / "a" / "b" / "c"):
        with pytest.raises(OutputError, match=rf"^{folder}/.*: cannot be written \({tmp_path / 'a'} is a file\)"):
            _record(folder)


_RUN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_recording import Recording, _header, _picture, _record
from rtseg.base.errors import OutputError
run = _record(Path(sys.argv[2]), range(0), close=False, resume=sys.argv[3])
try:
    for seq in range(int(sys.argv[4]), 10**9):
        run.show(_header(seq), _picture(seq))
        print(seq, flush=True)
except OutputError as e:
    print(e)
"""


def _killed(path: Path, first: int, count: int) -> None:
    """Record from frame `first` on in a process of its own, and kill that after at least `count` frames."""
    command = [sys.executable, "-c", _RUN, str(Path(__file__).parent), str(path.parent), str(path), str(first)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            if int(line) == first + count - 1:
                process.send_signal(signal.SIGKILL)
                break


def test_a_killed_recorder_is_gone_on_with_in_the_same_chain(tmp_path):
    path = tmp_path / new_run_name(tmp_path, "demo")
    _killed(path, 0, 60)
    found = verify(path)
    assert (found["ok"], found["unchanged"], found["closed"]) == (False, True, False)
    assert "as by a kill or a power cut; lines removed from its end would look the same" in found["why"]
    assert found["frames"] >= 60 and 0 <= found["lost"] <= 26
    assert _decoded(path / "video-001.mp4") == found["frames"] - found["lost"]
    with (path / "events.jsonl").open("ab") as log:
        log.write(b'{"captured_ns":1000')  # as if the kill had struck there
    assert verify(path)["torn"]
    shown = found["frames"]
    run = _record(tmp_path, range(shown + 5, shown + 35), close=False, resume=path)
    run.missed(shown, shown + 4, "the recorder was restarted")
    run.close()
    found = verify(path)
    assert (found["ok"], found["closed"], found["torn"], found["files"]) == (True, True, False, 2)
    assert (found["frames"], found["missed"]) == (shown + 30, 5)
    assert _kinds(path) == ["start", "file", "state", "recovered", "restart", "file", "state", "missed", "end"]
    data = (path / "video-001.mp4").read_bytes()  # sealed by the second recorder, to its last byte
    (path / "video-001.mp4").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not verify(path)["ok"]


def test_a_failure_of_the_caller_leaves_a_recording_to_go_on_with(tmp_path):
    with pytest.raises(ZeroDivisionError), _record(tmp_path, range(30), close=False) as run:
        run.show(_header(30), _picture(1 // 0))
    found = verify(run.folder)
    assert (found["unchanged"], found["closed"], found["frames"], found["lost"]) == (True, False, 30, 0)
    assert not found["ok"]
    with _record(tmp_path, range(30, 40), close=False, resume=str(run.folder)) as second:
        assert second.folder == run.folder
    found = verify(run.folder)
    assert (found["ok"], found["closed"], found["frames"], found["files"]) == (True, True, 40, 2)


def test_bytes_that_a_killed_recorder_left_unsealed_are_sealed_by_the_next(tmp_path):
    run = _record(tmp_path, range(30), close=False)
    run._log.close()
    whole = (run.folder / "video-001.mp4").read_bytes()
    lines = (run.folder / "events.jsonl").read_bytes().splitlines(keepends=True)
    cut = max(i for i, line in enumerate(lines) if b'"event":"seal"' in line)
    (run.folder / "events.jsonl").write_bytes(b"".join(lines[:cut]))
    assert (verify(run.folder)["unchanged"], verify(run.folder)["lost"]) == (True, 1)  # of 26: 25 are there, not sealed
    _record(tmp_path, range(0), resume=run.folder)
    assert verify(run.folder)["ok"]
    for damaged in (whole[:-9], whole + b"\0", whole[:-1] + b"?"):
        (run.folder / "video-001.mp4").write_bytes(damaged)
        assert not verify(run.folder)["ok"]


_FULL = """
import resource, sys
sys.dont_write_bytecode = True  # Python would leave half a file of each module that it imports from now on
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import numpy as np
from test_recording import _header, _picture, _record
from rtseg.base.errors import OutputError
if int(sys.argv[3]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
rng = np.random.default_rng(0)
try:
    run = _record(Path(sys.argv[2]), range(0), close=False)
    for seq in range(400):
        noise_hwc = rng.integers(0, 255, (48, 64, 3), dtype=np.uint8)
        run.show(_header(seq), _picture(0) if sys.argv[4] == "still" else noise_hwc)
    run.close()
    print("written")
except OutputError as e:
    print(e)
"""


def _fill(folder: Path, limit: int = 0, pictures: str = "noise") -> str:
    command = [sys.executable, "-c", _FULL, str(Path(__file__).parent), str(folder), str(limit), pictures]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _check_full(said: str, why: str, folder: Path) -> dict:
    assert why in said
    assert said.count("\n") == 1
    (path,) = folder.iterdir()
    found = verify(path)
    assert found["unchanged"] and found["ok"] == found["closed"], found
    video = path / "video-001.mp4"
    if found["frames"] > 26:
        assert _decoded(video) == found["frames"] - found["lost"] > 0
    assert found["lost"] <= 26
    return found


def test_a_file_that_may_not_grow_ends_the_recording_and_spoils_nothing(tmp_path):
    assert _fill(tmp_path / "control", 1 << 24) == "written\n"
    (path,) = (tmp_path / "control").iterdir()
    video, log = ((path / name).stat().st_size for name in ("video-001.mp4", "events.jsonl"))
    assert video > log  # so that the video strikes first, and the log has room for why
    found = _check_full(_fill(tmp_path / "a", log + 99), "cannot be written (file too large)", tmp_path / "a")
    assert found["closed"] and "file too large" in found["why"]
    found = _check_full(_fill(tmp_path / "b", 60_000, "still"), "events.jsonl: cannot be written", tmp_path / "b")
    assert not found["closed"]


def test_a_full_disk_ends_the_recording_and_spoils_nothing(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    try:
        folder = disk / "records"
        found = _check_full(_fill(folder), "cannot be written (no space left on device)", folder)
        assert os.statvfs(disk).f_blocks * os.statvfs(disk).f_bsize == 1 << 19
        assert 100 < found["frames"] < 400
    finally:
        subprocess.run(["umount", disk], check=True)
