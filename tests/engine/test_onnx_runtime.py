"""The runtime `onnx`: each verb and whole clips against the reference, and graphs that are missing, old or damaged."""

from __future__ import annotations

import json
import shutil
import stat
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from rtseg import Tracker, open_engine, open_source
from rtseg.base.errors import ConfigError, EngineError
from rtseg.base.types import Frame, Prompt
from rtseg.build.clips import Clip
from rtseg.build.parity import check_parity
from rtseg.engine import PromptBatch, Recall, Remembered
from rtseg.engine.onnx import folder as graph_folder
from rtseg.engine.onnx import opening, session
from rtseg.engine.onnx.export import SHIPPED_SIZES, make_shipped
from rtseg.engine.onnx.folder import SIDECAR, WEIGHTS, Identity, cached_folder, shipped_folder
from rtseg.engine.onnx.ports import VERBS
from rtseg.engine.policy import POLICIES
from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.sam2 import Sam2, get_preset, save_weights
from tests.shared import plain

onnx = pytest.importorskip("onnx", reason="graphs are made with it")

CLOSE = 1e-5  # of the largest value: fp32, in another order
SIZE = 224
CLIP = "synthetic:laparoscopy?width=320&height=240&fps=25&seed=7&seconds=2"


def recipe(runtime: str = "onnx", **keys: Any) -> Recipe:
    common = {"model": "micro", "weights": "package:micro", "image_size": SIZE, "precision": "fp32"}
    return load_recipe(None, **{**common, "runtime": runtime, **keys})


@pytest.fixture(scope="module")
def pair() -> tuple[Any, Any]:
    """The reference and the engine, with the shipped weights."""
    return open_engine(recipe("torch")), open_engine(recipe())


@pytest.fixture(scope="module")
def frames() -> list[Frame]:
    return list(islice(open_source(CLIP), 10))


def difference(ours: Any, reference: Any) -> float:
    a, b = (np.asarray(x, np.float32) for x in (ours, reference))
    assert a.shape == b.shape
    return float(np.abs(a - b).max() / np.abs(b).max())


def noise(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return np.float32(scale) * np.random.default_rng(seed).standard_normal(shape, np.float32)


def conditioned_on_nothing(reference: Any, features: Any, objects: int) -> torch.Tensor:
    """The features of objects that no two of are alike."""
    return reference.attend(features, [None]) + torch.from_numpy(noise(objects, 128, 14, 14, scale=0.1))


def decoded_off(pair: tuple[Any, Any], frame: Frame, prompts: PromptBatch) -> float:
    """The largest difference in what the two decode of features that are no memory's."""
    reference, engine = pair
    features = reference.encode_image(frame.image_hwc)
    conditioned = conditioned_on_nothing(reference, features, len(prompts.points_bpc))
    a, b = (e.decode(conditioned, features, prompts) for e in (engine, reference))
    return max(difference(getattr(a, n), getattr(b, n)) for n in ("logits_b1hw", "iou_b", "score_b", "pointer_bc"))


# Each verb


@pytest.mark.parametrize("size", [(240, 320), (100, 90), (224, 224)])
def test_encode(pair: tuple[Any, Any], size: tuple[int, int], frames: list[Frame]) -> None:
    picture = cv2.resize(frames[0].image_hwc, size[::-1])
    a, b = (engine.encode_image(picture) for engine in pair[::-1])
    for name in ("top", "mid", "fine"):
        assert difference(getattr(a, name), getattr(b, name)) < CLOSE
        assert difference(getattr(a, name)[..., ::-1], getattr(b, name)) > 1000 * CLOSE
    assert isinstance(a.top, np.ndarray) and a.top.dtype == np.float32


def said(kind: str, objects: int) -> PromptBatch:
    """Prompts of each kind, different for each object."""
    points = np.random.default_rng(objects).uniform(20, 200, (objects, 3, 2)).astype(np.float32)
    kinds = {"nothing": [], "one point": [1], "background": [0], "a box": [2, 3], "three points": [1, 0, 1]}
    labels = kinds.get(kind, [1])
    prompts = PromptBatch(points[:, : len(labels)], np.tile(np.array(labels, np.int64), (objects, 1)))
    if kind == "a correction":
        return replace(prompts, mask_b1hw=np.clip(noise(objects, 1, 56, 56, scale=20), -32, 32))
    if kind == "an earlier mask alone":
        return replace(PromptBatch.none(objects), mask_b1hw=noise(objects, 1, 56, 56, scale=5))
    if kind.startswith("an answer"):
        blobs = np.stack([cv2.GaussianBlur(n, (0, 0), 9)[None] > 0 for n in noise(objects, SIZE, SIZE)])
        return replace(PromptBatch.none(objects), answer_b1hw=(blobs & (kind == "an answer")).astype(np.float32))
    return prompts


@pytest.mark.parametrize("objects", [1, 3])
@pytest.mark.parametrize(
    "kind",
    ["nothing", "one point", "background", "a box", "three points", "a correction", "an earlier mask alone",
     "an answer", "an answer that is empty"],
)  # fmt: skip
def test_decode(kind: str, objects: int, pair: tuple[Any, Any], frames: list[Frame]) -> None:
    assert decoded_off(pair, frames[0], said(kind, objects)) < CLOSE


def test_decode_of_another_prompt_is_another(pair: tuple[Any, Any], frames: list[Frame]) -> None:
    reference, engine = pair
    features = reference.encode_image(frames[0].image_hwc)
    conditioned = reference.attend(features, [None])
    prompts = said("one point", 1)
    other = replace(prompts, labels_bp=np.zeros_like(prompts.labels_bp))
    ours, theirs = engine.decode(conditioned, features, other), reference.decode(conditioned, features, prompts)
    assert difference(ours.logits_b1hw, theirs.logits_b1hw) > 1000 * CLOSE


def test_prompts_as_tensors_are_taken_too(pair: tuple[Any, Any], frames: list[Frame]) -> None:
    prompts = said("a correction", 1)
    tensors = PromptBatch(*(torch.from_numpy(t) for t in (prompts.points_bpc, prompts.labels_bp, prompts.mask_b1hw)))
    engine = pair[1]
    features = engine.encode_image(frames[0].image_hwc)
    conditioned = engine.attend(features, [None])
    one, two = (engine.decode(conditioned, features, p) for p in (prompts, tensors))
    assert np.array_equal(one.logits_b1hw, two.logits_b1hw)


@pytest.mark.parametrize("objects", [1, 3])
def test_rivals(objects: int, pair: tuple[Any, Any], frames: list[Frame]) -> None:
    reference, engine = pair
    features = reference.encode_image(frames[0].image_hwc)
    conditioned = conditioned_on_nothing(reference, features, objects)
    a, b = (e.rivals(conditioned, features) for e in (engine, reference))
    assert difference(a, b) < CLOSE
    assert difference(a[:, ::-1], b) > 1000 * CLOSE


def memories(pair: tuple[Any, Any], frame: Frame) -> tuple[Any, list[Remembered], list[Remembered]]:
    """Features, and three memories of the same masks as the reference and as the engine write them."""
    features = pair[0].encode_image(frame.image_hwc)
    logits, scores = noise(3, 1, 56, 56, scale=3), np.array([1.0, -1.0, 2.0], np.float32)
    tensors = torch.from_numpy(logits), torch.from_numpy(scores)
    prompted = [True, False, False]
    return (
        features,
        pair[0].remember(features, *tensors, prompted),
        pair[1].remember(features, logits, scores, prompted),
    )


def test_remember(pair: tuple[Any, Any], frames: list[Frame]) -> None:
    features, theirs, ours = memories(pair, frames[0])
    for a, b in zip(ours, theirs, strict=True):
        assert difference(a.map_chw, b.map_chw) < CLOSE
    logits, scores = noise(3, 1, 56, 56, scale=3), np.array([1.0, -1.0, 2.0], np.float32)
    for wrong in (([False] * 3, scores), ([True, False, False], -scores)):
        other = pair[1].remember(features, logits, wrong[1], wrong[0])
        assert difference(other[0].map_chw, theirs[0].map_chw) > 100 * CLOSE


def recalls(written: list[Remembered], pointers: Any, slot: int = 0, age: int = 0) -> list[Recall | None]:
    """Objects that remember unequally much, one of them nothing; `slot` and `age` are added, to make mistakes."""
    return [
        Recall(written[:2], (6, slot), pointers[:3], (5 + age, 1, 2)),
        None,
        Recall(written[2:], (6,), pointers[:0], ()),
        Recall(written[::-1], (6, 1 + slot, slot), pointers, tuple(range(1 + age, 8 + age))),
    ]


def test_attend(pair: tuple[Any, Any], frames: list[Frame]) -> None:
    features, theirs, ours = memories(pair, frames[0])
    pointers = noise(7, 128)
    expected = pair[0].attend(features, recalls(theirs, torch.from_numpy(pointers)))
    found = pair[1].attend(features, recalls(ours, pointers))
    alone = [pair[1].attend(features, [r])[0] for r in recalls(ours, pointers)]
    for i in range(4):
        assert difference(found[i], expected[i]) < CLOSE and difference(alone[i], expected[i]) < CLOSE
    for wrong in (recalls(ours, pointers, slot=1), recalls(ours, pointers, age=9), recalls(ours[::-1], pointers)):
        assert difference(pair[1].attend(features, wrong)[0], expected[0]) > 10 * CLOSE


def test_what_is_padded_changes_nothing(pair: tuple[Any, Any], frames: list[Frame]) -> None:
    """As for providers that compile for fixed shapes, where each object has as many slots as there can be."""
    features, _, ours = memories(pair, frames[0])
    engine, asked = pair[1], recalls(ours, noise(7, 128))
    plain = engine.attend(features, asked)
    engine._slots, engine._pointers = 10, 19
    try:
        assert difference(engine.attend(features, asked), plain) < CLOSE
    finally:
        engine._slots, engine._pointers = 0, 1


# Whole clips


def box(mask_hw: np.ndarray) -> tuple[float, ...]:
    rows, columns = np.nonzero(mask_hw)
    return float(columns.min()), float(rows.min()), float(columns.max() + 1), float(rows.max() + 1)


def script(frames: list[Frame], objects: int) -> dict[int, list[Prompt]]:
    """Objects come at different times, in each way that there is; the first is corrected, and told anew."""
    one = frames[0].truth_hw == 1
    x, y = (float(np.nonzero(one)[axis].mean()) for axis in (1, 0))
    plan: dict[int, list[Prompt]] = {0: [Prompt(1, box=box(one))], 3: [Prompt(1, points=((x, y, 1),))]}
    if objects > 1:
        plan[2] = [Prompt(2, points=((x + 30, y, 1), (x, y, 0)))]
        plan[5] = [Prompt(3, mask=frames[5].truth_hw == 1), Prompt(1, points=((10.0, 10.0, 0),))]
    return plan


def follow(engine: Any, frames: list[Frame], plan: dict[int, list[Prompt]], policy: str) -> np.ndarray:
    tracker, seen = plain(Tracker(engine, policy)), []
    for place, frame in enumerate(frames):
        for prompt in plan.get(place, ()):
            tracker.give(prompt)
        seen.append(tracker.step(frame).mask_logits_bhw)
    return np.concatenate(seen)


@pytest.mark.parametrize("objects", [1, 3])
def test_a_clip(objects: int, pair: tuple[Any, Any], frames: list[Frame]) -> None:
    plan = script(frames, objects)
    theirs, ours = (follow(engine, frames, plan, "efp") for engine in pair)
    assert len(ours) == len(frames) + (objects > 1) * (8 + 5)
    assert difference(ours, theirs) < 10 * CLOSE
    assert difference(follow(pair[1], frames, {0: plan[0]}, "efp")[-1], theirs[len(frames) - 1]) > 1000 * CLOSE


@pytest.mark.parametrize("policy", [p for p in POLICIES if p != "efp"])
def test_every_policy(policy: str, pair: tuple[Any, Any], frames: list[Frame]) -> None:
    plan = {0: [Prompt(1, box=box(frames[0].truth_hw == 1))]}
    theirs, ours = (follow(engine, frames, plan, policy) for engine in pair)
    assert difference(ours, theirs) < 10 * CLOSE


def test_the_gate(pair: tuple[Any, Any], frames: list[Frame]) -> None:
    clip = Clip("short", lambda: iter(frames), script(frames, 3), len(frames))
    report = check_parity(pair[0], pair[1], clip)
    assert report["ok"] and report["least"] > 0.999


def test_the_gate_refuses_another_network_s_graphs(pair: tuple[Any, Any], frames: list[Frame], tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    shutil.copytree(shipped_folder("micro", SIZE), wrong)
    numbers = np.fromfile(wrong / WEIGHTS, np.uint16)
    # Halves, most of them weights: their signs are turned in a few places.
    numbers[len(numbers) // 3 : len(numbers) // 3 + 4000] ^= 0x8000
    numbers.tofile(wrong / WEIGHTS)
    broken = opening.OnnxEngine(wrong, pair[1].preset, pair[1].recipe, "", "cpu", 1)
    clip = Clip("short", lambda: iter(frames), script(frames, 1), len(frames))
    report = check_parity(pair[0], broken, clip)
    assert not report["ok"] and report["drifted"] is not None


# Graphs: shipped, cached, made


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED_SIZES)
def test_the_shipped_graphs_are_what_the_code_and_the_weights_give(name: str, tmp_path: Path) -> None:
    """Node by node; constants may differ in their last bits, by the machine that multiplied them."""
    make_shipped(name, tmp_path)
    shipped = shipped_folder(name, SHIPPED_SIZES[name])
    identities = [json.loads((folder / SIDECAR).read_text()) for folder in (tmp_path, shipped)]
    assert [{**i, "files": sorted(i["files"])} for i in identities[:1]] == [
        {**i, "files": sorted(i["files"])} for i in identities[1:]
    ], "run: python -m rtseg.engine.onnx.export"
    for verb in VERBS:
        made, kept = (onnx.load(folder / f"{verb}.onnx") for folder in (tmp_path, shipped))
        constants = [{i.name: onnx.numpy_helper.to_array(i) for i in m.graph.initializer} for m in (made, kept)]
        assert constants[0].keys() == constants[1].keys()
        for key, value in constants[0].items():
            np.testing.assert_allclose(value, constants[1][key], rtol=1e-4, atol=1e-5, err_msg=key)
        for model in (made, kept):
            del model.graph.initializer[:]
        assert made == kept, f"{verb}: run: python -m rtseg.engine.onnx.export"


def test_the_shipped_graphs_take_no_more_room_than_their_weights() -> None:
    for name, size in SHIPPED_SIZES.items():
        room = sum(path.stat().st_size for path in shipped_folder(name, size).iterdir())
        weights = graph_folder.SHIPPED / f"{name}.safetensors"
        assert room < 1.65 * weights.stat().st_size


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RTSEG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


SMALL = {"image_size": 96}  # no graphs are shipped at this size, and at this one windows are padded


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the graphs of `SMALL`."""
    root = tmp_path_factory.mktemp("filled")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RTSEG_CACHE", str(root))
        open_engine(recipe(**SMALL))
    return root


@pytest.mark.slow
def test_graphs_of_another_size_are_made_once(
    cache: Path, frames: list[Frame], capsys: pytest.CaptureFixture[str]
) -> None:
    reference, engine = (open_engine(recipe(runtime, **SMALL)) for runtime in ("torch", "onnx"))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "no graphs of micro at 96 px" in said and str(cache) in said
    plan = script(frames, 3)
    assert difference(*(follow(e, frames[:7], plan, "efp") for e in (engine, reference))) < 10 * CLOSE
    before = {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    open_engine(recipe(**SMALL))
    assert capsys.readouterr().err == "" and before == {path: path.stat().st_mtime_ns for path in cache.rglob("*")}
    assert not list(cache.rglob("*.part"))


@pytest.mark.slow
def test_a_damaged_graph_in_the_cache_is_made_again(
    cache: Path, filled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(filled, cache)
    graph = next(cache.rglob("decode.onnx"))
    sound = graph.read_bytes()
    graph.write_bytes(sound[:-100])
    capsys.readouterr()
    open_engine(recipe(**SMALL))
    assert f"{graph}: damaged" in capsys.readouterr().err
    assert graph.read_bytes() == sound and len(list((cache / "onnx").iterdir())) == 1


@pytest.mark.slow
def test_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("RTSEG_CACHE", str(tmp_path / "file" / "cache"))  # root may write anywhere, but not in a file
    for _ in range(2):
        engine = open_engine(recipe(**SMALL))
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "not kept: " in said and "RTSEG_CACHE may name another folder" in said
    assert engine.encode_image(np.zeros((96, 96, 3), np.uint8)).top.shape == (1, 128, 6, 6)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of micro's shipped graphs, which the package is made to take for its own."""
    copy = tmp_path / "micro-224"
    shutil.copytree(shipped_folder("micro", SIZE), copy)
    monkeypatch.setattr(opening, "shipped_folder", lambda name, size: copy)
    return copy


def test_a_package_that_is_read_only(package: Path, cache: Path) -> None:
    for path in (*package.iterdir(), package):
        path.chmod(stat.S_IRUSR | stat.S_IXUSR)
    open_engine(recipe())
    assert not cache.exists()


def test_shipped_graphs_of_another_version_are_not_run(
    package: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    sidecar = json.loads((package / SIDECAR).read_text())
    (package / SIDECAR).write_text(json.dumps({**sidecar, "format": 0}))
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(EngineError, match=r"made with format = 0; expected \d+, and to make them onnx is needed: pip"):
        open_engine(recipe())
    monkeypatch.undo()


@pytest.mark.slow
def test_damaged_shipped_graphs_are_made_anew(
    package: Path, cache: Path, frames: list[Frame], pair: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    (package / WEIGHTS).write_bytes((package / WEIGHTS).read_bytes()[:1000])
    engine = open_engine(recipe())
    assert "damaged: sha256" in capsys.readouterr().err
    assert (
        difference(engine.encode_image(frames[0].image_hwc).top, pair[1].encode_image(frames[0].image_hwc).top) < CLOSE
    )
    (package / SIDECAR).write_text("{")
    open_engine(recipe())  # those of the cache


@pytest.mark.slow
def test_other_weights_have_other_graphs(
    cache: Path, filled: Path, tmp_path: Path, make_network: Callable[..., Sam2], frames: list[Frame]
) -> None:
    shutil.copytree(filled, cache)
    network = make_network("micro", 96)
    save_weights(network, tmp_path / "own.safetensors", half=False)
    own = recipe(weights=tmp_path / "own.safetensors", **SMALL)
    engine, reference = open_engine(own), open_engine(own, runtime="torch")
    picture = frames[0].image_hwc
    assert difference(engine.encode_image(picture).top, reference.encode_image(picture).top) < CLOSE
    assert len(list((cache / "onnx").iterdir())) == 2


def test_other_sources_have_other_graphs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pair: tuple[Any, Any]
) -> None:
    expected = Identity.for_network(pair[1].preset, SIZE, "0" * 64)
    before = cached_folder(tmp_path, pair[1].preset, expected)
    monkeypatch.setattr(graph_folder, "sources_hash", lambda: "another")
    assert cached_folder(tmp_path, pair[1].preset, expected) != before


OTHER = """
embed_dim = 16
heads = 2
stages = [1, 1, 2, 1]
global_blocks = [3]
windows = [8, 4, 14, 7]
background = 7
dim = 64
memory_dim = 32
attention_layers = 3
attention_ffn = 64
decoder_ffn = 64
decoder_heads = 2
no_object_in_memory = false
pointer_time = false
"""


@pytest.mark.slow
def test_another_kind_of_network(
    cache: Path, make_network: Callable[..., Sam2], frames: list[Frame], tmp_path: Path
) -> None:
    """Another number of layers and heads, and as in SAM 2.0 pointers without ages and no mark of absence."""
    (tmp_path / "other.toml").write_text(OTHER)
    save_weights(make_network(get_preset(str(tmp_path / "other.toml")), 96), tmp_path / "own.safetensors", half=False)
    own = recipe(model=tmp_path / "other.toml", weights=tmp_path / "own.safetensors", image_size=96)
    plan = script(frames, 3)
    theirs, ours = (follow(open_engine(own, runtime=r), frames[:7], plan, "efp") for r in ("torch", "onnx"))
    assert difference(ours, theirs) < 10 * CLOSE


# Providers and precisions


def test_a_provider_that_is_not_installed() -> None:
    expected = r'runtime = "onnx:openvino": ONNX Runtime .* here has cpu; .* pip install onnxruntime-openvino'
    with pytest.raises(EngineError, match=expected):
        open_engine(recipe("onnx:openvino"))


def test_a_provider_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "need", lambda provider: None)
    with pytest.raises(EngineError, match="cuda: ONNX Runtime .* cannot start it here"):
        session.Graph(shipped_folder("micro", SIZE) / "fresh.onnx", "cuda", 1)


def test_a_provider_that_is_none() -> None:
    with pytest.raises(ConfigError, match="runtime"):
        recipe("onnx:abacus")


def test_a_precision_that_there_is_not() -> None:
    with pytest.raises(EngineError, match='precision = "int8": onnx has fp32'):
        open_engine(recipe(precision="int8"))


def test_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(EngineError, match="pip install onnxruntime"):
        open_engine(recipe())


def test_the_threads_are_those_that_were_given(monkeypatch: pytest.MonkeyPatch) -> None:
    from rtseg.engine.threads import at_most

    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert "cpu, fp32, 3 threads" in open_engine(recipe()).description
    with at_most(1):
        assert "cpu, fp32, 1 thread" in open_engine(recipe()).description


def test_what_a_runtime_is_asked_for_is_no_module_of_the_same_name() -> None:
    """A module of a package takes the place of what the package has under that name, once it is imported."""
    import importlib
    import pkgutil

    from rtseg.engine.runtimes import PRECISIONS, runtime_module

    for runtime in PRECISIONS.keys() - {"torch"}:
        package = runtime_module(runtime)
        names = {found.name for found in pkgutil.iter_modules(package.__path__)}
        assert not names & {"make", "open"}, runtime
    importlib.import_module("rtseg.engine.onnx.export")
    assert callable(runtime_module("onnx").make)
