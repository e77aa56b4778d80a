"""Real feeds, a real console and a page in Chromium, and each of them killed: what the page says, and that it recovers.

`bench.console_kills` has the figures; here events count, because this machine may be busy.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.console_kills import CHROMIUM, FAULTS, NONE, Fault, Stand, trial
from bench.room import ROOT

pytestmark = pytest.mark.slow
TIMES = 1  # python -m bench.console_kills does ten


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not Path(CHROMIUM).exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`nano` with pictures so small that two of them leave room for a browser."""
    path = tmp_path_factory.mktemp("engines") / "small.toml"
    recipe = (ROOT / "engines" / "nano-cpu.toml").read_text()
    path.write_text(recipe.replace("image_size = 320", "image_size = 128"))
    return path


@pytest.mark.timeout(900)  # of which a busy machine may need much: it waits for events
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_the_page_says_what_happened_and_recovers(browser: Any, engine: Path, tmp_path: Path, fault: Fault) -> None:
    with Stand(tmp_path, browser, engine=engine) as stand:
        for number in range(TIMES):
            row = trial(stand, fault, number)
            # It has waited for a word of the fault, and for live pictures after it.
            assert row["alive_share"] < 0.1, row  # of the times that a picture stood still for over a second
            assert set(row["orders"]) <= {"done once", "said not done", "said not known"}, row


@pytest.mark.timeout(900)
def test_a_page_that_never_says_that_its_picture_is_old_is_found(browser: Any, engine: Path, tmp_path: Path) -> None:
    """The negative control; before it, no fault."""
    with Stand(tmp_path, browser, engine=engine) as stand:
        row = trial(stand, NONE, 0)
        assert not {"Recovering", "Failed"} & set(row["words"]), row  # a busy machine may make it late
        stand.page.evaluate('setInterval(() => document.querySelector(".stage").classList.remove("old"), 1)')
        assert trial(stand, FAULTS[-1], 1)["alive_share"] > 0.3


@pytest.mark.timeout(900)
def test_a_wall_of_two_feeds_has_a_state_for_each(browser: Any, engine: Path, tmp_path: Path) -> None:
    with Stand(tmp_path, browser, feeds=2, engine=engine) as stand:
        one, other = stand.names
        assert stand.page.locator(".view:visible").count() == 2
        since = stand.now()
        stand.feeds[1].close()  # it is not started again
        stand.until(lambda: stand.word(other) == "No signal")
        stand.page.wait_for_timeout(1500)
        stand.until(lambda: stand.well(one))
        assert stand.word(other) == "No signal"
        assert "old" in stand.page.locator(f"[aria-label='Feed {other}'] .stage").get_attribute("class")
        assert "old" not in stand.page.locator(f"[aria-label='Feed {one}'] .stage").get_attribute("class")
        seen = stand.seen()
        assert seen["paintedMs"][f"Feed {one}"] > seen["paintedMs"][f"Feed {other}"] + 1000
        gone = [word for at, name, word in seen["words"] if at > since and name == f"Feed {one}"]
        assert "Connection lost" not in gone and "Opening" not in gone
