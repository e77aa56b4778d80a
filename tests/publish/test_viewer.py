from __future__ import annotations

import threading
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest

from rtseg.base.errors import OutputError
from rtseg.base.types import now_ns
from rtseg.publish import viewer
from rtseg.publish.overlay import draw_overlay
from rtseg.publish.publisher import Publisher
from rtseg.publish.viewer import dimmed, view
from rtseg.publish.window import DISPLAYS


class _Feed:
    """Publishes the overlay of one picture, 50 times a second, until told to stop."""

    def __init__(self, frame, lag_ms: float = 0) -> None:
        self._frame, self._lag_ns, self._stop = frame, round(lag_ms * 1e6), threading.Event()
        self._publisher = Publisher("tcp://127.0.0.1:*")
        self.endpoint = self._publisher.endpoint
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        seq = 0
        while not self._stop.wait(0.02):
            frame = replace(self._frame, seq=seq, captured_ns=now_ns() - self._lag_ns)
            self._publisher.publish_overlay(frame, draw_overlay(frame, None))
            seq += 1

    def stop(self) -> None:
        self._stop.set()

    def __enter__(self) -> _Feed:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()
        self._thread.join()
        self._publisher.close()


class _FakeWindow:
    """Remembers what it was to show; quits when `until` says so."""

    def __init__(self, until) -> None:
        self.shown: list[np.ndarray] = []
        self.closed = False
        self._until, self._end = until, time.monotonic() + 30

    def show(self, image_hwc) -> None:
        self.shown.append(image_hwc)

    def quit(self) -> bool:
        return self._until(self.shown) or time.monotonic() > self._end

    def close(self) -> None:
        self.closed = True


def _grey(image_hwc) -> bool:
    return bool((image_hwc[..., :1] == image_hwc).all())


def test_headless_counts_and_saves_what_was_sent(make_frame, tmp_path):
    frame = make_frame()
    with _Feed(frame) as feed:
        summary = view(feed.endpoint, headless=True, save=tmp_path / "new" / "folder", frames=3, seconds=60)
    saved = sorted((tmp_path / "new" / "folder").iterdir())
    assert summary["ok"] and "why" not in summary
    assert (summary["frames"], summary["outages"], summary["bad"], summary["state"]) == (3, 0, 0, "none")
    assert 0 <= summary["age_ms_p50"] < 1000
    assert [path.suffix for path in saved] == [".png"] * 3
    for path in saved:
        assert np.array_equal(cv2.imread(str(path))[..., ::-1], frame.image_hwc)


def test_a_publisher_that_is_not_there_is_no_signal():
    summary = view("tcp://127.0.0.1:1", headless=True, seconds=1.2)
    assert (summary["frames"], summary["outages"], summary["silent"]) == (0, 1, True)
    assert summary["seconds"] >= 1.2
    assert summary["ok"] is False
    why = "nothing came from tcp://127.0.0.1:1 in 1 s: is a feed published there, and is [publish] its port?"
    assert summary["why"] == why


def test_a_frozen_picture_never_passes_for_live(make_frame, monkeypatch):
    frame = make_frame()
    with _Feed(frame) as feed:

        def until(shown: list[np.ndarray]) -> bool:
            if len(shown) >= 3:
                feed.stop()
            return bool(shown) and _grey(shown[-1])

        window = _FakeWindow(until)
        monkeypatch.setattr(viewer, "Window", lambda title: window)
        summary = view(feed.endpoint)
    assert np.array_equal(window.shown[0], frame.image_hwc)
    assert _grey(window.shown[-1])
    assert summary["outages"] == 1
    assert window.closed


@pytest.mark.parametrize(("lag_ms", "grey"), [(0, False), (1500, True)])
def test_a_late_picture_never_passes_for_live(make_frame, monkeypatch, lag_ms, grey):
    window = _FakeWindow(bool)
    monkeypatch.setattr(viewer, "Window", lambda title: window)
    with _Feed(make_frame(), lag_ms) as feed:
        view(feed.endpoint)
    assert _grey(window.shown[0]) == grey


def test_the_veil_darkens_and_writes():
    plain_hwc = np.full((180, 320, 3), (200, 60, 60), np.uint8)
    one, two = dimmed(plain_hwc, "NO SIGNAL for 1 s"), dimmed(plain_hwc, "NO SIGNAL for 2 s")
    assert _grey(one)
    assert one[0, 0, 0] < 60
    assert (one == 255).any()
    assert not np.array_equal(one, two)


def test_without_a_display_it_says_so(monkeypatch):
    for name in DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutputError, match="--headless"):
        view("tcp://127.0.0.1:1", seconds=0.1)


def test_a_folder_that_cannot_be_made_ends_the_view_at_once(tmp_path):
    (tmp_path / "file").touch()
    start_s = time.monotonic()
    for folder in (tmp_path / "file", tmp_path / "file" / "folder"):
        with pytest.raises(OutputError, match=f"^{folder}: cannot be written") as caught:
            view("tcp://127.0.0.1:1", headless=True, save=folder, seconds=5)
        assert "\n" not in str(caught.value)
    assert time.monotonic() - start_s < 5  # with no picture at all


def test_a_folder_that_goes_away_ends_the_view(make_frame, tmp_path, monkeypatch):
    monkeypatch.setattr(viewer, "_make", lambda folder: None)
    with _Feed(make_frame()) as feed, pytest.raises(OutputError, match="cannot be written"):
        view(feed.endpoint, headless=True, save=tmp_path / "missing", seconds=60)


def test_messages_without_a_picture_are_no_success(make_frame, monkeypatch):
    def broken(self, message) -> None:
        self.bad += 1

    monkeypatch.setattr(viewer._Watcher, "receive", broken)
    with _Feed(make_frame()) as feed:
        summary = view(feed.endpoint, headless=True, seconds=0.6)
    assert summary["ok"] is False and summary["bad"] > 0
    assert "and no picture in them" in summary["why"]
