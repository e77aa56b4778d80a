"""What a person said about each object, with the pictures it was said of: what a new network process starts from.

The supervisor owns it. Of each object it keeps what a memory bank keeps: the first prompted frame and the latest three.
A picture lies in a memfd of its own, once for all prompts on it, and goes when its last prompt goes.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from ..config import CONDITIONING
from ..errors import PromptError
from ..types import Frame, Prompt
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


@dataclass(slots=True)
class Kept:
    """One object: its label, and its prompts with their pictures, oldest first."""

    label: str | None = None
    said: list[tuple[Picture, Prompt]] = field(default_factory=list)


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
        kept = (p for o in self._objects.values() for p, _ in o.said if p.seq == frame.seq)
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
        latest = -1 if new else self._objects[prompt.id].said[-1][0].seq
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

    def add(self, picture: Picture, prompt: Prompt) -> None:
        """Keep a prompt that was accepted."""
        kept = self._objects.setdefault(prompt.id, Kept())
        kept.label = prompt.label or kept.label
        kept.said = sorted([*kept.said, (picture, prompt)], key=lambda said: said[0].seq)
        if len({picture.seq for picture, _ in kept.said}) > CONDITIONING:
            second = sorted({picture.seq for picture, _ in kept.said})[1]
            kept.said = [said for said in kept.said if said[0].seq != second]

    def said_on(self, picture: Picture, ids: Sequence[int]) -> list[Prompt]:
        """All that was said of these objects on one picture, in order, under their present labels."""
        return [
            replace(prompt, label=self._objects[i].label)
            for i in sorted(set(ids) & set(self._objects))
            for where, prompt in self._objects[i].said
            if where.seq == picture.seq
        ]

    def forget(self, picture: Picture, prompts: Sequence[Prompt]) -> None:
        """Let go of prompts that the network refused, and of an object that has no other."""
        for prompt in prompts:
            kept = self._objects.get(prompt.id)
            if kept is not None:
                kept.said = [said for said in kept.said if said != (picture, prompt)]
                if not kept.said:
                    del self._objects[prompt.id]

    def rename(self, object_id: int, label: str) -> None:
        self.known(object_id)
        self._objects[object_id].label = label

    def remove(self, object_id: int) -> None:
        self.known(object_id)
        del self._objects[object_id]

    def replay(self) -> Iterator[tuple[Picture, list[Prompt]]]:
        """All that was said, picture by picture, oldest first, under the present labels."""
        pictures = {p.seq: p for o in self._objects.values() for p, _ in o.said}
        for _, picture in sorted(pictures.items()):
            yield picture, self.said_on(picture, self.ids)
