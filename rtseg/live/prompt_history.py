"""All prompts of a feed with their pictures, replayed to the segment worker after a restart.

The supervisor owns it. For each object it holds the same frames as a memory bank: the first prompted one and the latest
three. Each picture has one memfd, shared by all prompts on it, which is freed with its last prompt.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from ..base.errors import PromptError
from ..base.types import Frame, FrameId, Prompt
from ..engine.policy import MAX_CONDITIONING


@dataclass(slots=True, eq=False)
class Picture:
    """A frame's identity, and its pixels in the shared memory `fd`, which is closed with the last reference."""

    id: FrameId
    fd: int

    @classmethod
    def from_frame(cls, frame: Frame) -> Picture:
        fd = os.memfd_create("rtseg-prompted")
        os.ftruncate(fd, frame.image_hwc.nbytes)
        written, pixels = 0, frame.image_hwc.tobytes()
        while written < len(pixels):
            written += os.pwrite(fd, pixels[written:], written)
        return cls(frame.id, fd)

    @property
    def seq(self) -> int:
        return self.id.seq

    def __del__(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True, slots=True, eq=False)
class PromptRecord:
    """A prompt, the picture that it was given on, and the label that it sets."""

    picture: Picture
    prompt: Prompt
    label: str | None

    def matches(self, picture: Picture, prompt: Prompt) -> bool:
        return self.picture is picture and self.prompt is prompt


@dataclass(frozen=True, slots=True)
class ObjectHistory:
    """The prompts of one object, oldest first.

    A `pending` prompt waits for the answer of the network. Until it is accepted it evicts no other prompt, and sets no
    label.
    """

    label: str | None = None
    accepted: tuple[PromptRecord, ...] = ()
    pending: tuple[PromptRecord, ...] = ()

    @property
    def all(self) -> tuple[PromptRecord, ...]:
        return tuple(sorted((*self.accepted, *self.pending), key=lambda record: record.picture.seq))

    @property
    def latest_label(self) -> str | None:
        return next((record.label for record in reversed(self.pending) if record.label), self.label)

    def without(self, picture: Picture, prompt: Prompt) -> ObjectHistory:
        """This history without a prompt, pending or accepted."""
        accepted = tuple(record for record in self.accepted if not record.matches(picture, prompt))
        pending = tuple(record for record in self.pending if not record.matches(picture, prompt))
        return ObjectHistory(self.label, accepted, pending)

    def accept(self, new: PromptRecord) -> ObjectHistory:
        """This history with a prompt accepted. If a bank cannot hold so many pictures, the second oldest is evicted."""
        rest = self.without(new.picture, new.prompt)
        accepted = sorted((*rest.accepted, new), key=lambda record: record.picture.seq)
        seqs = sorted({record.picture.seq for record in accepted})
        if len(seqs) > MAX_CONDITIONING:
            accepted = [record for record in accepted if record.picture.seq != seqs[1]]
        return replace(rest, label=new.label or self.label, accepted=tuple(accepted))


class PromptHistory:
    """The objects of a feed, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._objects: dict[int, ObjectHistory] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted(self._objects))

    @property
    def is_busy(self) -> bool:
        """Whether the network has to answer a prompt yet."""
        return any(history.pending for history in self._objects.values())

    def label(self, object_id: int) -> str | None:
        return self._objects[object_id].label

    def states(self, ids: Iterable[int]) -> dict[int, ObjectHistory | None]:
        """What is accepted of these objects; None for one that does not exist. `restore` takes these values back."""
        found = {i: self._objects.get(i) for i in ids}
        return {i: replace(one, pending=()) if one is not None and one.accepted else None for i, one in found.items()}

    def restore(self, object_id: int, state: ObjectHistory | None) -> None:
        """Bring an object back to what `states` returned."""
        if state is None:
            self._objects.pop(object_id, None)
        else:
            self._objects[object_id] = state

    def picture(self, frame: Frame) -> Picture:
        """The picture of a frame: the one in the history, or a new one."""
        found = (r.picture for o in self._objects.values() for r in o.all if r.picture.seq == frame.seq)
        return next(found, None) or Picture.from_frame(frame)

    def check(self, prompt: Prompt, frame: FrameId, *, new: bool) -> None:
        """`PromptError` unless the prompt fits its frame and adds (`new`) or corrects an object."""
        if new and prompt.id in self._objects:
            raise PromptError(f"object {prompt.id} is tracked already; correct it, or remove it first")
        if not new:
            self.require(prompt.id)
        if new and len(self._objects) >= self._most:
            raise PromptError(
                f"object {prompt.id}: {self._most} objects are tracked already; remove one, "
                "or raise max_objects in the recipe"
            )
        latest = -1 if new else self._objects[prompt.id].all[-1].picture.seq
        if frame.seq < latest:
            raise PromptError(
                f"object {prompt.id}: it has a prompt on frame {latest} already; point at that frame, or at a later one"
            )
        prompt.check(frame.height, frame.width, first=new)

    def require(self, object_id: int) -> None:
        """`PromptError` unless there is such an object."""
        if object_id not in self._objects:
            tracked = ", ".join(map(str, self.ids)) or "none"
            raise PromptError(f"no object {object_id} is tracked; there are: {tracked}")

    def add_pending(self, picture: Picture, prompt: Prompt) -> None:
        """Add a prompt that the network has not answered yet."""
        history = self._objects.get(prompt.id, ObjectHistory())
        record = PromptRecord(picture, prompt, prompt.label)
        self._objects[prompt.id] = replace(history, pending=(*history.pending, record))

    def accept(self, picture: Picture, prompts: Sequence[Prompt]) -> None:
        """Accept pending prompts, except those of objects that were removed meanwhile."""
        for prompt in prompts:
            history = self._objects.get(prompt.id, ObjectHistory())
            for record in [one for one in history.pending if one.matches(picture, prompt)]:
                self._objects[prompt.id] = history.accept(record)

    def add(self, picture: Picture, prompt: Prompt) -> None:
        """Add an accepted prompt."""
        history = self._objects.get(prompt.id, ObjectHistory())
        self._objects[prompt.id] = history.accept(PromptRecord(picture, prompt, prompt.label))

    def prompts_on(self, picture: Picture, ids: Sequence[int]) -> list[Prompt]:
        """All prompts of these objects on one picture, in order, with their present labels."""
        return [
            replace(record.prompt, label=self._objects[i].latest_label)
            for i in sorted(set(ids) & set(self._objects))
            for record in self._objects[i].all
            if record.picture.seq == picture.seq
        ]

    def discard(self, picture: Picture, prompts: Sequence[Prompt]) -> None:
        """Remove prompts that the network refused, and objects without any other prompt."""
        for prompt in prompts:
            history = self._objects.get(prompt.id)
            if history is not None:
                self._objects[prompt.id] = left = history.without(picture, prompt)
                if not left.all:
                    del self._objects[prompt.id]

    def rename(self, object_id: int, label: str) -> None:
        """Give an object a label, which is newer than those of its pending prompts."""
        self.require(object_id)
        history = self._objects[object_id]
        pending = tuple(replace(record, label=None) for record in history.pending)
        self._objects[object_id] = replace(history, label=label, pending=pending)

    def remove(self, object_id: int) -> None:
        """Remove an object and all of its prompts."""
        self.require(object_id)
        del self._objects[object_id]

    def replay(self, ids: Sequence[int] | None = None) -> Iterator[tuple[Picture, list[Prompt]]]:
        """All prompts of these objects (None: of all), picture by picture, oldest first, with the present labels."""
        ids = self.ids if ids is None else ids
        pictures = {r.picture.seq: r.picture for i in ids for r in self._objects[i].all}
        for _, picture in sorted(pictures.items()):
            yield picture, self.prompts_on(picture, ids)
