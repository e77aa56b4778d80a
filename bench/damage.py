"""Damaged recordings: are damaged frames passed as good, is anything missing without a word, how much is kept.

    python -m bench.damage [--runs 200] [--clip CLIP.mp4] [--only h264.ts]

Forty frames of a clip (made here from FFmpeg's test picture, if none is given), coded as H.264 with B-frames, HEVC,
MPEG-2 and MPEG-4, in several containers. Each run harms one file, from a seed of its own: a packet of MPEG-TS is taken
out, or up to 20 in a row; a byte is changed; the end is cut off. What `open_source` then shows is compared with the
clean file's frames at the same times.

    silent      runs that end normally, with nothing in the account, although frames are missing or differ
    passed      frames passed as good that differ: by more than 2 of 255 on average, or by more than 16 in a block
                of 16x16; in brackets those that differ by less
    kept        frames that were shown, of those that are the same as in a decoder that shows everything
"""

from __future__ import annotations

import argparse
import random
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from rtseg import open_source
from rtseg.base.errors import SourceError

FRAMES, WIDTH, HEIGHT = 40, 320, 240
PACKET, MOST = 188, 20
H264 = ["-c:v", "libx264", "-g", "12", "-pix_fmt", "yuv420p", "-threads", "1"]
HEVC = ["-c:v", "libx265", "-g", "12", "-x265-params", "log-level=none:pools=1", "-pix_fmt", "yuv420p"]
MPEG2 = ["-c:v", "mpeg2video", "-bf", "2", "-g", "12", "-b:v", "1500k", "-pix_fmt", "yuv420p"]
MPEG4 = ["-c:v", "mpeg4", "-bf", "2", "-g", "12", "-b:v", "1500k", "-pix_fmt", "yuv420p"]
Images = dict[float, npt.NDArray[np.uint8]]
Harm = Callable[[bytes, random.Random], bytes]


def lose_one(data: bytes, draw: random.Random) -> bytes:
    """Without one packet of MPEG-TS, from the first that holds video on."""
    place = draw.randrange(3, len(data) // PACKET) * PACKET
    return data[:place] + data[place + PACKET :]


def lose_many(data: bytes, draw: random.Random) -> bytes:
    number = draw.randrange(2, MOST + 1)
    place = draw.randrange(3, len(data) // PACKET - number) * PACKET
    return data[:place] + data[place + number * PACKET :]


def flip(data: bytes, draw: random.Random) -> bytes:
    """With one byte changed, among those that hold pictures."""
    first, last = payload(data)
    place = draw.randrange(first, last)
    return data[:place] + bytes([data[place] ^ draw.randrange(1, 256)]) + data[place + 1 :]


def cut(data: bytes, draw: random.Random) -> bytes:
    first, last = payload(data)
    return data[: draw.randrange(first + (last - first) // 5, last)]


def payload(data: bytes) -> tuple[int, int]:
    """From where to where a file holds pictures."""
    mdat = data.find(b"mdat")
    if data[4:8] == b"ftyp" and mdat > 0:
        return mdat + 4, mdat - 4 + int.from_bytes(data[mdat - 4 : mdat], "big")
    movi = data.find(b"movi")
    return (movi + 4 if data[:4] == b"RIFF" else 1000), len(data)


CASES: dict[str, tuple[list[str], str, tuple[Harm, ...]]] = {
    "h264.ts": (H264, "ts", (lose_one, lose_many, flip, cut)),
    "h264.mp4": (H264, "mp4", (flip, cut)),
    "h264.mkv": (H264, "mkv", (flip, cut)),
    "h264.avi": (H264, "avi", (flip, cut)),
    "hevc.ts": (HEVC, "ts", (lose_one, lose_many)),
    "hevc.mp4": (HEVC, "mp4", (flip,)),
    "hevc.mkv": (HEVC, "mkv", (flip,)),
    "mpeg2.ts": (MPEG2, "ts", (lose_one, lose_many)),
    "mpeg2.mpg": (MPEG2, "mpg", (flip,)),
    "mpeg4.avi": (MPEG4, "avi", (flip,)),
    "mpeg4.ts": (MPEG4, "ts", (lose_one,)),
}


def made(folder: Path, clip: str, settings: list[str], suffix: str) -> Path:
    """The clip, coded so."""
    source = ["-i", clip] if clip else ["-f", "lavfi", "-i", f"testsrc2=size={WIDTH}x{HEIGHT}:rate=25"]
    path = folder / f"clean.{suffix}"
    faststart = ["-movflags", "faststart"] if suffix == "mp4" else []
    shape = ["-frames:v", str(FRAMES), "-vf", f"scale={WIDTH}:{HEIGHT}", "-an"]
    command = ["ffmpeg", "-y", "-loglevel", "error", *source, *shape, *settings, *faststart, str(path)]
    subprocess.run(command, check=True)
    return path


@dataclass
class Tally:
    runs: int = 0
    silent: int = 0
    passed: int = 0
    slight: int = 0
    worst: float = 0.0
    kept: int = 0
    whole: int = 0
    ends: int = 0


def shown(path: Path) -> tuple[Images, bool]:
    """Frames by their time, and whether something was said."""
    images: Images = {}
    try:
        source = open_source(path)
    except SourceError:
        return images, True
    try:
        for frame in source:
            images[round(frame.seconds, 3)] = frame.image_hwc
    except SourceError:
        return images, True
    account = source.account
    return images, bool(account.gaps or account.leading or account.ended or "data" in account.assumed)


def everything(path: Path) -> Iterator[tuple[float, npt.NDArray[np.uint8]]]:
    """What FFmpeg makes of a file, come what may."""
    try:
        with av.open(str(path)) as container:
            for packet in container.demux(video=0):
                try:
                    for picture in packet.decode():
                        yield round(picture.time or 0.0, 3), picture.to_ndarray(format="gray")
                except av.FFmpegError:
                    continue
    except (av.FFmpegError, OSError):
        return


def difference(a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """On average, and in the worst block of 16x16."""
    apart = np.abs(a.astype(np.int16) - b).mean(axis=2)
    height, width = apart.shape[0] // 16, apart.shape[1] // 16
    blocks = apart[: height * 16, : width * 16].reshape(height, 16, width, 16).mean(axis=(1, 3))
    return float(apart.mean()), float(blocks.max())


def tried(path: Path, clean: Images, grey: Images, harmed: bytes, tally: Tally) -> str:
    """One harmed file; what went wrong, in words."""
    path.write_bytes(harmed)
    images, said = shown(path)
    tally.runs += 1
    tally.ends += said
    whole = {t for t, image in everything(path) if t in grey and np.array_equal(image, grey[t])}
    tally.whole += len(whole)
    tally.kept += len(whole & images.keys())
    wrong = 0
    for time, image in images.items():
        mean, block = difference(image, clean[time]) if time in clean else (255.0, 255.0)
        if mean or block:
            bad = mean > 2 or block > 16
            tally.passed, tally.slight = tally.passed + bad, tally.slight + (not bad)
            tally.worst = max(tally.worst, mean)
            wrong += bad
    silent = not said and (wrong or len(images) < len(clean))
    tally.silent += bool(silent)
    return f"{'SILENT ' if silent else ''}{wrong} wrong, {len(images)} shown" if silent or wrong else ""


def measured(name: str, harm: Harm, runs: int, clip: str, verbose: bool = False) -> Tally:
    """All runs of one harm on one kind of file."""
    settings, suffix, _ = CASES[name]
    tally = Tally()
    with tempfile.TemporaryDirectory() as folder:
        path = made(Path(folder), clip, settings, suffix)
        data, (clean, said) = path.read_bytes(), shown(path)
        assert not said and len(clean) == FRAMES, f"{name}: the clean file shows {len(clean)} frames"
        grey = dict(everything(path))
        for run in range(runs):
            result = tried(path, clean, grey, harm(data, random.Random(f"{name} {harm.__name__} {run}")), tally)
            if result and verbose:
                print(f"    run {run}: {result}", flush=True)
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--clip", default="")
    parser.add_argument("--only", default="")
    parser.add_argument("--verbose", action="store_true")
    given = parser.parse_args()
    print(f"{'file':10} {'harm':10} {'runs':>5} {'silent':>7} {'passed':>14} {'worst mean':>11} {'kept':>6}")
    for name, (_, _, harms) in CASES.items():
        for harm in harms:
            if given.only not in f"{name} {harm.__name__}":
                continue
            t = measured(name, harm, given.runs, given.clip, given.verbose)
            passed = f"{t.passed} ({t.slight})"
            kept = t.kept / t.whole if t.whole else 1.0
            print(
                f"{name:10} {harm.__name__:10} {t.runs:5} {t.silent:7} {passed:>14} {t.worst:11.2f} {kept:6.1%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
