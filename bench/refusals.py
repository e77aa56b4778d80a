"""Profiles with a mistake, on a busy machine: is the cause the last line that `rtseg live` says, and how soon?

    python -m bench.refusals [--burners 4] [--only "port taken,no file"] [--json FILE]

Each mistake is one that cannot get better by itself, so the feed has to end: with exit code 2, within 10 s, and with
the cause, not what became of a process, as its last line. Beside it as many processes as asked compute without a
pause. The negative control is the same profile without a mistake: it has to play, and to end with exit code 0.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WITHIN_S = 10.0
RTSEG = (sys.executable, "-c", "import sys; from rtseg.cli import main; sys.exit(main())")
SOURCE = "synthetic:laparoscopy?width=160&height=120&fps=25&seconds=2&seed=7"
PROFILE: dict[str, Any] = {
    "source": SOURCE, "engine": "engine.toml", "publish": {"bind": "tcp://127.0.0.1:*"},
    "object": [{"id": 1, "box": [20, 20, 120, 100]}],
}  # fmt: skip
RECIPE: dict[str, Any] = {"model": "micro", "weights": "package:micro", "image_size": 224}


@dataclass(frozen=True, slots=True)
class Mistake:
    """`change` makes it in the profile, or in its recipe where that is named; `said` is what the last line must say."""

    name: str
    said: str
    change: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


def _objects(**keys: Any) -> dict[str, Any]:
    return {"object": [{"id": 1, **keys}]}


MISTAKES = (
    Mistake("bind without keys", "keys", {"publish": {"bind": "tcp://0.0.0.0:5700"}}),
    Mistake("port taken", "in use", {"publish": {"bind": "tcp://127.0.0.1:{taken}"}}),
    Mistake("address of another machine", "192.0.2.1", {"publish": {"bind": "tcp://192.0.2.1:5700"}}),
    Mistake("socket in no folder", "nowhere", {"publish": {"bind": "ipc://{here}/nowhere/feed"}}),
    Mistake("no keys folder", "nokeys", {"security": {"keys": "nokeys"}}),
    Mistake("control port taken", "in use", {"control": {"bind": "tcp://127.0.0.1:{taken}"}}),
    Mistake("metrics for all to read", "not loopback", {"metrics": {"bind": "0.0.0.0:9464"}}),
    Mistake("record folder is a file", "cannot be written", {"record": {"folder": "text.mp4/recordings"}}),
    Mistake("no file", "no such file", {"source": "gone.mp4"}),
    Mistake("no video", "not a readable video", {"source": "text.mp4"}),
    Mistake("empty file", "empty.mp4", {"source": "empty.mp4"}),
    Mistake("folder without pictures", "no images", {"source": "empty"}),
    Mistake("unknown scheme", "unknown scheme", {"source": "rtps://camera/live"}),
    Mistake("no host", "no host", {"source": "rtsp:///live"}),
    Mistake("no port", "no port", {"source": "udp://127.0.0.1"}),
    Mistake("no such device", "/dev/video99", {"source": "/dev/video99"}),
    Mistake("wrong option", "unknown key", {"source": "v4l2:///dev/video0?widht=640&height=480"}),
    Mistake("unknown scene", "synthetic", {"source": "synthetic:opera"}),
    Mistake("crop outside", "crop", {"crop": [0, 0, 640, 480]}),
    Mistake("box outside", "box", _objects(box=[20, 20, 1200, 100])),
    Mistake("point outside", "outside", _objects(points=[[500, 10, 1]])),
    Mistake("no mask file", "gone.png", _objects(mask="gone.png")),
    Mistake("no weights", "gone.safetensors", recipe={"weights": "gone.safetensors"}),
    Mistake("no network in the weights", "text.safetensors", recipe={"weights": "text.safetensors"}),
    Mistake("weights of another network", "the preset of this file", recipe={"model": "nano"}),
    Mistake("unknown model", "tiniest", recipe={"model": "tiniest"}),
    Mistake("no recipe", "gone.toml", {"engine": "gone.toml"}),
    Mistake("unknown key", "did you mean", {"sorce": "x.mp4"}),
    Mistake("rate of nothing", "target_fps", {"target_fps": 0}),
)


def toml(values: dict[str, Any]) -> str:
    """Values, tables and lists of tables as TOML."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in values.items() if not _is_table(value)]
    for key, value in values.items():
        for table in value if isinstance(value, list) else [value]:
            if _is_table(value):
                plain += [f"[[{key}]]" if isinstance(value, list) else f"[{key}]"]
                plain += [f"{name} = {json.dumps(inner)}" for name, inner in table.items()]
    return "\n".join(plain) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def write(folder: Path, mistake: Mistake | None, taken: int) -> Path:
    """A profile with this mistake, or with none, in a folder of its own."""
    folder.mkdir()
    (folder / "empty").mkdir()
    (folder / "empty.mp4").touch()
    for name in ("text.mp4", "text.safetensors"):
        (folder / name).write_text("no video, and no weights\n" * 9)
    change, recipe = (mistake.change, mistake.recipe) if mistake else ({}, {})
    filled = json.loads(json.dumps(change).replace("{taken}", str(taken)).replace("{here}", str(folder)))
    (folder / "engine.toml").write_text(toml(RECIPE | recipe))
    (folder / "room.toml").write_text(toml(PROFILE | filled))
    return folder / "room.toml"


def tried(profile: Path) -> dict[str, Any]:
    """Play a profile: its exit code, its last line, and how many seconds it took."""
    start_s = time.monotonic()
    command = [*RTSEG, "live", str(profile)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as feed:
        try:
            out, _ = feed.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            feed.kill()
            out, _ = feed.communicate()
    lines = out.strip().splitlines()
    return {"code": feed.returncode, "last": lines[-1] if lines else "", "out": out, "s": time.monotonic() - start_s}


@contextmanager
def burners(count: int) -> Iterator[None]:
    """So many processes that do nothing but compute, until the block is left."""
    burn = [sys.executable, "-c", "while True: pass"]
    all_of_them = [subprocess.Popen(burn) for _ in range(count)]
    try:
        yield
    finally:
        for one in all_of_them:
            one.kill()
            one.wait()


def judged(found: dict[str, Any], mistake: Mistake | None) -> bool:
    """Whether it ended as it should."""
    if mistake is None:
        return bool(found["code"] == 0)
    said = re.search(re.escape(mistake.said), found["last"]) is not None and "signal SIG" not in found["last"]
    return bool(found["code"] == 2 and said and found["s"] <= WITHIN_S)


def play(only: list[str], count: int, note: Callable[[str], None]) -> list[dict[str, Any]]:
    """All mistakes, and the profile without one, each beside so many burners."""
    rows = []
    wanted = [m for m in (*MISTAKES, None) if not only or (m.name if m else "no mistake") in only]
    with tempfile.TemporaryDirectory(prefix="rtseg-") as folder, socket.create_server(("127.0.0.1", 0)) as other:
        for number, mistake in enumerate(wanted):
            profile = write(Path(folder) / str(number), mistake, other.getsockname()[1])
            with burners(count):
                found = tried(profile)
            name, ok = mistake.name if mistake else "no mistake", judged(found, mistake)
            rows.append({"mistake": name, "ok": ok, **found})
            note(f"{'ok' if ok else 'WRONG':6}{found['s']:5.1f} s  exit {found['code']}  {name}: {found['last']:.150}")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(prog="bench.refusals", description=__doc__.splitlines()[0])
    parser.add_argument("--burners", type=int, default=4)
    parser.add_argument("--only", default="", help="names, comma-separated; the profile without one: no mistake")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    rows = play([name.strip() for name in given.only.split(",") if name.strip()], given.burners, print)
    wrong = [row for row in rows if not row["ok"]]
    print(f"{len(rows) - len(wrong)} of {len(rows)}; the longest took {max(row['s'] for row in rows):.1f} s")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()
