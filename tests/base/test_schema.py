"""What is taken as a field's value, and the one line that each mistake costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import pytest
import torch
from msgspec import Meta, Struct

from rtseg.base.errors import ConfigError, OutputError
from rtseg.base.schema import ImageSize, Text, convert, convert_value, mistake, one_of

POLICIES = ("fifo", "efp-window", "efp")
Id = Annotated[int, Meta(ge=1, le=255)]


@dataclass(frozen=True, slots=True)
class Memory:
    policy: Annotated[str, one_of(POLICIES)] = "efp"
    spatial: Annotated[int, Meta(ge=1, le=64)] = 5


class Thing(Struct, frozen=True, kw_only=True):
    id: Id
    mask: Any = None


class Config(Struct, frozen=True, kw_only=True):
    source: Text
    image_size: ImageSize = 320
    fps: Annotated[float, Meta(ge=0.1, le=1000.0)] = 25.0
    memory: Memory = Memory()
    thing: tuple[Thing, ...] = ()
    names: tuple[Text, ...] = ()
    crop: Annotated[Literal["off"] | tuple[int, int], Meta(description='"off" or a size')] = "off"
    exact: bool = True
    path: str | None = None

    def __post_init__(self) -> None:
        if len(set(self.names)) < len(self.names):
            raise mistake("names", list(self.names), "each of them once")


def read(**values: Any) -> Config:
    return convert({"source": "a", **values}, Config, "f.toml", internal=("path",))


def test_numbers_of_any_library_are_numbers() -> None:
    size, fps, crop = torch.tensor(256), np.int64(30), np.array([3.0, 4.0])
    found = read(image_size=size, fps=fps, crop=crop, memory=Memory("fifo", 3), thing=[{"id": 7.0}])
    assert (found.image_size, found.fps, found.crop) == (256, 30.0, (3, 4))
    assert (found.memory, found.thing[0].id) == (Memory("fifo", 3), 7)
    assert [type(value) for value in (found.image_size, found.fps, found.thing[0].id)] == [int, float, int]


def test_what_is_any_is_passed_on_as_it_is() -> None:
    mask_hw = np.zeros((3, 4), bool)
    assert read(thing=[{"id": 1, "mask": mask_hw}]).thing[0].mask is mask_hw


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"surce": "x"}, "unknown key 'surce'; did you mean 'source'?"),
        ({"path": "x"}, "unknown key 'path'; expected one of: source, image_size"),
        ({1: 2}, "unknown key 1; expected one of: source"),
        ({"source": 3}, "source = 3; expected a text"),
        ({"source": "a\0"}, r"source = 'a\x00'; expected a text without NUL"),
        ({"source": "a\ud800"}, "expected a text without NUL and half characters"),
        ({"image_size": 250}, "image_size = 250; expected a multiple of 32"),
        ({"image_size": True}, "image_size = True; expected a whole number, 64 to 4096"),
        ({"image_size": 320.5}, "image_size = 320.5; expected a whole number, 64 to 4096"),
        ({"image_size": "320"}, "image_size = '320'; expected a whole number, 64 to 4096"),
        ({"fps": float("nan")}, "fps = nan; expected a number, 0.1 to 1000"),
        ({"fps": 10**401}, "...; expected a number, 0.1 to 1000"),
        ({"memory": 5}, "memory: found 5; expected a table of: policy, spatial"),
        ({"memory": Memory(spatial=99)}, "memory: spatial = 99; expected a whole number, 1 to 64"),
        ({"memory": {"spatail": 3}}, "memory: unknown key 'spatail'; did you mean 'spatial'?"),
        ({"memory": {"policy": "lru"}}, "memory: policy = 'lru'; expected one of: fifo, efp-window, efp"),
        ({"memory": {"policy": "fefo"}}, "fifo, efp-window, efp; did you mean 'fifo'?"),
        ({"thing": {"id": 1}}, "thing = {'id': 1}; expected tables headed [[thing]]"),
        ({"thing": [{"id": 1}, 2]}, "thing 2: found 2; expected a table of: id, mask"),
        ({"thing": [{"id": 1}, {"id": 256}]}, "thing 2: id = 256; expected a whole number, 1 to 255"),
        ({"thing": [{"id": 1}, {}]}, "thing 2: 'id' is missing; expected a whole number, 1 to 255"),
        ({"names": ["a", 1]}, "names = ['a', 1]; expected a list of texts"),
        ({"names": ["a", "a"]}, "names = ['a', 'a']; expected each of them once"),
        ({"crop": [1, 2, 3]}, 'crop = [1, 2, 3]; expected "off" or a size'),
        ({"exact": 1}, "exact = 1; expected true or false"),
    ],
)
def test_a_mistake_is_one_line(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(**values) if all(isinstance(key, str) for key in values) else convert(values, Config, "f.toml")
    assert str(caught.value).startswith("f.toml: ")
    assert expected in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_missing_or_no_table_is_one_line() -> None:
    with pytest.raises(OutputError, match="^x: 'source' is missing; expected a text$"):
        convert({}, Config, "x", OutputError)
    with pytest.raises(ConfigError, match=r"^x: found \[\{\}\]; expected a table of: source, image_size"):
        convert([{}], Config, "x")


def test_one_value_is_checked_like_a_field() -> None:
    assert convert_value(np.float32(3), Id, "id") == 3
    with pytest.raises(ConfigError, match=r"^remove: id = 0; expected a whole number, 1 to 255$"):
        convert_value(0, Id, "remove: id")
