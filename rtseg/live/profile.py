"""A stream profile as a value: one feed's source, engine, prompts and outputs.

It is TOML; an omitted key has its default below. A mistake is a `ConfigError` in one line that names the file, the key,
the value found and what was expected. A relative path is relative to the profile's folder.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, cast

from msgspec import Meta, Struct

from ..base.colors import color_of
from ..base.defaults import MASK_BUDGET_MS, OPACITY, TOPICS, Topic
from ..base.documents import as_path, expanded, is_there, read_toml
from ..base.errors import ConfigError, short
from ..base.prompt_files import FilePrompt, read_prompt
from ..base.prompt_schema import MAX_ID, MAX_SIDE, as_label
from ..base.schema import Text, convert, mistake, one_of
from ..base.types import Prompt
from ..engine.recipe import Recipe, is_published, load_recipe
from ..publish.keys.bind_address import bind_mistake
from .object_looks import Preset

OVERLAYS = ("latest", "sync")
PACES = ("native", "flat-out")
DEINTERLACES = ("off", "auto", "on")
CARRIES = ("off", "flow", "behind")
BIND = "tcp://127.0.0.1:5555"
CROP = '"off", "auto" or a box [x0, y0, x1, y1] with x0 < x1 and y0 < y1'

Side = Annotated[int, Meta(ge=0, le=MAX_SIDE)]
Level = Annotated[int, Meta(ge=0, le=255)]


@dataclass(frozen=True, slots=True)
class Publish:
    """Where a stream is published, and which of its topics."""

    bind: str = BIND
    topics: tuple[Topic, ...] = TOPICS


@dataclass(frozen=True, slots=True)
class StreamProfile:
    """A feed: its source, its engine, the objects to track from the first frame, and its outputs.

    Attributes:
        source: a path or URI of the frames.
        name: the profile's file name without suffix; the first part of every topic.
        engine: the engine recipe.
        pace: "native" plays a file at its own rate, "flat-out" as fast as it can be read.
        deinterlace: "off", "auto" (pictures that are marked as interlaced) or "on".
        crop: "off", "auto" or a box x0, y0, x1, y1 in pixels.
        target_fps: frames per second that the feed publishes.
        overlay: "latest" draws the newest masks at once, "sync" waits for each frame's own masks.
        carry: "flow" moves old masks along with the picture; "behind" does so only while the network is too slow for
            the budget, and may then lower the network's image size; "off" does neither.
        least_image_size: the smallest image size of "behind"; None keeps the recipe's.
        opacity: the opacity of the tint of masks, 0 to 1.
        mask_budget_ms: a mask older than this is drawn as an outline, and hidden at twice this age.
        publish: address and topics.
        control: the address of the control socket; None opens none.
        keep: the file of accepted prompts, which a feed that is started again reads; None keeps none.
        metrics: the address of the metrics server; None starts none.
        record: the folder of recordings; None records nothing.
        keys: the folder of the CURVE keys; None disables encryption.
        objects: prompts on the first frame.
        presets: classes of objects that people can choose from.
        path: the profile's file.
    """

    source: str
    name: str = "stream"
    engine: Recipe = field(default_factory=Recipe)
    pace: str = "native"
    deinterlace: str = "auto"
    crop: str | tuple[int, int, int, int] = "off"
    target_fps: float = 25.0
    overlay: str = "latest"
    carry: str = "off"
    least_image_size: int | None = None
    opacity: float = OPACITY
    mask_budget_ms: float = MASK_BUDGET_MS
    publish: Publish = Publish()
    control: str | None = None
    keep: Path | None = None
    metrics: str | None = None
    record: Path | None = None
    keys: Path | None = None
    objects: tuple[Prompt, ...] = ()
    presets: tuple[Preset, ...] = ()
    path: Path | None = None


# The tables of the file.


class _Publish(Struct, frozen=True):
    bind: Text = BIND
    topics: tuple[Annotated[str, one_of(TOPICS)], ...] = TOPICS

    def __post_init__(self) -> None:
        if len(set(self.topics)) < len(self.topics):
            raise mistake("topics", list(self.topics), "each of them once")


class _Bind(Struct, frozen=True):
    bind: Text


class _Control(Struct, frozen=True):
    bind: Text
    keep: Text | None = None


class _Preset(Struct, frozen=True):
    label: Text
    color: (
        Annotated[tuple[Level, Level, Level], Meta(description="a colour [red, green, blue], each 0 to 255")] | None
    ) = None


class _Folder(Struct, frozen=True):
    folder: Text


class _Keys(Struct, frozen=True):
    keys: Text


class StreamFile(Struct, frozen=True, kw_only=True):
    """A stream profile as written in its file."""

    source: Text
    pace: Annotated[str, one_of(PACES)] = "native"
    deinterlace: Annotated[str, one_of(DEINTERLACES)] = "auto"
    crop: Annotated[Literal["off", "auto"] | tuple[Side, Side, Side, Side], Meta(description=CROP)] = "off"
    engine: Text | None = None
    target_fps: Annotated[float, Meta(ge=0.1, le=1000.0)] = 25.0
    overlay: Annotated[str, one_of(OVERLAYS)] = "latest"
    carry: Annotated[str, one_of(CARRIES)] = "off"
    opacity: Annotated[float, Meta(ge=0.0, le=1.0)] = OPACITY
    mask_budget_ms: Annotated[float, Meta(ge=1.0, le=10_000.0)] = MASK_BUDGET_MS
    least_image_size: Annotated[int, Meta(ge=64, le=4096, multiple_of=32)] | None = None
    publish: _Publish = _Publish()
    control: _Control | None = None
    metrics: _Bind | None = None
    record: _Folder | None = None
    security: _Keys | None = None
    object: Annotated[tuple[FilePrompt, ...], Meta(max_length=MAX_ID)] = ()
    preset: Annotated[tuple[_Preset, ...], Meta(max_length=MAX_ID)] = ()

    def __post_init__(self) -> None:
        if isinstance(self.crop, tuple):
            x0, y0, x1, y1 = self.crop
            if not (x0 < x1 and y0 < y1):
                raise mistake("crop", list(self.crop), CROP)


def load_stream(path: str | Path) -> StreamProfile:
    """Read a stream profile and the engine recipe that it names. Raises `ConfigError`."""
    path = as_path(path)
    file = convert(read_toml(path), StreamFile, str(path))
    engine = Recipe() if file.engine is None else load_recipe(_engine(file.engine, path))
    keys = None if file.security is None else _path(file.security.keys, path, "security: keys")
    _check_binds(file, path, is_private=keys is not None)
    return StreamProfile(
        source=_source(file.source, path),
        name=re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem),
        engine=engine,
        pace=file.pace,
        deinterlace=file.deinterlace,
        crop=file.crop,
        target_fps=file.target_fps,
        overlay=file.overlay,
        carry=file.carry,
        least_image_size=_least(file.least_image_size, engine, path),
        opacity=file.opacity,
        mask_budget_ms=file.mask_budget_ms,
        publish=Publish(file.publish.bind, cast("tuple[Topic, ...]", file.publish.topics)),
        control=None if file.control is None else file.control.bind,
        keep=_keep(file, path),
        metrics=None if file.metrics is None else file.metrics.bind,
        record=None if file.record is None else _path(file.record.folder, path, "record: folder"),
        keys=keys,
        objects=_objects(file, engine, path),
        presets=_presets(file, path),
        path=path,
    )


def _path(text: str, path: Path, key: str) -> Path:
    """A path in the file, which is relative to the folder that holds it."""
    return path.parent / expanded(text, f"{path}: {key}")


def _engine(text: str, path: Path) -> str | Path:
    """The recipe's path, or the name of published weights."""
    beside = _path(text, path, "engine")
    return text if not is_there(beside) and is_published(text, f"{path}: engine") else beside


def _source(text: str, path: Path) -> str:
    """A path that exists is a file, even if it looks like a URI; a URI (`rtsp://...`, `synthetic:...`) is kept."""
    if is_there(path.parent / text):
        return str(path.parent / text)
    return text if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) else str(_path(text, path, "source"))


def _check_binds(file: StreamFile, path: Path, *, is_private: bool) -> None:
    """`ConfigError` for an address that is malformed, open to strangers, or the same for both sockets."""
    control = None if file.control is None else file.control.bind
    for table, bind in (("control", control), ("publish", file.publish.bind)):
        wrong = None if bind is None else bind_mistake(bind, is_private)
        if wrong is not None:
            raise ConfigError(f"{path}: {table}: bind = {short(bind)}; {wrong}")
    if control == file.publish.bind and not control.endswith((":0", ":*")):
        raise ConfigError(f"{path}: control: bind = {control!r} is that of publish; expected another address")


def _least(size: int | None, engine: Recipe, path: Path) -> int | None:
    if size is not None and size > engine.image_size:
        expected = f"a whole number, 64 to {engine.image_size}, which is the recipe's image_size"
        raise ConfigError(f"{path}: least_image_size = {size}; expected {expected}")
    return size


def _keep(file: StreamFile, path: Path) -> Path | None:
    keep = None if file.control is None else file.control.keep
    return None if keep is None else _path(keep, path, "control: keep")


def _presets(file: StreamFile, path: Path) -> tuple[Preset, ...]:
    """The presets, each label once. One without a colour gets that of its place in the palette."""
    labels = [as_label(entry.label, f"{path}: preset {n}", ConfigError) for n, entry in enumerate(file.preset, 1)]
    for number, label in enumerate(labels, 1):
        if label in labels[: number - 1]:
            raise ConfigError(f"{path}: preset {number}: label = {label!r} is taken; expected one table per label")
    entries = enumerate(zip(labels, file.preset, strict=True), 1)
    return tuple(Preset(label, entry.color or color_of(number)) for number, (label, entry) in entries)


def _objects(file: StreamFile, engine: Recipe, path: Path) -> tuple[Prompt, ...]:
    """The prompts of the objects, each id once, and no more of them than the engine takes."""
    ids = [entry.id for entry in file.object]
    for number, object_id in enumerate(ids, 1):
        if object_id in ids[: number - 1]:
            raise ConfigError(f"{path}: object {number}: id = {object_id} is taken; expected one table per id")
    if len(ids) > engine.max_objects:
        most = f"the engine's recipe says max_objects = {engine.max_objects}"
        raise ConfigError(f"{path}: {len(ids)} objects; {most}; raise it, or leave some out")
    places = [f"{path}: object {number}" for number in range(1, len(ids) + 1)]
    entries = zip(file.object, places, strict=True)
    return tuple(read_prompt(entry, where, path.parent, ConfigError) for entry, where in entries)
