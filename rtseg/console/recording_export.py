"""Writes the masks of a session as `rtseg segment` writes its own: the same folder, files and report."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..base.errors import IncompleteError, SourceError
from ..base.files import discard_folder
from ..base.types import Frame, Masks, Prompt
from ..engine import Engine
from ..grab.random_access import Frames
from ..offline.run import write_masks
from .recording_masks import shown_masks
from .recording_state import State, prompt_of
from .recording_store import Store
from .recording_worker import StoppedError


class StoredMasks:
    """Answers for each frame with the masks that are kept, as a tracker would."""

    def __init__(self, frames: Frames, state: State, store: Store, engine: Engine) -> None:
        self.engine = engine
        self._frames, self._state, self._store = frames, state, store

    def give(self, prompt: Prompt) -> None:
        """What a prompt gives is among the masks already."""

    def step(self, frame: Frame) -> Masks:
        """The masks of a frame, which is found by its time: a source may have left out damaged frames before it."""
        number = self._frames.number_at(frame.seconds)
        if number is None:
            raise SourceError(f"{self._frames.uri}: has a frame at {frame.seconds:.3f} s, which it had not when opened")
        return shown_masks(frame, self._state.objects, self._store.masks(number))


def export(
    frames: Frames, state: State, store: Store, engine: Engine, out: Path, progress: Callable[[int, int | None], None]
) -> int:
    """Write all frames into the folder `out`, in place of an earlier export. Returns how many there are.

    Raises what `rtseg.offline.segment` raises, and what `progress` does; then `out` is unchanged.
    """
    size = frames.height, frames.width
    prompts: dict[int, list[Prompt]] = {}
    for each in state.objects:
        for number, given in each.prompts.items():
            prompt = prompt_of(each.id, given, size)
            named = Prompt(prompt.id, prompt.points, prompt.box, prompt.mask, each.label)
            prompts.setdefault(number, []).append(named)
    steps = StoredMasks(frames, state, store, engine)
    try:
        document = write_masks(frames.uri, prompts, out, steps, progress=progress)
    except IncompleteError as e:
        if isinstance(e.__cause__, StoppedError):
            discard_folder(Path(e.report["out"]))
            raise e.__cause__ from None
        raise
    return int(document["frames"]["shown"])
