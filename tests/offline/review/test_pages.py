"""Report and index in Chromium, from their files: accessible, at desktop and phone width, sorted by the keyboard."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rtseg.offline.review import write_index, write_report
from tests.offline.review.results import STILL, write_result

CHROMIUM = Path("/usr/bin/chromium")
AXE = Path(__file__).parents[3] / "out" / "page" / "node_modules" / "axe-core" / "axe.min.js"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not CHROMIUM.exists(), reason="Chromium is not installed: apt-get install chromium"),
]
LONG = "a-recording-with-a-name-that-has-no-end-" * 4
GAP = {"before": 60, "seconds": 3603.0, "lost": 15, "why": "packets of the stream are missing"}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three results with something of everything, and their index."""
    folder = tmp_path_factory.mktemp("archive")
    for name, count in (("b", 100), (LONG, 120), ("a", 90)):
        out = write_result(
            folder / name,
            lambda frame: {
                1: (STILL, 0.2 if frame == 30 else 0.95), 2: None if 20 < frame < 70 else ((90, 10, 150, 60), 0.8)
            },
            count, cuts=[50], source_account={"gaps": [GAP]}, warnings=["frame 3: the object is small"],
            complete=name != "b", ended="the disk is full" if name == "b" else "", source=f"{LONG}.mp4",
        )  # fmt: skip
        write_report(out)
    write_index(folder)
    return folder


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield found
        found.close()


def opened(browser: Any, path: Path, width: int = 1280, **options: Any) -> Any:
    """A page, and on it `errors`: what went wrong, or was refused by the page's policy."""
    page = browser.new_context(viewport={"width": width, "height": 800}, **options).new_page()
    page.errors = []
    page.on("pageerror", lambda error: page.errors.append(str(error)))
    page.on("console", lambda message: page.errors.append(message.text))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or page.errors.append(request.url))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("file", ["b/report.html", "index.html"])
def test_axe_finds_nothing_and_nothing_is_cut_off(browser: Any, archive: Path, file: str, width: int) -> None:
    if not AXE.exists():
        pytest.skip("axe-core is not installed: npm install --prefix out/page tests/console")
    page = opened(browser, archive / file, width, bypass_csp=True)
    page.add_script_tag(path=str(AXE))

    def violations() -> list[str]:
        return [
            f"{one['id']}: {[node['html'] for node in one['nodes']]}"
            for one in page.evaluate("axe.run()")["violations"]
        ]

    assert violations() == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert page.errors == []
    page.evaluate("document.querySelector('.quiet').style.color = '#222'")
    page.evaluate("document.querySelectorAll('svg[role=img]').forEach((one) => one.removeAttribute('aria-label'))")
    assert violations()  # axe does see what is wrong
    page.context.close()


def test_every_picture_is_shown_and_the_page_loads_nothing(browser: Any, archive: Path) -> None:
    page = opened(browser, archive / "b" / "report.html", java_script_enabled=True)
    sizes = page.evaluate("[...document.images].map((one) => one.naturalWidth)")
    assert len(sizes) >= 6 and set(sizes) == {160}
    assert page.locator("svg[role=img]").count() == 3
    assert page.errors == []
    page.context.close()


def test_the_index_is_sorted_by_the_keyboard(browser: Any, archive: Path) -> None:
    page = opened(browser, archive / "index.html")

    def places() -> list[str]:
        return [
            name[:1] if name != LONG else "long"
            for name in page.locator("tbody th bdi:first-child").all_text_contents()
        ][::2]

    assert places() == ["b", "a", "long"]  # the failure first
    page.get_by_role("button", name="Frames").focus()
    page.keyboard.press("Enter")
    assert places() == ["a", "b", "long"]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "ascending"
    assert page.locator("[role=status]").text_content() == "Sorted by Frames, ascending"
    page.keyboard.press("Space")
    assert places() == ["long", "b", "a"]
    assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
    page.get_by_role("button", name="State").press("Enter")
    assert places()[0] == "b" and page.locator("th[aria-sort]").count() == 1
    assert page.errors == []
    page.locator("tbody a").first.click()
    page.wait_for_url("**/b/report.html")
    page.context.close()
