"""What a feed does about masks that are too old for their budget, as far as the profile allows; advice to the user.

The network may see a smaller picture (`least_image_size`), and masks may be moved along with the picture between the
segmented frames (`carry`). Neither makes a mask younger than it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..base.types import now_ns
from ..engine.reach import SIDES, advice, needed_ms, size_for
from .delay_monitor import Lag
from .ipc.messages import SetImageSize
from .state import FeedState

MORE, BESIDE = 0.2, 1.2  # factors of a step's time: added by each further object; for the load of the other workers
PATIENCE_NS = 2_000_000_000  # beyond the seconds that are measured: a lag that ends by itself needs no action


def control_delay(state: FeedState) -> None:
    """Check whether the masks keep up, and act if that is due; called once in each round of the supervisor."""
    delay = state.delay
    if state.conditions.recovering or state.conditions.paused or not state.workers["segment"].up:
        delay.restart()
        return
    before = delay.lag
    delay.look(state.frames.head, state.profile.target_fps)
    lag = delay.lag
    if (lag is None) != (before is None):
        state.note("behind" if lag else "keeps up", "segment", str(lag) if lag else "its masks are fresh again")
    if lag is None:
        return
    if lag is delay.worst:
        state.worst_lag = {**lag.plain(), "image_size": state.recipe.image_size, "advice": _advice(state, lag)}
    if now_ns() - delay.since_ns > PATIENCE_NS and _may_shrink(state):
        _shrink(state, lag.step_ms, needed_ms(state.settings["budget_ms"], lag.wanted_fps))


def check_first_step(state: FeedState, step_ms: float) -> None:
    """Before the first frame, lower the image size if a step of one object, which takes `step_ms`, is too long."""
    step_ms *= (1 + MORE * (len(state.profile.objects) - 1)) * BESIDE if state.profile.objects else BESIDE
    allowed_ms = needed_ms(state.settings["budget_ms"], state.profile.target_fps)
    if not state.began_ns and step_ms > allowed_ms and _may_shrink(state):
        _shrink(state, step_ms, allowed_ms)


def keep_image_size(state: FeedState, why: str) -> None:
    """Keep the larger image size, because the engine cannot be opened with the smaller one."""
    state.recipe = state.larger_recipe
    state.profile = replace(state.profile, least_image_size=None)
    state.note("behind", "segment", f"no smaller picture: {why}")


def lag_status(state: FeedState) -> dict[str, Any] | None:
    """For the status: None while the masks keep up."""
    lag = state.delay.lag
    return None if lag is None else {**lag.plain(), "advice": _advice(state, lag)}


def lag_report(state: FeedState) -> dict[str, Any]:
    """For the report: the worst seconds, and what would have helped; empty if the masks always kept up."""
    if not state.worst_lag:
        return {}
    smaller = state.recipe.image_size < state.profile.engine.image_size
    return {"behind": state.worst_lag | ({"then image_size": state.recipe.image_size} if smaller else {})}


def _may_shrink(state: FeedState) -> bool:
    least = state.profile.least_image_size
    return least is not None and state.recipe.image_size > least


def _shrink(state: FeedState, step_ms: float, allowed_ms: float) -> None:
    """Have the engine reopened with a smaller image size; the prompts are then replayed, as after a crash."""
    least = state.profile.least_image_size or state.recipe.image_size
    size = min(size_for(state.recipe, step_ms, allowed_ms, least), state.recipe.image_size - SIDES)
    smaller = replace(state.recipe, image_size=max(size, least))
    if state.workers["segment"].send(SetImageSize(smaller.image_size)):  # else it is tried in the next round
        state.larger_recipe, state.recipe = state.recipe, smaller
        state.reopen_engine("resize", f"image_size {state.larger_recipe.image_size} -> {state.recipe.image_size}")


def _advice(state: FeedState, lag: Lag) -> str:
    return advice(state.recipe, state.engine, lag.step_ms, state.settings["budget_ms"], lag.wanted_fps)
