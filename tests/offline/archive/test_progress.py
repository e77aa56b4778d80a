"""Progress over a whole archive: videos weigh what their files do, and what was skipped says nothing about speed."""

from __future__ import annotations

import pytest

from rtseg.offline.archive.jobs import Outcome
from rtseg.offline.archive.manifest import Row
from rtseg.offline.archive.options import Options
from rtseg.offline.archive.progress import Progress, spoken
from rtseg.offline.archive.scheduler import Video


def row(line: int, size: int | None) -> Row:
    return Row(line, ("x",), "p", str(line), Options(), ({"bytes": size} if size else {},))


ROWS = [row(1, 100), row(2, 300), row(3, 400), row(4, 200)]


def ended(line: int, state: str = "done", frames: int = 0) -> Video:
    return Video(ROWS[line - 1], Outcome(line, state, frames=frames))  # type: ignore[arg-type]


def test_the_time_left_follows_from_the_bytes_that_were_worked_on() -> None:
    progress = Progress(ROWS, began=10.0)
    assert progress.left_s({}, 20.0) is None
    progress.end(ended(1))
    assert progress.share({}) == pytest.approx(0.1)
    assert progress.left_s({}, 20.0) == pytest.approx(90)  # 100 bytes took 10 s
    half = {2: ("segment", 50, 100)}
    assert progress.share(half) == pytest.approx(0.25)  # type: ignore[arg-type]
    assert progress.left_s(half, 20.0) == pytest.approx(30)  # type: ignore[arg-type]


def test_what_was_skipped_is_done_and_says_nothing_about_speed() -> None:
    progress = Progress(ROWS, began=0.0)
    progress.end(ended(3, "skipped"))
    progress.end(ended(4, "failed"))
    assert progress.share({}) == pytest.approx(0.6)
    assert progress.left_s({}, 50.0) is None
    progress.end(ended(1))
    assert progress.left_s({}, 50.0) == pytest.approx(150)


def test_a_video_without_a_size_weighs_the_mean() -> None:
    progress = Progress([row(1, 100), row(2, 300), row(3, None)], 0.0)
    progress.end(ended(1))
    assert progress.share({}) == pytest.approx(100 / 600)


def test_the_line() -> None:
    progress = Progress(ROWS, 0.0)
    progress.end(ended(1, frames=50))
    progress.end(ended(2, "failed"))
    line = progress.line({3: ("segment", 50, 100), 4: ("fetch", 0, None)}, 2, 10.0)
    assert line == "2 of 4 videos (60.0%), 1 failed; 2 at work, 10 frames/s; about 13 s left"


@pytest.mark.parametrize(("seconds", "text"), [
    (45, "45 s"), (700, "12 min"), (3 * 3600 + 290, "3 h 05 min"), (4.3 * 86400, "4 d 7 h"),
])  # fmt: skip
def test_durations_are_spoken(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
