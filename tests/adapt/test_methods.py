"""Every method learns, leaves the rest bit-identical, and its file works on every engine of the base."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from rtseg import Tracker, open_engine
from rtseg.adapt.batches import BatchSampler, VideoSource, uniform
from rtseg.adapt.config import Phase, TrainConfig, read_config
from rtseg.adapt.losses import FROM_SCRATCH
from rtseg.adapt.methods import METHODS, POLICIES, adapters_among, part_of, rates_of
from rtseg.adapt.objective import clip_loss
from rtseg.adapt.trainer import Trainer
from rtseg.base.errors import ConfigError, WeightsError
from rtseg.base.files import file_sha256
from rtseg.engine import find_weights
from rtseg.sam2 import Sam2, get_preset, load_weights
from rtseg.sam2.adapters import ADAPTERS, adapters_of, load_adapter, read_adapter, write_adapter

from .conftest import CPU, squares

NANO = "package:nano"
STEPS = 30


def test_every_parameter_belongs_to_one_part_that_some_method_can_train() -> None:
    names = [name for name, _ in Sam2(get_preset("nano"), 64).named_parameters()]
    assert {part_of(name) for name in names} == {"trunk", "encoder", "prompts", "decoder", "memory"}
    assert all(rates_of(())[part_of(name)] == 1 for name in names)


def test_methods_are_composed() -> None:
    assert rates_of(("lora",)) == {**dict.fromkeys(rates_of(()), 0.0), "adapter": 1.0}
    both = rates_of(("decoder-and-slow-memory", "temporal"))
    assert (both["decoder"], both["memory"], both["adapter"], both["trunk"]) == (1.0, 0.1, 1.0, 0.0)
    assert adapters_among(("decoder", "temporal", "lora")) == ("temporal", "lora")


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_small_and_begins_as_the_identity(name: str) -> None:
    preset = get_preset("nano")
    net = Sam2(preset, 64)
    adapters = adapters_of([name], preset)
    own, all_of_it = (sum(p.numel() for p in module.parameters()) for module in (adapters, net))
    assert own <= 0.02 * all_of_it
    batch = sampler(7).batch(0, 1, 3, 64, 2)
    with torch.no_grad():
        before, _ = clip_loss(net, batch, np.random.default_rng(3), FROM_SCRATCH)
        after, _ = clip_loss(net.attach(adapters), batch, np.random.default_rng(3), FROM_SCRATCH)
        assert all(torch.equal(before[term], after[term]) for term in before)
        torch.manual_seed(1)
        disturb(adapters, 0.5)
        other, _ = clip_loss(net, batch, np.random.default_rng(3), FROM_SCRATCH)
    assert any(not torch.equal(before[term], other[term]) for term in before)  # so it does act


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_a_method_learns_and_leaves_the_rest_as_it_was(name: str, tmp_path: Path) -> None:
    made = trainer(tmp_path, name)
    base = {key: value.clone() for key, value in made.net.state_dict().items()}
    before = held_out_loss(made.net)
    for _ in range(STEPS):
        made.run_step()
    after = held_out_loss(made.averaged())
    assert after < 0.97 * before
    rates = rates_of((name,))
    changed = {key for key, value in made.net.state_dict().items() if not torch.equal(value, base[key])}
    assert changed and all(rates[part_of(key)] > 0 for key in changed)
    assert all(torch.equal(value, base[key]) for key, value in made.average.weights.items() if key not in changed)
    made.save()
    written = made.export(tmp_path)
    assert set(written) == ({"weights"} if name in POLICIES else {"adapter"})
    if name in ADAPTERS:
        file = Path(written["adapter"])
        assert file.stat().st_size <= 500_000
        again = load_adapter(file, get_preset("nano"), nano_hash())
        kept = made.averaged().adapter
        assert kept is not None
        assert all(torch.equal(a, b.half().float()) for a, b in zip(again.parameters(), kept.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", ADAPTERS)
def test_every_engine_gives_the_same_masks_with_an_adapter(name: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    adapters = adapters_of([name], get_preset("nano"))
    disturb(adapters, 0.1 if name == "convolutions" else 0.03)  # its features are small
    file = tmp_path / "adapter.safetensors"
    write_adapter(adapters, [name], file, nano_hash())
    reference = tracked("torch", str(file))
    assert iou(reference, tracked("torch", None)) < 0.999  # else this proves nothing
    for runtime in ("cpu", "onnx"):
        assert iou(reference, tracked(runtime, str(file))) > 0.95
    assert iou(reference, attached(name, adapters)) > 0.999  # as it was trained


def test_an_adapter_of_other_weights_is_refused(tmp_path: Path) -> None:
    preset, file = get_preset("nano"), tmp_path / "a.safetensors"
    write_adapter(adapters_of(["temporal"], preset), ["temporal"], file, "0" * 64)
    with pytest.raises(WeightsError, match=r"with weights 000000000000; expected one of nano with"):
        open_engine(runtime="cpu", adapter=str(file))
    with pytest.raises(WeightsError, match="no such file"):
        open_engine(runtime="cpu", adapter=str(tmp_path / "b.safetensors"))
    (tmp_path / "half.safetensors").write_bytes(file.read_bytes()[:900])
    with pytest.raises(WeightsError, match="not a readable safetensors file"):
        read_adapter(tmp_path / "half.safetensors")
    with pytest.raises(WeightsError, match="holds weights, and no adapter"):
        read_adapter(find_weights(NANO))


def test_a_configuration_with_a_wrong_method_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "t.toml"
    file.write_text('method = ["lorra"]\nweights = "package:nano"\n[endoscope]\nshare = 1\n[[phase]]\nsteps = 1\n')
    with pytest.raises(ConfigError, match="method.*lorra.*lora"):
        read_config(file)
    file.write_text('method = ["lora"]\n[endoscope]\nshare = 1\n[[phase]]\nsteps = 1\n')
    with pytest.raises(ConfigError, match="names an adapter, and weights is not given"):
        read_config(file)
    with pytest.raises(ConfigError, match="memories of edgetam are latents"):
        adapters_of(["temporal"], get_preset("edgetam"))


def sampler(seed: int) -> BatchSampler:
    videos = [squares(seed), squares(seed + 1)]
    return BatchSampler([VideoSource("squares", 1.0, uniform(videos))], uniform(videos), seed=5, device=CPU)


def trainer(folder: Path, method: str) -> Trainer:
    lr = 2e-3 if method in ADAPTERS else 3e-4
    phase = Phase(STEPS, image_size=64, length=3, objects=2, clips=2, lr=(lr, lr))
    config = TrainConfig((phase,), preset="nano", weights=NANO, warm_up=2, method=(method,), average_decay=0.9)
    return Trainer(config, lambda _: sampler(0), folder, CPU, bf16=False)


def held_out_loss(net: Sam2) -> float:
    """The mean loss on clips of other videos, with prompts that are the same at every call."""
    batches, found = sampler(50), []
    with torch.no_grad():
        for step in range(6):
            terms, _ = clip_loss(
                net.eval(), batches.batch(step, 2, 3, 64, 2), np.random.default_rng(step), FROM_SCRATCH
            )
            found.append(float(torch.stack(list(terms.values())).sum()))
    return float(np.mean(found))


def disturb(adapters: torch.nn.Module, std: float) -> None:
    """Random weights where an adapter begins with zeros."""
    for parameter in adapters.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=std)


def nano_hash() -> str:
    return file_sha256(find_weights(NANO))


def tracked(runtime: str, adapter: str | None) -> list[Tensor]:
    given = {} if adapter is None else {"adapter": adapter}
    return follow(Tracker(open_engine(runtime=runtime, precision="fp32", image_size=224, **given)))


def attached(name: str, adapters: torch.nn.Module) -> list[Tensor]:
    from rtseg.engine.recipe import Recipe
    from rtseg.engine.reference import TorchEngine

    net = Sam2(get_preset("nano"), 224)
    load_weights(net, find_weights(NANO))
    halved = adapters_of([name], get_preset("nano"))  # as the file has them
    halved.load_state_dict({key: value.half().float() for key, value in adapters.state_dict().items()})
    recipe = replace(Recipe(), image_size=224, precision="fp32", runtime="torch")
    return follow(Tracker(TorchEngine(net.attach(halved), recipe, "", "cpu")))


def follow(tracker: Tracker) -> list[Tensor]:
    tracker.cuts = False
    video = squares(9)
    tracker.prompt(1, box=(8, 10, 38, 40))
    tracker.prompt(2, points=[(65, 60, 1)])
    return [
        torch.as_tensor(tracker.step(image.permute(1, 2, 0).numpy()).mask_logits_bhw > 0) for image in video.image_t3hw
    ]


def iou(a: list[Tensor], b: list[Tensor]) -> float:
    both = sum(int((x & y).sum()) for x, y in zip(a, b, strict=True))
    return both / max(1, sum(int((x | y).sum()) for x, y in zip(a, b, strict=True)))
