"""`bench.gpu` with nothing but torch, numpy and OpenCV: all parts, what a second run takes over, and how parts end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.gpu import child, peers, speed
from bench.gpu.__main__ import _begun, _in_order, _judge, arguments, main
from bench.gpu.parts import Part, parts
from bench.gpu.table import _why, table

ROOT = Path(__file__).parents[2]
# All but torch, numpy, OpenCV, msgspec, psutil and what these bring along is hidden, as if it were not installed.
BARE = """
import sys
from importlib.machinery import PathFinder
HERE = {"torch", "torchgen", "functorch", "numpy", "cv2", "msgspec", "psutil"}
HERE |= {"typing_extensions", "sympy", "mpmath", "networkx", "filelock", "jinja2", "markupsafe", "fsspec", "setuptools"}

class Bare(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        found = PathFinder.find_spec(name, path, target)
        places = [found.origin or "", *(found.submodule_search_locations or [])] if found else []
        third = any("site-packages" in place for place in places)
        return None if third and name.partition(".")[0] not in HERE else found

sys.meta_path[:] = [Bare if finder is PathFinder else finder for finder in sys.meta_path]
"""
# The control: what is hidden cannot be imported, and what is not can. And the process that forks must not touch CUDA:
# its children could not use it then.
RUN = """
from importlib.util import find_spec
import os, cv2, numpy, torch
for name in ("av", "zmq", "msgpack", "rich", "onnxruntime", "safetensors", "transformers"):
    assert find_spec(name) is None, name
    try:
        __import__(name)
    except ModuleNotFoundError:
        continue
    sys.exit(name)
PARENT = os.getpid()
def guarded(real):
    def call(*args, **kwargs):
        assert os.getpid() != PARENT, "CUDA is touched before the fork"
        return real(*args, **kwargs)
    return call
for name in ("is_available", "device_count", "init", "_lazy_init", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, guarded(getattr(torch.cuda, name)))
from bench.gpu.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def bare(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Some code on a machine with nothing but torch, numpy, OpenCV, msgspec and psutil."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", BARE + code, *words]
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One whole run of the CPU's form on a bare machine."""
    written = tmp_path_factory.mktemp("gpu") / "gpu.json"
    return written, bare(RUN, "--device", "cpu", "--json", str(written))


@pytest.mark.slow
def test_all_parts_on_a_bare_machine(first: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    written, done = first
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(written.read_text())
    names = [part.name for part in parts("cpu", ())]
    assert list(document["parts"]) == names
    statuses = {name: part["status"] for name, part in document["parts"].items()}
    assert {name for name, status in statuses.items() if status == "absent"} == {
        "sanitizer", "frame kernels", "EdgeTAM", "TensorRT",
    }  # fmt: skip
    assert set(statuses.values()) == {"done", "absent"}
    assert (document["incorrect"], document["wrong"], document["left"]) == ([], [], [])
    check_schema(document)
    peers = document["parts"]["peers micro:64"]["result"]
    assert "ModuleNotFoundError" in peers["not_run"]["transformers bf16"]
    assert peers["rows"]["rtseg cuda bf16"]["iou"]["mean"] > 0.9
    for line in ("CORRECT?", "speed micro:64", "peers micro:64", "limits micro:64", "transformers bf16: not run"):
        assert line in done.stdout


def check_schema(document: dict[str, Any]) -> None:
    """The shape that whoever reads results relies on."""
    assert set(document) == {
        "key", "seed", "runs", "taken_at", "parts", "incorrect", "unproved", "wrong", "left",
    }  # fmt: skip
    assert set(document["key"]) == {
        "schema", "commit", "sources", "device", "cases", "machine", "versions", "driver",
    }  # fmt: skip
    for name, part in document["parts"].items():
        assert {"status", "seconds", "result"} <= set(part), name
        assert part["status"] in ("done", "absent", "partial", "timeout", "crashed", "left"), name
        if part["status"] != "done":
            continue
        found, kind = part["result"], name.split()[0]
        assert isinstance(found["ok"], bool)
        if kind == "verbs":
            assert all({"precision", "objects", "seed", "verbs", "engine"} <= set(c) for c in found["checks"])
            assert all(
                {"typical", "worst", "limit", "ok"} == set(v) for c in found["checks"] for v in c["verbs"].values()
            )
        if kind == "speed":
            for row in found["rows"].values():
                assert {"ms", "host_ms", "memory_mb", "planned_mb", "ready_s", "open_s", "objects", "masks"} <= set(row)
                assert {"p50", "p99", "count"} <= set(row["ms"])
        if kind == "peers":
            assert {"rows", "not_run", "goals", "rounds"} <= set(found)
        if kind == "limits":
            assert set(found["ceilings"]) == {"gbps", "tflops"}
            assert set(found["verbs"]) == {"encode", "attend", "decode", "remember"}
            assert all({"ms", "floor_ms", "over_floor", "limit", "kernels"} <= set(v) for v in found["verbs"].values())


@pytest.mark.slow
def test_a_second_run_takes_over_what_is_done(
    first: tuple[Path, subprocess.CompletedProcess[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    written, _ = first
    before = json.loads(written.read_text())
    lost = "EdgeTAM"  # which says at once that it is not there
    before["parts"][lost] = {"status": "left", "seconds": 0, "result": None}
    written.write_text(json.dumps(before))
    assert main(["--device", "cpu", "--json", str(written)]) == 0
    after = json.loads(written.read_text())
    begun = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines() if "at most" in line]
    assert begun == [lost] and after["runs"] == 2 and after["parts"][lost]["status"] == "absent"
    verbs = "verbs micro:64"
    assert after["parts"][verbs] == before["parts"][verbs]


def test_another_machine_begins_anew(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    args = arguments(["--device", "cpu", "--json", str(tmp_path / "gpu.json")])
    found = {"facts": {"cpu": "one", "gpu": None, "cores": 2, "system": "Linux"}, "versions": {"torch": "2"}}
    document = _begun(args, found, 1)
    document["parts"]["speed"] = {"status": "done"}
    args.json.write_text(json.dumps(document))
    again = _begun(args, found, 2)
    assert (again["runs"], again["seed"], list(again["parts"])) == (2, 1, ["speed"])
    other = _begun(args, {**found, "versions": {"torch": "3"}}, 3)
    assert (other["runs"], other["seed"], other["parts"]) == (1, 3, {})
    assert "is of another versions; begins anew" in capsys.readouterr().err
    args.json.write_text("{cut")
    assert _begun(args, found, 4)["runs"] == 1


def test_parts_end_in_their_own_way(tmp_path: Path) -> None:
    def crash(note: Any) -> dict[str, Any]:
        note({"ok": True, "rows": 1})
        print("CUDA error: an illegal memory access was encountered")
        os.kill(os.getpid(), signal.SIGSEGV)
        return {}

    def raises(note: Any) -> dict[str, Any]:
        raise RuntimeError("no such kernel")

    def hangs(note: Any) -> dict[str, Any]:
        note({"ok": True, "rows": 2})
        helper = subprocess.Popen(["sleep", "60"])
        (tmp_path / "helper").write_text(str(helper.pid))
        time.sleep(60)
        return {}

    crashed = child.run(crash, 20)
    assert (crashed["status"], crashed["signal"], crashed["result"]) == ("crashed", "SIGSEGV", {"ok": True, "rows": 1})
    assert "illegal memory access" in crashed["last"][0] and any("in crash" in line for line in crashed["last"])
    raised = child.run(raises, 20)
    assert (raised["status"], raised["exit"]) == ("crashed", 1) and raised["last"][-1].endswith("no such kernel")
    hung = child.run(hangs, 1)
    assert (hung["status"], hung["result"]["rows"]) == ("timeout", 2)
    helper = int((tmp_path / "helper").read_text())
    assert ended(helper), "what a part started ends with it"
    assert child.run(lambda note: {"absent": "needs a GPU"}, 20)["status"] == "absent"
    slow = child.run(lambda note: {"unfinished": "not through in 9 s"}, 20)
    assert (slow["status"], slow["last"]) == ("timeout", ["not through in 9 s"])
    assert child.run(lambda note: {"ok": True, "left": []}, 20)["status"] == "done"
    assert child.run(lambda note: {"ok": True, "left": ["fp16"]}, 20)["status"] == "partial"


def ended(pid: int) -> bool:
    """Whether a process is gone, or a zombie that waits for its parent, within a moment."""
    for _ in range(100):
        path = Path(f"/proc/{pid}/stat")
        if not path.exists() or path.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.02)
    return False


def test_no_gpu_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["--json", str(tmp_path / "gpu.json")]) == 2 and not (tmp_path / "gpu.json").exists()
    said = capsys.readouterr().err
    assert "sees no CUDA device; see `rtseg doctor`" in said and said.count("\n") == 1


def test_what_was_never_begun_comes_before_what_crashed() -> None:
    todo = [Part(name, 1, 1, lambda job: {}) for name in ("a", "b", "c", "d")]
    known = {"a": {"status": "crashed"}, "b": {"status": "done"}, "c": {"status": "left"}}
    assert [p.name for p in _in_order(todo, known)] == ["c", "d", "a"]


def test_times_of_a_wrong_engine_say_so() -> None:
    row = {"ms": dict.fromkeys(("p50", "p90", "p99"), 1.0), "host_ms": 0.1, "memory_mb": {}, "ready_s": 1.0}
    row["planned_mb"] = {"engine": 100}
    speed = {"status": "done", "seconds": 1, "result": {"ok": True, "rows": {"one": row}, "left": []}}
    verb = {"attend": {"typical": 0.05, "worst": 0.06, "limit": 0.03, "ok": False}}
    wrong = {"ok": False, "checks": [{"precision": "bf16", "objects": 1, "verbs": verb}]}
    todo = [Part("verbs x:64", 1, 1, lambda job: {}, judges=True), Part("speed x:64", 1, 1, lambda job: {})]
    document = {"key": {"machine": {"gpu": {"name": "H200"}}, "versions": {}, "commit": "c"}, "seed": 1}
    document["parts"] = {"verbs x:64": {"status": "done", "seconds": 1, "result": wrong}, "speed x:64": speed}
    _judge(document, todo)
    assert document["incorrect"] == document["wrong"] == ["verbs x:64"]
    said = table(document)
    assert "WRONG verbs x:64" in said and "attend is off by 0.05; limit 0.03" in said
    assert "speed x:64  (of an engine that is NOT RIGHT: verbs x:64)" in said
    wrong["ok"] = True
    _judge(document, todo)
    assert document["incorrect"] == [] and "NOT RIGHT" not in table(document), "the control"


def test_the_gpus_parts_begin_with_correctness_and_fit_eight_minutes_by_priority() -> None:
    found = parts("cuda", ("sam2.1-tiny:512", "sam2.1-tiny:1024", "sam2.1-small:512", "nano:320"))
    judges = [part.judges for part in found]
    assert judges == sorted(judges, reverse=True)
    needed = [p.least_s for p in found if p.name != "TensorRT"]
    assert sum(needed) < 0.75 * 480, "a run in which each part takes the least that it needs"
    assert {p.name.split()[0] for p in found} == {
        "machine", "verbs", "parity", "fuzz", "sanitizer", "speed", "variants", "peers", "compiled", "limits", "frame",
        "EdgeTAM", "TensorRT",
    }  # fmt: skip


def test_goals_are_held_against_what_was_measured() -> None:
    row = {"ms": {"p50": 1.4, "p99": 1.8}, "profile": {"waits": 1.0}}
    reached = speed.goals("sam2.1-tiny:512", {speed.FIRST: row, "bf16, 2 objects": {"profile": {"waits": 2.0}}})
    assert list(reached.values()) == [True, False, False]
    assert speed.goals("nano:320", {speed.FIRST: {"ms": row["ms"]}}) == {} == speed.goals("sam2.1-tiny:512", {})
    ours = {"faster_than": {peers.EAGER: {"median": 6.0}, peers.COMPILED: {"median": 0.9}}}
    assert list(peers.goals({peers.OURS: ours}).values()) == [True, False] and peers.goals({}) == {}


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"status": "absent", "result": {"absent": "needs a GPU"}}, "not there: needs a GPU"),
        ({"status": "left", "result": None}, "no time was left"),
        ({"status": "partial", "result": {}, "last": ["left: fp16"]}, "left: fp16"),
        ({"status": "timeout", "result": {"unfinished": ""}, "last": ["not through"]}, "not through"),
        ({"status": "timeout", "seconds": 9.0, "result": None}, "timeout (killed after 9 s)"),
        ({"status": "crashed", "exit": 1, "last": ["Traceback", "E: no kernel"]}, "crashed (exit 1): E: no kernel"),
        (
            {"status": "crashed", "signal": "SIGSEGV", "last": ["CUDA error", "Fatal Python error: x", "stack"]},
            "crashed (SIGSEGV): CUDA error",
        ),
    ],
)
def test_why_a_part_is_not_whole(part: dict[str, Any], said: str) -> None:
    assert _why({"result": None, **part}) == said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cases", "micro"], "'micro'; expected PRESET:SIZE"),
        (["--cases", "nanno:320"], "no such preset; did you mean 'nano'?"),
        (["--cases", "nano:321"], "a multiple of 32"),
        (["--device", "cpu", "--cases", "nano:320"], "--cases is for a GPU; on a CPU all parts run on micro:64"),
        (["--minutes", "nan"], "--minutes nan; expected more than 0"),
        (["--only", "speeed"], "--only 'speeed': no part is called so; there are: machine, verbs"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_runs(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments(words)
    assert caught.value.code == 2 and said in capsys.readouterr().err
    assert arguments(["--cases", "nano:320"]).cases == ["nano:320"]


def test_a_result_that_cannot_be_written_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gpu.json").mkdir()
    assert main(["--device", "cpu", "--only", "TensorRT", "--json", str(tmp_path / "gpu.json")]) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and "gpu.json: cannot be written (Is a directory)" in said[0]
    assert [path.name for path in tmp_path.iterdir()] == ["gpu.json"]


def test_a_part_is_ended_with_who_waits_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A part has a session of its own: Ctrl-C comes to the parent alone."""
    beat = tmp_path / "beat"

    def endless(note: Any) -> dict[str, Any]:
        beat.write_text(str(os.getpid()))
        while True:
            signal.pause()

    def stopped(seconds: float) -> None:
        if beat.is_file() and beat.read_text():
            raise KeyboardInterrupt

    monkeypatch.setattr(child.time, "sleep", stopped)
    with pytest.raises(KeyboardInterrupt):
        child.run(endless, 60)
    with pytest.raises(ProcessLookupError):
        os.kill(int(beat.read_text() or 0), 0)
