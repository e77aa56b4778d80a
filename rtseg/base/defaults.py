"""Defaults of what a feed publishes; a stream profile overrides them."""

from __future__ import annotations

from typing import Literal, get_args

Topic = Literal["video", "overlay", "masks", "status"]
TOPICS: tuple[Topic, ...] = get_args(Topic)
OPACITY = 0.28  # of a mask's tint
MASK_BUDGET_MS = 120.0  # what a clinically used system (GI Genius) allows its annotations
