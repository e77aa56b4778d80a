"""The beginning of a feed: when it may begin, and the objects of its profile on its first frame."""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path

from ..base.errors import OutputError, PromptError
from ..base.types import now_ns
from .prompt_keeper import snapshot
from .state import FeedState

# How long grabbing waits for the network, so that a recording is tracked from its first frame.
GRAB_WAITS_NS = 30_000_000_000


def may_begin(state: FeedState) -> bool:
    """Whether grabbing may begin: the publisher is up, and the network is ready or its time limit has passed."""
    grab, segment = state.workers["grab"], state.workers["segment"]
    if state.began_ns or not grab.up or not state.workers["publish"].up:
        return False
    ready = segment.up and not state.segmenter.preparing_size
    return ready or segment.starts > 1 or now_ns() - state.start_ns > GRAB_WAITS_NS


def check_objects(state: FeedState, size: tuple[int, int]) -> None:
    """Check the profile's objects by the height and width of a recording, before the network is loaded."""
    if state.first_prompts_given:  # prompts that were kept stand for them
        return
    try:
        _check_number(state)
        for prompt in state.profile.objects:
            prompt.check(*size, first=True)
    except PromptError as e:
        state.ending.refuse("prompts", e)


def _check_number(state: FeedState) -> None:
    number, most = len(state.profile.objects), state.profile.engine.max_objects
    if number > most:
        raise PromptError(f"prompts for {number} objects; the recipe says max_objects = {most}; raise it")


def give_first_prompts(state: FeedState) -> None:
    """Send the profile's prompts to the network with the feed's first frame, once there is one."""
    if state.first_prompts_given or not state.frames.head:
        return
    frame = state.frame(0) or state.frame()
    if frame is None:
        return
    state.first_prompts_given = True
    try:
        _check_number(state)
        for prompt in state.profile.objects:
            state.segmenter.history.check(prompt, frame, new=True)
    except PromptError as e:
        _first_answer(state, str(e))
    else:
        state.segmenter.prompt(frame, state.profile.objects, partial(_first_answer, state), stay=True)


def _first_answer(state: FeedState, error: str | None) -> None:
    """Handle the answer. For a recording, prompts that do not fit end the feed; a live feed continues without them."""
    if error is None:
        if state.keeper is not None:
            state.keeper.begin_with(snapshot(state.segmenter.history, {}))
        return
    if not state.source.live:
        state.ending.refuse("prompts", PromptError(error))
    state.fault("prompts", error)


def check_folder(folder: Path) -> None:
    """`OutputError` unless recordings can be written to the folder; called before the first picture."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as e:
        raise OutputError(f"record folder {folder}: cannot be written ({e.strerror}); choose another folder") from e
