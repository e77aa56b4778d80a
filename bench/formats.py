"""Memory and time of `rtseg export` on long results: a result is repeated until it has so many frames.

    python -m bench.formats out/clip --frames 9000 90000

Each format is written in a process of its own. Its peak memory should not grow with the frames, nor its time a frame.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rtseg.offline.formats import FORMATS

EXPORT = """
import resource, sys
from pathlib import Path
from rtseg.offline.formats import write_formats
write_formats(Path(sys.argv[1]), [sys.argv[2]])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def repeated(result: Path, out: Path, frames: int) -> None:
    """Write a result of so many frames to `out`: those of `result`, again and again; its mask files are links."""
    document = json.loads((result / "masks.json").read_text("utf-8"))
    images, by_image = document["images"], {}
    for entry in document["annotations"]:
        by_image.setdefault(entry["image_id"], []).append(entry)
    step = images[-1]["seconds"] / max(1, len(images) - 1)
    (out / "masks").mkdir(parents=True)
    number, comma = 0, ""
    with (out / "masks.json").open("w", encoding="ascii") as file, tempfile.TemporaryFile("w+") as rows:
        file.write(f'{{"info": {json.dumps(document["info"])},\n"annotations": [')
        for t in range(frames):
            image = images[t % len(images)]
            for entry in by_image.get(image["id"], ()):
                number += 1
                file.write(f"{comma}\n{json.dumps(entry | {'id': number, 'image_id': t})}")
                comma = ","
            names = {"file_name": f"{t:06d}.jpg", "mask_file": f"masks/{t:06d}.png"}
            os.link(result / image.get("mask_file", image["file_name"]), out / names["mask_file"])
            rows.write(f"{',' if t else ''}\n{json.dumps(image | names | {'id': t, 'seconds': round(t * step, 6)})}")
        rows.seek(0)
        file.write(f'],\n"images": [{rows.read()}],\n"categories": {json.dumps(document["categories"])}}}\n')
    (out / "run.json").write_bytes((result / "run.json").read_bytes())


def main() -> None:
    """Print a line for each format and number of frames."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("result", type=Path)
    parser.add_argument("--frames", type=int, nargs="+", default=[9000, 90000])
    parser.add_argument("--to", nargs="+", default=list(FORMATS))
    args = parser.parse_args()
    print("| format | frames | masks.json, MB | peak memory, MB | ms a frame |\n|---|---|---|---|---|")
    for frames in args.frames:
        with tempfile.TemporaryDirectory(dir=args.result.parent) as place:
            long = Path(place) / "long"
            repeated(args.result, long, frames)
            size = (long / "masks.json").stat().st_size / 1e6
            for name in args.to:
                start = time.perf_counter()
                done = subprocess.run(
                    [sys.executable, "-c", EXPORT, long, name], check=True, capture_output=True, text=True
                )
                each = (time.perf_counter() - start) / frames * 1000
                print(f"| {name} | {frames} | {size:.0f} | {float(done.stdout):.0f} | {each:.2f} |", flush=True)


if __name__ == "__main__":
    main()
