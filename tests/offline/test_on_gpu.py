"""`segment --decoder nvdec`: pictures that stay where they were decoded, from there to the drawn overlay.

The GPU is the CPU (tests/engine/host_gpu.py), and the decoder a software one that hands over NV12 by DLPack, as NVDEC
does; all between the two is what runs on a GPU.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

import rtseg
from bench.damage import flip
from rtseg.base.account import Account
from rtseg.base.errors import ConfigError, EngineError, SourceError
from rtseg.base.types import Frame, Prompt, Sampled
from rtseg.data.segment_result import SegmentResult
from rtseg.engine.cuda import CudaEngine
from rtseg.engine.picture.device_picture import DevicePicture
from rtseg.engine.picture.on_gpu import OnGpu
from rtseg.engine.picture.upload import PinnedBuffer
from rtseg.engine.recipe import Recipe, load_recipe
from rtseg.engine.weights import find_weights, load_network
from rtseg.grab import nvdec, video_reader
from rtseg.grab.decode import decoder
from rtseg.grab.decode.orientation import Orientation
from rtseg.grab.demux import demuxer
from rtseg.grab.opening import open_on_gpu
from rtseg.offline import Reading, on_gpu, results, run, segment
from rtseg.publish.overlay import draw_overlay
from rtseg.sam2 import get_preset
from rtseg.track.cut_detector import SAMPLED
from tests.engine.host_gpu import compiled_driver, host_kernels
from tests.grab.test_damage import COUNT, recording

H, W, FRAMES = 240, 320, 6
SCENE = f"synthetic:laparoscopy?seconds=1&seed=7&width={W}&height={H}&fps=25"
NVDEC = Reading(decoder="nvdec")


def write(path: Path, images: list[np.ndarray], codec: str = "libx264", **options: str) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream(codec, rate=25, options={"g": "4", "crf": "18", **options})
        stream.height, stream.width = images[0].shape[:2]
        stream.pix_fmt = "yuv420p10le" if codec == "libx265" else "yuv420p"
        for t, image_hwc in enumerate(images):
            frame = av.VideoFrame.from_ndarray(image_hwc, format="rgb24")
            frame.pts, frame.time_base = t, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def scene() -> list[Frame]:
    return [frame for frame, _ in zip(rtseg.open_source(SCENE), range(FRAMES), strict=False)]


@pytest.fixture(scope="module")
def clip(scene: list[Frame], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", [frame.image_hwc for frame in scene])


@pytest.fixture(scope="module")
def prompts(scene: list[Frame]) -> dict[int, list[Prompt]]:
    """The two largest objects, by their masks."""
    truth_hw = scene[0].truth_hw
    assert truth_hw is not None
    ids, counts = np.unique(truth_hw[truth_hw > 0], return_counts=True)
    largest = ids[np.argsort(counts)[-2:]]
    return {0: [Prompt(number, mask=truth_hw == i) for number, i in enumerate(largest, 1)]}


@pytest.fixture(scope="module")
def gpu(tmp_path_factory: pytest.TempPathFactory) -> OnGpu:
    return OnGpu("cpu", SAMPLED, host_kernels(compiled_driver(tmp_path_factory.mktemp("driver"))))


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe(model="micro", weights="package:micro", image_size=224, runtime="cuda", precision="fp32")


@pytest.fixture(scope="module")
def engine(recipe: Recipe) -> CudaEngine:
    """The `cuda` engine, on the CPU."""
    path = find_weights(recipe.weights)
    return CudaEngine(load_network(get_preset("micro"), 224, path), recipe, "hash", "cpu")


def nv12(where: str, picture: av.VideoFrame) -> Any:
    return picture.reformat(format="nv12").planes


@pytest.fixture
def host_gpu(gpu: OnGpu, engine: CudaEngine, monkeypatch: pytest.MonkeyPatch) -> Iterator[OnGpu]:
    """All that no CPU can be: the decoder, and that there is a GPU."""
    monkeypatch.setattr(run, "open_engine", lambda recipe: engine)
    monkeypatch.setattr(on_gpu, "open_gpu", lambda recipe: gpu)
    monkeypatch.setattr(nvdec, "accelerated", lambda gpu: None)
    monkeypatch.setattr(nvdec, "planes_of", nv12)
    yield gpu


Drawn = list[tuple[np.ndarray, tuple[Any, ...]]]
Segment = Callable[..., tuple[dict[str, Any], list[np.ndarray], Drawn]]


@pytest.fixture
def segmented(
    clip: Path, prompts: dict[int, list[Prompt]], recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Segment:
    def segmented(reading: Reading, source: Path = clip) -> tuple[dict[str, Any], list[np.ndarray], Drawn]:
        """What is said of the run, the id maps, and the pictures as they were drawn."""
        drawn: Drawn = []

        def noted(frame: Frame, *given: Any, **more: Any) -> Any:
            done = draw_overlay(frame, *given, **more)
            drawn.append((done.image_hwc.copy(), done.label_boxes))
            return done

        monkeypatch.setattr(results, "draw_overlay", noted)
        out = tmp_path / f"{reading.decoder}-{source.stem}"
        said = segment(source, prompts, out, recipe, reading=reading)
        maps = [np.array(Image.open(path)) for path in sorted((out / "masks").iterdir())]
        return said, maps, drawn

    return segmented


def iou(a_hw: np.ndarray, b_hw: np.ndarray) -> float:
    return float((a_hw & b_hw).sum() / max(1, (a_hw | b_hw).sum()))


def test_masks_and_overlay_are_those_of_the_cpu(host_gpu: OnGpu, segmented: Segment) -> None:
    said, maps, drawn = segmented(NVDEC)
    expected_said, expected, by_cpu = segmented(Reading())
    assert len(maps) == len(expected) == FRAMES and said["frames"] == expected_said["frames"]
    for found_hw, expected_hw in zip(maps, expected, strict=True):
        for i in (1, 2):
            assert (expected_hw == i).sum() > 100
            assert iou(found_hw == i, expected_hw == i) > 0.99
    for (picture, boxes), (other, other_boxes) in zip(drawn, by_cpu, strict=True):
        differ = np.abs(picture.astype(int) - other).max(axis=2) > 2
        assert boxes == other_boxes and differ.mean() < 0.002  # edges of masks may lie a pixel apart


def test_the_run_says_who_decoded_and_what_that_hides(host_gpu: OnGpu, segmented: Segment) -> None:
    said, _, _ = segmented(NVDEC)
    assert said["reading"]["decoder"] == "nvdec"
    assert said["source_account"]["assumed"]["data"] == nvdec.HIDES
    video = SegmentResult(Path(said["out"])).video()
    assert video is not None and "decoder" not in dict(video.options)  # an evaluation reads it by the CPU
    said, _, _ = segmented(Reading())
    assert said["reading"]["decoder"] == "cpu" and "data" not in said["source_account"]["assumed"]


@pytest.mark.parametrize("fault", ["swapped", "matrix", "range"])
def test_wrong_colours_are_noticed(
    fault: str, host_gpu: OnGpu, segmented: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The negative control of the comparison above."""
    picture = host_gpu.picture

    def wrong(luma: Any, chroma: Any, matrix: str, full: bool, site: str) -> DevicePicture:
        if fault == "swapped":
            swapped = torch.utils.dlpack.from_dlpack(chroma.__dlpack__()).flip(2).contiguous()
            return picture(luma, swapped, matrix, full, site)
        return picture(luma, chroma, "bt709" if fault == "matrix" else matrix, full or fault == "range", site)

    monkeypatch.setattr(host_gpu, "picture", wrong)
    _, _, drawn = segmented(NVDEC)
    _, _, by_cpu = segmented(Reading())
    off = [np.abs(a.astype(int) - b).max(axis=2) > 2 for (a, _), (b, _) in zip(drawn, by_cpu, strict=True)]
    assert min(o.mean() for o in off) > 0.1


def test_a_picture_never_goes_up_and_comes_down_once_when_it_is_drawn(
    host_gpu: OnGpu, segmented: Segment, monkeypatch: pytest.MonkeyPatch
) -> None:
    downs: list[tuple[int, ...]] = []
    ups: list[int] = []
    down, up = DevicePicture.__array__, PinnedBuffer.up

    def counted_down(self: DevicePicture, *given: Any, **more: Any) -> Any:
        downs.append(self.shape)
        return down(self, *given, **more)

    def counted_up(self: PinnedBuffer, to_u8: torch.Tensor) -> None:
        ups.append(len(to_u8))
        up(self, to_u8)

    monkeypatch.setattr(DevicePicture, "__array__", counted_down)
    monkeypatch.setattr(PinnedBuffer, "up", counted_up)
    segmented(NVDEC)
    assert downs == [(H, W, 3)] * FRAMES and ups and max(ups) < H * W
    ups.clear()
    segmented(Reading())
    assert max(ups) > H * W * 3 and len(downs) == FRAMES  # the negative control


def test_what_a_tracker_samples_is_what_opencv_takes(gpu: OnGpu) -> None:
    for height, width in ((240, 320), (1080, 1920), (97, 130), (96, 128), (50, 40)):
        image = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
        picture = DevicePicture(torch.from_numpy(image), SAMPLED)
        assert isinstance(picture, Sampled) and not isinstance(image, Sampled)
        for size in (SAMPLED, (64, 48)):
            expected = cv2.resize(image, size, interpolation=cv2.INTER_NEAREST)
            assert np.array_equal(picture.sampled(*size), expected)
        for size in ((640, 640), (64, 48)):
            differ = picture.resized(*size).astype(int) - cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
            assert np.abs(differ).max() <= 2 and (differ != 0).mean() < 0.2
        assert np.array_equal(np.asarray(picture), image) and picture.shape == image.shape


def test_planes_live_as_long_as_they_are_read(clip: Path, gpu: OnGpu) -> None:
    """A plane that DLPack has handed over keeps the decoder's picture, whoever else lets go of it."""
    with av.open(clip) as container:
        picture = next(container.decode(video=0)).reformat(format="nv12")
        before = [np.array(memoryview(plane)) for plane in picture.planes]
        luma, chroma = (torch.utils.dlpack.from_dlpack(plane.__dlpack__()) for plane in picture.planes)
        del picture
        for decoded in container.decode(video=0):
            decoded.reformat(format="nv12")
    assert luma.shape == (H, W) and chroma.shape == (H // 2, W // 2, 2)
    assert np.array_equal(luma.numpy(), before[0].reshape(H, -1)[:, :W])


def test_what_needs_the_picture_on_the_host_is_refused(
    clip: Path, prompts: Any, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--frames needs each picture in host memory"):
        segment(clip, prompts, tmp_path / "out", recipe, reading=NVDEC, frames="jpg")
    with pytest.raises(ConfigError, match="decoder = 'nvdec2'"):
        segment(clip, prompts, tmp_path / "out", recipe, reading=replace(NVDEC, decoder="nvdec2"))  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize(
    ("runtime", "line"),
    [
        ("cpu", '--decoder nvdec: runtime = "cpu" takes pictures in host memory; expected cuda or tensorrt'),
        ("cuda", '--decoder nvdec: .*runtime = "cuda": torch .* sees no CUDA device'),
    ],
)
def test_without_a_gpu_it_is_refused(
    runtime: str, line: str, clip: Path, prompts: Any, recipe: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=line):
        segment(clip, prompts, tmp_path / "out", replace(recipe, runtime=runtime), reading=NVDEC)
    assert not (tmp_path / "out").exists()


BOUND = SimpleNamespace(index=0, current=nullcontext)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_driver_ffmpeg_says_so_in_one_line(clip: Path) -> None:
    with pytest.raises(SourceError, match=r"clip.mp4: NVDEC is not available \(.*\); see rtseg doctor, or leave out"):
        open_on_gpu([str(clip)], BOUND, None, None, "skip", None)


def test_an_older_pyav_is_refused(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nvdec.av, "VideoFrame", object)
    with pytest.raises(SourceError, match=r"PyAV .* does not leave pictures on a GPU: pip install 'av>=18.1'"):
        nvdec.accelerated(BOUND)


def test_ffmpeg_asks_for_the_context_that_is_current_when_it_is(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside: list[bool] = []

    @contextmanager
    def current() -> Iterator[None]:
        inside.append(True)
        try:
            yield
        finally:
            inside.pop()

    opened, av_open = [], av.open

    def noted(url: str, hwaccel: Any, **more: Any) -> Any:
        opened.append(bool(inside))
        return av_open(url, **more)

    monkeypatch.setattr(demuxer.av, "open", noted)
    gpu = SimpleNamespace(index=1, current=current)
    with pytest.raises(SourceError, match="h264 is not decoded by NVDEC; leave out --decoder nvdec"):
        open_on_gpu([str(clip)], gpu, None, None, "skip", None)  # for FFmpeg was told nothing of it
    assert opened == [True] and not inside
    accel = nvdec.accelerated(gpu)
    assert accel is not None and (accel.options, accel.device_id) == ({"primary_ctx": "0", "current_ctx": "1"}, 1)
    assert accel.is_hw_owned and not accel.allow_software_fallback


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ({"deinterlace": "auto"}, "NVDEC pictures are taken as they are, and deinterlace=auto"),
        ({"bits": 12}, "NVDEC pictures are taken as they are, and bits=12"),
    ],
)
def test_readings_that_nvdec_cannot_do_are_refused(given: dict[str, Any], line: str, clip: Path) -> None:
    words = {"fps": None, "deinterlace": None, "damaged": "skip", "bits": None, **given}
    with pytest.raises(SourceError, match=line):
        open_on_gpu([str(clip)], BOUND, **words)


def test_what_is_no_video_file_is_refused(clip: Path, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "still.png"), np.zeros((8, 8, 3), np.uint8))
    for uri in (str(tmp_path), str(tmp_path / "still.png"), "rtsp://host/feed", SCENE):
        with pytest.raises(SourceError, match="NVDEC decodes video files; for anything else leave out --decoder nvdec"):
            open_on_gpu([uri], BOUND, None, None, "skip", None)


def on_device(**fields: Any) -> Any:
    """A picture as NVDEC leaves it."""
    formats = {"format": SimpleNamespace(name="cuda"), "sw_format": av.VideoFormat("nv12", W, H)}
    color = {"color_range": 1, "colorspace": 1, "color_trc": 1, "color_primaries": 1}
    planes = ("luma", "chroma")
    rest = {"width": W, "height": H, "rotation": 0, "interlaced_frame": 0, "planes": planes}
    return SimpleNamespace(**{**formats, **color, **rest, **fields})


PICTURE = SimpleNamespace(shape=(120, 160, 3))  # a stand-in: only its shape is asked for


class Noted:
    index = 0
    current = nullcontext

    def __init__(self) -> None:
        self.given: list[Any] = []

    def picture(self, *given: Any) -> Any:
        self.given.append(given)
        return PICTURE


@pytest.mark.parametrize(
    ("fields", "given"),
    [
        ({}, ("bt709", False)),
        ({"color_range": 2, "colorspace": 6}, ("smpte170m", True)),
        ({"colorspace": 2, "height": 480}, ("smpte170m", False)),
        ({"colorspace": 2, "height": 1080}, ("bt709", False)),
        ({"colorspace": 9, "color_primaries": 1}, ("bt2020nc", False)),
    ],
)
def test_colours_are_taken_as_the_reader_of_files_takes_them(fields: dict[str, Any], given: tuple[str, bool]) -> None:
    gpu, account = Noted(), Account()
    image, color = nvdec.OnGpuConverter("clip", account, Orientation(), "h264", gpu)(on_device(**fields))
    assert image is PICTURE and gpu.given == [("luma", "chroma", *given, "left")]
    assert (color.matrix, color.range == "full") == given
    assert ("colours" in account.assumed) == (fields.get("colorspace") == 2)


@pytest.mark.parametrize(
    ("fields", "line"),
    [
        ({"width": 321}, "321x240 has an odd side, which is not done on a GPU; leave out --decoder nvdec"),
        ({"color_trc": 16}, "its colours are not those of an ordinary display"),
        ({"sw_format": av.VideoFormat("p010le", W, H)}, "decoded as p010le; expected nv12 on the GPU"),
        ({"sw_format": av.VideoFormat("yuv444p", W, H)}, "decoded as yuv444p; expected nv12"),
        ({"format": av.VideoFormat("nv12", W, H), "sw_format": None}, "decoded as nv12; expected nv12 on the GPU"),
    ],
)
def test_pictures_that_are_not_done_on_a_gpu_are_refused(fields: dict[str, Any], line: str) -> None:
    with pytest.raises(SourceError, match=f"clip: {line}"):
        nvdec.OnGpuConverter("clip", Account(), Orientation(), "h264", Noted())(on_device(**fields))


def test_a_rotated_video_is_refused() -> None:
    turned = Orientation(swap=True, mirror_x=True)
    with pytest.raises(SourceError, match="clip: it is to be shown 90 degrees clockwise, which is not done on a GPU"):
        nvdec.OnGpuConverter("clip", Account(), turned, "h264", Noted())(on_device())


def test_the_proof_of_h264_finds_what_a_decoder_hides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole_file = recording(tmp_path / "whole.mp4")
    data, harmed = whole_file.read_bytes(), tmp_path / "harmed.mp4"
    monkeypatch.setattr(nvdec, "accelerated", lambda gpu: None)
    monkeypatch.setattr(nvdec, "planes_of", nv12)
    monkeypatch.setattr(decoder, "STRICTER_BY_CODEC", {"h264": "ignore_err"})  # as NVDEC, which conceals and goes on

    def silent(runs: range) -> int:
        count = 0
        for seed in runs:
            harmed.write_bytes(flip(data, random.Random(seed)))
            source = open_on_gpu([str(harmed)], Noted(), None, None, "skip", None)
            count += sum(1 for _ in source) == COUNT and not source.account.gaps
        return count

    assert silent(range(6)) == 0
    monkeypatch.setattr(video_reader, "can_check_slices", lambda stream: False)
    assert silent(range(6)) >= 1  # the negative control: without the proof nobody would know
