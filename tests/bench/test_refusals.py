"""A mistake in a profile is the last line that `rtseg live` says, however busy the machine."""

from __future__ import annotations

import pytest

from bench.refusals import MISTAKES, WITHIN_S, play


@pytest.mark.slow
def test_the_cause_is_the_last_line() -> None:
    rows = play(["bind without keys", "box outside"], count=2, note=print)
    assert [row["ok"] for row in rows] == [True, True], rows


@pytest.mark.slow
def test_the_cause_of_every_mistake_is_the_last_line_beside_four_busy_processes() -> None:
    """The last row is the negative control: the profile without a mistake plays."""
    rows = play([], count=4, note=print)
    wrong = [row for row in rows if not row["ok"] and row["s"] <= WITHIN_S]  # how long it takes is for the bench to say
    assert len(rows) == len(MISTAKES) + 1 and not wrong, wrong
