"""What a person said about each object, with the pictures it was said of: what a new network process starts from.

The supervisor owns it. Of each object it keeps what a memory bank keeps: the first prompted frame and the latest three.
A picture lies in a memfd of its own, once for all prompts on it, and goes when its last prompt goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from ..base.errors import PromptError
from ..base.types import Frame, Prompt
from ..engine.policy import MAX_CONDITIONING
from .parcels import frame_meta


@dataclass(slots=True, eq=False)
class Picture:
    """A frame's identity, and its pixels in shared memory; `fd` is closed when nobody refers to it any more."""

    seq: int
    meta: bytes
    size: int
    fd: int

    @classmethod
    def of(cls, frame: Frame) -> Picture:
        fd = os.memfd_create("rtseg-kept")
        os.ftruncate(fd, frame.image_hwc.nbytes)
        written, pixels = 0, frame.image_hwc.tobytes()
        while written < len(pixels):
            written += os.pwrite(fd, pixels[written:], written)
        return cls(frame.seq, frame_meta(frame), len(pixels), fd)

    def __del__(self) -> None:
        os.close(self.fd)


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """A prompt, the picture that it was given on, and the label that it gives."""

    picture: Picture
    prompt: Prompt
    label: str | None

    def of(self, picture: Picture, prompt: Prompt) -> bool:
        return self.picture is picture and self.prompt is prompt


@dataclass(frozen=True, slots=True)
class Kept:
    """One object: its label, and what was said of it, oldest first.

    What is `asked` waits for the network's answer: it pushes nothing out, and gives no label, before that is yes.
    """

    label: str | None = None
    said: tuple[Said, ...] = ()
    asked: tuple[Said, ...] = ()

    @property
    def all(self) -> tuple[Said, ...]:
        return tuple(sorted((*self.said, *self.asked), key=lambda one: one.picture.seq))

    @property
    def latest_label(self) -> str | None:
        return next((one.label for one in reversed(self.asked) if one.label), self.label)

    def without(self, picture: Picture, prompt: Prompt) -> Kept:
        """The same without a prompt, whether it was answered or not."""
        said, asked = (tuple(s for s in them if not s.of(picture, prompt)) for them in (self.said, self.asked))
        return Kept(self.label, said, asked)

    def accepted(self, new: Said) -> Kept:
        """The same once the network has taken a prompt: of more pictures than a bank keeps, the second goes."""
        found = self.without(new.picture, new.prompt)
        said = sorted((*found.said, new), key=lambda one: one.picture.seq)
        seqs = sorted({one.picture.seq for one in said})
        if len(seqs) > MAX_CONDITIONING:
            said = [one for one in said if one.picture.seq != seqs[1]]
        return replace(found, label=new.label or self.label, said=tuple(said))


class Keep:
    """The objects of a feed, at most `most` of them."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._objects: dict[int, Kept] = {}

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(sorted(self._objects))

    def label(self, object_id: int) -> str | None:
        return self._objects[object_id].label

    def picture(self, frame: Frame) -> Picture:
        """The picture of a frame: the one that is kept already, or a new one."""
        kept = (s.picture for o in self._objects.values() for s in o.all if s.picture.seq == frame.seq)
        return next(kept, None) or Picture.of(frame)

    def check(self, prompt: Prompt, frame: Frame, *, new: bool) -> None:
        """`PromptError` unless the prompt fits its frame, and adds (`new`) or corrects an object."""
        if new and prompt.id in self._objects:
            raise PromptError(f"object {prompt.id} is tracked already; correct it, or remove it first")
        if not new:
            self.known(prompt.id)
        if new and len(self._objects) >= self._most:
            raise PromptError(
                f"object {prompt.id}: {self._most} objects are tracked already; remove one, "
                "or raise max_objects in the recipe"
            )
        latest = -1 if new else self._objects[prompt.id].all[-1].picture.seq
        if frame.seq < latest:
            raise PromptError(
                f"object {prompt.id}: more was said of it on frame {latest}; point at that frame, or at a later one"
            )
        prompt.check(frame.height, frame.width, first=new)

    def known(self, object_id: int) -> None:
        """`PromptError` unless there is such an object."""
        if object_id not in self._objects:
            tracked = ", ".join(map(str, self.ids)) or "none"
            raise PromptError(f"no object {object_id} is tracked; there are: {tracked}")

    def ask(self, picture: Picture, prompt: Prompt) -> None:
        """Keep a prompt for as long as the network has not answered."""
        kept = self._objects.get(prompt.id, Kept())
        self._objects[prompt.id] = replace(kept, asked=(*kept.asked, Said(picture, prompt, prompt.label)))

    def accept(self, picture: Picture, prompts: Sequence[Prompt]) -> None:
        """Keep prompts that the network has taken, but for those whose object was removed meanwhile."""
        for prompt in prompts:
            kept = self._objects.get(prompt.id, Kept())
            for asked in [one for one in kept.asked if one.of(picture, prompt)]:
                self._objects[prompt.id] = kept.accepted(asked)

    def add(self, picture: Picture, prompt: Prompt) -> None:
        """Keep a prompt that was accepted."""
        kept = self._objects.get(prompt.id, Kept())
        self._objects[prompt.id] = kept.accepted(Said(picture, prompt, prompt.label))

    def said_on(self, picture: Picture, ids: Sequence[int]) -> list[Prompt]:
        """All that was said of these objects on one picture, in order, under their present labels."""
        return [
            replace(said.prompt, label=self._objects[i].latest_label)
            for i in sorted(set(ids) & set(self._objects))
            for said in self._objects[i].all
            if said.picture.seq == picture.seq
        ]

    def forget(self, picture: Picture, prompts: Sequence[Prompt]) -> None:
        """Let go of prompts that the network refused, and of an object that has no other."""
        for prompt in prompts:
            kept = self._objects.get(prompt.id)
            if kept is not None:
                self._objects[prompt.id] = left = kept.without(picture, prompt)
                if not left.all:
                    del self._objects[prompt.id]

    def rename(self, object_id: int, label: str) -> None:
        self.known(object_id)
        kept = self._objects[object_id]
        asked = tuple(replace(one, label=None) for one in kept.asked)  # which was said before
        self._objects[object_id] = replace(kept, label=label, asked=asked)

    def remove(self, object_id: int) -> None:
        self.known(object_id)
        del self._objects[object_id]

    def replay(self) -> Iterator[tuple[Picture, list[Prompt]]]:
        """All that was said, picture by picture, oldest first, under the present labels."""
        pictures = {s.picture.seq: s.picture for o in self._objects.values() for s in o.all}
        for _, picture in sorted(pictures.items()):
            yield picture, self.said_on(picture, self.ids)
