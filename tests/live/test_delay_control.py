"""A network that is too slow for its budget: the feed says so and by how much, and does what its profile allows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rtseg.base.errors import ConfigError
from rtseg.engine.reach import advice, nearest, needed_ms, size_for
from rtseg.engine.recipe import Recipe
from rtseg.live.profile import StreamProfile, load_stream
from tests.live.conftest import SOURCE, Running

Start = Callable[[StreamProfile], Running]
Faults = Callable[..., None]


@pytest.mark.slow
def test_a_feed_that_is_behind_says_so_and_takes_the_smaller_picture_that_it_may(
    profile: StreamProfile, faults: Faults, running: Start
) -> None:
    """The network takes 0.2 s at 320 px, and next to nothing at 64."""
    faults(slow=0.2, slow_above=64)
    run = running(replace(profile, source=SOURCE.format(120), carry="behind", least_image_size=64))
    assert run.watcher is not None

    def said() -> list[dict[str, Any]]:
        return [m.status()["behind"] for m in run.watcher.got["status"] if m.status().get("behind")]  # type: ignore[union-attr]

    run.until(said)
    assert said()[0]["segmented_fps"] < 10 < said()[0]["wanted_fps"] and said()[0]["fresh"] < 0.9
    assert "image_size" in said()[0]["advice"]
    run.until(lambda: run.state.recipe.image_size == 64)
    run.until(lambda: run.state.phase == "running" and run.state.delay.lag is None)
    assert run.state.workers["segment"].restarts == 0
    fresh = run.state.board["masks fresh"]
    run.until(lambda: run.state.board["masks fresh"] > fresh + 50)
    shares = run.watcher.got["status"][-1].status()["processes"]
    assert shares["segment"]["threads"] >= 1 and set(shares["grab"]) >= {"threads", "cores"}
    report = run.finish()
    assert report["behind"]["then image_size"] == 64 and report["cores"]["used"].keys() == set(shares)
    assert any(m.header.get("carried") is True or m.header["state"] == "fresh" for m in run.watcher.got["overlay"])


@pytest.mark.slow
def test_a_network_that_is_known_to_be_too_slow_begins_with_the_smaller_picture(
    profile: StreamProfile, faults: Faults, running: Start
) -> None:
    faults(slow=0.2, slow_above=64, slow_warm=True)
    run = running(replace(profile, source=SOURCE.format(120), least_image_size=64))
    assert run.state.recipe.image_size == 64
    run.until(lambda: run.state.board["masks fresh"] > 20)
    assert "behind" not in run.finish()


@pytest.mark.slow
def test_one_that_keeps_up_says_nothing(profile: StreamProfile, faults: Faults, running: Start) -> None:
    run = running(replace(profile, source=SOURCE.format(120), least_image_size=64))
    run.until(lambda: run.state.board["masks fresh"] > 200)
    assert run.state.delay.lag is None and run.state.recipe.image_size == Recipe().image_size
    assert "behind" not in run.finish()


def test_the_advice_names_what_would_hold() -> None:
    assert needed_ms(120, 25) == 60 and needed_ms(60, 25) == 40 and needed_ms(30, 25) == 15
    nano, micro = Recipe(), Recipe("micro", "package:micro", 224)
    assert size_for(nano, 100, 60, 64) < size_for(nano, 70, 60, 64) < 320 == size_for(nano, 60, 60, 64)
    assert nearest(nano, 70, 60).setting == "image_size = 288" and "micro" in nearest(nano, 160, 60).setting
    assert "image_size" in nearest(micro, 75, 60).setting and nearest(micro, 900, 60).step_ms > 60
    assert "the nearest there is" in advice(micro, "", 900, 120, 25)
    assert "rtseg build" in advice(nano, "cpu (not built yet)", 160, 120, 25)
    assert "something else" in advice(micro, "", 30, 120, 25)


def test_a_least_image_size_must_fit_the_engine(tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text('source = "x.mp4"\nleast_image_size = 160\n')
    assert load_stream(path).least_image_size == 160
    for wrong in ("352", "150", "32", '"small"'):
        path.write_text(f'source = "x.mp4"\nleast_image_size = {wrong}\n')
        with pytest.raises(ConfigError, match="least_image_size"):
            load_stream(path)
