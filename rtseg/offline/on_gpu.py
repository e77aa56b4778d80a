"""Pictures that a GPU decodes (`--decoder nvdec`), and that stay there for the network and the overlay."""

from __future__ import annotations

from ..base.errors import EngineError
from ..base.types import Frame, ImageU8, Masks
from ..engine.picture.device_picture import DevicePicture
from ..engine.picture.on_gpu import OnGpu
from ..engine.recipe import Recipe
from ..engine.runtimes import ON_GPU, settle
from ..publish.overlay import DrawMasks, MeasuredMasks
from ..track.cut_detector import SAMPLED


def open_gpu(recipe: Recipe) -> OnGpu:
    """The GPU that the recipe's engine runs on. Raises `EngineError` if there is none, or the engine uses none."""
    try:
        settled = settle(recipe)
        if settled.runtime not in ON_GPU:
            expected = " or ".join(ON_GPU)
            raise EngineError(f'runtime = "{settled.runtime}" takes pictures in host memory; expected {expected}')
        return OnGpu(settled.device, SAMPLED)
    except EngineError as e:
        raise EngineError(f"--decoder nvdec: {e}") from e


def painter(gpu: OnGpu) -> DrawMasks:
    """A `DrawMasks` for pictures on that GPU: it draws there, and copies the result to the host once.

    It draws in place: the original picture is lost.
    """

    def paint(frame: Frame, masks: Masks | None, found: MeasuredMasks, opacity: float) -> ImageU8:
        picture: object = frame.image_hwc
        assert isinstance(picture, DevicePicture)
        rows = [masks.ids.index(seen.id) for _, seen in found] if masks else []
        logits_bhw = masks.fine_logits_bhw[rows] if masks else None
        return gpu.drawn(picture, logits_bhw, [seen.color for _, seen in found], opacity)

    return paint
