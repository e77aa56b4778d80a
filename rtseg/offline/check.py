"""Mistakes in prompts: those found before the first frame is segmented, and those found after the last."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import sha256

import numpy as np

from ..base.account import Account
from ..base.errors import PromptError
from ..base.types import Frame, Prompt
from ..grab import Source

PromptsByFrame = Mapping[int, Sequence[Prompt]]


@contextmanager
def on_frame(frame: int) -> Iterator[None]:
    """Put the frame's number in front of an error about a prompt."""
    try:
        yield
    except PromptError as e:
        raise PromptError(f"frame {frame}: {e}") from e


def check_prompts(prompts: PromptsByFrame, source: Source, max_objects: int, *, backward: bool = False) -> None:
    """Raise `PromptError` for prompts that do not fit the source, or are for more objects than the recipe allows.

    `backward`: objects are tracked backward alone, so that the last prompt of each is its first.
    """
    if not prompts:
        raise PromptError(f"{source.uri}: no prompts; expected at least one")
    beyond = beyond_end(prompts, source.account.count, source.uri)
    if beyond:
        raise PromptError(beyond)
    known: set[int] = set()
    for frame, given in sorted(prompts.items()):
        with on_frame(frame):
            for prompt in given:
                prompt.check(source.height, source.width, first=prompt.id not in known and not backward)
                known.add(prompt.id)
    if len(known) > max_objects:
        raise PromptError(
            f"prompts for {len(known)} objects; the recipe says max_objects = {max_objects}; "
            f"raise it there, or run with --max-objects {len(known)}"
        )


def beyond_end(prompts: PromptsByFrame, count: int | None, uri: str) -> str:
    """The line about a prompt on a frame that does not exist; "" if there is none, or `count` is unknown."""
    last = max(prompts)
    if count is None or last < count:
        return ""
    return f"prompt on frame {last}: {uri} has {count} frames; expected a frame from 0 to {count - 1}"


def shifted(frame: Frame, account: Account) -> str:
    """The line about a prompt after left-out frames, whose frame other programs number differently; else ""."""
    missing = account.leading + sum(gap.lost or 1 for gap in account.gaps if gap.before <= frame.seq)
    if not missing:
        return ""
    return (
        f"prompt on frame {frame.seq}: it is at {frame.seconds:.3f} s, with {missing} frames before it left out; "
        f"frames are counted as they are shown, so check it where its number comes from another program"
    )


def hash_of(prompts: PromptsByFrame) -> str:
    """The SHA-256 of the prompts' values, which does not depend on how their file was written."""
    digest = sha256()
    for frame, given in sorted(prompts.items()):
        for prompt in sorted(given, key=lambda prompt: prompt.id):
            shape = None if prompt.mask is None else prompt.mask.shape
            digest.update(repr((frame, prompt.id, prompt.points, prompt.box, prompt.label, shape)).encode())
            digest.update(b"" if prompt.mask is None else np.packbits(prompt.mask).tobytes())
    return digest.hexdigest()
