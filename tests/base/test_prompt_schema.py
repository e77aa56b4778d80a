"""What a person says of an object is checked once, by one schema, and copied, whichever way it comes in."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from enum import IntEnum
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from PIL import Image

from rtseg.base.errors import ConfigError, OutputError, PromptError, RtsegError
from rtseg.base.prompt_files import as_prompts, load_prompts
from rtseg.base.types import Masks, Prompt
from rtseg.live.control import Client, ControlServer
from rtseg.live.control.messages import opened, pack_request, request_of
from rtseg.live.control.verbs import Remove, Rename, TakeSnapshot
from rtseg.live.profile import load_stream

H, W = 20, 30
MASK_HW = np.zeros((H, W), bool)
MASK_HW[5:9, 6:12] = True
RAMP_HW = np.linspace(-7.3, 9.1, H * W, dtype=np.float32).reshape(H, W)
POINT = [(1, 1, 1)]


class Name(IntEnum):
    grasper = 3


MASKS: dict[str, Callable[[], Any]] = {
    "bool": lambda: MASK_HW,
    "0/1": lambda: MASK_HW.astype(np.uint8),
    "0/255": lambda: MASK_HW.astype(np.uint8) * 255,
    "0/65535 of 16 bits": lambda: MASK_HW.astype(np.uint16) * 65535,
    "float16": lambda: MASK_HW.astype(np.float16),
    "0.0/255.0": lambda: MASK_HW * 255.0,
    "int64": lambda: MASK_HW.astype(np.int64),
    "tensor": lambda: torch.tensor(MASK_HW),
    "tensor of floats": lambda: torch.tensor(MASK_HW).float().requires_grad_(),
    "bfloat16": lambda: torch.tensor(MASK_HW).bfloat16(),
    "list": lambda: MASK_HW.astype(int).tolist(),
    "picture": lambda: Image.fromarray(MASK_HW),
    "1HW": lambda: MASK_HW[None],
    "HW1": lambda: MASK_HW[..., None],
    "11HW": lambda: torch.tensor(MASK_HW)[None, None],
    "read-only": lambda: np.frombuffer(MASK_HW.tobytes(), bool).reshape(H, W),
    "negative strides": lambda: MASK_HW[::-1, ::-1].copy()[::-1, ::-1],
    "columns first": lambda: np.asfortranarray(MASK_HW),
}


@pytest.mark.parametrize("name", MASKS)
def test_a_mask_is_taken_whatever_it_is_made_of(name: str) -> None:
    mask_hw = Prompt(1, mask=MASKS[name]()).mask
    assert mask_hw is not None and mask_hw.dtype == np.bool_ and type(mask_hw) is np.ndarray
    np.testing.assert_array_equal(mask_hw, MASK_HW)


REFUSED: dict[str, tuple[Any, str]] = {
    "logits": (RAMP_HW, "is float32 from -7.3 to 9.1; expected bool, 0/1 or 0/255; for logits: mask=(logits > 0)"),
    "a tensor of logits": (torch.tensor(RAMP_HW), "is float32 from -7.3 to 9.1; expected bool, 0/1 or 0/255"),
    "a soft map": (np.abs(RAMP_HW) / 9.1, "for probabilities: mask=(probabilities > 0.5)"),
    "NaN": (np.where(MASK_HW, 1, np.nan), "is float64 with 576 values that are no numbers; expected bool"),
    "infinity": (np.where(MASK_HW, np.inf, 0), "is float64 from 0 to inf"),
    "ids": (MASK_HW * np.arange(1, W + 1) // 4, "is int64 with 0, 1, 2, 3; expected bool, 0/1 or 0/255; for one"),
    "one id": (MASK_HW.astype(np.uint8) * 7, "is uint8 with 0, 7; expected bool, 0/1 or 0/255; for one object"),
    "grey": (MASK_HW * np.uint8(128), "is uint8 with 0, 128"),
    "below zero": (MASK_HW.astype(np.int8) * -1, "is int8 with -1, 0; expected bool"),
    "0, 1 and 255": (MASK_HW * np.array([1, 255] * (W // 2)), "is int64 with 0, 1, 255"),
    "nothing": (MASK_HW & False, "is empty; expected at least one pixel of the object"),
    "everything": (MASK_HW | True, "covers all of its 30x20 pixels; expected background too"),
    "255 everywhere": (np.full((H, W), 255, np.uint8), "covers all of its 30x20 pixels"),
    "three channels": (np.stack([MASK_HW] * 3), "has the shape [3, 20, 30]; expected [H, W]"),
    "a number": (1, "has the shape []; expected [H, W]"),
    "no rows": ([], "has the shape [0]; expected [H, W]"),
    "ragged": ([[1, 0], [1]], "is no array"),
    "a path": ("m.png", "is a str; expected an array [H, W] of bool, 0/1 or 0/255"),
    "complex": (MASK_HW * 1j, "is an array of complex128"),
    "texts": (MASK_HW.astype(str), "is an array of <U5"),
    "a masked array": (np.ma.array(MASK_HW, mask=MASK_HW), "is a masked array"),
    "sparse": (torch.tensor(MASK_HW).float().to_sparse(), "is no array"),
    "all that a tracker said": (Masks(0, "", 0, 0, H, W, (), (), (), (), RAMP_HW[None]), "is a Masks; expected"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_no_mask_is_refused_with_what_it_is(name: str) -> None:
    value, said = REFUSED[name]
    with pytest.raises(PromptError) as caught:
        Prompt(3, mask=value)
    assert str(caught.value).startswith("prompt for object 3: mask ")
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_logits_are_a_mask_once_somebody_says_so() -> None:
    masks = Masks(0, "", 0, 0, H, W, (1,), ("a",), (0.9,), (0.9,), RAMP_HW[None])
    with pytest.raises(PromptError, match="for logits: mask="):
        Prompt(1, mask=masks.logits(1))
    for mask in (masks.mask(1), masks.logits(1) > 0):
        np.testing.assert_array_equal(Prompt(1, mask=mask).mask, RAMP_HW > 0)


def test_nothing_that_a_caller_does_later_changes_a_prompt() -> None:
    mask_hw, points, box = MASK_HW.copy(), [[1, 2, 1]], np.array([1.0, 2.0, 9.0, 9.0])
    given, pointed = Prompt(1, mask=mask_hw), Prompt(2, points, box)
    mask_hw[:], points[0][0], box[:] = True, 99, 0
    assert given.mask is not None
    np.testing.assert_array_equal(given.mask, MASK_HW)
    assert pointed.points == ((1.0, 2.0, 1),) and pointed.box == (1.0, 2.0, 9.0, 9.0)
    with pytest.raises(ValueError, match="read-only"):
        given.mask[0, 0] = True
    with pytest.raises(ValueError, match="cannot set WRITEABLE"):
        given.mask.flags.writeable = True


@pytest.mark.parametrize(
    "given", [3, 3.0, np.int64(3), np.float32(3), torch.tensor(3.0), torch.tensor(3), Name.grasper]
)
def test_an_id_is_a_whole_number_of_any_library(given: Any) -> None:
    found = Prompt(given, POINT).id
    assert found == 3 and type(found) is int


NO_IDS = [1.7, "1", b"1", True, np.bool_(True), None, float("nan"), float("inf"), 0, -1, 256, 1e300, 10**401, 10**5000,
          1 + 0j, [1], np.array([3]), torch.tensor([1, 2]), {}]  # fmt: skip


@pytest.mark.parametrize("given", NO_IDS, ids=lambda given: type(given).__name__)
def test_what_is_no_id_is_refused_by_the_same_line_at_every_door(given: Any) -> None:
    masks = Masks(0, "", 0, 0, H, W, (1,), ("a",), (0.9,), (0.9,), RAMP_HW[None])
    lines = set()
    doors: list[Callable[[], Any]] = [
        lambda: Prompt(given, POINT), lambda: masks.mask(given), lambda: masks.logits(given),
        lambda: masks.score(given), lambda: masks.iou(given), lambda: masks.label(given),
        lambda: pack_request(1, Remove(given)), lambda: pack_request(1, Rename(given, "x")),
    ]  # fmt: skip
    for door in doors:
        with pytest.raises((PromptError, OutputError)) as caught:
            door()
        lines.add(str(caught.value).split(": ", 1)[1])
    (line,) = lines
    assert line.startswith("id = ") and line.endswith("; expected a whole number, 1 to 255") and len(line) < 120


def test_the_masks_of_a_frame_are_asked_for_by_any_whole_number() -> None:
    masks = Masks(0, "", 0, 0, H, W, (1,), ("a",), (0.9,), (0.8,), RAMP_HW[None])
    for given in (1, 1.0, np.uint8(1), torch.tensor(1.0)):
        assert (masks.score(given), masks.iou(given), masks.label(given)) == (0.9, 0.8, "a")  # type: ignore[arg-type]
        assert masks.logits(given) is masks.logits(1)  # type: ignore[arg-type]  # kept once
    with pytest.raises(KeyError, match="no object 2 on frame 0"):
        masks.mask(2)
    masks.mask(1)[:] = True  # a copy
    with pytest.raises(ValueError, match="read-only"):
        masks.logits(1)[:] = 0


POINTS = "expected points like [[x, y, 1 or 0], ...]"
BOX = "expected a box like [x0, y0, x1, y1] with x0 < x1 and y0 < y1"
LABEL = "expected one line of 1 to 64 characters"
ALL = "expected points, a box, points with a box, or a mask alone"
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"points": [[1, 2]]}, f"points = [[1, 2]]; {POINTS}"),
    ({"points": [1, 2, 1]}, f"points = [1, 2, 1]; {POINTS}"),
    ({"points": [[1, 2, 2]]}, f"points = [[1, 2, 2]]; {POINTS}"),
    ({"points": [[1, 2, True]]}, f"points = [[1, 2, True]]; {POINTS}"),
    ({"points": [["1", 2, 1]]}, f"points = [['1', 2, 1]]; {POINTS}"),
    ({"points": [[float("nan"), 2, 1]]}, f"points = [[nan, 2, 1]]; {POINTS}"),
    ({"points": [[1, float("inf"), 1]]}, f"points = [[1, inf, 1]]; {POINTS}"),
    ({"points": "1,2,1"}, f"points = '1,2,1'; {POINTS}"),
    ({"points": [[-1, 2, 1]]}, "coordinate -1; expected pixels, 0 to 16384"),
    ({"points": [[1, 1e9, 1]]}, "coordinate 1e+09; expected pixels, 0 to 16384"),
    ({"points": [[1, 2, 1]] * 65}, "65 points; expected at most 64"),
    ({"box": [5, 5, 5, 9]}, f"box = [5, 5, 5, 9]; {BOX}"),
    ({"box": [9, 9, 5, 5]}, f"box = [9, 9, 5, 5]; {BOX}"),
    ({"box": [1, 2, 3]}, f"box = [1, 2, 3]; {BOX}"),
    ({"box": [1, 2, 3, float("nan")]}, f"box = [1, 2, 3, nan]; {BOX}"),
    ({"box": ["1", "2", "3", "4"]}, f"box = ['1', '2', '3', '4']; {BOX}"),
    ({"box": [0.1, 0.2, 0.5, 0.6]}, "box = [0.1, 0.2, 0.5, 0.6]; expected pixels, not fractions of the frame: this is"),
    ({}, f"found neither points, box nor mask; {ALL}"),
    ({"points": [[1, 2, 1]], "label": 3}, "label = 3; expected a text"),
    ({"points": [[1, 2, 1]], "label": ""}, "label = ''; expected a text"),
    ({"points": [[1, 2, 1]], "label": " "}, f"label = ' '; {LABEL}"),
    ({"points": [[1, 2, 1]], "label": "a\nb"}, f"label = 'a\\nb'; {LABEL}"),
    ({"points": [[1, 2, 1]], "label": "\u202eabc"}, f"label = '\\u202eabc'; {LABEL}"),
    ({"points": [[1, 2, 1]], "label": "x" * 65}, f"label = '{'x' * 56}...; {LABEL}"),
]  # fmt: skip


def toml(value: Any) -> str:
    """A value of JSON as TOML has it."""
    return json.dumps(value).replace("NaN", "nan").replace("Infinity", "inf")


@pytest.mark.parametrize(("said", "expected"), MISTAKES, ids=lambda value: str(value)[:40])
def test_the_same_mistake_gives_the_same_line_whichever_way_it_came(
    tmp_path: Path, said: dict[str, Any], expected: str
) -> None:
    (tmp_path / "p.json").write_text(json.dumps([{"frame": 0, "id": 1, **said}]))
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in said.items())
    (tmp_path / "s.toml").write_text(f'source = "clip.mp4"\n[[object]]\nid = 1\n{lines}')
    wire = {"v": 1, "n": 1, "verb": "add", "args": {"prompt": {"id": 1, **said}}}
    doors: dict[str, Callable[[], Any]] = {
        "prompt for object 1: ": lambda: Prompt(1, **said),
        f"{tmp_path / 'p.json'}: entry 1: ": lambda: load_prompts(tmp_path / "p.json"),
        f"{tmp_path / 's.toml'}: object 1: ": lambda: load_stream(tmp_path / "s.toml"),
        "add: prompt: ": lambda: request_of(opened(msgpack.packb(wire))),
    }
    for where, door in doors.items():
        with pytest.raises((PromptError, ConfigError)) as caught:
            door()
        assert str(caught.value).startswith(where + expected), where


def test_the_same_prompt_without_a_mistake_comes_in_by_every_door(tmp_path: Path) -> None:
    said: dict[str, Any] = {"id": 1.0, "points": [[1, 2.5, 1.0]], "box": [0, 1, 20, -0.0 + 9], "label": "é x"}
    (tmp_path / "p.json").write_text(json.dumps([{"frame": -0.0, **said}]))
    lines = "".join(f"{key} = {toml(value)}\n" for key, value in said.items())
    (tmp_path / "s.toml").write_text(f'source = "clip.mp4"\n[[object]]\n{lines}')
    wire = {"v": 1, "n": 1, "verb": "add", "args": {"prompt": said, "seq": 4.0}}
    add = request_of(opened(msgpack.packb(wire)))
    from_file, from_profile = load_prompts(tmp_path / "p.json")[0][0], load_stream(tmp_path / "s.toml").objects[0]
    found = [Prompt(**said), from_file, from_profile, add.prompt]  # type: ignore[union-attr]
    assert {repr(prompt) for prompt in found} == {repr(found[0])}
    assert found[0].points == ((1.0, 2.5, 1),) and type(found[0].id) is int and add.seq == 4  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["add", "correct"])
def test_the_client_refuses_what_the_feed_would(method: str) -> None:
    with ControlServer("tcp://127.0.0.1:*") as server, Client(server.endpoint, timeout=0.1) as client:
        for given, line in (
            ({"id": "1", "points": POINT}, "prompt: id = '1'; expected a whole number, 1 to 255"),
            ({"id": 1, "mask": RAMP_HW}, "prompt for object 1: mask is float32 from -7.3 to 9.1"),
            ({"id": 1, "points": POINT, "seq": 1.5}, f"{method}: seq = 1.5; expected a whole number, 0 to"),
            ({"id": 1, "points": POINT, "seq": "0"}, f"{method}: seq = '0'; expected a whole number, 0 to"),
        ):
            with pytest.raises(PromptError) as caught:
                getattr(client, method)(**given)
            assert str(caught.value).startswith(line)
        with pytest.raises(OutputError, match="no answer"):  # which is sent: there is nobody
            getattr(client, method)(torch.tensor(1.0), POINT, seq=np.int64(3))


def test_numbers_of_any_library_go_over_the_wire() -> None:
    assert request_of(opened(pack_request(1, TakeSnapshot(np.int64(7))))) == TakeSnapshot(7)  # type: ignore[arg-type]
    assert request_of(opened(pack_request(1, Rename(torch.tensor(2.0), "x")))) == Rename(2, "x")  # type: ignore[arg-type]


def test_the_prompts_of_a_caller_are_read_as_a_files_are() -> None:
    prompt = Prompt(1, POINT)
    given = {np.int64(0): (prompt,), 4.0: [prompt]}
    assert as_prompts(given) == {0: [prompt], 4: [prompt]}
    bad: list[tuple[Any, str]] = [
        ([prompt], "expected a map of frame numbers"),
        ("p.json", "expected a map of frame numbers"),
        ({"0": [prompt]}, "prompts: frame = '0'; expected a whole number, 0 to"),
        ({1.5: [prompt]}, "prompts: frame = 1.5; expected a whole number, 0 to"),
        ({-1: [prompt]}, "prompts: frame = -1; expected a whole number, 0 to"),
        ({0: prompt}, "prompts on frame 0: found Prompt"),
        ({0: [{"id": 1}]}, "expected a Prompt: rtseg.Prompt"),
    ]
    for value, line in bad:
        with pytest.raises(PromptError) as caught:
            as_prompts(value)
        assert line in str(caught.value)


def test_every_line_is_one_and_short() -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError

    deep: Any = []
    for _ in range(100_000):
        deep = [deep]
    for given in (Odd(), deep, "x\n" * 1000, np.zeros((300, 300)), b"\0" * 9999):
        for key in ("id", "points", "box", "label"):
            with pytest.raises(RtsegError) as caught:
                Prompt(**{"id": 1, "points": POINT, key: given})  # type: ignore[arg-type]
            assert "\n" not in str(caught.value) and len(str(caught.value)) < 250


@pytest.mark.parametrize("said", [{"mask": MASK_HW}, {"points": POINT, "box": (0, 0, 5, 5)}])
def test_a_prompt_can_be_sent_to_another_process(said: dict[str, Any]) -> None:
    prompt = Prompt(3, label="hook", **said)
    for same in (pickle.loads(pickle.dumps(prompt)), copy.deepcopy(prompt), replace(prompt)):
        assert (same.id, same.points, same.box, same.label) == (3, prompt.points, prompt.box, "hook")
        assert prompt.mask is None or np.array_equal(same.mask, prompt.mask)
    with pytest.raises(PromptError, match="id = 300"):
        replace(prompt, id=300)
