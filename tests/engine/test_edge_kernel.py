"""The compiled edges of masks against their plain form, on every instruction set that this CPU has."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from rtseg import Frame
from rtseg.base import edges
from rtseg.base.types import Float32
from rtseg.engine.cpu import isa as isas
from rtseg.engine.cpu.edges import compiled_refine

CASES = ("smooth", "noise", "few cells", "flat picture", "empty", "full", "at the border")


def case(name: str, rows: int, columns: int) -> tuple[Float32, Frame]:
    """Logits [rows, columns], and a picture of another shape."""
    rng = np.random.default_rng(5)
    rough_hw = rng.normal(0, 9, (rows, columns)).astype(np.float32)
    logits_hw = rough_hw if name == "noise" else np.asarray(cv2.GaussianBlur(rough_hw, (0, 0), 2.5), np.float32)
    image_hwc = cv2.GaussianBlur(rng.integers(0, 255, (300, 400, 3), dtype=np.uint8), (0, 0), 4)
    if name == "few cells":
        logits_hw = np.full_like(logits_hw, -5)
        logits_hw[3, 3:6] = 1
    if name in ("empty", "full"):
        logits_hw = np.full_like(logits_hw, -1024 if name == "empty" else 9)
    if name == "at the border":
        logits_hw = np.full_like(logits_hw, -3)
        logits_hw[-1], logits_hw[:, 0] = 2, 3
    if name == "flat picture":
        image_hwc = np.full_like(image_hwc, 99)
    return logits_hw, Frame(np.asarray(image_hwc, np.uint8), 0)


@pytest.mark.parametrize("isa", isas.ISAS)
@pytest.mark.parametrize("name", CASES)
def test_kernels_do_what_the_plain_form_does(isa: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if isas.why_not() or isa not in isas.available_isas():
        pytest.skip(f"not shown: this CPU has no {isa}")
    monkeypatch.setenv("RTSEG_ISA", isa)
    compiled = compiled_refine()
    assert compiled is not None
    logits_hw, frame = case(name, 33, 47)
    plain, fast = (edges.Guide.of(frame, 33, 47, refine) for refine in (None, compiled))
    assert plain and fast
    plain_hw, fast_hw = plain.fit(logits_hw), fast.fit(logits_hw)
    np.testing.assert_allclose(fast_hw, plain_hw, rtol=0, atol=1e-3)
    clear_hw = np.abs(plain_hw) > 1e-3
    assert np.array_equal((fast_hw > 0)[clear_hw], (plain_hw > 0)[clear_hw]) and clear_hw.mean() > 0.99
    bilinear_hw = cv2.resize(logits_hw, (4 * 47, 4 * 33), interpolation=cv2.INTER_LINEAR)
    changed = not np.array_equal(bilinear_hw, fast_hw)
    assert changed == (name not in ("empty", "full"))


def test_the_kernel_honours_the_instruction_set_and_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    if isas.why_not():
        pytest.skip(f"not shown: {isas.why_not()}")
    monkeypatch.setenv("RTSEG_ISA", "avx2")
    plainest = compiled_refine()
    assert plainest is compiled_refine() is not None
    monkeypatch.setattr("rtseg.engine.cpu.edges.isa_for", lambda precision: isas.isa_for("none of them"))
    monkeypatch.setitem(isas.PREFERRED, "none of them", ())
    assert compiled_refine() is None  # then the plain form does it
