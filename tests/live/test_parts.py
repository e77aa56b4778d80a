"""The parts of a supervisor: what is kept of an object, when a process starts again, what a message carries."""

from __future__ import annotations

import mmap
import os
from dataclasses import asdict
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest

from rtseg.base.errors import PromptError
from rtseg.base.types import Color, Frame, Masks, Prompt
from rtseg.engine.policy import MAX_CONDITIONING
from rtseg.live.board import Board
from rtseg.live.child import back_off_s
from rtseg.live.heard import Heard
from rtseg.live.keep import Keep
from rtseg.live.link import Link
from rtseg.live.pace import Pace
from rtseg.live.parcels import frame_meta, frame_of, masks_of, masks_parcel, prompt_of, prompt_parcel
from rtseg.live.profile import StreamProfile
from rtseg.live.state import Facts, has_recovered, state_of
from rtseg.live.statement import _memory, plain_config, sha256_of
from rtseg.live.supervisor import Feed


def frame(seq: int) -> Frame:
    return Frame(np.full((6, 8, 3), seq, np.uint8), seq, "s", color=Color("bt709", "limited"), interlaced=True)


def click(object_id: int, label: str | None = None) -> Prompt:
    return Prompt(object_id, points=((1.0, 1.0, 1),), label=label)


def test_values_cross_unchanged() -> None:
    there = frame(5)
    back = frame_of(5, frame_meta(there), there.image_hwc.reshape(-1))
    for name in ("seq", "session", "pts", "time_base", "captured_ns", "pixfmt", "color", "interlaced"):
        assert getattr(back, name) == getattr(there, name)
    np.testing.assert_array_equal(back.image_hwc, there.image_hwc)
    assert frame_of(5, frame_meta(there)).width == 8  # without the picture
    logits = np.random.default_rng(0).standard_normal((2, 4, 4)).astype(np.float32)
    masks = Masks(3, "s", 1, 2, 6, 8, (1, 7), ("a", "b"), (0.5, 1.0), (0.1, 0.2), logits)
    meta, flat = masks_parcel(masks)
    again = masks_of(meta, flat.reshape(-1))
    np.testing.assert_array_equal(again.mask_logits_bhw, logits)
    assert repr(again) == repr(masks)
    mask_hw = np.zeros((6, 8), bool)
    mask_hw[2:4, 3:5] = True
    for prompt in (click(1, "x"), Prompt(2, box=(0.0, 0.0, 3.0, 3.0)), Prompt(3, mask=mask_hw)):
        same = prompt_of(prompt_parcel(prompt))
        assert (same.id, same.points, same.box, same.label) == (prompt.id, prompt.points, prompt.box, prompt.label)
        assert prompt.mask is None or (same.mask == prompt.mask).all()


def memfds(name: str) -> int:
    """How many of this name this process holds; what else is open may be closed at any time, by a collected object."""
    links = (str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink())
    return sum(link.startswith(f"/memfd:{name} ") for link in links)


def test_of_each_object_the_first_and_the_latest_pictures_are_kept() -> None:
    keep, before = Keep(2), memfds("rtseg-kept")
    for seq in range(10):
        keep.check(click(1), frame(seq), new=seq == 0)
        keep.add(keep.picture(frame(seq)), click(1, f"name {seq}"))
    said = list(keep.replay())
    assert [picture.seq for picture, _ in said] == [0, 7, 8, 9] and len(said) == MAX_CONDITIONING
    assert {p.label for _, prompts in said for p in prompts} == {"name 9"}
    assert memfds("rtseg-kept") == before + MAX_CONDITIONING  # what is let go is closed
    keep.add(keep.picture(frame(9)), click(2))
    assert memfds("rtseg-kept") == before + MAX_CONDITIONING  # one picture for both
    assert [p.id for p in list(keep.replay())[-1][1]] == [1, 2]
    pixels = os.pread(said[0][0].fd, 1000, 0)
    assert pixels == frame(0).image_hwc.tobytes()
    del said
    keep.remove(1)
    assert keep.ids == (2,) and memfds("rtseg-kept") == before + 1


def test_prompts_that_make_no_sense_are_refused_in_one_line() -> None:
    keep = Keep(1)
    keep.add(keep.picture(frame(0)), click(1))
    for prompt, new, why in [
        (click(1), True, "tracked already; correct it"),
        (click(2), False, "no object 2"),
        (click(2), True, "1 objects are tracked already"),
        (Prompt(1, points=((99.0, 1.0, 1),)), False, "outside the 8x6 frame"),
    ]:
        with pytest.raises(PromptError, match=why):
            keep.check(prompt, frame(0), new=new)


def test_a_process_that_works_is_started_again_at_once_and_one_that_does_not_less_and_less_often() -> None:
    waits = [back_off_s(n, 0.5) for n in range(1, 12)]
    assert waits[0] == 0 and waits[1] == pytest.approx(0.25) and waits == sorted(waits) and waits[-1] == 8
    assert back_off_s(3, 0.0) < back_off_s(3, 1.0)


def test_a_link_carries_messages_of_any_length_and_says_when_the_other_end_is_gone() -> None:
    ours, theirs = (Link(end) for end in Link.pair())
    before, held = memfds("rtseg-message"), memfds("rtseg-test")
    fd = os.memfd_create("rtseg-test")
    assert ours.send("short", n=1) and ours.send("long", (fd,), data=b"y" * 1_000_000)
    (short, _), (long, fds) = theirs.receive()
    assert short == {"say": "short", "n": 1} and len(long["data"]) == 1_000_000 and len(fds) == 1
    assert memfds("rtseg-test") == held + 2
    os.close(fds[0])
    os.close(fd)
    assert memfds("rtseg-test") == held and memfds("rtseg-message") == before
    while ours.send("flood", data=b"z" * 10_000):  # nobody reads: it says so, and does not wait
        pass
    assert not ours.closed
    assert theirs.send("refused", text="its last words")
    theirs.close()  # without having read what was said to it
    assert not ours.send("anybody?")
    assert ours.receive() == [({"say": "refused", "text": "its last words"}, [])] and ours.closed


def test_a_board_outlives_who_counts_on_it() -> None:
    board = Board.create()
    board.add("shown", 3)
    board.stages["segment"].add(12.0)
    other = Board(os.dup(board.fd))
    other.add("dropped ring")
    assert board.decided() == 4 and other.stages["segment"].summary()["max"] == 12.0
    with pytest.raises(KeyError):
        board["showm"]


def test_the_worst_news_is_the_state() -> None:
    assert state_of(Facts(source="running")) == "running"
    assert state_of(Facts(source="running", recovering=True, paused=True)) == "paused"
    assert state_of(Facts(source="stalled", recovering=True, failed=True)) == "stalled"
    assert state_of(Facts(source="running", failed=True)) == "failed"
    assert state_of(Facts(source="lost", over=True)) == "ended"


def test_masks_of_before_the_crash_are_no_recovery() -> None:
    board = Board.create()
    board["masks captured_ns"] = 1_000_000_000
    assert not has_recovered(board, 1_010_000_000, since_ns=1_000_000_000, budget_ms=120)
    board["masks captured_ns"] = 1_005_000_000
    assert has_recovered(board, 1_010_000_000, since_ns=1_000_000_000, budget_ms=120)
    assert not has_recovered(board, 1_500_000_000, since_ns=1_000_000_000, budget_ms=120)
    board["masks captured_ns"] = 6_000_000_000  # a network that is always late is back all the same
    assert has_recovered(board, 6_500_000_000, since_ns=1_000_000_000, budget_ms=120)


def test_pace_and_jitter() -> None:
    pace = Pace(25)
    assert sum(pace.is_early(n / 50) for n in range(100)) == 50
    assert not any(Pace(25).is_early(n / 25 + 0.002 * (n % 3)) for n in range(1))
    steady = Pace(25)
    assert not any(steady.is_early(n / 25 + 0.004 * (n % 3)) for n in range(100))
    for n, late_ms in enumerate([0, 0, 5, 0]):
        pace.shown(n, n / 25)
        jitter = pace.jitter_ms(n, round((n / 25 * 1e3 + late_ms) * 1e6))
        assert jitter == (None if n == 0 else pytest.approx([0, 0, 5, 5][n]))
    assert pace.jitter_ms(77, 0) is None


def test_the_hash_of_a_configuration_counts_every_pixel() -> None:
    mask_hw = np.zeros((200, 300), bool)
    mask_hw[90:110, 140:160] = True
    other_hw = mask_hw.copy()
    other_hw[100, 150] = False
    assert str(mask_hw) == str(other_hw)  # numpy's text leaves the middle out

    def hashed(mask_hw: np.ndarray) -> str:  # type: ignore[type-arg]
        return sha256_of(asdict(StreamProfile("clip.mp4", objects=(Prompt(1, mask=mask_hw),), path=Path("s.toml"))))

    assert hashed(mask_hw) != hashed(other_hw)
    assert hashed(mask_hw) == hashed(np.asfortranarray(mask_hw))
    assert hashed(mask_hw) != hashed(mask_hw.reshape(300, 200))
    with pytest.raises(TypeError, match="has no hash"):
        sha256_of({"what": object()})


def test_memory_is_counted_in_pages_of_the_system(monkeypatch: pytest.MonkeyPatch) -> None:
    real, large = _memory(os.getpid())["rss_bytes"], 65536
    monkeypatch.setattr(os, "sysconf", lambda name: large)
    assert 0.8 < _memory(os.getpid())["rss_bytes"] / (real * large / mmap.PAGESIZE) < 1.25


def test_the_engine_has_one_text_on_the_wire_also_after_a_restart(tmp_path: Path) -> None:
    feed = Feed(StreamProfile("clip.mp4"))
    feed.began_ns = 0
    feed.remedy, feed.network = Mock(), Mock()
    feed.children = {"publish": Mock(), "segment": Mock(role="segment", silent_s=1.0)}
    Heard(feed)._on_ready(feed.children["segment"], engine="nano, cpu: kernels, memory efp", step_ms=1.0)
    said = {call.args[0]: call.kwargs for call in feed.children["publish"].say.call_args_list}
    assert said["engine"]["engine"] == plain_config("publish", feed)["engine"] == feed.engine != ""
