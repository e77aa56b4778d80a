"""`--direction backward` and `both`: the masks of the reversed clip, merged with those of the clip; cuts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

import rtseg
from rtseg.base.errors import ConfigError, PromptError
from rtseg.base.timing import Stages
from rtseg.base.types import BoolMask, Frame, Prompt
from rtseg.engine import Engine
from rtseg.engine.recipe import Recipe
from rtseg.grab import random_access
from rtseg.grab.random_access import open_frames
from rtseg.offline import Reading, direction_pass, segment
from rtseg.offline.direction_masks import StoredMask
from rtseg.offline.direction_merge import Prompted, sureness, takes_backward
from rtseg.offline.direction_pass import BackwardPass
from rtseg.offline.direction_records import Records
from rtseg.offline.settings import WAYS, Way
from rtseg.track import Tracker
from tests.shared import plain, random_recipe
from tests.track.test_cut_detector import tissue, window

SIZE = (160, 120)
URI = "synthetic:laparoscopy?seconds=0.8&seed=7&width=160&height=120&fps=25"
COUNT = 20
BOX = Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")
POINT = Prompt(1, points=[(80.0, 60.0, 1)], label="grasper")
Found = dict[tuple[int, int], BoolMask]  # the masks that are not empty, by frame and id


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    return random_recipe(tmp_path_factory.mktemp("weights"), runtime="torch")


@pytest.fixture(scope="module")
def engine(recipe: Recipe) -> Engine:
    return rtseg.open_engine(recipe)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip with a key frame on each sixth frame, and B-frames."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"g": "6", "bf": "2", "preset": "veryfast"})
        assert isinstance(stream, av.VideoStream)
        (stream.width, stream.height), stream.pix_fmt = SIZE, "yuv420p"
        for frame in rtseg.open_source(URI):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image_hwc, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def alone(engine: Engine, clip: Path | str, prompts: Mapping[int, Sequence[Prompt]], *, back: bool) -> Found:
    """The reference: a tracker alone, on the frames in memory, reversed for `back`."""
    frames: list[Frame] = list(rtseg.open_source(str(clip)))
    tracker = rtseg.Tracker(engine)
    found: Found = {}
    for frame in frames[: max(prompts) + 1][::-1] if back else frames:
        for prompt in prompts.get(frame.seq, ()):
            tracker.give(prompt)
        masks = tracker.step(frame)
        found |= {(frame.seq, i): masks.mask(i) for i in masks.ids if masks.mask(i).any()}
    return found


def written(out: Path) -> Found:
    coco = COCO(str(out / "masks.json"))
    return {(a["image_id"], a["track_id"]): coco.annToMask(a).astype(bool) for a in coco.loadAnns(coco.getAnnIds())}


def same(one: Found, other: Found) -> bool:
    return one.keys() == other.keys() and all((one[key] == other[key]).all() for key in one)


def test_backward_gives_the_masks_of_the_reversed_clip(
    tmp_path: Path, clip: Path, recipe: Recipe, engine: Engine
) -> None:
    prompts = {15: [BOX], 9: [POINT, Prompt(2, points=[(40.0, 40.0, 1)])]}
    seen: list[tuple[int, int | None]] = []
    report = segment(
        clip, prompts, tmp_path / "out", recipe, direction="backward", progress=lambda done, of: seen.append((done, of))
    )
    found, expected = written(tmp_path / "out"), alone(engine, clip, prompts, back=True)
    assert len(found) > 15
    assert same(found, expected)
    assert not same(found, alone(engine, clip, prompts, back=False))  # negative control
    assert {n for n, i in found if i == 2} <= set(range(16))  # nothing behind the last prompt
    assert seen == [(n + 1, 16 + COUNT) for n in range(16 + COUNT)]
    assert report["tracking"]["direction"] == "backward"
    assert report["masks_of"]["1"] == {"backward": 10}
    names = {"manifest.json", "masks", "masks.json", "overlay.mp4", "report.html", "review.json", "run.json"}
    assert set(os.listdir(tmp_path / "out")) == names


def test_both_is_forward_behind_a_prompt_and_backward_before_it(
    tmp_path: Path, clip: Path, recipe: Recipe, engine: Engine
) -> None:
    prompts = {8: [POINT], 12: [BOX]}
    segment(clip, prompts, tmp_path / "out", recipe, direction="both")
    ahead, back = (alone(engine, clip, prompts, back=way) for way in (False, True))
    start = {1: 8, 2: 12}
    expected = {k: m for k, m in ahead.items() if k[0] >= start[k[1]]}
    expected |= {k: m for k, m in back.items() if k[0] < start[k[1]]}
    assert same(written(tmp_path / "out"), expected)
    assert len(expected) > 1.2 * len(ahead)  # an object that starts late is found where it was before
    assert not same(written(tmp_path / "out"), ahead)


def test_between_two_prompts_each_mask_is_that_of_one_pass(
    tmp_path: Path, clip: Path, recipe: Recipe, engine: Engine
) -> None:
    prompts = {2: [POINT], 16: [Prompt(1, box=(60.0, 30.0, 140.0, 110.0))]}
    report = segment(clip, prompts, tmp_path / "out", recipe, direction="both")
    found = written(tmp_path / "out")
    ahead, back = (alone(engine, clip, prompts, back=way) for way in (False, True))
    counts = report["masks_of"]["1"]
    assert counts["forward"] + counts["backward"] == COUNT
    for n in range(COUNT):
        of_pass = [x[n, 1] for x in (ahead, back) if (n, 1) in x]
        assert any((found[n, 1] == mask_hw).all() for mask_hw in of_pass) if (n, 1) in found else len(of_pass) < 2
    for n in (2, 16):  # a prompted frame has the mask of its prompt
        assert (found[n, 1] == ahead[n, 1]).all()
    assert any((ahead[n, 1] != back[n, 1]).any() for n in range(3, 16))  # else the test could not fail


def test_a_nearer_and_a_surer_pass_is_taken() -> None:
    prompted = Prompted.of({4: [POINT], 10: [POINT, BOX]})
    assert [prompted.since(1, n) for n in (3, 4, 9, 10, 12)] == [None, 0, 5, 0, 2]
    assert [prompted.until(1, n) for n in (3, 4, 9, 10, 12)] == [1, 0, 1, 0, None]
    assert takes_backward(0.9, 0.9, since=6, until=2)
    assert not takes_backward(0.9, 0.9, since=2, until=6)
    assert not takes_backward(0.9, 0.9, since=4, until=4)
    assert takes_backward(0.2, 0.9, since=3, until=6)
    assert not takes_backward(0.0, 1.0, since=0, until=6)  # a prompted frame
    lost = sureness(0.0, 0.0, drawn=False, lost=True)
    absent = sureness(0.0, 0.0, drawn=False, lost=False)
    assert takes_backward(lost, 0.1, since=1, until=20)
    assert not takes_backward(absent, 0.1, since=1, until=20)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["backward", "both"])
def test_several_segments_give_the_same_as_one(
    tmp_path: Path, clip: Path, recipe: Recipe, way: Way, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = {17: [POINT, BOX]}
    segment(clip, prompts, tmp_path / "one", recipe, direction=way)
    monkeypatch.setattr(direction_pass, "CHECKPOINT_EVERY", 3)
    monkeypatch.setattr(random_access, "BACKWARD_BYTES", 1)  # 8 pictures, less than a GOP
    segment(clip, prompts, tmp_path / "three", recipe, direction=way)
    assert (tmp_path / "one/masks.json").read_bytes() == (tmp_path / "three/masks.json").read_bytes()


@pytest.mark.parametrize(
    ("prompts", "options", "error", "expected"),
    [
        ({COUNT: [POINT]}, {}, PromptError, "has 20 frames; expected a frame from 0 to 19"),
        ({3: [Prompt(1, points=[(5.0, 5.0, 0)])]}, {}, PromptError, "only background points"),
        ({3: [POINT]}, {"reading": Reading(deinterlace="on")}, ConfigError, "--deinterlace on needs frames in order"),
        ({3: [POINT]}, {"source": "-"}, ConfigError, "- is read once, in order; expected a file"),
        ({3: [POINT]}, {"source": ["a.ts", "b.ts"]}, ConfigError, "2 joined files; make one of them"),
        ({3: [POINT]}, {"direction": "back"}, ConfigError, "direction = 'back'"),
    ],
)
def test_what_cannot_be_tracked_backward_is_said_before_any_work(
    tmp_path: Path, clip: Path, recipe: Recipe, prompts: dict[int, list[Prompt]], options: dict[str, object],
    error: type[Exception], expected: str,
) -> None:  # fmt: skip
    with pytest.raises(error, match=expected):
        given = {"source": clip, "direction": "backward", **options}
        segment(prompts=prompts, out=tmp_path / "out", engine=recipe, **given)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == []


def write_folder(folder: Path, scenes: Sequence[int]) -> Path:
    """Pictures of a pan over each of these scenes, 6 a scene."""
    folder.mkdir()
    pictures = [window(tissue(scene), 40 + i) for scene in scenes for i in range(6)]
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number:03d}.png")
    return folder


@pytest.mark.parametrize("way", [*(pytest.param(way, marks=pytest.mark.slow) for way in WAYS[:2]), "both"])
def test_a_cut_is_said_and_not_crossed_unless_asked(tmp_path: Path, recipe: Recipe, way: Way) -> None:
    folder = write_folder(tmp_path / "scenes", [1, 2, 3])
    prompts = {8: [Prompt(1, box=(10.0, 20.0, 80.0, 90.0))]}  # in the second of three scenes, frames 6 to 11
    ahead, back = set(range(8, 12)), set(range(6, 9))
    lines: list[str] = []
    report = segment(folder, prompts, tmp_path / "out", recipe, direction=way, say=lines.append)
    within = {"forward": ahead, "backward": back, "both": ahead | back}[way]
    assert {n for n, _ in written(tmp_path / "out")} == within
    assert report["cuts"] == [6, 12]
    assert any("another scene begins with frames 6, 12" in line for line in lines)
    asked = segment(folder, prompts, tmp_path / "asked", recipe, direction=way, across_cuts=True)
    beyond = {n for n, _ in written(tmp_path / "asked")} - within
    assert beyond & set(range(6)) if way != "forward" else beyond & set(range(12, 18))  # negative control
    assert asked["cuts"] == [6, 12]


def test_slices_of_a_volume_have_no_cuts(tmp_path: Path, recipe: Recipe, engine: Engine) -> None:
    folder = write_folder(tmp_path / "slices", [1, 2])
    prompts = {7: [POINT]}
    report = segment(folder, prompts, tmp_path / "out", recipe, direction="both", slices=True)
    found, ahead, back = (
        written(tmp_path / "out"),
        *(plain_alone(engine, folder, prompts, way) for way in (False, True)),
    )
    assert same(found, {**{k: m for k, m in back.items() if k[0] < 7}, **ahead})
    assert report["cuts"] == []
    assert {n for n, _ in found} & set(range(6))  # what a cut would have emptied


def test_a_volume_says_that_it_is_one(tmp_path: Path, recipe: Recipe, engine: Engine) -> None:
    nibabel = pytest.importorskip("nibabel", reason="pip install 'rtseg[dicom]'")
    values = np.stack([window(tissue(scene), 40)[..., 0] for scene in (1, 1, 2, 2, 1, 1)], -1).transpose(1, 0, 2)
    path = tmp_path / "volume.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values.astype(np.int16), np.diag([-1.0, -1.0, 5.0, 1.0])), path)
    prompts = {3: [POINT]}
    report = segment(path, prompts, tmp_path / "out", recipe, direction="both")
    assert report["tracking"]["slices"] is True
    assert report["cuts"] == []
    ahead, back = (plain_alone(engine, path, prompts, way) for way in (False, True))
    found = written(tmp_path / "out")
    assert same(found, {**{k: m for k, m in back.items() if k[0] < 3}, **ahead})
    assert {n for n, _ in found} & {0, 1, 2}


def plain_alone(engine: Engine, folder: Path, prompts: Mapping[int, Sequence[Prompt]], back: bool) -> Found:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rtseg, "Tracker", lambda engine: plain(Tracker(engine)))
        return alone(engine, folder, prompts, back=back)


@pytest.mark.parametrize("way", [pytest.param("backward", marks=pytest.mark.slow), "both"])
def test_a_damaged_frame_is_left_out_and_prompts_stay_on_their_frames(
    tmp_path: Path, clip: Path, recipe: Recipe, engine: Engine, way: Way
) -> None:
    torn = tmp_path / "torn.mp4"
    with av.open(str(clip)) as container:
        packet = sorted((p for p in container.demux(video=0) if p.size), key=lambda p: p.pts or 0)[9]
        place, size = packet.pos or 0, packet.size
    data = bytearray(clip.read_bytes())
    data[place + 8 : place + size] = bytes(size - 8)
    torn.write_bytes(data)
    count = len(list(rtseg.open_source(str(torn))))
    assert 10 < count < COUNT
    prompts = {count - 2: [POINT], count - 5: [Prompt(1, box=(60.0, 30.0, 140.0, 110.0))]}
    report = segment(torn, prompts, tmp_path / "out", recipe, direction=way)
    found, back = written(tmp_path / "out"), alone(engine, torn, prompts, back=True)
    before = {k: m for k, m in found.items() if k[0] < count - 5}
    assert before
    assert same(before, {k: m for k, m in back.items() if k[0] < count - 5})
    assert report["frames"]["shown"] == count
    whole = alone(engine, clip, prompts, back=True)  # negative control: the same numbers, without the damage
    assert not same(before, {k: m for k, m in whole.items() if k[0] < count - 5})


class Killed(BaseException):
    """Ends a pass at once."""


@pytest.mark.parametrize("at", [pytest.param(1, marks=pytest.mark.slow), 12, pytest.param(18, marks=pytest.mark.slow)])
def test_a_pass_that_was_killed_goes_on_from_its_checkpoint(
    tmp_path: Path, clip: Path, engine: Engine, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(direction_pass, "CHECKPOINT_EVERY", 5)
    prompts = {17: [POINT], 9: [BOX]}
    frames = open_frames(clip)

    def go(name: str, kill_at: int = 0) -> tuple[list[dict[int, StoredMask]], int]:
        done: list[int] = []

        def on_step(number: int) -> None:
            done.append(number)
            if number == kill_at:
                raise Killed

        records = Records(tmp_path / name / "masks.sqlite")
        backward = BackwardPass(frames, Tracker(engine), prompts, records, Stages("segment", "write"), on_step)
        with suppress(Killed):
            backward.run()
        found = [records.masks(n) for n in range(18)]
        records.close()
        return found, len(done)

    whole, count = go("whole")
    assert count == 18
    assert sorted(os.listdir(tmp_path / "whole")) == ["masks.sqlite"]
    partly, _ = go("killed", at)
    assert partly != whole
    again, done = go("killed")
    assert again == whole
    assert 18 - done in range(0, at + 1, 5)  # it went on from a checkpoint
    assert done < 18 or at < 18
    assert go("killed") == (whole, 0)
