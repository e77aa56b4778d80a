"""A recording, every frame in order, to a folder of results: `rtseg segment`.

Reading, the network and writing go on at the same time, each in a thread, and hand frames on in their order. The
network leaves the others a core: threads that share out one product wait for the last of them.

The folder holds `overlay.mp4` to look at, `masks/00000.png` (palette PNG: the id of the object at each pixel),
`masks.json` (COCO RLE) and `run.json` (what made them). It appears when it is complete, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from .config import Recipe, file_sha256
from .doctor import versions
from .engine import Engine, open_engine, spare_core
from .errors import PromptError
from .grab import Source, open_source
from .overlap import Ahead, Trailing
from .prompts import as_prompts
from .publish import Recorder, draw_overlay, write_palette_png
from .publish.coco import CocoWriter
from .publish.folder import atomic_folder
from .timing import Stages
from .track import Tracker
from .types import Frame, Masks, Prompt

Prompts = dict[int, list[Prompt]]
Progress = Callable[[int, int | None], None]


def segment(
    source_uri: str,
    prompts: Prompts,
    out: str | Path,
    engine: str | Path | Recipe | None = None,
    *,
    force: bool = False,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Segment every frame of a source and write the folder `out`; returns what `run.json` says.

    `prompts` maps a frame's number to the prompts on it; frames before the first prompt have empty masks. `progress`
    is called with (frames done, frames in all or None). Raises an `RtsegError`; then `out` is as it was.
    """
    prompts = as_prompts(prompts)
    stages = Stages("grab", "segment", "overlay", "write")  # each is one thread's
    with open_source(source_uri) as source, atomic_folder(Path(out), force) as folder:
        with spare_core():
            opened = open_engine(engine)
        _check(prompts, source, opened.recipe.max_objects)
        tracker = Tracker(opened)
        count = 0
        with (
            _Results(folder, source, stages) as results, Trailing(results.add) as trailing,
            Ahead(_timed(source, stages)) as frames,
        ):  # fmt: skip
            for frame in frames:
                with stages.time("segment"), _named(frame.seq):
                    for prompt in prompts.get(frame.seq, ()):
                        tracker.give(prompt)
                    masks = tracker.step(frame)
                trailing.give((frame, masks))
                count += 1
                progress(count, source.frame_count)
        _check_frames(prompts, count, source.uri)
        report = _report(source, opened, prompts, count, stages)
        (folder / "run.json").write_text(json.dumps(report, indent=2, default=str) + "\n", "utf-8")
    return {**report, "out": str(out)}


def _timed(source: Source, stages: Stages) -> Iterator[Frame]:
    for frame in source:
        stages.add("grab", source.grab_ms)
        yield frame


class _Results:
    """The files of the result folder, one frame at a time."""

    def __init__(self, folder: Path, source: Source, stages: Stages) -> None:
        self._folder, self._stages = folder / "masks", stages
        self._digits = max(5, len(str(source.frame_count or 0)))  # names sort in order, also after an hour
        self._folder.mkdir()
        with ExitStack() as stack:
            info = {"description": f"rtseg segment {source.uri}", "version": versions()["rtseg"]}
            self._coco = stack.enter_context(CocoWriter(folder / "masks.json", info))
            self._video = stack.enter_context(Recorder(folder / "overlay.mp4", source.width, source.height, source.fps))
            self._stack = stack.pop_all()

    def add(self, done: tuple[Frame, Masks]) -> None:
        frame, masks = done
        name = f"{frame.seq:0{self._digits}d}.png"
        with self._stages.time("overlay"):
            drawn = draw_overlay(frame, masks)
        with self._stages.time("write"):
            self._video.write(drawn.image_hwc, frame.seconds)
            write_palette_png(self._folder / name, masks.id_map())
            self._coco.add(masks, frame.seconds, f"masks/{name}")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)


@contextmanager
def _named(frame: int) -> Iterator[None]:
    """An error about a prompt says on which frame."""
    try:
        yield
    except PromptError as e:
        raise PromptError(f"frame {frame}: {e}") from e


def _check(prompts: Prompts, source: Source, max_objects: int) -> None:
    """What can be known of the prompts before the first frame is segmented."""
    if not prompts:
        raise PromptError(f"{source.uri}: no prompts; expected at least one")
    _check_frames(prompts, source.frame_count, source.uri)
    known: set[int] = set()
    for frame, on_frame in sorted(prompts.items()):
        with _named(frame):
            for prompt in on_frame:
                prompt.check(source.height, source.width, first=prompt.id not in known)
                known.add(prompt.id)
    if len(known) > max_objects:
        raise PromptError(f"prompts for {len(known)} objects; the recipe says max_objects = {max_objects}; raise it")


def _check_frames(prompts: Prompts, count: int | None, uri: str) -> None:
    last = max(prompts)
    if count is not None and last >= count:
        raise PromptError(f"prompt on frame {last}: {uri} has {count} frames; expected a frame from 0 to {count - 1}")


def _prompts_hash(prompts: Prompts) -> str:
    """The SHA-256 of what the prompts say, however their file was written."""
    digest = sha256()
    for frame, on_frame in sorted(prompts.items()):
        for prompt in sorted(on_frame, key=lambda prompt: prompt.id):
            shape = None if prompt.mask is None else prompt.mask.shape
            digest.update(repr((frame, prompt.id, prompt.points, prompt.box, prompt.label, shape)).encode())
            digest.update(b"" if prompt.mask is None else np.packbits(prompt.mask).tobytes())
    return digest.hexdigest()


def _report(source: Source, engine: Engine, prompts: Prompts, count: int, stages: Stages) -> dict[str, Any]:
    path = Path(source.uri)
    hashes = {
        "source": file_sha256(path) if path.is_file() else None,
        "weights": engine.weights_hash,
        "prompts": _prompts_hash(prompts),
    }
    return {
        "source": source.uri,
        "engine": engine.description,
        "recipe": asdict(engine.recipe),
        "frames": {"in": count, "shown": count, "dropped": {}},
        "stages_ms": stages.summary(),
        "sha256": hashes,
        "versions": versions(),
    }
