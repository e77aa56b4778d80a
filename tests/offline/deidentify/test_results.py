"""`segment` with `deidentify`: what is out-of-body is in no file, and neither are names."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest

from rtseg.base.errors import ConfigError, IncompleteError
from rtseg.base.types import ImageU8, Prompt
from rtseg.engine.recipe import Recipe
from rtseg.offline import following, segment
from rtseg.offline.settings import Reading
from rtseg.synthetic.source import EndoscopeSource

BODY = "synthetic:laparoscopy?seconds=5&seed=1018&width=160&height=120&fps=25"
INSIDE, OUTSIDE = 30, 6
BOX = Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")
NAME = "DOE_JANE_1961"


def face() -> ImageU8:
    """Something that would be known again: stripes and discs on a blue wall."""
    image_hwc = np.full((120, 160, 3), (120, 150, 200), np.uint8)
    image_hwc[::8] = 255
    return np.asarray(cv2.circle(image_hwc, (80, 60), 30, (20, 20, 20), 6), np.uint8)


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patients") / NAME
    folder.mkdir()
    source = EndoscopeSource(BODY)
    pictures = [*(source.frame(seq).image_hwc for seq in range(INSIDE)), *(face() for _ in range(OUTSIDE))]
    for n, image_hwc in enumerate(pictures):
        cv2.imwrite(str(folder / f"{NAME}_{n:03d}.png"), image_hwc[..., ::-1])
    return folder


def written(out: Path) -> list[ImageU8]:
    """Every picture of a result: of the overlay, and of files."""
    with av.open(str(out / "overlay.mp4")) as video:
        found = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    files = [path for path in out.rglob("*") if path.suffix in (".jpg", ".png") and path.parent.name != "masks"]
    return found + [np.asarray(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), np.uint8) for path in files]


def shows_face(image_hwc: ImageU8) -> bool:
    """Whether the stripes are there: rows differ from the next as they do in the face."""
    rows = np.float32(image_hwc).mean((1, 2))
    return float(np.abs(np.diff(rows)).mean()) > 6


def run(recording: Path, out: Path, recipe: Recipe, **options: Any) -> dict[str, Any]:
    return segment(recording, {0: [BOX]}, out, recipe, frames="png", **options)


def test_what_is_outside_is_in_no_file(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    lines: list[str] = []
    run(recording, tmp_path / "a", recipe, deidentify=["out-of-body"], say=lines.append)
    run(recording, tmp_path / "b", recipe)
    count = INSIDE + OUTSIDE
    assert len(written(tmp_path / "a")) == len(written(tmp_path / "b")) == 2 * count
    assert not any(map(shows_face, written(tmp_path / "a")))
    assert sum(map(shows_face, written(tmp_path / "b"))) == 2 * OUTSIDE
    document = json.loads((tmp_path / "a" / "run.json").read_text())["deidentified"]
    assert document["stretches"][-1] == [INSIDE, count - 1, "out-of-body"] or document["stretches"][-1][1] == count - 1
    assert document["hidden"] + document["shown"] == count and document["shown"] > 0
    assert "does not replace a person's check" in document["note"]
    assert any("does not replace a person's check" in line and "de-identified" in line for line in lines)


def test_the_network_sees_the_untouched_picture(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    run(recording, tmp_path / "a", recipe, deidentify=["out-of-body", "text"])
    run(recording, tmp_path / "b", recipe)
    masks = [sorted((tmp_path / name / "masks").iterdir()) for name in "ab"]
    assert len(masks[0]) == INSIDE + OUTSIDE
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*masks, strict=True))


def test_names_and_times_of_files_are_in_no_file(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    def named(out: Path) -> list[Path]:
        files = [path for path in out.rglob("*") if path.is_file()]
        return [path for path in files if NAME in path.name or NAME.encode() in path.read_bytes()]

    run(recording, tmp_path / "a", recipe, deidentify=["out-of-body"])
    run(recording, tmp_path / "b", recipe)
    assert named(tmp_path / "a") == [] and len(named(tmp_path / "b")) > 2
    text = (tmp_path / "a" / "run.json").read_text()
    assert "changed_ns" not in text and str(recording.parent) not in text
    assert json.loads(text)["source"] == "source"


def test_a_picture_on_a_gpu_is_refused(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    with pytest.raises(ConfigError, match="--deidentify needs each picture in host memory"):
        segment(recording, {0: [BOX]}, tmp_path / "a", recipe, reading=Reading(decoder="nvdec"), deidentify=["text"])
    assert not (tmp_path / "a").exists()


def test_sound_and_tags_of_a_file_are_dropped(tmp_path: Path, recipe: Recipe) -> None:
    path, source = tmp_path / f"{NAME}.mp4", EndoscopeSource(BODY)
    with av.open(str(path), "w") as file:
        file.metadata["title"] = NAME
        video, sound = file.add_stream("mpeg4", 25), file.add_stream("aac", 48000)
        video.width, video.height, video.pix_fmt = 160, 120, "yuv420p"
        for seq in range(20):
            file.mux(video.encode(av.VideoFrame.from_ndarray(source.frame(seq).image_hwc, "rgb24")))
        for n in range(30):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            samples.sample_rate, samples.pts = 48000, 1024 * n
            file.mux(sound.encode(samples))
        for stream in (video, sound):
            file.mux(stream.encode(None))
    segment(path, {0: [BOX]}, tmp_path / "a", recipe, deidentify=["out-of-body"])
    with av.open(str(path)) as before, av.open(str(tmp_path / "a" / "overlay.mp4")) as after:
        assert {stream.type for stream in before.streams} == {"video", "audio"}
        assert [stream.type for stream in after.streams] == ["video"]
        assert before.metadata["title"] == NAME and NAME not in str(after.metadata)
    assert not any(NAME.encode() in one.read_bytes() for one in (tmp_path / "a").rglob("*") if one.is_file())


def test_a_run_that_goes_on_hides_the_same(recording: Path, tmp_path: Path, recipe: Recipe) -> None:
    def stop(done: int, total: int | None) -> None:
        if done == 27:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(following, "SEGMENT", 8)
        run(recording, tmp_path / "whole", recipe, deidentify=["out-of-body", "text"])
        with pytest.raises(IncompleteError):
            run(recording, tmp_path / "again", recipe, deidentify=["out-of-body", "text"], progress=stop)
        lines: list[str] = []
        run(recording, tmp_path / "again", recipe, deidentify=["out-of-body", "text"], say=lines.append)
    assert any("goes on at frame " in line for line in lines), lines
    files = [sorted((tmp_path / name / "frames").iterdir()) for name in ("whole", "again")]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True))
    found = [json.loads((tmp_path / name / "run.json").read_text())["deidentified"] for name in ("whole", "again")]
    assert found[0] == found[1]
