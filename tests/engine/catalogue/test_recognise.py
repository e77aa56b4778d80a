"""What network a file of weights is of, and what it seems to be where it is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rtseg.base.errors import WeightsError
from rtseg.base.files import file_sha256
from rtseg.engine.catalogue.recognise import presets_of, recognise
from rtseg.engine.recipe import SHIPPED
from rtseg.sam2 import Sam2, get_preset
from tests.engine.catalogue.conftest import Shelf
from tests.sam2.test_weights import PUBLISHED

State = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return Sam2(get_preset("micro"), 64).state_dict()


def line(path: Path, state: object = None) -> str:
    """Why a file is not recognised; `state` is written to it before."""
    if isinstance(state, bytes):
        path.write_bytes(state)
    elif state is not None:
        torch.save(state, path)
    with pytest.raises(WeightsError) as caught:
        recognise(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and "\n" not in text
    return text.removeprefix(f"{path}: ")


def test_shipped_weights_are_recognised(shelf: Shelf) -> None:
    path = SHIPPED / "nano.safetensors"
    found = recognise(path)
    assert found.presets == ("nano",) and found.name == "" and found.sha256 == file_sha256(path)
    shelf.add("w", "https://x/w", sha256=found.sha256)
    assert recognise(path).name == "w"


def test_a_file_of_torch_is_recognised(tmp_path: Path, state: State) -> None:
    torch.save({"model": state}, tmp_path / "w.pt")
    found = recognise(tmp_path / "w.pt")
    assert found.presets == ("micro",)
    assert (found.tensors, found.parameters) == (len(state), sum(x.numel() for x in state.values()))


def test_networks_with_the_same_tensors_are_all_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As those that differ in the image size alone."""
    from dataclasses import replace

    from rtseg.sam2 import PRESETS

    monkeypatch.setitem(PRESETS, "twin", replace(get_preset("micro"), name="twin"))
    assert recognise(SHIPPED / "micro.safetensors").presets == ("micro", "twin")


@pytest.mark.parametrize("preset", list(PUBLISHED))
def test_the_tensors_of_published_files_are_recognised(preset: str) -> None:
    """Names and shapes from files that no code of ours has written."""
    shapes, path = dict(PUBLISHED[preset]), Path("w.pt")
    assert presets_of(shapes, path) == (preset,)
    shapes.pop("no_mem_embed")
    with pytest.raises(WeightsError, match=f"most like {preset}, with .* 1 tensors are missing, such as no_mem_embed"):
        presets_of(shapes, path)


def test_what_does_not_fit_is_named(tmp_path: Path, state: State) -> None:
    path = tmp_path / "w.pt"
    name = next(iter(state))
    count = len(state)
    less = {key: value for key, value in state.items() if key != name}
    assert line(path, less) == (
        f"most like micro, with {count - 1} of its {count} tensors; 1 tensors are missing, such as {name}"
    )
    assert line(path, {**state, "extra": torch.zeros(1)}) == (
        f"most like micro, with {count} of its {count} tensors; 1 tensors are too many, such as extra"
    )
    assert f"{name} and 0 more have other shapes: [3], expected " in line(path, {**state, name: torch.zeros(3)})
    assert line(path, {"conv1.weight": torch.zeros(2)}) == (
        "weights of no network that rtseg has: 1 tensors, such as conv1.weight"
    )


def test_numbers_that_are_none_are_named(tmp_path: Path, state: State) -> None:
    name = list(state)[5]
    broken = {**state, name: torch.full_like(state[name], torch.nan)}
    assert line(tmp_path / "w.pt", broken) == (
        "the network is micro, but 1 tensors hold something else than finite numbers, such as"
        f" {name}; the file is damaged"
    )


def test_what_is_no_file_of_weights_is_named(tmp_path: Path, state: State) -> None:
    path = tmp_path / "w.pt"
    expected = "expected weights as .pt or .safetensors"
    assert line(path) == f"no such file; {expected}"
    assert line(path, b"") == "empty; expected weights"
    assert line(path, bytes(100)) == "begins with zeros; expected weights"
    assert line(path, b"\n<!DOCTYPE html><html>") == "a web page; fetch the file itself"
    assert line(path, b"version https://git-lfs.github.com/spec/v1\noid").startswith("a Git LFS pointer")
    assert line(path, b"\x1f\x8b\x08").startswith("a gzip archive")
    assert "not a readable weights file" in line(path, b"some text")
    torch.save(state, path)
    whole = path.read_bytes()
    half = len(whole) // 2
    assert line(path, whole[:half]) == (
        f"half a file: it begins as torch's files do, and its end is missing ({half} bytes)"
    )
    shipped = (SHIPPED / "micro.safetensors").read_bytes()
    for size in (100, len(shipped) // 2):
        half_path = tmp_path / "w.safetensors"
        assert "half a file" in line(half_path, shipped[:size])


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    import pickle

    class Evil:
        def __reduce__(self) -> object:
            return (Path.write_text, (tmp_path / "executed", "x"))

    path = tmp_path / "w.pt"
    path.write_bytes(pickle.dumps({"model": Evil()}, protocol=2))
    assert "not a readable weights file" in line(path)
    assert not (tmp_path / "executed").exists()
    pickle.loads(path.read_bytes())  # the negative control
    assert (tmp_path / "executed").exists()
