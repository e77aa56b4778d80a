"""A contact sheet of a clip that nobody annotated: what a stream profile names, followed from the first frame.

python -m bench.sheet streams/file.toml --out bench/laparoscopy.jpg
"""

from __future__ import annotations

import argparse
import sys
from contextlib import closing
from pathlib import Path

import cv2

import rtseg
from rtseg.base.errors import SourceError
from rtseg.base.rle import encode_rle
from rtseg.base.types import ImageU8, Masks
from rtseg.data.dataset import Sequence, Target
from rtseg.evaluate.pictures import contact_sheet
from rtseg.evaluate.result import Prediction, Tracked
from rtseg.live.profile import StreamProfile, load_stream

COLUMNS, WIDTH, QUALITY = 4, 320, 88


def follow(profile: StreamProfile, engine: rtseg.Engine, count: int, width: int = WIDTH) -> ImageU8:
    """`count` frames of the profile's source, evenly spaced, with the masks of its objects: uint8 [h, w, 3].

    Every frame is tracked; the first, on which the objects are prompted, is shown with what the network made of it.
    """
    tracker = rtseg.Tracker(engine)
    for prompt in profile.objects:
        tracker.give(prompt)
    tracked = Tracked()
    with closing(rtseg.open_source(profile.source)) as source:
        for t, frame in enumerate(source):
            tracked.masks[t] = predictions(tracker.step(frame))
    if not tracked.masks:
        raise SourceError(f"{profile.source}: holds no frame; expected at least one")
    targets = tuple(Target(p.id, p.label or f"object {p.id}") for p in profile.objects)
    with closing(rtseg.open_source(profile.source)) as source:  # again: a long clip does not fit into memory
        again = enumerate(source)  # a sheet asks for its frames in their order
        sequence = Sequence(
            profile.name,
            len(tracked.masks),
            targets,
            lambda t: next(f.image_hwc for i, f in again if i == t),
            lambda _: None,
        )
        return contact_sheet(sequence, tracked, count, COLUMNS, width)


def predictions(masks: Masks) -> dict[int, Prediction]:
    return {i: Prediction(encode_rle(masks.mask(i)), score) for i, score in zip(masks.ids, masks.scores, strict=True)}


def main(arguments: list[str] | None = None) -> int:
    """`python -m bench.sheet`."""
    parser = argparse.ArgumentParser(prog="python -m bench.sheet", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("stream", type=Path, metavar="STREAM.toml")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.jpg")
    parser.add_argument("--weights", help="a weights file (default: the recipe's)")
    parser.add_argument("--frames", type=int, default=12, help="how many to show (default: 12)")
    given = parser.parse_args(arguments)
    if given.out.suffix not in (".jpg", ".png") or given.frames < 1:
        print("error: expected a FILE.jpg or FILE.png, and one frame or more", file=sys.stderr)
        return 2
    try:
        profile = load_stream(given.stream)
        engine = rtseg.open_engine(profile.engine, **({"weights": given.weights} if given.weights else {}))
        sheet_hwc = follow(profile, engine, given.frames)
    except rtseg.RtsegError as e:
        print(f"error: {e}", file=sys.stderr)
        return 2
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(cv2.imencode(given.out.suffix, sheet_hwc[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
