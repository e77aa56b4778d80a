"""Which settings keep a feed's masks within the mask budget on this machine, estimated from the time of a step.

A mask is as old as its step was long when it is finished, and it is shown until the next one is finished. So a step may
take half of the budget; or one frame interval, if that is longer and still within the budget.
"""

from __future__ import annotations

from dataclasses import dataclass

from .recipe import Recipe

SIDES = 32  # image sizes are multiples of this
SMALLEST = 128  # image size in pixels below which the shipped networks hardly see an instrument
_COST = {"micro": 1.0, "nano": 1.3}  # the relative time of a step at the same image size, as measured
_USUAL = {"micro": 224, "nano": 320}


@dataclass(frozen=True, slots=True)
class Reach:
    """A setting, and how long its step would take, in ms."""

    setting: str
    step_ms: float


def needed_ms(budget_ms: float, fps: float) -> float:
    """How long a step may take, in ms, for a mask budget and a frame rate."""
    apart_ms = 1e3 / fps
    return max(budget_ms / 2, apart_ms if apart_ms < budget_ms else 0.0)


def size_for(recipe: Recipe, step_ms: float, allowed_ms: float, least: int) -> int:
    """The largest image size, from the recipe's down to `least`, whose step is short enough; else `least`."""
    for size in range(recipe.image_size, least - 1, -SIDES):
        if _at(step_ms, recipe.image_size, size) <= allowed_ms:
            return size
    return min(least, recipe.image_size)


def nearest(recipe: Recipe, step_ms: float, allowed_ms: float) -> Reach:
    """The smallest change of settings with which a step is short enough; if there is none, the fastest.

    An estimate, from the number of pixels and the relative cost of the shipped networks.
    """
    own = [
        Reach(f"image_size = {size}", _at(step_ms, recipe.image_size, size))
        for size in range(recipe.image_size - SIDES, SMALLEST - 1, -SIDES)
    ]
    micro = []
    if recipe.model != "micro" and recipe.model in _COST:
        as_micro_ms = step_ms * _COST["micro"] / _COST[recipe.model]
        micro = [
            Reach(f'model = "micro" with image_size = {size}', _at(as_micro_ms, recipe.image_size, size))
            for size in range(_USUAL["micro"], SMALLEST - 1, -SIDES)
        ]
    gentle = [reach for reach in own if reach.step_ms > 0.5 * step_ms]  # below half the pixels micro is better
    choices = [*gentle, *micro, *own] or [Reach("fewer objects, or a faster machine", step_ms)]
    fastest = min(choices, key=lambda reach: reach.step_ms)
    return next((reach for reach in choices if reach.step_ms <= allowed_ms), fastest)


def advice(recipe: Recipe, engine: str, step_ms: float, budget_ms: float, fps: float) -> str:
    """One line on what to do about masks that are too old."""
    allowed_ms = needed_ms(budget_ms, fps)
    if step_ms <= allowed_ms:
        return f"a step takes {step_ms:.0f} ms, which is short enough: something else takes the machine's time"
    found = nearest(recipe, step_ms, allowed_ms)
    holds = f"about {found.step_ms:.0f} ms: " + ("within it" if found.step_ms <= allowed_ms else "the nearest there is")
    unbuilt = "not built" in engine or "no engine is built" in engine
    build = "rtseg build RECIPE may make it faster; " if unbuilt else ""
    return (
        f"a step takes {step_ms:.0f} ms, may take {allowed_ms:.0f} for masks of {budget_ms:.0f} at {fps:.0f} fps; "
        f"{build}{found.setting} takes {holds}"
    )


def _at(step_ms: float, size: int, other: int) -> float:
    """The time of a step at another image size: nine tenths grow with the number of pixels."""
    return step_ms * (0.1 + 0.9 * (other / size) ** 2)
