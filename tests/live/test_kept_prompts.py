"""What a person pointed at is there again when the feed is started anew; a file that is not whole costs one line."""

from __future__ import annotations

import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rtseg import Frame, Prompt
from rtseg.base.errors import ConfigError, OutputError
from rtseg.live import prompt_keeper
from rtseg.live.control import Client
from rtseg.live.kept_file import read_kept
from rtseg.live.object_looks import Choice
from rtseg.live.profile import StreamProfile
from rtseg.live.prompt_history import Picture, PromptHistory
from rtseg.live.prompt_keeper import PromptKeeper, snapshot
from tests.live.conftest import SOURCE, Running

H, W = 60, 80
MASK_HW = np.zeros((H, W), bool)
MASK_HW[10:30, 5:50] = True


def picture(seq: int) -> Frame:
    return Frame(np.random.default_rng(seq).integers(0, 255, (H, W, 3), dtype=np.uint8), seq, "s")


def filled() -> tuple[PromptHistory, dict[int, Choice]]:
    history = PromptHistory(4)
    first, later = Picture.from_frame(picture(10)), Picture.from_frame(picture(40))
    history.add(first, Prompt(1, box=(1, 2, 30, 40), label="grasper"))
    history.add(first, Prompt(2, mask=MASK_HW))
    history.add(later, Prompt(1, points=[(3.5, 4, 1), (70, 50, 0)]))
    history.rename(1, "hook")
    return history, {1: Choice((1, 2, 3), True)}


@pytest.fixture()
def path(tmp_path: Path) -> Path:
    keeper = PromptKeeper(tmp_path / "kept.rtseg", "room")
    assert keeper.note(snapshot(*filled())) == "" == keeper.close()
    return tmp_path / "kept.rtseg"


def test_prompts_pictures_labels_and_looks_come_back(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and list(path.parent.iterdir()) == [path]
    back, keeper = PromptHistory(4), PromptKeeper(path, "room")
    restored = keeper.restore(back, 4)
    assert restored is not None and restored[0] == {1: Choice((1, 2, 3), True), 2: Choice()}
    found = [(one.seq, [p.id for p in prompts]) for one, prompts in back.replay()]
    assert found == [(-2, [1, 2]), (-1, [1])] and back.label(1) == "hook" and back.label(2) is None
    (first, (box, mask)), (later, (points,)) = back.replay()
    assert box.box == (1, 2, 30, 40) and points.points == ((3.5, 4.0, 1), (70.0, 50.0, 0))
    assert mask.mask is not None and np.array_equal(mask.mask, MASK_HW)
    for one, seq in ((first, 10), (later, 40)):
        assert np.array_equal(prompt_keeper._pixels(one), picture(seq).image_hwc)
    written = path.stat().st_mtime_ns
    keeper.note(snapshot(back, restored[0]))  # what was read is not written again
    assert keeper.close() == "" and path.stat().st_mtime_ns == written
    back.check(Prompt(1, points=[(3, 3, 1)]), picture(0), new=False)  # a new run counts from 0: all that is later


def test_a_file_that_is_damaged_or_of_another_feed_is_refused_in_one_line(path: Path) -> None:
    whole = path.read_bytes()
    for content, why in [
        (b"", "is not a file of kept prompts"), (b"\x89PNG" + whole, "is not a file of kept prompts"),
        (whole[:-1], "is damaged"), (whole[:60] + b"!" + whole[61:], "is damaged"), (whole[:40], "is damaged"),
    ]:  # fmt: skip
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=f"{path}: {why}; expected") as error:
            PromptKeeper(path, "room").restore(PromptHistory(4), 4)
        assert "\n" not in str(error.value) and path.read_bytes() == content
    path.write_bytes(whole)
    with pytest.raises(ConfigError, match="keeps the prompts of another stream, 'room'"):
        read_kept(path, "another")
    with pytest.raises(ConfigError, match="2 objects; the recipe says max_objects = 1; raise it"):
        PromptKeeper(path, "room").restore(PromptHistory(1), 1)
    with pytest.raises(OutputError, match="keep = .*cannot be written .*choose another file"):
        PromptKeeper(path.parent, "room")
    with pytest.raises(OutputError, match="keep = .*cannot be written .*choose another file"):
        PromptKeeper(path / "x", "room")
    assert read_kept(path.with_name("absent"), "room") is None and read_kept(path, "room") is not None


def test_a_file_that_cannot_be_written_is_told_once_and_the_old_one_stays(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, keeper = path.read_bytes(), PromptKeeper(path, "room")
    history, _ = filled()
    real = prompt_keeper.write_kept

    def fail(*_: object) -> None:
        raise OutputError("no space left")

    monkeypatch.setattr(prompt_keeper, "write_kept", fail)
    keeper.note(snapshot(history, {}))
    assert keeper.close() == "no space left" and path.read_bytes() == whole
    assert keeper.note(snapshot(history, {})) == "no space left" and keeper.note(snapshot(history, {})) == ""
    monkeypatch.setattr(prompt_keeper, "write_kept", real)


def test_a_feed_that_is_started_again_has_its_objects(
    profile: StreamProfile, faults: Callable[..., None], running: Callable[[StreamProfile], Running], tmp_path: Path
) -> None:
    keep = tmp_path / "kept"
    profile = replace(profile, source=SOURCE.format(60), control="tcp://127.0.0.1:*", keep=keep)
    run = running(profile)
    run.until(lambda: run.state.board["masks objects"] == 1)
    assert not keep.exists()  # nobody has pointed at anything yet
    with Client(run.state.control) as client:
        client.add(2, box=(10, 10, 60, 60), label="hook")
        client.look(2, color=(1, 2, 3))
        run.until(keep.exists)
    run.finish()
    assert run.report["ok"]
    run = running(replace(profile, objects=()))
    run.until(lambda: run.state.board["masks objects"] == 2 and run.state.phase == "running")
    assert any("objects 1, 2, as" in event for event in run.state.events)
    with Client(run.state.control) as client:
        found = {o["id"]: (o["label"], o["color"]) for o in client.status()["objects"]}
        assert found[1][0] == "grasper" and found[2] == ("hook", [1, 2, 3])
        client.correct(2, box=(30, 30, 90, 90))
        client.remove(1)
    run.finish()
    kept = read_kept(keep, "room")
    assert kept is not None and [thing.id for thing in kept.objects] == [2] and len(kept.objects[0].prompts) == 2
