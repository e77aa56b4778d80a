"""Weights in and out: published names, files that do not fit, files that would do harm, and our own."""

from __future__ import annotations

import importlib.util
import itertools
import pickle
import resource
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from rtseg.base.errors import OutputError, WeightsError
from rtseg.base.files import file_sha256
from rtseg.sam2 import PRESETS, Preset, Sam2, get_preset, load_weights, save_weights
from rtseg.sam2.weights import read_state

_SPEC = importlib.util.spec_from_file_location("sam2_oracle", Path(__file__).parent / "conftest.py")
assert _SPEC and _SPEC.loader
oracle = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(oracle)

GOLDEN = Path(__file__).parents[1] / "golden"
Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]

LITTLE = Preset(
    "little", 8, 1, (1, 1, 1, 1), (), (8, 4, 4, 2), 7,
    dim=32, memory_dim=16, attention_layers=1, attention_ffn=16, decoder_ffn=16, decoder_heads=2,
)  # fmt: skip


def golden(name: str) -> Shapes:
    """The published names and shapes, from a file that no code of ours has written."""
    shapes: Shapes = {}
    for line in (GOLDEN / f"{name}.txt").read_text("utf-8").splitlines()[1:]:
        names, shape = line.split(" ", 1)
        for words in itertools.product(*(part.strip("{}").split(",") for part in names.split("."))):
            shapes[".".join(words)] = tuple(int(n) for n in shape.strip("[]").split(","))
    return shapes


V21: Shapes = {"no_obj_embed_spatial": (1, 64), "obj_ptr_tpos_proj.weight": (64, 256), "obj_ptr_tpos_proj.bias": (64,)}
TINY_21, SMALL_20 = golden("sam2.1_hiera_tiny"), golden("sam2_hiera_small")
PUBLISHED = {
    "sam2.1-tiny": TINY_21,
    "sam2-small": SMALL_20,
    "sam2-tiny": {name: shape for name, shape in TINY_21.items() if name not in V21},
    "sam2.1-small": SMALL_20 | V21,
}


def checkpoint(shapes: Shapes) -> State:
    """A tensor for each name, no two alike. A large one repeats one number, so that its file is small."""
    g = torch.Generator().manual_seed(0)
    return {
        name: torch.randn(shape, generator=g) if np.prod(shape) < 3000 else torch.randn(1, generator=g).expand(shape)
        for name, shape in shapes.items()
    }


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_checkpoint_fits(name: str, tmp_path: Path) -> None:
    state = checkpoint(PUBLISHED[name])
    torch.save({"model": state}, tmp_path / "official.pt")
    network = Sam2(get_preset(name), 64)
    load_weights(network, tmp_path / "official.pt")
    loaded = network.state_dict()
    assert loaded.keys() == state.keys()
    assert all(torch.equal(loaded[key], state[key]) for key in state)


def test_the_golden_names_are_whole() -> None:
    """Otherwise the test above would prove little; the counts are those of the released files."""
    assert {name: len(shapes) for name, shapes in PUBLISHED.items()} == {
        "sam2.1-tiny": 471, "sam2-small": 516, "sam2-tiny": 468, "sam2.1-small": 519,
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_a_published_checkpoint_fits_no_other_preset(name: str, tmp_path: Path) -> None:
    torch.save({"model": checkpoint(PUBLISHED[name])}, tmp_path / "official.pt")
    for other in PRESETS.keys() - {name}:
        with torch.device("meta"):
            network = Sam2(PRESETS[other], 256)
        with pytest.raises(WeightsError, match="is `model` in the recipe the preset of this file"):
            load_weights(network, tmp_path / "official.pt")


@pytest.fixture
def network() -> Sam2:
    torch.manual_seed(0)
    return Sam2(LITTLE, 64).eval()


def changed(**tensors: Tensor | None) -> Callable[[Path, State], Path]:
    """Writes a file in which these tensors stand for the network's own (None: left out)."""

    def write(folder: Path, state: State) -> Path:
        path = folder / "changed.pt"
        torch.save({"model": {k: v for k, v in {**state, **tensors}.items() if v is not None}}, path)
        return path

    return write


def of_preset(preset: Preset) -> Callable[[Path, State], Path]:
    def write(folder: Path, state: State) -> Path:
        torch.save({"model": Sam2(preset, 64).state_dict()}, folder / "other.pt")
        return folder / "other.pt"

    return write


def raw(name: str, content: bytes) -> Callable[[Path, State], Path]:
    def write(folder: Path, state: State) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return write


def saved(value: object) -> Callable[[Path, State], Path]:
    def write(folder: Path, state: State) -> Path:
        torch.save(value, folder / "value.pt")
        return folder / "value.pt"

    return write


def truncated(name: str, keep: float) -> Callable[[Path, State], Path]:
    """A whole file, cut off."""

    def write(folder: Path, state: State) -> Path:
        path = folder / name
        torch.save({"model": state}, path) if name.endswith(".pt") else safetensors.torch.save_file(state, path)
        content = path.read_bytes()
        path.write_bytes(content[: int(len(content) * keep)])
        return path

    return write


def folder_itself(folder: Path, state: State) -> Path:
    return folder


BAD = {
    "missing tensor": (changed(no_obj_ptr=None), "1 tensors are missing, the first is no_obj_ptr"),
    "extra tensor": (changed(surplus=torch.zeros(3)), "1 tensors that the network does not have, such as surplus"),
    "wrong shape": (changed(no_obj_ptr=torch.zeros(2, 32)), r"no_obj_ptr has shape \[2, 32\], expected \[1, 32\]"),
    "not a number": (changed(no_obj_ptr=torch.full((1, 32), torch.nan)), "no_obj_ptr"),
    "not floats": (changed(no_obj_ptr=torch.zeros(1, 32, dtype=torch.int64)), "no_obj_ptr"),
    "sparse": (changed(no_obj_ptr=torch.ones(1, 32).to_sparse()), "no_obj_ptr"),
    "deeper network": (
        of_preset(replace(LITTLE, stages=(1, 2, 1, 1))),
        "2 tensors are missing, the first is image_encoder.trunk.blocks.2",
    ),
    "wider network": (of_preset(replace(LITTLE, embed_dim=16)), r"has shape \[16\], expected \[8\]|\[.*16.*\]"),
    "SAM 2.0": (of_preset(replace(LITTLE, no_object_in_memory=False)), "the first is no_obj_embed_spatial"),
    "text as .pt": (raw("notes.pt", b"these are not weights\n"), "not a readable weights file"),
    "text as .safetensors": (raw("notes.safetensors", b"these are not weights\n"), "not a readable safetensors"),
    "empty .pt": (raw("empty.pt", b""), "not a readable weights file"),
    "empty .safetensors": (raw("empty.safetensors", b""), "not a readable"),
    "half a .pt": (truncated("half.pt", 0.5), "not a readable weights file"),
    "most of a .pt": (truncated("most.pt", 0.98), "not a readable weights file"),
    "half a .safetensors": (truncated("half.safetensors", 0.5), "not a readable safetensors"),
    "most of a .safetensors": (truncated("most.safetensors", 0.99), "not a readable safetensors"),
    "damaged pickle": (raw("damaged.pt", b"\x80\x02]e."), "not a readable weights file"),
    "cut pickle": (raw("cut.pt", pickle.dumps({"model": 1.5}, 2)[:12]), "not a readable weights file"),
    "a list": (saved([1, 2]), "holds no table of tensors"),
    "a table of numbers": (saved({"model": {"no_obj_ptr": 3}}), "holds no table of tensors"),
    "names that are no text": (saved({"model": {7: torch.zeros(1)}}), "holds no table of tensors"),
    "folder": (folder_itself, "no such file"),
    "absent file": (lambda folder, state: folder / "absent.pt", "no such file"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_named_and_changes_nothing(case: str, network: Sam2, tmp_path: Path) -> None:
    write, said = BAD[case]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    other = Sam2(LITTLE, 64).state_dict()  # other numbers than the network's, so that a tensor too many would show
    path = write(tmp_path, other)
    with pytest.raises(WeightsError, match=said) as caught:
        load_weights(network, path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_the_good_file_does_change_the_network(network: Sam2, tmp_path: Path) -> None:
    """Negative control of the test above."""
    other = Sam2(LITTLE, 64).state_dict()
    assert not torch.equal(network.no_obj_ptr, other["no_obj_ptr"])
    load_weights(network, changed()(tmp_path, other))
    assert all(torch.equal(tensor, other[name]) for name, tensor in network.state_dict().items())


class Harm:
    """What an attacker would put into a checkpoint: unpickling it creates a folder."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.marker,)


@pytest.mark.parametrize("kind", ["zip", "pickle"])
def test_code_in_a_checkpoint_is_not_run(kind: str, network: Sam2, tmp_path: Path) -> None:
    marker, path = tmp_path / "harm", tmp_path / "evil.pt"
    state = {"model": {**network.state_dict(), "no_obj_ptr": Harm(marker)}}
    torch.save(state, path) if kind == "zip" else path.write_bytes(pickle.dumps(state))
    with pytest.raises(WeightsError, match="evil.pt: not a readable weights file"):
        load_weights(network, path)
    assert not marker.exists()
    torch.load(path, weights_only=False) if kind == "zip" else pickle.loads(path.read_bytes())
    assert marker.exists()  # the file was as harmful as it claims


@pytest.fixture(scope="module", params=["2.1", "2.0"])
def transformers_pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """(`theirs`, `ours`): one small model of either generation, ours loaded from what theirs saved."""
    new = request.param == "2.1"
    preset = replace(oracle.SMALL, no_object_in_memory=new, pointer_time=new)
    theirs = oracle.hf_model(preset, seed=3)
    folder = tmp_path_factory.mktemp("transformers")
    theirs.save_pretrained(folder)
    ours = Sam2(preset, oracle.SIZE).eval()
    load_weights(ours, folder / "model.safetensors")
    return SimpleNamespace(theirs=theirs, ours=ours, path=folder / "model.safetensors", new=new)


def contents(tensors: dict[str, Tensor]) -> set[bytes]:
    return {tensor.numpy().tobytes() for tensor in tensors.values()}


def test_transformers_files_are_used_whole(transformers_pair: SimpleNamespace) -> None:
    theirs = safetensors.torch.load_file(transformers_pair.path)
    points = theirs.pop("prompt_encoder.point_embed.weight")
    theirs |= {f"point {i}": row for i, row in enumerate(points)}
    assert contents(theirs) == contents(transformers_pair.ours.state_dict())
    del theirs["no_memory_embedding"]
    assert contents(theirs) != contents(transformers_pair.ours.state_dict())


@torch.inference_mode()
def test_transformers_weights_land_where_they_belong(transformers_pair: SimpleNamespace) -> None:
    ours, theirs = transformers_pair.ours, transformers_pair.theirs
    image = torch.randn(1, 3, oracle.SIZE, oracle.SIZE, generator=torch.Generator().manual_seed(1))
    features = ours.encode_image(image)
    logits = torch.randn(1, 1, oracle.SIZE, oracle.SIZE, generator=torch.Generator().manual_seed(2))
    tokens = features.top.flatten(2).permute(2, 0, 1)
    for score in (torch.tensor([2.0]), torch.tensor([-2.0])):
        mine = ours.remember(features, logits, score).bfloat16().float()
        other, _ = theirs._encode_new_memory(tokens, logits, score[:, None], False)
        other = other.float().permute(1, 2, 0).unflatten(2, mine.shape[2:])
        assert (mine - other).abs().mean() < 1e-3 * other.abs().mean()
    present, absent = (ours.remember(features, logits, torch.tensor([s])) for s in (2.0, -2.0))
    assert torch.equal(present, absent) is not transformers_pair.new  # what 2.1 added, and 2.0 has not


def test_copies_that_differ_are_damage(transformers_pair: SimpleNamespace, tmp_path: Path) -> None:
    state = safetensors.torch.load_file(transformers_pair.path)
    name = "prompt_encoder.shared_embedding.positional_embedding"
    shared = state["shared_image_embedding.positional_embedding"]
    safetensors.torch.save_file({**state, name: shared.clone()}, tmp_path / "same.safetensors")
    load_weights(transformers_pair.ours, tmp_path / "same.safetensors")
    safetensors.torch.save_file({**state, name: shared + 1}, tmp_path / "damaged.safetensors")
    with pytest.raises(WeightsError, match="the file is damaged"):
        load_weights(transformers_pair.ours, tmp_path / "damaged.safetensors")


@pytest.mark.parametrize("half", [True, False])
def test_saved_weights_come_back(half: bool, network: Sam2, tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    save_weights(network, path, half=half, metadata={"trained": "never"})
    torch.manual_seed(1)
    again = Sam2(LITTLE, 64)
    load_weights(again, path)
    for name, tensor in network.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor.half().float() if half else tensor)
    assert {t.dtype for t in read_state(path).values()} == {torch.float16 if half else torch.float32}
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata() == {"trained": "never"}
    assert any(not torch.equal(t, t.half().float()) for t in network.state_dict().values())  # halving is no identity


def test_saved_weights_are_anyones_to_read(network: Sam2, tmp_path: Path) -> None:
    """As any new file: what is installed for all users is read by all users."""
    save_weights(network, tmp_path / "own.safetensors")
    (tmp_path / "plain").touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("own.safetensors", "plain")]
    assert modes[0] == modes[1]


def test_a_failed_save_leaves_what_was_there(network: Sam2, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # half of a module would stay, too
    path = tmp_path / "own.safetensors"
    save_weights(network, path)
    before = file_sha256(path)
    nn.init.ones_(network.no_obj_ptr)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, unlimited[1]))  # the disk is full after 1000 bytes
    try:
        with pytest.raises(OutputError, match="own.safetensors: cannot be written"):
            save_weights(network, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
    assert file_sha256(path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["own.safetensors"]
    save_weights(network, path)
    assert file_sha256(path) != before
