"""A run that is killed goes on with its latest segment, and its result is that of a run that nobody stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from rtseg.base import mask_images
from rtseg.base.errors import ConfigError, IncompleteError, OutputError
from rtseg.base.state import State, read_state, write_state
from rtseg.base.types import Prompt
from rtseg.engine.recipe import load_recipe
from rtseg.offline import Reading, following, overlay_file, results, resuming, segment
from rtseg.offline.segments import WORK, Manifest, read_manifest

RECIPE = load_recipe(model="micro", weights="package:micro", image_size=64, runtime="torch")
SOURCE = "synthetic:laparoscopy?width=160&height=120&seconds=2&seed=7"
FRAMES, SEGMENT = 50, 8
PROMPTS = {0: [Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")], 11: [Prompt(1, box=(30.0, 20.0, 60.0, 50.0))]}


class KilledError(BaseException):
    """What a test raises in place of kill -9: nothing of the run gets to tidy up."""


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "SEGMENT", SEGMENT)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The result of a run that nobody stopped."""
    out = tmp_path_factory.mktemp("whole") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "SEGMENT", SEGMENT)
        segment(SOURCE, PROMPTS, out, RECIPE)
    return out


def killed(out: Path, at: int, source: str = SOURCE, **more: Any) -> Path:
    """A run in another process that is killed on some frame; returns the folder that it leaves."""
    code = (
        "import os, sys\n"
        "import tests.offline.test_resume as t\n"
        f"t.following.SEGMENT = {SEGMENT}\n"
        f"t.segment({source!r}, t.PROMPTS, {str(out)!r}, t.RECIPE, **{more!r},\n"
        f"    progress=lambda done, total: os.kill(os.getpid(), {int(signal.SIGKILL)}) if done == {at} else None)"
    )
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        check=False,
        capture_output=True,
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    (left,) = out.parent.glob(f"{out.name}.partial-*")
    return left


def manifest_of(left: Path) -> Manifest:
    manifest = read_manifest(left)
    assert manifest
    return manifest


def files(out: Path) -> dict[str, bytes]:
    """All files of a result but those that tell of the run."""
    found = {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    return {
        name: data
        for name, data in found.items()
        if name not in ("run.json", "manifest.json", "report.html", "review.json")
    }


def read(out: Path, name: str = "run.json") -> dict[str, Any]:
    document = json.loads((out / name).read_text())
    assert isinstance(document, dict)
    return document


def test_a_killed_run_goes_on_and_every_file_is_the_same(tmp_path: Path, whole: Path) -> None:
    out, said, manifest = tmp_path / "out", list[str](), Manifest({}, "")
    for at, done in ((2 * SEGMENT + 7, 2 * SEGMENT), (4 * SEGMENT + 7, 4 * SEGMENT)):
        left = killed(out, at)
        manifest = manifest_of(left)
        assert manifest.frames in (done, done - SEGMENT)  # at most one segment is lost
        assert not out.exists()
    seen: list[int] = []
    segment(SOURCE, PROMPTS, out, RECIPE, progress=lambda done, total: seen.append(done), say=said.append)
    assert seen == list(range(manifest.frames + 1, FRAMES + 1))  # and nothing is done twice
    assert said[0] == f"{out}: goes on at frame {manifest.frames}, where an earlier run ended"
    assert files(out) == files(whole) and os.listdir(tmp_path) == ["out"]
    mine, theirs = read(out), read(whole)
    assert {key: mine[key] for key in ("frames", "cuts", "warnings", "complete", "source_account")} == {
        key: theirs[key] for key in ("frames", "cuts", "warnings", "complete", "source_account")
    }
    assert mine["stages_ms"]["segment"]["count"] == FRAMES
    assert read(out, "manifest.json")["resumed"][-1] == manifest.frames and not read(whole, "manifest.json")["resumed"]


def change_newest_bank(left: Path) -> None:
    """Empty the bank of one object in a checkpoint."""
    manifest = manifest_of(left)
    path = left / WORK / manifest.state
    state = read_state(path)
    run_ = state.plain["run"]
    one = run_["steps"]["objects"][0]
    one["bank"] |= {"memories": one["bank"]["memories"][:1], "keep": [0], "attend": one["bank"]["attend"][:1]}
    write_state(path, State(state.plain, state.arrays))


def test_a_checkpoint_without_a_bank_gives_other_masks(tmp_path: Path, whole: Path) -> None:
    """The negative control of the test above."""
    out = tmp_path / "out"
    change_newest_bank(killed(out, 2 * SEGMENT + 3))
    segment(SOURCE, PROMPTS, out, RECIPE)
    assert read(out)["complete"] and files(out).keys() == files(whole).keys() and files(out) != files(whole)


def test_the_overlay_of_parts_has_the_times_and_pictures_of_one_piece(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "SEGMENT", 1000)
    segment(SOURCE, PROMPTS, tmp_path / "one", RECIPE)
    shown = []
    for out in (whole, tmp_path / "one"):
        with av.open(str(out / "overlay.mp4")) as container:
            stream = container.streams.video[0]
            told = (stream.duration and float(stream.duration * (stream.time_base or 0)), stream.average_rate)
            context = stream.codec_context
            told += (context.colorspace, context.color_range, context.color_primaries, context.color_trc)  # type: ignore[assignment]
            frames = [(float(frame.time or 0), frame.to_ndarray(format="gray")) for frame in container.decode(video=0)]
        shown.append((told, [time for time, _ in frames], np.stack([picture for _, picture in frames]).astype(int)))
    (told, times, pictures), (told_one, times_one, pictures_one) = shown
    assert told == told_one and times == pytest.approx(times_one) and len(times) == FRAMES
    apart = [np.abs(pictures[1:] - other).mean() for other in (pictures_one[1:], pictures_one[:-1])]
    assert apart[0] < 0.7 * apart[1]  # more key frames, but the same pictures, each at its place


def test_what_is_done_is_skipped_and_another_configuration_is_refused(whole: Path) -> None:
    said: list[str] = []
    before = (whole / "run.json").stat().st_mtime_ns
    document = segment(SOURCE, PROMPTS, whole, RECIPE, say=said.append)
    assert document["skipped"] is True and "is done already" in said[0]
    assert (whole / "run.json").stat().st_mtime_ns == before
    for change, says in (
        ({"engine": replace(RECIPE, precision="fp32")}, "recipe: precision was auto, and is fp32"),
        ({"prompts": {0: PROMPTS[0]}}, "prompts was"),
        ({"source": SOURCE.replace("seed=7", "seed=8")}, "sources: uri was .*seed=7, and is .*seed=8"),
        ({"reading": Reading(fps=24.0)}, "reading: fps was None, and is 24.0"),
        ({"frames": "jpg"}, "frames was None, and is jpg"),
    ):
        given: dict[str, Any] = {"source": SOURCE, "prompts": PROMPTS, "out": whole, "engine": RECIPE, **change}
        with pytest.raises(ConfigError, match=f"not empty: it holds a result made otherwise .{says}"):
            segment(given.pop("source"), given.pop("prompts"), given.pop("out"), given.pop("engine"), **given)


SLOWLY = [pytest.param(what, marks=pytest.mark.slow) for what in ("overlay", "mask", "rows", "configuration")]


@pytest.mark.parametrize("what", ["state", *SLOWLY])
def test_a_damaged_or_other_leftover_is_never_mixed_in(tmp_path: Path, whole: Path, what: str) -> None:
    out, said = tmp_path / "out", list[str]()
    left = killed(out, 2 * SEGMENT + 5, **({"frames": "jpg"} if what == "configuration" else {}))
    manifest = manifest_of(left)
    damaged = {
        "overlay": manifest.segments[0].part(left), "mask": left / "masks/00003.png",
        "rows": left / ".masks.json.images", "state": left / WORK / manifest.state, "configuration": None,
    }[what]  # fmt: skip
    if damaged:
        data = bytearray(damaged.read_bytes())
        data[len(data) // 2] ^= 1
        damaged.write_bytes(data)
    segment(SOURCE, PROMPTS, out, RECIPE, say=said.append)
    told = {"configuration": "frames was jpg, and is None", "state": "no checkpoint", "mask": "masks of frames 0 to 7"}
    assert "begins anew" in said[0] and told.get(what, "has changed") in said[0]
    assert files(out) == files(whole)


def failing(monkeypatch: pytest.MonkeyPatch, at: str, error: Exception) -> Callable[[], None]:
    original = mask_images.write_palette_png

    def write(path: Path, ids_hw: Any) -> None:
        if path.stem == at:
            raise error
        original(path, ids_hw)

    monkeypatch.setattr(results, "write_palette_png", write)
    return lambda: monkeypatch.setattr(results, "write_palette_png", original)


def test_after_a_full_disk_the_same_run_goes_on(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = failing(monkeypatch, "00021", OutputError("masks/00021.png: cannot be written (no space left on device)"))
    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match="no space left.*; 16 frames are whole, and lie in .*partial.*same again"):
        segment(SOURCE, PROMPTS, out, RECIPE)
    assert not out.exists()
    free()
    seen: list[int] = []
    segment(SOURCE, PROMPTS, out, RECIPE, progress=lambda done, total: seen.append(done))
    assert seen[0] == 17 and files(out) == files(whole) and os.listdir(tmp_path) == ["out"]


def test_after_ctrl_c_the_same_run_goes_on(tmp_path: Path, whole: Path) -> None:
    def interrupt(done: int, total: int | None) -> None:
        if done == 3 * SEGMENT:
            raise KeyboardInterrupt

    out = tmp_path / "out"
    with pytest.raises(IncompleteError, match="interrupted; .*goes on from there") as caught:
        segment(SOURCE, PROMPTS, out, RECIPE, progress=interrupt)
    assert caught.value.code == 130 and not out.exists()
    segment(SOURCE, PROMPTS, out, RECIPE)
    assert files(out) == files(whole) and read(out, "manifest.json")["resumed"]


@pytest.mark.parametrize("when", ["before it was joined", "before it was tidied up"])
def test_a_run_that_is_killed_at_its_very_end(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    out = tmp_path / "out"

    def die(*given: Any, **more: Any) -> None:
        raise KilledError

    with monkeypatch.context() as patch:
        if when == "before it was joined":
            patch.setattr(overlay_file.OverlayFile, "close", die)
        else:
            patch.setattr(resuming, "_clear", die)
        with pytest.raises(KilledError):
            segment(SOURCE, PROMPTS, out, RECIPE)
    seen: list[int] = []
    assert segment(SOURCE, PROMPTS, out, RECIPE, progress=lambda done, total: seen.append(done))["complete"] is True
    assert len(seen) <= SEGMENT and files(out) == files(whole) and os.listdir(tmp_path) == ["out"]


def test_the_manifest_has_the_hash_of_every_file(whole: Path) -> None:
    from rtseg.base.files import file_sha256
    from rtseg.offline.segments import synced

    manifest = read(whole, "manifest.json")
    assert manifest["complete"] is True and manifest["frames"] == FRAMES and manifest["gaps"] == []
    assert {name: file_sha256(whole / name) for name in manifest["files"]} == {
        name: told["sha256"] for name, told in manifest["files"].items()
    }
    masks = sorted((whole / "masks").iterdir())
    for one in manifest["segments"]:
        own = masks[one["first"] : one["first"] + one["frames"]]
        assert synced(own) == one["files_sha256"] and synced(own[:-1]) != one["files_sha256"]
    assert sum(one["frames"] for one in manifest["segments"]) == FRAMES


def test_a_video_file_goes_on_with_its_frames_and_its_account(tmp_path: Path) -> None:
    """Also after damage, which the manifest tells of. The frames before the segment are decoded again."""
    clip = tmp_path / "clip.mkv"
    subprocess.run(
        [sys.executable, "-c", "from tests.offline.test_resume import draw; import sys; draw(sys.argv[1])", str(clip)],
        cwd=Path(__file__).parents[2], check=True, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    data = bytearray(clip.read_bytes())
    middle = len(data) // 3
    data[middle : middle + 400] = bytes(400)
    clip.write_bytes(data)
    segment(clip, PROMPTS, tmp_path / "whole", RECIPE)
    out = tmp_path / "out"
    killed(out, 3 * SEGMENT + 3, str(clip))
    segment(clip, PROMPTS, out, RECIPE)
    assert files(out) == files(tmp_path / "whole")
    assert read(out)["source_account"] == read(tmp_path / "whole")["source_account"]
    assert read(out, "manifest.json")["gaps"] == read(out)["source_account"]["gaps"] != []


def draw(path: str) -> None:
    from rtseg.grab import open_source

    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "10"})
        stream.width, stream.height, stream.pix_fmt = 160, 120, "yuv420p"
        for frame in open_source(SOURCE):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image_hwc)))
        container.mux(stream.encode(None))
