"""A stream profile as a value: one feed's source, engine, prompts and outputs.

It is TOML; a key that is left out has the default that stands here. A mistake is a `ConfigError` in one line that names
the file, the key, what was found and what was expected. A relative path is relative to the file that holds it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import cast

from ..base.defaults import MASK_BUDGET_MS, OPACITY, TOPICS, Topic
from ..base.documents import as_path, is_there, read_toml
from ..base.errors import ConfigError
from ..base.prompt_files import FILE_KEYS, read_prompt
from ..base.prompt_schema import MAX_ID, MAX_SIDE
from ..base.tables import Table, listed, short, whole
from ..base.types import Prompt
from ..engine.recipe import Recipe, load_recipe
from ..publish.keys.bind import bind_mistake

OVERLAYS = ("latest", "sync")
PACES = ("native", "flat-out")
DEINTERLACES = ("off", "auto", "on")
CARRIES = ("off", "flow", "behind")
STREAM_KEYS = (
    "source", "pace", "deinterlace", "crop", "engine", "target_fps", "overlay", "carry", "opacity", "mask_budget_ms",
    "least_image_size", "publish", "control", "metrics", "record", "security", "object",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Publish:
    """Where a stream is published, and which of its topics."""

    bind: str = "tcp://127.0.0.1:5555"
    topics: tuple[Topic, ...] = TOPICS


@dataclass(frozen=True, slots=True)
class StreamProfile:
    """One feed: where its frames come from, the engine, what to track from the first frame, and who gets it.

    `name` is the file's own name and opens every topic; `target_fps` is in frames per second; a mask older than
    `mask_budget_ms` is drawn as an outline, and not at all when it is twice as old; `carry` "flow" moves it along with
    the picture, "behind" does so while the network is too slow for the budget: then the network may also see a smaller
    picture, down to `least_image_size` (None: no smaller one). `crop` is "off", "auto" or a box x0, y0, x1, y1.
    `control` and `metrics` are addresses, `record` the folder of recordings, `keys` that of the CURVE keys; None: there
    is none.
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
    metrics: str | None = None
    record: Path | None = None
    keys: Path | None = None
    objects: tuple[Prompt, ...] = ()
    path: Path | None = None


def load_stream(path: str | Path) -> StreamProfile:
    """Read a stream profile and the engine recipe that it names. Raises `ConfigError`."""
    path = as_path(path)
    folder = path.parent
    table = Table(read_toml(path), str(path), STREAM_KEYS, ConfigError)
    engine = load_recipe(table.path("engine", folder)) if "engine" in table else Recipe()
    keys = _folder(table, "security", "keys", folder)
    control = _bind(_table(table, "control", ("bind",)), None, keys) if "control" in table else None
    publish = _publish(_table(table, "publish", [f.name for f in fields(Publish)]), keys)
    if control == publish.bind and not control.endswith((":0", ":*")):
        raise ConfigError(f"{table.where}: control: bind = {control!r} is that of publish; expected another address")
    objects = _objects(table, folder)
    if len(objects) > engine.max_objects:
        most = f"the engine's recipe says max_objects = {engine.max_objects}"
        raise ConfigError(f"{table.where}: {len(objects)} objects; {most}; raise it, or leave some out")
    return StreamProfile(
        source=_source(table, folder),
        name=re.sub(r"[^A-Za-z0-9_.-]", "-", path.stem),
        pace=table.choice("pace", "native", PACES),
        deinterlace=table.choice("deinterlace", "auto", DEINTERLACES),
        crop=_crop(table),
        engine=engine,
        target_fps=table.number("target_fps", 25.0, 0.1, 1000.0),
        overlay=table.choice("overlay", "latest", OVERLAYS),
        carry=table.choice("carry", "off", CARRIES),
        least_image_size=_least(table, engine.image_size),
        opacity=table.number("opacity", OPACITY, 0.0, 1.0),
        mask_budget_ms=table.number("mask_budget_ms", MASK_BUDGET_MS, 1.0, 10_000.0),
        publish=publish,
        control=control,
        metrics=_table(table, "metrics", ("bind",)).text("bind") if "metrics" in table else None,
        record=_folder(table, "record", "folder", folder),
        keys=keys,
        objects=objects,
        path=path,
    )


def _least(table: Table, image_size: int) -> int | None:
    if "least_image_size" not in table:
        return None
    least = table.integer("least_image_size", image_size, 64, image_size)
    if least % 32:
        raise table.bad("least_image_size", "a multiple of 32")
    return least


def _crop(table: Table) -> str | tuple[int, int, int, int]:
    value = table.values.get("crop", "off")
    if isinstance(value, str) and value in ("off", "auto"):
        return value
    sides = [whole(side) for side in listed(value) or ()]
    if len(sides) == 4:
        x0, y0, x1, y1 = (-1 if side is None else side for side in sides)
        if 0 <= x0 < x1 <= MAX_SIDE and 0 <= y0 < y1 <= MAX_SIDE:
            return x0, y0, x1, y1
    raise table.bad("crop", '"off", "auto" or a box [x0, y0, x1, y1] with x0 < x1 and y0 < y1')


def _table(table: Table, name: str, known: Iterable[str]) -> Table:
    """A table in a table; an empty one where there is none."""
    return Table(table.values.get(name, {}), f"{table.where}: {name}", known, ConfigError)


def _folder(table: Table, name: str, key: str, folder: Path) -> Path | None:
    """The folder that a table names by its one key; None without that table."""
    return _table(table, name, (key,)).path(key, folder) if name in table else None


def _bind(table: Table, default: str | None, keys: Path | None) -> str:
    bind = table.text("bind", default)
    mistake = bind_mistake(bind, keys is not None)
    if mistake is not None:
        raise ConfigError(f"{table.where}: bind = {short(bind)}; {mistake}")
    return bind


def _publish(table: Table, keys: Path | None) -> Publish:
    topics = cast("tuple[Topic, ...]", table.names("topics", TOPICS, TOPICS))
    return Publish(_bind(table, Publish().bind, keys), topics)


def _objects(table: Table, folder: Path) -> tuple[Prompt, ...]:
    entries = table.values.get("object", [])
    if not isinstance(entries, list) or len(entries) > MAX_ID:
        raise table.bad("object", "tables headed [[object]]")
    prompts = [
        read_prompt(Table(entry, f"{table.where}: object {number}", FILE_KEYS, ConfigError), folder)
        for number, entry in enumerate(entries, 1)
    ]
    ids = [prompt.id for prompt in prompts]
    for number, object_id in enumerate(ids, 1):
        if object_id in ids[: number - 1]:
            raise ConfigError(f"{table.where}: object {number}: id = {object_id} is taken; expected one table per id")
    return tuple(prompts)


def _source(table: Table, folder: Path) -> str:
    """What is there as a file is a file, whatever its name; a URI stays as it is (`rtsp://...`, `synthetic:...`)."""
    text = table.text("source")
    if is_there(folder / text):
        return str(folder / text)
    return text if re.match(r"[A-Za-z][A-Za-z0-9+.-]+:", text) else str(table.path("source", folder))
