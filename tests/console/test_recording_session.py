"""A session with a recording: what a person said is neither overwritten nor lost; the export is that of `segment`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import rtseg
from rtseg.base.errors import ConfigError, OutputError, PromptError
from rtseg.base.types import BoolMask, Prompt
from rtseg.console import recording_store
from rtseg.console.recording_session import Session
from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.offline import segment
from rtseg.publish import Mp4Writer

SOURCE = "synthetic:laparoscopy?seconds=0.8&seed=7&width=160&height=120&fps=25"
COUNT = 20
BOX = Prompt(2, box=(10.0, 20.0, 80.0, 90.0), label="tissue")
POINT = Prompt(1, points=[(80.0, 60.0, 1)], label="grasper")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    import torch

    from rtseg.sam2 import Sam2, get_preset, save_weights

    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.safetensors"
    save_weights(Sam2(get_preset("nano-hiera"), 64), path)
    return replace(load_recipe(weights=path, image_size=64), model="nano-hiera", runtime="torch")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    with Mp4Writer(path, 160, 120, 25) as video:
        for frame in rtseg.open_source(SOURCE):
            video.write(frame.image_hwc, frame.seconds)
    return path


@pytest.fixture
def session(tmp_path: Path, clip: Path, recipe: Recipe) -> Iterator[Session]:
    with Session(clip, recipe, tmp_path / "session") as session:
        yield session


def spans(session: Session, object_id: int = 1) -> list[tuple[int, int, str]]:
    (found,) = [each["spans"] for each in session.status()["objects"] if each["id"] == object_id]
    return [(first, last, kind) for first, last, kind in found]


def done(session: Session, way: str = "forward", to: int | None = None) -> None:
    """Track to the end, and let an error of the worker fail the test."""
    errors: list[str] = []
    session.say = lambda kind, text, who: errors.append(text) if kind == "error" else None
    session.track(way, to)  # type: ignore[arg-type]
    session.worker.wait()
    assert errors == []


def seen(session: Session, number: int, object_id: int = 1) -> BoolMask:
    return session.masks(session.frames.frame(number)).mask(object_id)


def all_masks(session: Session) -> dict[tuple[int, int], bytes]:
    """Every mask that is shown, by frame and key."""
    return {(n, key): mask.rle for n in range(COUNT) for key, mask in session.store.masks(n).items()}


def kinds(session: Session, number: int) -> list[str]:
    return [kind for first, last, kind in spans(session) if first <= number <= last]


@pytest.mark.slow
def test_the_export_is_what_segment_writes(tmp_path: Path, clip: Path, recipe: Recipe, session: Session) -> None:
    for prompt in (BOX, POINT):
        session.prompt(prompt, 0)
    done(session)
    session.export()
    session.worker.wait()
    segment(clip, {0: [BOX, POINT]}, tmp_path / "segment", recipe)
    segment(clip, {0: [BOX]}, tmp_path / "other", recipe)
    ours, theirs, other = (tmp_path / name for name in ("session/export", "segment", "other"))
    names = {"masks", "masks.json", "overlay.mp4", "report.html", "review.json", "run.json"}
    assert set(os.listdir(ours)) == set(os.listdir(theirs)) - {"manifest.json"} == names
    assert len(os.listdir(ours / "masks")) == COUNT
    for path in sorted((theirs / "masks").iterdir()):
        assert (ours / "masks" / path.name).read_bytes() == path.read_bytes(), path.name
    assert (ours / "masks.json").read_bytes() == (theirs / "masks.json").read_bytes()
    assert (ours / "overlay.mp4").read_bytes() == (theirs / "overlay.mp4").read_bytes()
    assert (ours / "masks.json").read_bytes() != (other / "masks.json").read_bytes()  # negative control
    a, b = (json.loads((folder / "run.json").read_text()) for folder in (ours, theirs))
    assert a.keys() == b.keys()
    for key in ("complete", "source", "frames", "cuts", "sha256", "recipe", "engine"):
        assert a[key] == b[key], key


@pytest.mark.slow
def test_both_ways_are_merged_between_two_prompts(session: Session) -> None:
    for number, prompt in {2: POINT, 16: Prompt(1, box=(60.0, 30.0, 140.0, 110.0))}.items():
        session.prompt(prompt, number)
    found = {}
    for way in ("forward", "backward", "both"):
        done(session, way)
        found[way] = [seen(session, n) for n in range(3, 16)]
        session.undo()
        if way == "both":
            session.undo()  # each pass is a change
    ahead, back, both = found.values()
    of_ahead = [bool((a != b).any() and (c == a).all()) for a, b, c in zip(ahead, back, both, strict=True)]
    of_back = [bool((a != b).any() and (c == b).all()) for a, b, c in zip(ahead, back, both, strict=True)]
    assert sum(of_ahead) > 1
    assert sum(of_back) > 1
    assert all((c == a).all() or (c == b).all() for a, b, c in zip(ahead, back, both, strict=True))
    assert of_ahead.index(True) < of_back.index(True)  # the nearer prompt counts more


def test_a_pass_goes_both_ways_from_a_prompted_frame(session: Session) -> None:
    assert (session.status()["objects"], session.status()["tracked"]) == ([], [])
    session.prompt(POINT, 8)
    done(session, "forward", 12)
    assert spans(session)[0] == (8, 8, "prompt")
    assert all(kinds(session, n) for n in range(8, 13))
    assert not any(kinds(session, n) for n in (7, 13))
    done(session, "both")
    assert all(kinds(session, n) for n in range(COUNT))
    with pytest.raises(PromptError, match="carried on already"):
        session.track("forward")


def test_a_locked_or_corrected_stretch_is_never_overwritten(session: Session) -> None:
    session.prompt(POINT, 0)
    done(session)
    session.lock(1, 4, 7)
    session.prompt(Prompt(1, box=(20.0, 10.0, 60.0, 60.0)), 12)
    done(session)  # on from the correction
    before = all_masks(session)
    session.prompt(Prompt(1, box=(90.0, 60.0, 150.0, 110.0)), 0)  # another object altogether
    done(session)
    after = all_masks(session)
    changed = {n for (n, key), rle in after.items() if before[n, key] != rle}
    assert not changed & {4, 5, 6, 7}  # locked
    assert not changed & set(range(12, COUNT))  # corrected, and carried on from there
    assert changed >= {0, 1}  # negative control: what is neither is done again
    assert [kind for _, _, kind in spans(session) if kind in ("locked", "prompt")] == ["prompt", "locked", "prompt"]
    with pytest.raises(PromptError, match="frame 5 is locked; unlock it first"):
        session.prompt(POINT, 5)
    session.lock(1, 5, 5, on=False)
    assert (4, 4, "locked") in spans(session)
    assert (6, 7, "locked") in spans(session)
    session.prompt(POINT, 5)


def test_undo_and_redo_restore_every_mask(session: Session) -> None:
    session.prompt(POINT, 3, "Ada")
    one = all_masks(session)
    done(session)
    two = all_masks(session)
    session.prompt(BOX, 3)
    session.remove(1)
    assert [each.id for each in session.state.objects] == [2]
    assert session.undo() == "remove grasper (1)"
    assert session.undo() == "add tissue (2) on frame 3"
    assert (all_masks(session), len(session.state.objects)) == (two, 1)
    assert session.undo().startswith("track forward 3 to")
    assert all_masks(session) == one != two
    session.redo()
    assert all_masks(session) == two
    session.undo()
    session.rename(1, "hook")
    with pytest.raises(PromptError, match="nothing was undone"):
        session.redo()  # a new change has taken its place
    session.undo()
    session.undo()
    assert session.state.objects == ()
    with pytest.raises(PromptError, match="nothing is left"):
        session.undo()
    assert ("Ada", "add grasper (1) on frame 3") in [(who, text) for _, who, text in session.store.log()]


def test_a_preview_changes_nothing_and_is_what_is_accepted(session: Session) -> None:
    first = session.preview(POINT, 2)
    assert (session.state.objects, all_masks(session)) == ((), {})
    session.prompt(POINT, 2)
    assert (seen(session, 2) == first.mask_hw).all()
    done(session)
    corrected = Prompt(1, points=[(30.0, 30.0, 1)])
    second = session.preview(corrected, 10)
    before = all_masks(session)
    assert all_masks(session) == before
    session.prompt(corrected, 10)
    assert (seen(session, 10) == second.mask_hw).all()
    assert (second.mask_hw != first.mask_hw).any()  # negative control


def test_it_stops_and_goes_on_as_if_it_had_not_stopped(session: Session, recipe: Recipe, tmp_path: Path) -> None:
    session.prompt(POINT, 0)
    done(session)
    whole = all_masks(session)
    session.undo()
    halfway = threading.Event()
    session.worker.tell = lambda done, of: done < 7 or (halfway.set(), session.worker.stopped.wait(20))  # type: ignore[assignment]
    session.track("forward")
    session._tracking.worker = session.worker
    assert halfway.wait(60)
    with pytest.raises(PromptError, match="track forward is under way; stop it"):
        session.prompt(BOX, 0)
    assert session.stop()
    assert not session.stop()
    part = all_masks(session)
    assert 1 < len(part) < len(whole)
    session.worker.tell = lambda done, of: None  # type: ignore[method-assign]
    done(session)
    assert all_masks(session) == whole


KILLED = """
import sys
from pathlib import Path
from rtseg.base.types import Prompt
from rtseg.console import recording_tracking
from rtseg.console.recording_session import Session
from tests.console.test_recording_session import recipe_of
recording_tracking.SAVE_S = 0.0
session = Session(sys.argv[1], recipe_of(sys.argv[2]), Path(sys.argv[3]))
session.prompt(Prompt(1, points=[(80.0, 60.0, 1)], label="grasper"), 0, "Ada")
def saved():
    print(len([n for n in range(20) if session.store.masks(n)]), flush=True)
    if len(session.store.masks(6)):
        sys.stdin.read()  # until it is killed
session.on_change = saved
session.track("forward")
session.worker.wait()
"""


def recipe_of(weights: str) -> Recipe:
    return replace(load_recipe(weights=weights, image_size=64), model="nano-hiera", runtime="torch")


@pytest.mark.slow
def test_a_kill_loses_nothing(tmp_path: Path, clip: Path, recipe: Recipe) -> None:
    folder = tmp_path / "session"
    command = [sys.executable, "-c", KILLED, str(clip), str(recipe.weights), str(folder)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=root,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert process.stdout is not None
    told = 0
    while told < 7:
        told = int(process.stdout.readline() or 99)
    with pytest.raises(ConfigError, match="open in another process"):
        Session(clip, recipe, folder)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Session(clip, recipe, folder) as session:
        assert len(all_masks(session)) == told == 7
        assert spans(session)[0] == (0, 0, "prompt")
        assert session.state.get(1).ahead == (6,)
        assert next(who for _, who, _ in session.store.log()) == "Ada"
        done(session)
        assert all(kinds(session, n) for n in range(COUNT))
        before, state = all_masks(session), session.status()
    with Session(clip, recipe, folder) as session:  # closed in order, and opened again
        assert (all_masks(session), session.status()) == (before, state)
        assert session.undo().startswith("track forward 6")


def test_it_refuses_in_one_line(tmp_path: Path, clip: Path, recipe: Recipe, session: Session) -> None:
    with pytest.raises(ConfigError, match="a session of another recording"):
        session.close()
        Session("synthetic:laparoscopy?seconds=0.2&seed=7&width=160&height=120&fps=25", recipe, session.folder)
    with Session(clip, recipe, session.folder) as again:
        for wrong, why in (
            (lambda: again.track("forward"), "no object is prompted"),
            (again.export, "no object is prompted"),
            (lambda: again.remove(3), "no object 3 is in this recording; there are: none"),
            (lambda: again.lock(1, 5, 30), "expected first <= last, from 0 to 19"),
            (lambda: again.track("sideways"), "expected forward, backward or both"),  # type: ignore[arg-type]
            (lambda: again.prompt(Prompt(1, points=[(500.0, 3.0, 1)]), 0), "outside the 160x120 frame"),
            (lambda: again.prompt(POINT, 0, new=False), "no object 1"),
        ):
            with pytest.raises(PromptError, match=why) as found:
                wrong()
            assert "\n" not in str(found.value)
        assert again.state.objects == ()
        again.prompt(POINT, 0)
        with pytest.raises(PromptError, match="there already"):
            again.prompt(POINT, 1, new=True)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    (damaged / "session.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OutputError, match="cannot be used"):
        Session(clip, recipe, damaged)


def test_what_no_undo_reaches_is_deleted(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording_store, "UNDOABLE", 4)
    session.prompt(POINT, 0)
    session.prompt(BOX, 1)
    session.remove(2)
    for number in range(12):
        session.prompt(Prompt(1, points=[(10.0 + number, 20.0, 1)]), 0)
    shown = all_masks(session)
    rows = session.store._db.execute("SELECT count(*) FROM masks").fetchone()[0]
    assert rows <= 4 + 4 + 1  # a prompt a change, not 15
    assert all_masks(session) == shown
    for _ in range(4):
        session.undo()


def test_overlapping_masks_keep_the_id_map() -> None:
    from rtseg.base.types import Frame, Masks
    from rtseg.console.recording_masks import shown_masks
    from rtseg.console.recording_state import Tracked
    from rtseg.offline.direction_masks import stored_masks

    logits_bhw = np.random.default_rng(1).normal(size=(3, 40, 60)).astype(np.float32)
    frame = Frame(np.zeros((40, 60, 3), np.uint8), 5)
    ids, labels, scores = (1, 2, 7), ("a", "b", "c"), (0.5, 0.6, 0.7)
    masks = Masks(5, "", 0, 0, 40, 60, ids, labels, scores, (0.1, 0.2, 0.3), logits_bhw, lost=(2,))
    objects = [Tracked(key, object_id, str(object_id)) for key, object_id in ((10, 1), (11, 2), (12, 7))]
    kept = stored_masks(masks, masks.ids)
    again = shown_masks(frame, objects, {each.key: kept[each.id] for each in objects})
    assert (again.id_map() == masks.id_map()).all()
    assert all((again.mask(i) == masks.mask(i)).all() for i in masks.ids)
    assert (again.scores, again.ious, again.lost) == (masks.scores, masks.ious, masks.lost)
    without = {key: replace(mask, wins=None) for key, mask in ((e.key, kept[e.id]) for e in objects)}
    assert (shown_masks(frame, objects, without).id_map() != masks.id_map()).any()  # negative control
