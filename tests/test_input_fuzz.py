"""Hundreds of mistakes at every door: none is a traceback, no nonsense is taken, and no sense is refused.

What is right is said by a judge that reads each mutant by the rules as they are documented, and shares no code with the
doors. Each mutant that is taken has to be the value that the judge reads. A hole that is planted is found.
"""

from __future__ import annotations

import json
import math
import random
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from msgspec import UNSET, Struct
from PIL import Image

import rtseg.base.prompt
import rtseg.base.prompt_schema
import rtseg.base.schema
from rtseg.base.errors import RtsegError
from rtseg.base.prompt_files import load_prompts
from rtseg.base.types import Prompt
from rtseg.engine.recipe import load_recipe
from rtseg.live.control.messages import Add, opened, request_of
from rtseg.live.profile import load_stream

EACH = 120  # mutants of each kind
H, W = 30, 40
IDS_HW = np.zeros((H, W), np.uint8)
IDS_HW[3:9, 4:12], IDS_HW[12:20, 15:30] = 1, 2
PIXELS = {"m.png": {None: 48}, "ids.png": {1: 48, 2: 120, 0: H * W - 168}, "white.png": {}}  # of each value: how many


class NonsenseError(Exception):
    """What the judge calls a mutant that must be refused."""


# Mutants.

ODD: list[Any] = [
    None, True, False, 0, 1, 2, -1, 254, 255, 256, 320, 321, 4096, 4097, 1.0, 1.5, -0.0, 0.1, 25, 1e9, 1e308, 10**401,
    float("nan"), float("inf"), -float("inf"), "", " ", "1", "grasper", "é", "x" * 64, "x" * 65, "a\nb", "\u202e",
    "\0", "\t", "\x7f", "a\u2028b", "\ue000", "z" * 99, "auto", "off", "m.png", "ids.png", "white.png", "absent.png",
    "~nobody-here/x", "y" * 300, [], {}, [1], [[]], [[1, 2, 1]], [[1, 2, 1.0], [3, 4.5, 0]], [[1, 2, 2]], [[1, 2]],
    [[1, 2, True]], [["1", 2, 1]], [[-1, 2, 1]], [[1, 16385, 1]], [[1, 2, 1]] * 64, [[1, 2, 1]] * 65, [1, 2, 30, 40],
    [30, 40, 1, 2], [1, 2, 3.5, 4.5], [1, 2, 3], [0.1, 0.1, 0.5, 0.6], [0, 0, 16384, 16384], [1, 2, 3, "4"],
    [1, 2, 3, float("nan")], {"a": 1}, ["video"], ["video", "video"], ["masks", "status"], ["vido"],
    "tcp://127.0.0.1:5555", "tcp://127.0.0.1:0", "tcp://*:5555", "tcp://127.0.0.1:65536", "tcp://0.0.0.0:1",
    "ipc://@x", "ipc:///tmp/x", "tcp://a b:1", "tcp://[::1]:7", "udp://x:1",
]  # fmt: skip
PROMPT = {"frame": 0, "id": 1, "label": "grasper", "points": [[4, 5.5, 1], [8, 9, 0]], "box": [1, 2, 30, 25]}
MASKED = {"frame": 3, "id": 7, "mask": "ids.png", "value": 2}
RECIPE = {
    "model": "micro", "weights": "package:micro", "image_size": 320, "runtime": "torch", "precision": "bf16",
    "max_objects": 4, "memory": {"policy": "efp", "spatial": 5, "pointers": 16},
}  # fmt: skip
STREAM = {
    "source": "clip.mp4", "target_fps": 25, "overlay": "latest", "mask_budget_ms": 120, "opacity": 0.3,
    "pace": "native",
    "deinterlace": "auto", "carry": "off", "crop": [0, 0, 30, 20], "least_image_size": 256,
    "publish": {"bind": "tcp://127.0.0.1:5555", "topics": ["video", "masks"]}, "control": {"bind": "ipc:///tmp/c"},
    "object": [{"id": 1, "points": [[4, 5, 1]]}, {"id": 2, "box": [1, 2, 30, 25]}],
}  # fmt: skip


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to every value in a document."""
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield (*path, key)
        yield from places(inner, (*path, key))


def mutant(document: Any, rng: random.Random) -> Any:
    """The document with one thing changed, or two: a value, a key that is gone, a key that is new or misspelt."""
    document = json.loads(json.dumps(document))
    for _ in range(rng.choice((1, 1, 1, 2))):
        ways = list(places(document))
        *way, last = rng.choice(ways)
        inner = document
        for key in way:
            inner = inner[key]
        kind = rng.random()
        if kind < 0.75:
            inner[last] = deepcopy(rng.choice(alike(inner[last]) if rng.random() < 0.6 else ODD))
        elif kind < 0.85:
            del inner[last]
        elif isinstance(inner, dict):
            inner[str(last)[:-1] or "x"] = inner.pop(last)
        else:
            inner.append(deepcopy(rng.choice(ODD)))
    return document


def alike(value: Any) -> list[Any]:
    """What might be taken for such a value."""
    if isinstance(value, str | list):
        return [odd for odd in ODD if isinstance(odd, type(value))]
    return [odd for odd in ODD if isinstance(odd, int | float) or odd == "1"]


def scribbled(text: str, rng: random.Random) -> bytes:
    """A text as bytes, in some coding, with a slip of the keyboard in it, or none."""
    at, kind = rng.randrange(len(text)), rng.randrange(5)
    if kind == 0:
        text = text[:at] + text[at + 1 :]
    elif kind == 1:
        text = text[:at] + rng.choice('[]{}",:=#\n\\01é\0') + text[at:]
    elif kind == 2:
        text = text[:at] + text[max(0, at - 20) :]
    coding = rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32", "latin-1"))
    return text.encode(coding, "replace")


# The judge.


def number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise NonsenseError
    with suppress(OverflowError):
        if math.isfinite(value):
            return float(value) + 0.0  # a zero has no sign
    raise NonsenseError


def whole(value: Any, low: int, high: float = math.inf, step: int = 1) -> int:
    found = number(value)
    if found != math.floor(found) or not low <= found <= high or found % step:
        raise NonsenseError
    return int(found)


def within(value: Any, low: float, high: float) -> float:
    if not low <= number(value) <= high:
        raise NonsenseError
    return number(value)


def among(value: Any, names: str) -> str:
    if not isinstance(value, str) or value not in names.split():
        raise NonsenseError
    return value


def text(value: Any) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise NonsenseError
    return value


def keys(table: Any, known: str) -> None:
    if not isinstance(table, dict) or set(table) - set(known.split()):
        raise NonsenseError


def prompt(entry: Any, known: str, *, files: bool = True) -> tuple[Any, ...]:
    keys(entry, known)
    kinds = {"points", "box", "mask"} & set(entry)
    if not kinds or ("mask" in kinds and len(kinds) > 1) or ("value" in entry and "mask" not in entry):
        raise NonsenseError
    points, box, pixels, label = (), None, None, entry.get("label")
    if "points" in entry:
        if not isinstance(entry["points"], list) or not 1 <= len(entry["points"]) <= 64:
            raise NonsenseError
        points = tuple(point(given) for given in entry["points"])
    if "box" in entry:
        given = entry["box"]
        if not isinstance(given, list) or len(given) != 4:
            raise NonsenseError
        x0, y0, x1, y1 = box = tuple(within(side, 0, 16384) for side in given)
        if not (x0 < x1 and y0 < y1) or max(x1 - x0, y1 - y0) < 1:
            raise NonsenseError
    if "mask" in entry:
        pixels = masked(entry) if files else None
    if "label" in entry and (not text(label).isprintable() or not label.strip() or len(label) > 64):
        raise NonsenseError
    return whole(entry.get("id"), 1, 255), points, box, pixels, label


def point(given: Any) -> tuple[float, float, int]:
    if not isinstance(given, list) or len(given) != 3:
        raise NonsenseError
    return within(given[0], 0, 16384), within(given[1], 0, 16384), whole(given[2], 0, 1)


def masked(entry: dict[str, Any]) -> int:
    file, value = entry["mask"], entry.get("value")
    if not isinstance(file, str) or file not in PIXELS or ("value" in entry and value is None):
        raise NonsenseError
    if file == "ids.png" or value is None:
        found = PIXELS[file].get(None if value is None else whole(value, 0, 65535))
    elif file == "m.png":
        found = {255: 48, 0: H * W - 48}.get(whole(value, 0, 65535))
    else:
        found = None
    if found is None:
        raise NonsenseError
    return found


def entries(document: Any) -> list[Any]:
    if not isinstance(document, list) or not document:
        raise NonsenseError
    found = []
    for entry in document:
        if not isinstance(entry, dict):
            raise NonsenseError
        frame, said = whole(entry.get("frame"), 0, 2**63 - 1), dict(entry)
        del said["frame"]
        found.append((frame, prompt(said, "id label points box mask value")))
    if len({(frame, said[0]) for frame, said in found}) < len(found):
        raise NonsenseError
    return sorted(found, key=lambda one: one[0])


RUNTIMES = "torch cpu cuda tensorrt auto onnx onnx:cuda onnx:tensorrt onnx:openvino onnx:coreml onnx:directml"


def recipe(document: Any) -> tuple[Any, ...]:
    keys(document, "model weights image_size runtime precision max_objects memory")
    memory = document.get("memory", {})
    keys(memory, "policy spatial pointers")
    return (
        home(document.get("model", "nano")),
        home(document.get("weights", "package:nano")),
        whole(document.get("image_size", 320), 64, 4096, 32),
        among(document.get("runtime", "auto"), RUNTIMES),
        among(document.get("precision", "auto"), "fp32 bf16 fp16 int16 int8 fp8 auto"),
        whole(document.get("max_objects", 4), 1, 255),
        among(memory.get("policy", "efp"), "fifo efp-window efp confident efp-confident anchor diverse distractor"),
        whole(memory.get("spatial", 5), 1, 64),
        whole(memory.get("pointers", 16), 0, 64),
    )


def home(value: Any) -> str:
    if text(value).startswith("~nobody") or "://" in value:
        raise NonsenseError
    return str(value)


def source(value: Any) -> str:
    return str(value) if "://" in text(value) else home(value)


def bind(value: Any) -> str:
    scheme, _, rest = text(value).partition("://")
    if scheme == "ipc" and rest and rest[0] not in "@*":
        return str(value)
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or host not in ("127.0.0.1", "[::1]") or not port.isdecimal() or int(port) > 65535:
        raise NonsenseError
    return str(value)


def stream(document: Any) -> tuple[Any, ...]:
    keys(document, " ".join([*STREAM, "engine metrics record security"]))
    publish, crop, objects = document.get("publish", {}), document.get("crop", "off"), document.get("object", [])
    keys(publish, "bind topics")
    topics = publish.get("topics", ["video", "overlay", "masks", "status"])
    if not isinstance(topics, list) or not isinstance(objects, list):
        raise NonsenseError
    for topic in topics:
        among(topic, "video overlay masks status")
    if isinstance(crop, list):
        x0, y0, x1, y1 = crop = [whole(side, 0, 16384) for side in crop] if len(crop) == 4 else [0, 0, 0, 0]
    if (isinstance(crop, list) and not (x0 < x1 and y0 < y1)) or len(set(topics)) < len(topics):
        raise NonsenseError
    control = None
    if "control" in document:
        keys(document["control"], "bind")
        control = bind(document["control"].get("bind"))
    address = bind(publish.get("bind", "tcp://127.0.0.1:5555"))
    said = [prompt(thing, "id label points box mask value") for thing in objects]
    if len({one[0] for one in said}) < len(said) or (control == address and not address.endswith(":0")):
        raise NonsenseError
    return (
        source(document.get("source")),
        within(document.get("target_fps", 25), 0.1, 1000),
        among(document.get("overlay", "latest"), "latest sync"),
        within(document.get("mask_budget_ms", 120), 1, 10_000),
        within(document.get("opacity", 0.28), 0, 1),
        among(document.get("pace", "native"), "native flat-out"),
        among(document.get("deinterlace", "auto"), "off auto on"),
        among(document.get("carry", "off"), "off flow behind"),
        tuple(crop) if isinstance(crop, list) else among(crop, "off auto"),
        whole(document["least_image_size"], 64, 320, 32) if "least_image_size" in document else None,
        address,
        topics,
        control,
        said,
    )


# The doors: what each makes of a mutant, as the judge has it.


def plain(said: Prompt) -> tuple[Any, ...]:
    return said.id, said.points, said.box, None if said.mask is None else int(said.mask.sum()), said.label


def of_file(path: Path) -> list[Any]:
    return [(frame, plain(said)) for frame, on_frame in sorted(load_prompts(path).items()) for said in on_frame]


def of_recipe(path: Path) -> tuple[Any, ...]:
    found, folder = load_recipe(path), path.parent
    names = [name.removeprefix(f"{folder}/") for name in (found.model, found.weights)]
    return (*names, found.image_size, found.runtime, found.precision, found.max_objects,
            found.memory.policy, found.memory.spatial, found.memory.pointers)  # fmt: skip


def of_stream(path: Path) -> tuple[Any, ...]:
    found = load_stream(path)
    source = found.source.removeprefix(f"{path.parent}/")
    return (
        source, found.target_fps, found.overlay, found.mask_budget_ms, found.opacity, found.pace, found.deinterlace,
        found.carry, found.crop, found.least_image_size, found.publish.bind, list(found.publish.topics), found.control,
        [plain(said) for said in found.objects],
    )  # fmt: skip


def to_toml(table: dict[str, Any]) -> str:
    return "".join(f"{json.dumps(key)} = {toml_value(value)}\n" for key, value in table.items() if value is not None)


def toml_value(value: Any) -> str:
    if isinstance(value, dict):
        inner = ", ".join(f"{json.dumps(key)} = {toml_value(one)}" for key, one in value.items() if one is not None)
        return f"{{ {inner} }}"
    if isinstance(value, list):
        return f"[{', '.join(toml_value(one) for one in value if one is not None)}]"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value, ensure_ascii=False) if value != "\0" else '"\\u0000"'


def no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise NonsenseError
    return dict(pairs)


def read(data: bytes, parse: Callable[[str], Any]) -> Any:
    """A file as the judge reads it: whatever coding its mark names, else UTF-8."""
    codings = {b"\xff\xfe\0\0": "utf-32", b"\xff\xfe": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
    coding = next((name for mark, name in codings.items() if data.startswith(mark)), "utf-8")
    try:
        return parse(data.decode(coding))
    except (ValueError, RecursionError):
        raise NonsenseError from None


def from_json(words: str) -> Any:
    return json.loads(words, object_pairs_hook=no_twins)


def judged(judge: Callable[[Any], Any], data: bytes, parse: Callable[[str], Any] = tomllib.loads) -> Any:
    return judge(read(data, parse))


class Case:
    """One mutant: what the door makes of it, and what the judge does."""

    def __init__(self, door: Callable[[], Any], judge: Callable[[], Any], shown: Any) -> None:
        self.door, self.judge, self.shown = door, judge, shown


def file_cases(folder: Path, rng: random.Random) -> Iterator[Case]:
    """Prompt files, recipes and profiles: mutants of values, and slips in their text."""
    path = folder / "p.json"
    for n in range(EACH):
        document = [PROMPT, MASKED, {"frame": 3, "id": 2, "mask": "m.png"}]
        said = json.dumps(mutant(document, rng) if n % 3 else document, ensure_ascii=n % 2 == 0)
        data = said.encode() if n % 3 else scribbled(said, rng)
        path.write_bytes(data)
        yield Case(partial(of_file, path), partial(judged, entries, data, from_json), data)
    for name, document, door, judge in (
        ("e.toml", RECIPE, of_recipe, recipe), ("s.toml", STREAM, of_stream, stream),
    ):  # fmt: skip
        path = folder / name
        for n in range(EACH):
            said = to_toml(mutant(document, rng) if n % 3 else document)
            data = said.encode() if n % 3 else scribbled(said, rng)
            path.write_bytes(data)
            yield Case(partial(door, path), partial(judged, judge, data), data)


def value_cases(rng: random.Random) -> Iterator[Case]:
    """The public API, with numbers of any library, and the control socket."""
    dress: list[Callable[[Any], Any]] = [np.float64, np.array, torch.tensor, np.int64, np.float16, lambda value: value]

    @np.errstate(all="ignore")
    def dressed(value: Any) -> Any:
        with suppress(Exception):
            if any(word in repr(value) for word in ("'", "True", "False")):
                return value  # of which an array makes numbers
            worn = rng.choice(dress)(value)
            if worn.shape and worn.dtype.kind not in "if":
                return value
            return worn if np.array_equal(np.asarray(worn, float), np.asarray(value, float)) else value
        return value

    base = {key: value for key, value in PROMPT.items() if key != "frame"}
    for _ in range(EACH):
        said = mutant(base, rng)
        said = {key: value for key, value in said.items() if value is not None and value != []} | {"id": said.get("id")}
        worn = {key: value if isinstance(value, bool) else dressed(value) for key, value in said.items()}
        yield Case(partial(of_api, worn), partial(prompt, said, "id label points box", files=False), (said, worn))
    for _ in range(EACH):
        said = mutant(base, rng)
        with suppress(OverflowError):
            packed = msgpack.packb({"v": 1, "n": 1, "verb": "add", "args": {"prompt": said}})
            yield Case(partial(of_wire, packed), partial(prompt, said, "id label points box", files=False), said)


def of_api(said: dict[str, Any]) -> tuple[Any, ...]:
    """A word that it does not know is Python's own error, and counts as refused."""
    if set(said) - {"id", "label", "points", "box", "mask"}:
        raise RtsegError("an unknown keyword")
    return plain(Prompt(**said))


def of_wire(packed: bytes) -> tuple[Any, ...]:
    request = request_of(opened(packed))
    assert isinstance(request, Add)
    return plain(request.prompt)


def tried(folder: Path, seed: int) -> tuple[dict[str, int], list[str]]:
    """How many mutants there were, taken and refused; and what went wrong with which."""
    rng, counts, wrong = random.Random(seed), {"taken": 0, "refused": 0}, []
    Image.fromarray((IDS_HW == 1).astype(np.uint8) * 255).save(folder / "m.png")
    Image.fromarray(IDS_HW).save(folder / "ids.png")
    Image.new("L", (W, H), 255).save(folder / "white.png")
    for cases in (file_cases(folder, rng), value_cases(rng)):
        for case in cases:
            try:
                expected: Any = case.judge()
            except NonsenseError:
                expected = NonsenseError
            try:
                found, kind = case.door(), "taken"
            except RtsegError as e:
                found, kind = NonsenseError, "refused"
                if "\n" in str(e) or len(str(e)) > 1500:
                    wrong.append(f"no line: {e}")
            except Exception as e:
                wrong.append(f"traceback: {type(e).__name__}: {e} of {case.shown!r:.300}")
                continue
            counts[kind] += 1
            if found is not expected and repr(found) != repr(expected):
                wrong.append(f"{found!r:.300} and not {expected!r:.300} of {case.shown!r:.500}")
    return counts, wrong


def test_no_mutant_is_a_traceback_and_no_nonsense_is_taken(tmp_path: Path) -> None:
    counts, wrong = tried(tmp_path, 20261130)
    assert wrong == []
    assert counts["taken"] > 60 and counts["refused"] > 240  # the mutants say something about either side


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_nor_is_any_of_thousands(tmp_path: Path, seed: int) -> None:
    assert tried(tmp_path, seed)[1] == []


def careless_plain(value: Any, depth: int = 0) -> Any:
    """Texts, truths and fractions as whole numbers."""
    if isinstance(value, list | tuple):
        return [careless_plain(item) for item in value]
    with suppress(Exception):
        return int(float(value))
    return value


class Careless(Struct, frozen=True, kw_only=True):
    """A prompt whose numbers may be any."""

    id: int
    label: Any = UNSET
    points: Any = UNSET
    box: Any = UNSET
    mask: Any = UNSET


HOLES: dict[str, tuple[Any, str, Any]] = {
    "1.7, true and text are whole numbers": (rtseg.base.schema, "plain", careless_plain),
    "a coordinate may be anywhere": (rtseg.base.prompt_schema, "_check_pixels", lambda coordinates: None),
    "a number may be any": (rtseg.base.prompt, "PromptFields", Careless),
    "a box may be turned round": (rtseg.base.prompt_schema, "_check_box", lambda box: None),
    "a label may be anything": (rtseg.base.prompt_schema, "_check_label", lambda label: None),
}


@pytest.mark.parametrize("name", HOLES)
def test_a_hole_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    where, what, instead = HOLES[name]
    monkeypatch.setattr(where, what, instead)
    assert len(tried(tmp_path, 20261130)[1]) >= 1
