"""How `segment` ends: complete, or early; then what is whole is kept, and the line, the code and run.json say so."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from rtseg.base.account import Gap
from rtseg.base.errors import ConfigError, IncompleteError, OutputError, PromptError, SourceError
from rtseg.base.types import Frame, Prompt
from rtseg.cli import main
from rtseg.data import open_dataset
from rtseg.engine.recipe import load_recipe
from rtseg.grab import Source
from rtseg.offline import Reading, opening, results, segment

ROOT = Path(__file__).parents[2]
RECIPE = load_recipe(model="micro", weights="package:micro", image_size=64, runtime="torch")
BOX = Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")
MAIN = "import sys; from rtseg.cli import main; sys.exit(main(sys.argv[1:]))"


class Played(Source):
    """Frames that a test makes, and whatever else it wants to happen after some of them."""

    def __init__(self, frames: int, start_s: float = 0.0, then: Callable[[Played], None] = lambda source: None) -> None:
        super().__init__("played.ts", 160, 120, 25.0, None)
        self.total, self.start_s, self.then = frames, start_s, then
        self.names: list[str] = []

    def frames(self) -> Iterator[Frame]:
        rng = np.random.default_rng(7)
        for seq in range(self.total):
            image_hwc = rng.integers(0, 255, (120, 160, 3), dtype=np.uint8)
            frame = Frame(image_hwc, seq, self.session, round(self.start_s * 25) + seq, Fraction(1, 25))
            yield replace(frame, name=self.names[seq]) if self.names else frame
        self.then(self)


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[Played], Played]:
    def use(source: Played) -> Played:
        monkeypatch.setattr(opening, "open_source", lambda uri, **how: source)
        return source

    return use


def fail(error: BaseException) -> Callable[[Played], None]:
    def then(source: Played) -> None:
        raise error

    return then


def read(out: Path) -> dict[str, Any]:
    return json.loads((out / "run.json").read_text())


def played(out: Path, name: str = "overlay.mp4") -> list[float]:
    with av.open(str(out / name)) as container:
        return [float(frame.time or 0) for frame in container.decode(video=0)]


def whole(out: Path) -> int:
    """How many frames are in a result, which all its files have to agree about."""
    names = sorted(os.listdir(out / "masks"))
    images = json.loads((out / "masks.json").read_text())["images"]
    assert [image["mask_file"] for image in images] == [f"masks/{name}" for name in names]
    assert len(names) == read(out)["frames"]["shown"]
    return len(names)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (SourceError("played.ts: frame 6: its data is damaged"), "its data is damaged"),
        (PromptError("prompt for object 2: the frame is smaller now"), "the frame is smaller now"),
        (ZeroDivisionError("x"), "ZeroDivisionError: x (a bug, or this machine"),
    ],
)
def test_what_is_whole_stays_when_a_run_ends_early(
    tmp_path: Path, play: Callable[[Played], Played], error: Exception, says: str
) -> None:
    play(Played(6, then=fail(error)))
    out = tmp_path / "out"
    with pytest.raises(IncompleteError) as caught:
        segment("played.ts", {0: [BOX]}, out, RECIPE)
    assert says in str(caught.value) and f"6 frames are whole, and lie in {out}" in str(caught.value)
    assert (caught.value.code, caught.value.report["out"]) == (1, str(out))
    said = read(out)
    assert said["complete"] is False and says in said["ended"] and said["faults"] == [said["ended"]]
    assert whole(out) == 6 and len(played(out)) == 6
    assert sorted(os.listdir(out)) == ["masks", "masks.json", "overlay.mp4", "report.html", "review.json", "run.json"]
    with pytest.raises(ConfigError, match="not empty; it is the incomplete result of an earlier run"):
        segment("played.ts", {0: [BOX]}, out, RECIPE)
    play(Played(7))  # the control: the same without the error
    assert segment("played.ts", {0: [BOX]}, out, RECIPE, force=True)["complete"] is True
    assert whole(out) == 7 and read(out)["faults"] == []
    assert os.listdir(tmp_path) == ["out"]


def test_an_end_before_the_first_frame_leaves_nothing(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    for source in (Played(0, then=fail(SourceError("played.ts: broken"))), Played(0)):
        play(source)
        with pytest.raises(SourceError):
            segment("played.ts", {0: [BOX]}, tmp_path / "deep" / "out", RECIPE)
        assert os.listdir(tmp_path) == []


def test_stop_at_damage_says_how_to_go_on(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    play(Played(3, then=fail(SourceError("played.ts: frame 3: its data is damaged"))))
    with pytest.raises(IncompleteError, match="to go on past the damage, run with --damaged skip"):
        segment("played.ts", {0: [BOX]}, tmp_path / "out", RECIPE, reading=Reading(damaged="stop"))


def test_damage_that_was_skipped_is_told_and_in_the_account(
    tmp_path: Path, play: Callable[[Played], Played], capsys: pytest.CaptureFixture[str]
) -> None:
    words = prompt_file(tmp_path)
    play(Played(5, then=lambda source: source.account.gap(Gap(3, 0.12, 2, "a packet is missing"))))
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("rtseg segment: ")]
    assert len(lines) == 1 and "skipped 2 damaged frames; the first before frame 3" in lines[0]
    said = read(tmp_path / "out")
    assert said["complete"] is True and said["source_account"]["damaged"] == 2
    assert said["source_account"]["gaps"][0]["before"] == 3
    assert said["frames"]["dropped"] == {"damaged": 2} and said["frames"]["in"] == said["frames"]["shown"] + 2
    play(Played(5))
    assert main([*words, "--out", str(tmp_path / "clean")]) == 0
    assert capsys.readouterr().err == ""  # a clean source says nothing
    assert read(tmp_path / "clean")["source_account"]["gaps"] == []


def prompt_file(tmp_path: Path, frame: int = 0) -> list[str]:
    (tmp_path / "p.json").write_text(json.dumps([{"frame": frame, "id": 2, "box": [10, 20, 80, 90]}]))
    (tmp_path / "e.toml").write_text('model = "micro"\nweights = "package:micro"\nimage_size = 64\nruntime = "torch"\n')
    return ["segment", "played.ts", "--prompts", str(tmp_path / "p.json"), "--engine", str(tmp_path / "e.toml")]


def test_a_prompt_after_damage_is_told_for_its_number_may_be_another_programs(
    tmp_path: Path, play: Callable[[Played], Played], capsys: pytest.CaptureFixture[str]
) -> None:
    for before, told in ((2, True), (4, False)):  # the control: damage after the prompt
        source = play(Played(5))
        source.account.gap(Gap(before, 0.1, 12, "a packet is missing"))
        assert main([*prompt_file(tmp_path, 3), "--out", str(tmp_path / f"out{before}")]) == 0
        said = capsys.readouterr().err
        assert ("prompt on frame 3: it is at 0.120 s, with 12 frames before it left out" in said) is told


def test_the_last_line_the_code_and_the_document_agree(
    tmp_path: Path, play: Callable[[Played], Played], capsys: pytest.CaptureFixture[str]
) -> None:
    play(Played(4, then=fail(SourceError("played.ts: frame 4: its data is damaged"))))
    assert main([*prompt_file(tmp_path), "--out", str(tmp_path / "out"), "--json"]) == 1
    printed = capsys.readouterr()
    line = printed.err.splitlines()[-1]
    document = json.loads(printed.out.splitlines()[-1])
    assert line == f"rtseg segment: {document['error']}"
    assert (document["ok"], document["complete"], document["kind"]) == (False, False, "IncompleteError")
    assert document["faults"] == read(tmp_path / "out")["faults"] == ["played.ts: frame 4: its data is damaged"]


def test_a_source_that_ended_early_without_an_error(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    def hung_up(source: Played) -> None:
        source.account.ended = "the sender hung up"

    play(Played(4, then=hung_up))
    with pytest.raises(IncompleteError, match="ended early: the sender hung up; 4 frames are whole"):
        segment("played.ts", {0: [BOX]}, tmp_path / "out", RECIPE)
    assert whole(tmp_path / "out") == 4


@pytest.mark.parametrize("when", [0, 3, 6])
def test_a_prompt_beyond_the_end_is_found_as_soon_as_that_is_known(
    tmp_path: Path, play: Callable[[Played], Played], when: int
) -> None:
    """Before the first frame where the source knows its count, else in the middle or at the end, keeping the rest."""
    source = play(Played(6))
    seen: list[tuple[int, int | None]] = []
    if when == 0:
        source.account.count = 6

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))
        if done == when:
            source.account.count = 6

    out = tmp_path / "out"
    with pytest.raises((PromptError, IncompleteError), match="prompt on frame 9: played.ts has 6 frames") as caught:
        segment("played.ts", {0: [BOX], 9: [BOX]}, out, RECIPE, progress=progress)
    if when == 0:
        assert not seen and not out.exists() and caught.type is PromptError
    else:
        assert whole(out) == 6 and read(out)["complete"] is False
        assert read(out)["faults"] == ["prompt on frame 9: played.ts has 6 frames; expected a frame from 0 to 5"]


def test_a_source_that_begins_at_an_hour(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    """The overlay begins at 0; masks.json has the source's own times."""
    for start_s, name in ((3600.0, "late"), (0.0, "plain")):
        play(Played(40, start_s))
        segment("played.ts", {0: [BOX]}, tmp_path / name, RECIPE)
        times = played(tmp_path / name)
        assert times[0] == 0 and times[-1] == pytest.approx(1.56)
        images = json.loads((tmp_path / name / "masks.json").read_text())["images"]
        assert [image["seconds"] for image in images[:2]] == pytest.approx([start_s, start_s + 0.04])


def test_pixels_that_are_not_square_stay_so(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    for aspect in (Fraction(64, 45), Fraction(1)):
        source = play(Played(2))
        source.sample_aspect = aspect
        segment("played.ts", {0: [BOX]}, tmp_path / "out", RECIPE, force=True)
        with av.open(str(tmp_path / "out/overlay.mp4")) as container:
            assert container.streams.video[0].sample_aspect_ratio == aspect


def test_frames_that_have_names_keep_them(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    source = play(Played(5))
    source.names = ["t1.25.png", "a.jpg", "a.png", "A.tif", "sub"]
    out = tmp_path / "out"
    segment("played.ts", {0: [BOX]}, out, RECIPE)
    images = json.loads((out / "masks.json").read_text())["images"]
    assert [image["file_name"] for image in images] == ["t1.25.png", "a.jpg", "a.png", "A.tif", "sub.jpg"]
    stems = ["t1.25", "a", "a-2", "A-3", "sub"]
    assert [image["mask_file"] for image in images] == [f"masks/{stem}.png" for stem in stems]
    assert all((out / image["mask_file"]).is_file() for image in images)
    play(Played(5)).names = source.names
    segment("played.ts", {0: [BOX]}, out, RECIPE, force=True, frames="png")
    images = json.loads((out / "masks.json").read_text())["images"]
    assert [image["file_name"] for image in images] == [f"{stem}.png" for stem in stems]
    assert sorted(os.listdir(out / "frames")) == sorted(f"{stem}.png" for stem in stems)


def test_the_images_of_a_folder_lend_their_names(tmp_path: Path) -> None:
    """To masks, and to the pictures that masks.json speaks of; and an evaluation finds them again."""
    folder = tmp_path / "clip"
    folder.mkdir()
    for frame in Played(3):
        cv2.imwrite(str(folder / f"t1.{5 * frame.seq + 5}.png"), frame.image_hwc)
    out = tmp_path / "out"
    segment(folder, {0: [BOX]}, out, RECIPE)
    images = json.loads((out / "masks.json").read_text())["images"]
    assert sorted(image["file_name"] for image in images) == ["t1.10.png", "t1.15.png", "t1.5.png"]
    assert all((folder / image["file_name"]).is_file() for image in images)
    (sequence,) = open_dataset(out).sequences
    assert sequence.count == 3
    for t, image in enumerate(images):
        wanted_hwc = cv2.imread(str(folder / image["file_name"]))[..., ::-1]
        assert np.array_equal(sequence.image(t), wanted_hwc)
        ids_hw = np.asarray(Image.open(out / image["mask_file"]))
        assert np.array_equal((sequence.truth(t) or {}).get(2, np.zeros(ids_hw.shape, bool)), ids_hw == 2)


@pytest.mark.parametrize("kind", ["jpg", "png"])
def test_pictures_are_written_as_they_are_named(tmp_path: Path, play: Callable[[Played], Played], kind: str) -> None:
    play(Played(3))
    out = tmp_path / "out"
    segment("played.ts", {0: [BOX]}, out, RECIPE, frames=kind)
    images = json.loads((out / "masks.json").read_text())["images"]
    for image, frame in zip(images, Played(3), strict=True):
        picture_hwc = np.asarray(Image.open(out / "frames" / image["file_name"]).convert("RGB"))
        apart = np.abs(picture_hwc.astype(int) - frame.image_hwc).mean()
        assert apart == 0 if kind == "png" else apart < 8  # noise is what JPEG does worst
    assert [image["file_name"] for image in images] == [f"{seq:05d}.{kind}" for seq in range(3)]
    play(Played(3))
    segment("played.ts", {0: [BOX]}, tmp_path / "without", RECIPE)
    assert not (tmp_path / "without/frames").exists()


def test_a_full_disk_keeps_what_fits(
    tmp_path: Path, play: Callable[[Played], Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = results.write_palette_png

    def full(path: Path, ids_hw: Any) -> None:
        if path.stem == "00004":
            path.write_bytes(b"half")
            raise OutputError(f"{path}: cannot be written (no space left on device)")
        original(path, ids_hw)

    monkeypatch.setattr(results, "write_palette_png", full)
    play(Played(200))
    out = tmp_path / "out"
    with pytest.raises(
        IncompleteError, match=f"^{out}/masks/00004.png: cannot be written .no space left.*; 4 frames are whole"
    ):
        segment("played.ts", {0: [BOX]}, out, RECIPE)
    assert whole(out) == 4 and 4 <= len(played(out)) <= 5


def test_a_disk_that_is_full_to_its_last_byte_still_gets_a_proper_end(
    tmp_path: Path, play: Callable[[Played], Played], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some room is kept from the beginning, and given free for the end of each file."""
    from rtseg.publish import coco

    original = coco.write_all_or_nothing

    def full(file: int, data: bytes, start: int) -> None:
        if b'"image_id": 3' in data:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if start and b'"categories"' in data:
            folder = Path(f"/proc/self/fd/{file}").readlink().parent
            assert not list(folder.glob(".[!m]*")), "the room that was kept is not free yet"
        original(file, data, start)

    monkeypatch.setattr(coco, "write_all_or_nothing", full)
    play(Played(50))
    with pytest.raises(IncompleteError, match="masks.json: cannot be written"):
        segment("played.ts", {0: [BOX]}, tmp_path / "out", RECIPE)
    assert whole(tmp_path / "out") == 3


def test_a_source_that_changes_while_it_is_read(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    file = tmp_path / "x.ts"
    file.write_bytes(b"1234")

    def grow(source: Played) -> None:
        with file.open("ab") as more:
            more.write(b"56")

    play(Played(3, then=grow))
    with pytest.raises(
        IncompleteError, match="x.ts: changed from 4 to 6 bytes while it was read; .*3 frames are whole"
    ):
        segment(file, {0: [BOX]}, tmp_path / "out", RECIPE)
    play(Played(3))
    segment(file, {0: [BOX]}, tmp_path / "clean", RECIPE)
    assert read(tmp_path / "clean")["files"][0]["bytes"] == 6


def test_an_incomplete_result_takes_no_complete_ones_place(tmp_path: Path, play: Callable[[Played], Played]) -> None:
    out = tmp_path / "out"
    play(Played(5))
    segment("played.ts", {0: [BOX]}, out, RECIPE)
    play(Played(2, then=fail(SourceError("broken"))))
    with pytest.raises(IncompleteError, match=f"2 frames are whole, and lie in {tmp_path}/out-2"):
        segment("played.ts", {0: [BOX]}, out, RECIPE, force=True)
    assert (whole(out), whole(tmp_path / "out-2")) == (5, 2)


def test_a_source_in_the_folder_that_would_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "out/frames").mkdir(parents=True)
    (tmp_path / "out/run.json").write_text("{}")
    for source in (tmp_path / "out/frames", tmp_path / "out"):
        with pytest.raises(ConfigError, match="out.* lies in it, and would be replaced"):
            segment(source, {0: [BOX]}, tmp_path / "out", RECIPE, force=True)
    assert (tmp_path / "out/frames").is_dir()


def test_what_cannot_be_written_is_said_before_anything_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_yet(uri: str, **how: Any) -> Source:
        pytest.fail("the source was opened")

    monkeypatch.setattr(opening, "open_source", not_yet)
    (tmp_path / "file").write_text("")
    for out in (tmp_path / ("n" * 256), tmp_path / "file/out", tmp_path / "file", Path("/"), Path("/proc/out")):
        with pytest.raises((OutputError, ConfigError)) as caught:
            segment("played.ts", {0: [BOX]}, out, RECIPE)
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["file"]


SLOW = "synthetic:laparoscopy?width=160&height=120&seconds=600"


def begun(tmp_path: Path, source: str = SLOW, wanted: str = "masks/00040.png", **more: Any) -> subprocess.Popen[str]:
    """A run in another process, that has come to some frame."""
    words = [source if word == "played.ts" else word for word in prompt_file(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-c", MAIN, *words, "--out", "out"], cwd=tmp_path, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **more,
    )  # fmt: skip
    until = time.monotonic() + 60
    while not list(tmp_path.glob(f"out.partial-*/{wanted}")) and time.monotonic() < until and process.poll() is None:
        time.sleep(0.02)
    return process


def test_a_killed_run_and_a_second_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """While the first is at work, the second is refused at once; after it was killed, its masks are told of."""
    process = begun(tmp_path)
    words = [SLOW if word == "played.ts" else word for word in prompt_file(tmp_path)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    line = capsys.readouterr().err
    assert f"another run is at work on it (process {process.pid}, since " in line and line.count("\n") == 1
    process.kill()
    process.communicate()
    (left,) = tmp_path.glob("out.partial-*")
    assert len(played(left, ".segments/00000000.mp4")) >= 25 and read(left)["complete"] is False
    short = SLOW.replace("600", "0.2")
    assert main([*(short if word == SLOW else word for word in words), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().err
    assert "an earlier run was killed; its " in said and f"masks lie in {left} (remove them when" in said
    assert left.is_dir() and whole(tmp_path / "out") == 5


def test_what_a_killed_run_left_goes_once_the_same_is_complete(
    tmp_path: Path, play: Callable[[Played], Played], capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*prompt_file(tmp_path), "--out", str(tmp_path / "out")]

    def crash(source: Played) -> None:  # as a killed process leaves it
        folder = next(tmp_path.glob("out.partial-*"))
        subprocess.run(["cp", "-r", str(folder), str(tmp_path / "out.partial-00000000")], check=True)
        raise SourceError("killed")

    play(Played(3, then=crash))
    assert main(words) == 1
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    capsys.readouterr()
    play(Played(3))
    assert main(words) == 0
    assert "masks lie in" in (said := capsys.readouterr().err) and "(removed once this run is complete)" in said
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e.toml", "elsewhere", "out", "p.json"]
    play(Played(3))
    assert main([*words, "--force"]) == 0
    assert capsys.readouterr().err == ""  # the control: nothing is left, and nothing is said
