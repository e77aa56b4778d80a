"""Conversion of HDR, wide gamut and other transfer functions to the colours of an sRGB (BT.709) display.

Conversion is in display light, as in ITU-R BT.2087 and in colour-managed players. The transfer functions of cameras
(BT.601, 709, 2020, SMPTE 240M) all mean BT.1886's power of 2.4 there, so they are kept; only their primaries are
converted to BT.709. Other transfer functions (HDR, linear light, a pure gamma, DCI) are converted to sRGB. HDR up to
1,000 cd/m2 is tone-mapped to a white of 203 cd/m2 (BT.2408) by BT.2390's curve: brightness below 88 cd/m2 is kept,
brightness above it is compressed. Colours outside the gamut of BT.709 are clipped.
"""

from __future__ import annotations

from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
from cv2.typing import MatLike

from ...base.types import Color, Float32, ImageU8

Float64 = npt.NDArray[np.float64]
ImageU16 = npt.NDArray[np.uint16]

# FFmpeg's names of ITU-T H.273's numbers.
PRIMARIES = {1: "bt709", 4: "bt470m", 5: "bt470bg", 6: "smpte170m", 7: "smpte240m", 8: "film", 9: "bt2020",
             10: "smpte428", 11: "smpte431", 12: "smpte432", 22: "ebu3213"}  # fmt: skip
TRANSFERS = {1: "bt709", 4: "gamma22", 5: "gamma28", 6: "smpte170m", 7: "smpte240m", 8: "linear", 9: "log100",
             10: "log316", 11: "iec61966-2-4", 13: "iec61966-2-1", 14: "bt2020-10", 15: "bt2020-12",
             16: "smpte2084", 17: "smpte428", 18: "arib-std-b67"}  # fmt: skip
# x, y of red, green, blue and white (ITU-T H.273, table 2).
_D65, _C, _E, _DCI = (0.3127, 0.3290), (0.310, 0.316), (1 / 3, 1 / 3), (0.314, 0.351)
CHROMATICITIES = {
    "bt709": ((0.640, 0.330), (0.300, 0.600), (0.150, 0.060), _D65),
    "bt470m": ((0.67, 0.33), (0.21, 0.71), (0.14, 0.08), _C),
    "film": ((0.681, 0.319), (0.243, 0.692), (0.145, 0.049), _C),
    "bt2020": ((0.708, 0.292), (0.170, 0.797), (0.131, 0.046), _D65),
    "smpte428": ((1.0, 0.0), (0.0, 1.0), (0.0, 0.0), _E),
    "smpte431": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _DCI),
    "smpte432": ((0.680, 0.320), (0.265, 0.690), (0.150, 0.060), _D65),
}
# The two sets of BT.601 differ from BT.709's by less than cameras differ, and common players do not convert them.
SIMILAR_TO_BT709 = ("bt709", "bt470bg", "smpte170m", "smpte240m", "ebu3213", "unknown")
CAMERA = ("bt709", "smpte170m", "smpte240m", "bt2020-10", "bt2020-12", "iec61966-2-4", "unknown")
HDR = ("smpte2084", "arib-std-b67")
PEAK, WHITE = 1000.0, 203.0  # cd/m2: the brightest light before clipping, and the white of a standard display
_BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
_TABLE_SIZE = 4095  # entries of the lookup tables, which are indexed by the square root of light
_STRIP = 32  # rows at a time, so that intermediate results stay in the CPU's cache


def pq_light(code: Float64) -> Float64:
    """Light in cd/m2 for codes from 0 to 1 of SMPTE ST 2084 (PQ)."""
    power = np.maximum(code, 0) ** (1 / 78.84375)
    return np.asarray(
        10000 * (np.maximum(power - 0.8359375, 0) / (18.8515625 - 18.6875 * power)) ** (1 / 0.1593017578125)
    )


def pq_code(light: Float64) -> Float64:
    """The inverse of `pq_light`."""
    power = (np.maximum(light, 0) / 10000) ** 0.1593017578125
    return np.asarray(((0.8359375 + 18.8515625 * power) / (1 + 18.6875 * power)) ** 78.84375)


def _hlg_scene(code: Float64) -> Float64:
    """Scene light from 0 to 1 for codes of BT.2100's HLG."""
    a, b, c = 0.17883277, 0.28466892, 0.55991073
    return np.where(code <= 0.5, code**2 / 3, (np.exp((np.maximum(code, 0.5) - c) / a) + b) / 12)


def tone_mapped(light: Float64) -> Float64:
    """Tone-map light in cd/m2 from up to `PEAK` to up to `WHITE`, by BT.2390's curve with a black of 0."""
    peak = float(pq_code(np.array(PEAK)))
    most = float(pq_code(np.array(WHITE))) / peak
    knee = 1.5 * most - 0.5
    code = np.minimum(pq_code(light) / peak, 1.0)
    t = (np.maximum(code, knee) - knee) / (1 - knee)
    bent = (2 * t**3 - 3 * t**2 + 1) * knee + (t**3 - 2 * t**2 + t) * (1 - knee) + (3 * t**2 - 2 * t**3) * most
    return np.asarray(pq_light(np.where(code < knee, code, bent) * peak))


def _light(transfer: str, code: Float64) -> Float64:
    """Linear light for codes from 0 to 1, where 1 is white; for PQ in cd/m2; for HLG scene light."""
    if transfer in CAMERA:
        return np.asarray(code**2.4)
    if transfer == "iec61966-2-1":
        return np.where(code <= 0.04045, code / 12.92, ((code + 0.055) / 1.055) ** 2.4)
    if transfer in ("log100", "log316"):
        decades = 2.0 if transfer == "log100" else 2.5
        return np.where(code <= 0, 0, 10 ** ((code - 1) * decades))
    if transfer == "smpte428":
        return 52.37 / 48 * code**2.6
    if transfer in HDR:
        return pq_light(code) if transfer == "smpte2084" else _hlg_scene(code)
    return code ** (1.0 if transfer == "linear" else int(transfer.removeprefix("gamma")) / 10)


def _code(transfer: str, light: Float64) -> Float64:
    """Codes from 0 to 1 for light: by the camera's own curve if it is one, else by sRGB's."""
    if transfer in CAMERA:
        return np.asarray(light ** (1 / 2.4))
    return np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)


def _xyz(primaries: str) -> Float64:
    """The matrix from linear RGB to CIE XYZ."""
    *colours, white = (np.array([x / y, 1, (1 - x - y) / y]) if y else np.array([x, y, 1 - x - y])
                       for x, y in CHROMATICITIES[primaries])  # fmt: skip
    matrix = np.stack(colours, axis=1)
    return np.asarray(matrix * np.linalg.solve(matrix, white))


def to_bt709(primaries: str) -> Float64:
    """The matrix from linear RGB of these primaries to linear RGB of BT.709; white stays white."""
    whites = [_BRADFORD @ (_xyz(name) @ np.ones(3)) for name in (primaries, "bt709")]
    adapt = np.linalg.solve(_BRADFORD, np.diag(whites[1] / whites[0]) @ _BRADFORD)
    return np.asarray(np.linalg.solve(_xyz("bt709"), adapt @ _xyz(primaries)))


class DisplayTransform:
    """Converts images of given primaries and transfer function to sRGB.

    `black` and `white` are their codes in the 16-bit input.
    """

    def __init__(self, primaries: str, transfer: str, black: int = 0, white: int = 65535) -> None:
        self._transfer = transfer
        codes = ((np.arange(65536) - black) / (white - black)).clip(0, 1)
        self._light = _light(transfer, codes).astype(np.float32)
        self._matrix = to_bt709(primaries).astype(np.float32)
        self._luma = _xyz(primaries)[1].astype(np.float32)
        root = np.linspace(0, 1, _TABLE_SIZE + 1)
        self._codes = np.rint(255 * _code(transfer, root**2).clip(0, 1)).astype(np.uint8)
        light = np.maximum(root**2 * PEAK, 1e-6)
        self._gain = (tone_mapped(light) / light / WHITE).astype(np.float32)  # indexed by the root of light / PEAK
        # HLG's system gamma, indexed by the root of luma.
        self._ootf = (PEAK * np.maximum(root**2, 1e-6) ** 0.2).astype(np.float32)

    def __call__(self, image_hwc: ImageU16) -> ImageU8:
        """Convert 16-bit codes, [H, W, 3], to full-range 8-bit RGB."""
        shown_hwc = np.empty(image_hwc.shape, np.uint8)
        for top in range(0, len(image_hwc), _STRIP):
            light_hwc = self._light[image_hwc[top : top + _STRIP]]
            if self._transfer in HDR:
                light_hwc = self._tone_mapped(light_hwc)
            shown_hwc[top : top + _STRIP] = self._codes[_table_index(cv2.transform(light_hwc, self._matrix))]
        return shown_hwc

    def _tone_mapped(self, light_hwc: Float32) -> Float32:
        """Tone-mapped light, as a factor of the display's white."""
        planes = cv2.split(light_hwc)
        if self._transfer == "arib-std-b67":
            luma_hw = cv2.transform(light_hwc, self._luma[None])
            gain_hw = self._ootf[_table_index(luma_hw)]
            planes = [plane * gain_hw for plane in planes]
        # Scaling all three by the brightest keeps the hue.
        brightest_hw = np.maximum(np.maximum(planes[0], planes[1]), planes[2])
        gain_hw = self._gain[_table_index(brightest_hw * np.float32(1 / PEAK))]
        return np.asarray(cv2.merge([plane * gain_hw for plane in planes]))


def _table_index(light: MatLike) -> npt.NDArray[np.uint16]:
    """The table index of light from 0 to 1: by its square root, which is close to perceptually uniform."""
    return (np.sqrt(np.clip(light, 0, 1)) * np.float32(_TABLE_SIZE) + np.float32(0.5)).astype(np.uint16)


def is_displayable(color: Color) -> bool:
    """Whether an sRGB display shows these colours correctly without conversion."""
    return color.transfer in (*CAMERA, "iec61966-2-1") and color.primaries in SIMILAR_TO_BT709


@lru_cache(maxsize=8)
def display_transform(primaries: str, transfer: str, black: int = 0, white: int = 65535) -> DisplayTransform:
    """The conversion for colours that need one. HDR without stated primaries has BT.2020's."""
    if primaries == "unknown" and transfer in HDR:
        primaries = "bt2020"
    return DisplayTransform("bt709" if primaries in SIMILAR_TO_BT709 else primaries, transfer, black, white)
