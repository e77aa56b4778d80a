"""`rtseg build`: proved before it is installed; whatever happens on the way, the engine that was there stays."""

from __future__ import annotations

import errno
import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rtseg.base.errors import ConfigError, EngineError, WeightsError
from rtseg.base.hardware.cpu import cpu_cores
from rtseg.base.types import ImageU8
from rtseg.build import build as building
from rtseg.build import clips, job, timing
from rtseg.build.build import build, build_all
from rtseg.build.selection import Candidate
from rtseg.build.selection import fastest as choose
from rtseg.cli import main
from rtseg.engine import open_engine
from rtseg.engine.artifact import SIDECAR, fastest, find, locate
from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.engine.reference import TorchEngine
from rtseg.engine.runtimes import candidates, settle
from rtseg.sam2 import Decoded, Features, Sam2, get_preset, save_weights
from tests.engine.conftest import random_network

FRAMES = 10  # of the synthetic clip: what a check takes is in test_parity.py
TINY = """
name = "tiny"
embed_dim = 16
heads = 1
stages = [1, 1, 1, 1]
global_blocks = []
windows = [8, 4, 16, 8]
background = 8
dim = 128
memory_dim = 64
attention_layers = 1
attention_ffn = 64
decoder_ffn = 64
decoder_heads = 4
"""


class Runtime:
    """A runtime that has something to build: one file, which only the reference's copy of torch reads."""

    def __init__(self, *, content: bytes = b"plan", wrong: bool = False, halt: BaseException | None = None) -> None:
        self.content, self.wrong, self.halt = content, wrong, halt
        self.pictures: list[list[ImageU8]] = []

    def make(
        self, network: Sam2, recipe: Recipe, folder: Path, note: Callable[[str], None], pictures: list[ImageU8]
    ) -> dict[str, object]:
        (folder / "plan.bin").write_bytes(self.content)
        self.pictures.append(pictures)
        network.half()  # a runtime may do to its network what it likes
        if self.halt:
            raise self.halt
        return {"compiler": "none"}

    def open(self, network: Sam2, recipe: Recipe, weights_hash: str, built: Path | None) -> TorchEngine:
        assert built is not None and (built / "plan.bin").read_bytes() == self.content
        return (Wrong if self.wrong else TorchEngine)(network, recipe, weights_hash, "cpu")


class Wrong(TorchEngine):
    def decode(self, *asked: Any) -> Decoded:
        answer = super().decode(*asked)
        return replace(answer, logits_b1hw=-answer.logits_b1hw)


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Runtime]:
    """Put a runtime of the tests in the place of every runtime."""
    monkeypatch.setattr(clips, "FRAMES", FRAMES)

    def put(**kwargs: Any) -> Runtime:
        runtime = Runtime(**kwargs)
        monkeypatch.setattr(job, "runtime_module", lambda name: runtime)
        return runtime

    return put


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A recipe file for a network of random weights, in a folder of its own."""
    (tmp_path / "tiny.toml").write_text(TINY)
    save_weights(random_network(str(tmp_path / "tiny.toml"), 64), tmp_path / "w.safetensors")
    path = tmp_path / "engines" / "small.toml"
    path.parent.mkdir()
    path.write_text(
        f'model = "{tmp_path / "tiny.toml"}"\n'
        'weights = "../w.safetensors"\nimage_size = 64\nruntime = "cpu"\nprecision = "fp32"\nmax_objects = 2\n'
    )
    return path


def contents(recipe: Path) -> dict[str, bytes]:
    """All files in `built/` but the lock."""
    room = recipe.parent / "built"
    files = [p for p in room.rglob("*") if p.is_file() and p.suffix != ".lock"]
    return {str(p.relative_to(room)): p.read_bytes() for p in files}


def test_an_engine_is_built_proved_and_installed(recipe: Path, use: Callable[..., Runtime]) -> None:
    runtime, notes, seen = use(), [], []
    report = build(recipe, note=notes.append, progress=lambda done, total: seen.append((done, total)))
    folder = recipe.parent / "built" / "small"
    assert report["ok"] and report["built"] == str(folder) and report["said"] == f"installed in {folder}"
    assert set(contents(recipe)) == {"small/engine.json", "small/plan.bin"} and runtime.pictures == [[]]
    sidecar = json.loads((folder / SIDECAR).read_text())
    assert sidecar["made"] == {"compiler": "none"} and sidecar["identity"]["recipe"]["precision"] == "fp32"
    (proof,) = sidecar["parity"]
    assert (proof["ok"], proof["clip"], proof["frames"], proof["objects"]) == (True, "synthetic", FRAMES, 2)
    assert set(sidecar["timings_ms"]) == {"encode_image", "attend", "decode", "remember", "track"}
    assert all(0 < ms < 10_000 for ms in sidecar["timings_ms"].values())
    assert seen[-1] == (FRAMES, FRAMES) and any("checking" in line for line in notes)
    json.dumps(report, allow_nan=False)
    weights = sidecar["identity"]["weights"]
    assert find(settle(load_recipe(recipe)), get_preset(load_recipe(recipe).model), weights) == folder


@pytest.mark.slow
def test_what_fits_is_kept_and_what_does_not_is_built_again(recipe: Path, use: Callable[..., Runtime]) -> None:
    use(content=b"first")
    build(recipe)
    use(content=b"second")
    assert "is there and fits; --force builds it again" in build(recipe)["said"]
    assert contents(recipe)["small/plan.bin"] == b"first"
    assert build(recipe, force=True)["ok"] and contents(recipe)["small/plan.bin"] == b"second"
    use(content=b"third")
    (recipe.parent / "built/small/plan.bin").write_bytes(b"edited")
    assert build(recipe)["ok"] and contents(recipe)["small/plan.bin"] == b"third"
    use(content=b"fourth")
    recipe.write_text(recipe.read_text().replace("image_size = 64", "image_size = 96"))
    assert build(recipe)["ok"] and contents(recipe)["small/plan.bin"] == b"fourth"


@pytest.mark.slow
def test_a_clip_of_the_users_is_proved_on_too(recipe: Path, use: Callable[..., Runtime], tmp_path: Path) -> None:
    use()
    said = tmp_path / "p.json"
    said.write_text('[{"frame": 0, "id": 1, "box": [10, 10, 60, 60]}]')
    uri = "synthetic:laparoscopy?seconds=0.2&width=96&height=80"
    notes: list[str] = []
    report = build(recipe, uri, said, note=notes.append)
    assert [(proof["clip"], proof["objects"]) for proof in report["parity"]] == [("synthetic", 2), (uri, 1)]
    assert not any("no --prompts" in line for line in notes)
    assert build(recipe, uri, note=notes.append)["parity"][1]["objects"] == 2
    assert any("no --prompts: following boxes in its middle and at both sides" in line for line in notes)
    with pytest.raises(ConfigError, match="prompts for no clip; give --clip too"):
        build(recipe, prompts=said)


def test_an_engine_that_fails_the_parity_check_is_not_installed(recipe: Path, use: Callable[..., Runtime]) -> None:
    use(wrong=True)
    report = build(recipe)
    assert not report["ok"] and "nothing was installed" in report["said"]
    assert set(contents(recipe)) == {".small.refused"}
    assert "decode drifted" in report["said"] and report["parity"][0]["drifted"] == "decode"
    json.dumps(report, allow_nan=False)
    use(content=b"good")
    build(recipe)
    before = contents(recipe)
    assert set(before) == {"small/engine.json", "small/plan.bin"}  # what was refused is forgotten
    use(content=b"bad", wrong=True)
    report = build(recipe, force=True)
    after = contents(recipe)
    assert not report["ok"] and "what was there stays" in report["said"]
    assert after.pop(".small.refused") and after == before


def test_what_was_refused_is_not_run(recipe: Path, use: Callable[..., Runtime]) -> None:
    """Not even what had passed before: two that were made alike and judged differently are not to be trusted."""
    use()
    build(recipe)
    assert "cpu" in open_engine(recipe).description
    use(wrong=True)
    build(recipe, force=True)
    with pytest.raises(
        EngineError, match=r"built/small: refused by the parity check \(synthetic: .*decode drifted.*build"
    ):
        open_engine(recipe)
    # What the proof was not of is not refused: another precision, the reference, another copy of the weights.
    assert "not proved here: " in open_engine(recipe, precision="auto").description
    assert open_engine(recipe, runtime="torch").description.endswith("fp32, cpu")
    use()
    assert "installed" in build(recipe)["said"]  # though what was there fits
    assert open_engine(recipe).description.endswith("fp32")


def test_an_engine_of_the_cpu_serves_any_size_and_says_at_which_it_was_proved(
    recipe: Path, use: Callable[..., Runtime]
) -> None:
    use()
    build(recipe)
    settled = replace(settle(load_recipe(recipe)), image_size=96)
    weights = json.loads((recipe.parent / "built/small" / SIDECAR).read_text())["identity"]["weights"]
    assert locate(settled, get_preset(settled.model), weights) == (recipe.parent / "built" / "small", "proved at 64 px")
    assert locate(replace(settled, image_size=64), get_preset(settled.model), weights)[1] == ""


@pytest.mark.parametrize(
    ("halt", "error", "expected"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), EngineError, r"built \(No space left on device\); free the"),
        (PermissionError(errno.EACCES, "Permission denied"), EngineError, "expected a folder you may write to"),
        (MemoryError(), EngineError, "out of memory with image_size = 64, max_objects = 2; lower one of them"),
        (torch.OutOfMemoryError("CUDA out of memory"), EngineError, "out of memory with image_size = 64"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), EngineError, "out of memory with image_size"),
        (RuntimeError("a bug"), RuntimeError, "a bug"),
        (EngineError("no compiler; install g++"), EngineError, "^no compiler; install g"),
        (KeyboardInterrupt(), KeyboardInterrupt, ""),
    ],
)
def test_a_build_that_stops_leaves_what_was_there(
    recipe: Path, use: Callable[..., Runtime], halt: BaseException, error: type[BaseException], expected: str
) -> None:
    use(halt=halt)
    (recipe.parent / "built" / "small").mkdir(parents=True)
    (recipe.parent / "built" / "small" / "plan.bin").write_bytes(b"before")
    with pytest.raises(error, match=expected or None):
        build(recipe)
    assert contents(recipe) == {"small/plan.bin": b"before"}
    assert sorted(p.name for p in (recipe.parent / "built").iterdir()) == [".small.lock", "small"]


def test_a_folder_that_may_not_be_written(recipe: Path, use: Callable[..., Runtime]) -> None:
    use()
    (recipe.parent / "built").write_text("a file where the folder belongs")
    with pytest.raises(EngineError, match=r"built/small: cannot be built \(File exists\)"):
        build(recipe)


@pytest.mark.parametrize(
    ("runtime", "precision", "expected"),
    [
        ("cpu", "fp8", 'precision = "fp8": cpu has fp32, bf16, int16, int8; for fp8: runtime = "tensorrt"'),
        ("torch", "int8", 'precision = "int8": torch has .*; for int8: runtime = "cpu" or runtime = "tensorrt"'),
        ("cuda", "int8", 'precision = "int8": cuda has .*; for int8: runtime = "cpu" or runtime = "tensorrt"'),
        ("cuda", "bf16", 'runtime = "cuda": torch .* sees no CUDA device; use "cpu", or see: rtseg doctor'),
        ("tensorrt", "fp8", 'runtime = "tensorrt": torch .* sees no CUDA device'),
    ],
)
def test_what_cannot_be_is_one_line(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, runtime: str, precision: str, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: (runtime, precision) == ("cuda", "int8"))
    recipe.write_text(f'runtime = "{runtime}"\nprecision = "{precision}"\n')
    with pytest.raises(EngineError, match=expected):
        build(recipe)
    assert not (recipe.parent / "built").exists()


def test_mistakes_that_cost_no_build(recipe: Path, use: Callable[..., Runtime], tmp_path: Path) -> None:
    use()
    with pytest.raises(ConfigError, match="without a file cannot be built"):
        build(Recipe())
    recipe.write_text('model = "sam2.1-tiny"\nweights = "sam2.1_hiera_tiny.pt"\nimage_size = 64\nruntime = "cpu"\n')
    with pytest.raises(WeightsError, match=r"sam2.1_hiera_tiny.pt: no such file"):
        build(recipe)
    recipe.write_text("image_size = 100\n")
    with pytest.raises(ConfigError, match="image_size = 100; expected a multiple of 32"):
        build(recipe)
    assert not (recipe.parent / "built").exists()


def test_the_reference_needs_no_build(recipe: Path, use: Callable[..., Runtime]) -> None:
    use()
    recipe.write_text(recipe.read_text().replace('"cpu"', '"torch"'))
    report = build(recipe)
    assert report["ok"] and "nothing to build" in report["said"] and not (recipe.parent / "built").exists()


def test_a_runtime_with_nothing_to_make_is_proved_all_the_same(
    recipe: Path, use: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    use()
    bare = SimpleNamespace(open=lambda network, recipe, weights, built: TorchEngine(network, recipe, weights, "cpu"))
    monkeypatch.setattr(job, "runtime_module", lambda name: bare)
    report = build(recipe)
    assert report["ok"] and report["made"] == {} and set(contents(recipe)) == {"small/engine.json"}


def test_eight_bits_are_calibrated_on_another_clip(
    recipe: Path, use: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe.write_text(recipe.read_text().replace('"fp32"', '"int8"'))
    runtime = use()
    assert build(recipe)["parity"][0]["limits"] == {"each": 0.90, "mean": 0.95}
    (pictures,) = runtime.pictures
    shown = [f.image_hwc for f in clips.synthetic_clip(64, 2).frames()]
    assert len(pictures) == clips.CALIBRATION and not any(np.array_equal(p, s) for p in pictures[:3] for s in shown)


class Slow(TorchEngine):
    """As exact as the reference, and it takes its time."""

    def encode_image(self, image_hwc: ImageU8) -> Features:
        time.sleep(0.1)
        return super().encode_image(image_hwc)


class Broken(TorchEngine):
    """One that fails in a way of its own."""

    def __init__(self, *given: Any) -> None:
        raise RuntimeError("CUDA error: an illegal memory access\nwas encountered")


@pytest.mark.slow
def test_auto_is_the_fastest_of_what_passes(
    recipe: Path, use: Callable[..., Runtime], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong one is faster still, and is not taken; what was chosen is what is opened, until something changes."""
    use()
    recipe.write_text(recipe.read_text().replace('"cpu"', '"auto"').replace('"fp32"', '"auto"'))
    kinds = {"fp32": Slow, "int16": TorchEngine, "int8": Wrong, "bf16": Broken}
    monkeypatch.setattr(building, "candidates", lambda given: [
        replace(given, runtime="cpu", precision=precision) for precision in kinds
    ])  # fmt: skip
    bare = SimpleNamespace(open=lambda network, r, weights, built: kinds[r.precision](network, r, weights, "cpu"))
    monkeypatch.setattr(job, "runtime_module", lambda name: bare)
    report = build(recipe)
    assert report["ok"] and report["said"].startswith("cpu, int16 is the fastest of 2 that passed; installed in")
    rows = {row["name"]: row for row in report["candidates"]}
    assert [row["ok"] for row in rows.values()] == [True, True, False, False]
    assert "decode drifted" in rows["cpu, int8"]["said"]
    assert rows["cpu, bf16"]["said"] == "RuntimeError: CUDA error: an illegal memory access; see: rtseg doctor"
    assert set(rows["cpu, int16"]["step_ms"]) <= {"1", "2", str(cpu_cores())} and "step_ms" not in rows["cpu, int8"]
    (measured,) = fastest(load_recipe(recipe))
    assert (measured.runtime, measured.precision) == ("cpu", "int16")
    assert fastest(load_recipe(recipe, precision="fp32")) == []
    assert "is there and fits" in build(recipe)["said"]
    kinds |= {"fp32": Wrong, "int16": Wrong}
    report = build(recipe, force=True)
    assert not report["ok"] and "no engine that runs here gives the reference's masks: cpu, fp32: " in report["said"]
    assert (recipe.parent / "built" / "small" / SIDECAR).exists()


def test_a_more_exact_engine_wins_a_tie() -> None:
    exact, same, faster = (Candidate(name, lambda: None, least_iou=1.0) for name in ("exact", "same", "faster"))
    exact.steps_ms, same.steps_ms, faster.steps_ms = (
        {1: [100.0], 2: [60.0]},
        {1: [97.0], 2: [59.0]},
        {1: [80.0], 2: [60.0]},
    )
    assert choose([exact, same]) is exact and choose([exact, same, faster]) is faster


@pytest.mark.slow
def test_auto_on_what_this_machine_really_has(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Proved, timed, installed and opened; a line says why. RTSEG_ISA makes it another machine."""
    monkeypatch.setattr(clips, "FRAMES", FRAMES)
    recipe.write_text(recipe.read_text().replace('"cpu"', '"auto"').replace('"fp32"', '"auto"'))
    report = build(recipe)
    names = [row["name"] for row in report["candidates"]]
    assert report["ok"] and "onnx, fp32" in names and len(names) >= 2
    assert "the fastest that rtseg build measured here" in open_engine(recipe).description
    settled = candidates(load_recipe(recipe))
    assert [f"{r.runtime}, {r.precision}" for r in settled] == names


def test_one_of_several_that_fails_does_not_keep_the_others(recipe: Path, use: Callable[..., Runtime]) -> None:
    use()
    other = recipe.with_name("other.toml")
    other.write_text('weights = "nowhere.pt"\nruntime = "cpu"\n')
    report = build_all([other, recipe])
    assert not report["ok"] and [engine["ok"] for engine in report["engines"]] == [False, True]
    assert "no such file" in report["engines"][0]["said"]
    with pytest.raises(WeightsError):
        build_all([other])


def test_exit_codes(recipe: Path, use: Callable[..., Runtime], capsys: pytest.CaptureFixture[str]) -> None:
    use()
    assert main(["build", str(recipe), "--json"]) == 0
    printed = capsys.readouterr()
    (engine,) = json.loads(printed.out)["engines"]
    assert engine["ok"] and "IoU with the reference 1.000 or more" in printed.err and "track" in printed.err
    use(wrong=True)
    assert main(["build", str(recipe), "--force"]) == 1
    printed = capsys.readouterr()
    assert re.search(r"^failed +.*decode drifted: off by 2 .*what was there stays$", printed.out, re.M)
    recipe.write_text('runtime = "cpu"\nprecision = "fp8"\n')
    assert main(["build", str(recipe)]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"rtseg build: {recipe}: precision") and printed.err.count("\n") == 1


DRIVER = """
import sys, time
from pathlib import Path
from rtseg.build import clips, job
from rtseg.cli import main
from rtseg.engine.reference import TorchEngine

clips.FRAMES = 10

class Runtime:
    @staticmethod
    def make(network, recipe, folder, note, pictures):
        (folder / "plan.bin").write_bytes(b"plan")
        with Path("made").open("a") as log:
            log.write("x")
        time.sleep(float(sys.argv[1]))
        return {}

    @staticmethod
    def open(network, recipe, weights_hash, built):
        return TorchEngine(network, recipe, weights_hash, "cpu")

job.runtime_module = lambda name: Runtime
sys.exit(main(["build", *sys.argv[2:]]))
"""


def start(recipe: Path, seconds: float, *words: str) -> subprocess.Popen[str]:
    """A build in a process of its own; making takes so many seconds."""
    command = [sys.executable, "-c", DRIVER, str(seconds), str(recipe), *words]
    return subprocess.Popen(
        command, cwd=recipe.parent.parent, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def wait_until_made(recipe: Path, count: int) -> None:
    log, until = recipe.parent.parent / "made", time.monotonic() + 60
    while not (log.exists() and len(log.read_text()) >= count) and time.monotonic() < until:
        time.sleep(0.02)
    assert len(log.read_text()) == count


@pytest.mark.slow
def test_two_builds_at_once_make_one_engine(recipe: Path) -> None:
    first = start(recipe, 3)
    wait_until_made(recipe, 1)
    second = start(recipe, 0)
    for process in (first, second):
        assert process.wait(90) == 0, process.communicate()
    assert first.communicate()[0].count("installed in") == 1
    out, err = second.communicate()
    assert "another process is building it; waiting" in err and "is there and fits" in out
    assert (recipe.parent.parent / "made").read_text() == "x"
    assert set(contents(recipe)) == {"small/engine.json", "small/plan.bin"}


@pytest.mark.slow
def test_a_killed_build_leaves_nothing_that_looks_finished(recipe: Path, use: Callable[..., Runtime]) -> None:
    process = start(recipe, 600)
    wait_until_made(recipe, 1)
    process.kill()
    process.communicate()
    (left,) = (recipe.parent / "built").glob(".small.*.part")
    assert (left / "plan.bin").exists() and not (recipe.parent / "built" / "small").exists()
    use()
    assert build(recipe)["ok"]  # the lock died with its holder
    assert sorted(p.name for p in (recipe.parent / "built").iterdir()) == [".small.lock", "small"]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_build_that_is_stopped_leaves_nothing(recipe: Path, number: int) -> None:
    process = start(recipe, 600)
    wait_until_made(recipe, 1)
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130 and "interrupted" in err
    assert [p.name for p in (recipe.parent / "built").iterdir()] == [".small.lock"]


def test_the_clock_waits_for_the_engines_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before and after each verb; what an earlier one has launched is not this one's."""
    waited: list[object] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    for device, waits in (("cuda:1", ["cuda:1"] * 2), ("cpu", [])):
        waited.clear()
        clock = timing.StageClock(device)
        clock.next_frame()
        with clock.time("attend"):
            pass
        assert waited == waits
