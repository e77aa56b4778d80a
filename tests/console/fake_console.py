"""A console that is none: it speaks to the page as the real one does, of a scene that it draws, and fails on request.

`python -m tests.console.fake_console --port 8200` serves it; `?` keys of `POST /fake` change what it does (`Script`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import struct
import time
from dataclasses import asdict, dataclass, field, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket, WebSocketDisconnect

from rtseg.base.colors import color_of
from rtseg.base.rle import encode_rle
from rtseg.base.types import BoolMask, ImageU8

PAGE = Path(__file__).parents[2] / "rtseg" / "console" / "page"
WIDTH, HEIGHT, FPS, FRAMES = 640, 360, 25, 200
CSP = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@dataclass
class Script:
    """What the console pretends. `codes`: close codes are sent to whoever connects."""

    right: str = "pointer"
    feeds: list[str] = field(default_factory=lambda: ["demo"])
    clips: list[str] = field(default_factory=list)  # feeds that are recordings
    state: str = "running"
    link: str = "up"
    behind: bool = False
    age_ms: float = 40.0  # of the masks
    delay_ms: float = 30.0  # from capture until a picture is sent
    pictures: bool = True
    pongs: bool = True
    statuses: bool = True
    refuse: str = ""
    preview: str = "mask"  # "mask", or the error that it answers
    answers: bool = True
    aspect: float = 1.0  # of a pixel


class Scene:
    """Discs that move over a drawn tissue, or the frames of a file with their masks."""

    def __init__(self, path: Path | None = None) -> None:
        self.frames: Any = None
        if path:
            with np.load(path) as file:
                self.frames, self.ids = file["frames"], file["ids"]
            self.height, self.width = self.frames.shape[1:3]
        else:
            self.width, self.height = WIDTH, HEIGHT

    def image(self, seq: int) -> ImageU8:
        """The picture of a frame, uint8 [H, W, 3] BGR."""
        if self.frames is not None:
            return np.asarray(self.frames[seq % len(self.frames)], np.uint8)
        image_hwc = _tissue(self.width, self.height).copy()
        for i in (1, 2, 3):
            cv2.circle(image_hwc, self.center(i, seq), 26, (190 - 20 * i, 195, 200), -1)
        return image_hwc

    def center(self, i: int, seq: int) -> tuple[int, int]:
        """The middle of disc `i`."""
        turn = seq / 40 + 2.1 * i
        return int(self.width * (0.5 + 0.3 * np.cos(turn))), int(self.height * (0.5 + 0.28 * np.sin(turn * 0.8)))

    def mask(self, i: int, seq: int) -> BoolMask:
        """The true mask of disc or instrument `i`, bool [H, W]."""
        if self.frames is not None:
            return np.asarray(self.ids[seq % len(self.frames)] == i)
        mask_hw = np.zeros((self.height, self.width), np.uint8)
        cv2.circle(mask_hw, self.center(i, seq), 26, 1, -1)
        return mask_hw > 0

    def under(self, prompt: dict[str, Any], seq: int) -> int:
        """The disc that a prompt points at; 0 for none."""
        points = [(int(x), int(y)) for x, y, on in prompt.get("points", ()) if on]
        if box := prompt.get("box"):
            points.append((int(box[0] + box[2]) // 2, int(box[1] + box[3]) // 2))
        for i in (1, 2, 3):
            if any(self.mask(i, seq)[y, x] for x, y in points):
                return i
        return 0


@lru_cache(maxsize=4)
def _tissue(width: int, height: int) -> ImageU8:
    noise_hw = np.random.default_rng(3).normal(size=(height // 20, width // 20, 1)).astype(np.float32)
    large_hw = cv2.resize(noise_hw, (width, height), interpolation=cv2.INTER_CUBIC)[..., None]
    image_hwc = np.array([70, 75, 150], np.float32) + 14 * large_hw
    return np.clip(image_hwc, 0, 255).astype(np.uint8)


class FakeFeed:
    """One feed, or one recording, with its objects: id -> label, disc, colour, hidden."""

    def __init__(self, name: str, scene: Scene, script: Script) -> None:
        self.name, self.scene, self.script = name, scene, script
        self.recording = name in script.clips
        self.seq, self.session = 0, f"{name}-session"
        self.objects: dict[int, dict[str, Any]] = {}
        self.undone: list[dict[int, dict[str, Any]]] = []
        self.done: list[dict[int, dict[str, Any]]] = []
        self.paused = self.playing = False
        self.locked: dict[int, list[list[int]]] = {}
        self.tracked: list[list[int]] = []
        self.orders: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        self.start = time.monotonic()

    def picture(self) -> bytes:
        image_hwc = self.scene.image(self.seq)
        jpeg = cv2.imencode(".jpg", image_hwc, [cv2.IMWRITE_JPEG_QUALITY, 88])[1].tobytes()
        height, width = image_hwc.shape[:2]
        size = {"width": width, "height": height, "source_width": width, "source_height": height}
        age = None if self.recording else self.script.delay_ms
        head = {
            **self.head("picture"),
            **size,
            "captured_age_ms": age,
            "codec": "jpeg",
            "sample_aspect": self.script.aspect,
        }
        return pack(head, jpeg)

    def head(self, kind: str) -> dict[str, Any]:
        return {"type": kind, "feed": self.name, "seq": self.seq, "session": self.session}

    def masks(self) -> bytes:
        behind = 0 if self.recording else round(self.script.age_ms * FPS / 1000)
        mask_seq = max(0, self.seq - behind)
        objects, payload = [], b""
        for i, own in self.objects.items():
            if self.recording and not self.visible(i):
                continue
            mask_hw = self.scene.mask(own["disc"], mask_seq)
            x, y, w, h = cv2.boundingRect(mask_hw.view(np.uint8))
            rle = encode_rle(mask_hw)
            payload += rle
            facts = {"area": int(mask_hw.sum()), "box": [x, y, x + w, y + h], "size": len(rle)}
            objects.append({"id": i, "score": 0.93 - 0.07 * i + 0.03 * np.sin(self.seq / 9), **public(i, own), **facts})
        age = 0.0 if self.recording else self.script.age_ms
        state = "none" if not objects else "fresh" if age <= 120 else "stale" if age <= 240 else "expired"
        state = "recovering" if self.script.state == "recovering" else state
        head = {
            **self.head("masks"), "mask_seq": mask_seq, "mask_age_ms": age if objects else None, "state": state,
            "width": self.scene.width, "height": self.scene.height, "objects": objects, "lost": [], "cut": False,
        }  # fmt: skip
        return pack(head, payload)

    def visible(self, i: int) -> bool:
        spans = [*self.tracked, [self.objects[i]["seq"]] * 2]
        return any(first <= self.seq <= last for first, last in spans)

    def clip(self) -> dict[str, Any]:
        objects = []
        for i, own in self.objects.items():
            spans = [[*span, "tracked"] for span in self.tracked]
            spans += [[*span, "locked"] for span in self.locked.get(i, [])] + [[own["seq"], own["seq"], "prompt"]]
            objects.append({**public(i, own), "spans": spans})
        return {
            "frames": FRAMES, "fps": FPS, "position": self.seq, "playing": self.playing, "tracked": self.tracked,
            "busy": None, "objects": objects,
        }  # fmt: skip

    def status(self) -> dict[str, Any]:
        script, count = self.script, max(1, round((time.monotonic() - self.start) * FPS))
        stages = {"grab": 1.2, "segment": 21.0, "overlay": 3.4, "video": 0.6, "glass-to-mask": 34.0}
        wave = 1 + 0.15 * np.sin(time.monotonic())
        times = {
            name: {"p50": ms, "p95": ms * 1.4, "p99": ms * 2, "max": ms * 3, "count": count, "total": count * ms * wave}
            for name, ms in stages.items()
        }
        behind = {"segmented_fps": 11.0, "wanted_fps": 25.0, "fresh": 0.4, "step_ms": 88.0}
        return {
            "state": "paused" if self.paused else script.state,
            "engine": "nano cpu bf16 512 px", "memory": {"policy": "efp", "spatial": 5, "pointers": 16}, "faults": {},
            "source": {"uri": "synthetic:laparoscopy?seed=7", "state": script.state, "why": ""},
            "frames": {"in": count, "shown": count - 3, "dropped": {"late": 2, "slot": 1}}, "segmented": count,
            "behind": {**behind, "advice": "a smaller image_size"} if script.behind else None,
            "objects": [public(i, own) for i, own in self.objects.items()],
            "mask_states": {"fresh": count, "stale": 4}, "settings": {"opacity": 0.28, "budget_ms": 120},
            "paused": self.paused, "fps": {"in": 25.0, "shown": 25.0, "segmented": 22.4}, "stages_ms": times,
            "presets": PRESETS, **({"recording": self.clip()} if self.recording else {}),
        }  # fmt: skip

    def order(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        """Do an order; `ValueError` with the reason if it cannot be done."""
        self.orders.append({"verb": verb, "args": args})
        if verb in ("preview", "add", "correct"):
            return self.prompt(verb, args)
        if verb in ("undo", "redo"):
            taken, given = (self.done, self.undone) if verb == "undo" else (self.undone, self.done)
            if not taken:
                raise ValueError(f"nothing to {verb}")
            given.append(dict(self.objects))
            self.objects = taken.pop()
            return {"undone" if verb == "undo" else "redone": "the last change of prompts"}
        if verb == "look":
            self.objects[args["id"]].update({k: v for k, v in args.items() if k != "id"})
        elif verb == "rename":
            self.objects[args["id"]] = {**self.objects[args["id"]], "label": args["label"]}
        elif verb == "remove":
            self.change()
            del self.objects[args["id"]]
        elif verb == "hold":
            return {"seq": args["seq"], "session": self.session}
        elif verb in ("pause", "resume"):
            self.paused = verb == "pause"
        elif verb == "memory":
            return {"objects": [self.bank(i) for i in self.objects]}
        elif self.recording:
            return self.clip_order(verb, args)
        else:
            raise ValueError(f"verb {verb!r}: not known")
        return {}

    def clip_order(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        if verb == "seek":
            self.seq = args["frame"]
        elif verb == "step":
            self.seq = min(max(self.seq + args["by"], 0), FRAMES - 1)
        elif verb == "play":
            self.playing = args["on"]
        elif verb == "track":
            back, on = args["direction"] != "forward", args["direction"] != "backward"
            self.tracked = [[0 if back else self.seq, FRAMES - 1 if on else self.seq]]
        elif verb == "lock":
            self.locked.setdefault(args["id"], []).append([args["first"], args["last"]])
        elif verb == "unlock":
            self.locked.pop(args["id"], None)
        return {}

    def change(self) -> None:
        self.done.append(dict(self.objects))
        self.undone.clear()

    def prompt(self, verb: str, args: dict[str, Any]) -> dict[str, Any]:
        prompt, seq = args["prompt"], args["seq"]
        if verb == "preview" and self.script.preview != "mask":
            raise ValueError(self.script.preview)
        if args["session"] != self.session:
            raise ValueError("the picture is of another session")
        disc = self.scene.under(prompt, seq) or 1
        if verb == "preview":
            rle = prompt["mask"]["rle"] if "mask" in prompt else encode_rle(self.scene.mask(disc, seq)).decode()
            size = {"height": self.scene.height, "width": self.scene.width}
            return {"id": prompt["id"], "seq": seq, "rle": rle, **size, "score": 0.95, "iou": 0.91, "warnings": []}
        self.change()
        label = prompt.get("label") or self.objects.get(prompt["id"], {}).get("label", "")
        look = {"color": list(color_of(prompt["id"])), "hidden": False}
        self.objects[prompt["id"]] = {**look, "label": label, "disc": disc, "seq": seq}
        event = {"type": "event", "feed": self.name, "at": time.time(), "kind": verb, "text": f"{label} on frame {seq}"}
        self.events.append({**event, "who": "Dr. Ada"})
        return {"seq": seq}

    def bank(self, i: int) -> dict[str, Any]:
        seqs = [max(0, self.seq - back) for back in (60, 22, 16, 9, 4)]
        memories = [
            {"seq": seq, "conditioning": k == 0, "score": 0.97, "iou": 0.9, "similarity": 0.8 + 0.02 * k}
            for k, seq in enumerate(seqs)
        ]
        dropped = [{"seq": self.seq - 12, "why": "most like the newest (0.982)"}]
        return {"id": i, "memories": memories, "dropped": dropped, "pointers": 16}


PRESETS = [
    {"label": "grasper", "color": list(color_of(1))}, {"label": "hook", "color": list(color_of(2))},
    {"label": "clip applier", "color": list(color_of(3))}, {"label": "gallbladder", "color": list(color_of(4))},
]  # fmt: skip


def public(i: int, own: dict[str, Any]) -> dict[str, Any]:
    return {"id": i, **{key: own[key] for key in ("label", "color", "hidden")}}


def pack(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + payload


class FakeConsole:
    """The ASGI application of a `Script`, whose fields a test may change while it runs."""

    def __init__(self, scene: Scene | None = None) -> None:
        self.script, self.scene = Script(), scene or Scene()
        self.feeds: dict[str, FakeFeed] = {}
        self.answered: dict[tuple[str, int], dict[str, Any]] = {}
        self.run, self.sockets = "run 1", set[WebSocket]()
        self.under_way: dict[tuple[WebSocket, str], int] = {}
        self.app = Starlette(
            routes=[
                Route("/", self.index),
                Route("/fake", self.change, methods=["GET", "POST"]),
                Route("/api/feeds/{feed}/snapshot", self.snapshot),
                WebSocketRoute("/ws", self.socket),
                Mount("/page", StaticFiles(directory=PAGE)),
            ]
        )

    def feed(self, name: str) -> FakeFeed:
        if name not in self.feeds:
            self.feeds[name] = FakeFeed(name, self.scene, self.script)
        return self.feeds[name]

    async def index(self, _: Request) -> Response:
        headers = {"Content-Security-Policy": CSP, "Cache-Control": "no-store"}
        return Response((PAGE / "index.html").read_bytes(), media_type="text/html", headers=headers)

    async def change(self, request: Request) -> Response:
        """Change the script by a JSON map; `drop`: cut every connection; `restart`: also forget all answers."""
        wanted = await request.json() if request.method == "POST" else {}
        if wanted.pop("restart", False):
            self.run += "'"
            self.answered.clear()
        if wanted.pop("drop", False):
            for socket in list(self.sockets):
                with contextlib.suppress(RuntimeError):
                    await socket.close(1001)
        known = {one.name for one in fields(Script)}
        if not wanted.keys() <= known:
            return JSONResponse({"error": f"expected {sorted(known)}"}, 400)
        for name, value in wanted.items():
            setattr(self.script, name, value)
        orders = {name: feed.orders for name, feed in self.feeds.items()}
        objects = {name: feed.objects for name, feed in self.feeds.items()}
        seqs = {name: feed.seq for name, feed in self.feeds.items()}
        return JSONResponse({"script": asdict(self.script), "orders": orders, "objects": objects, "seqs": seqs})

    async def snapshot(self, request: Request) -> Response:
        if request.query_params["format"] == "coco":
            return JSONResponse({"images": [], "annotations": []})
        image_hwc = self.scene.image(self.feed(request.path_params["feed"]).seq)
        return Response(cv2.imencode(".png", image_hwc)[1].tobytes(), media_type="image/png")

    async def socket(self, socket: WebSocket) -> None:
        await socket.accept()
        hello = await socket.receive_json()
        if self.script.refuse and hello.get("token") != "right":
            await socket.send_json({"type": "refused", "why": self.script.refuse})
            await socket.close(4401)
            return
        self.sockets.add(socket)
        names = [*self.script.feeds, *self.script.clips]
        feeds = [{"feed": name, "stream": name, "recording": name in self.script.clips} for name in names]
        right = {"right": self.script.right, "name": "Dr. Ada", "version": 1, "console": self.run}
        await socket.send_json({"type": "welcome", **right, "feeds": feeds, "presets": PRESETS})
        tasks = [asyncio.create_task(self.play(socket, self.feed(name))) for name in names]
        try:
            while True:
                await self.receive(socket, await socket.receive_json())
        except (WebSocketDisconnect, RuntimeError, KeyError):
            pass
        finally:
            self.sockets.discard(socket)
            for task in tasks:
                task.cancel()

    async def receive(self, socket: WebSocket, message: dict[str, Any]) -> None:
        if message["type"] == "ping" and self.script.pongs:
            await socket.send_json({"type": "pong", "t": message["t"]})
        if message["type"] == "painted":
            self.under_way[socket, message["feed"]] -= 1
        if message["type"] != "order":
            return
        key = message["client"], message["n"]
        if key not in self.answered:
            try:
                result = self.feed(message["feed"]).order(message["verb"], message["args"])
                self.answered[key] = {"type": "answer", "n": message["n"], "ok": True, "result": result}
            except ValueError as e:
                self.answered[key] = {"type": "answer", "n": message["n"], "ok": False, "error": str(e)}
        if self.script.answers:
            await socket.send_json(self.answered[key])

    async def play(self, socket: WebSocket, feed: FakeFeed) -> None:
        """Send a feed's pictures, masks and statuses to one page."""
        due, count, sent_events = time.monotonic(), 0, 0
        with contextlib.suppress(RuntimeError, WebSocketDisconnect):
            while True:
                key = socket, feed.name
                if self.script.pictures and self.under_way.setdefault(key, 0) < 2:
                    self.under_way[key] += 1
                    if not feed.recording:
                        feed.seq = int((time.monotonic() - feed.start) * FPS)
                    elif feed.playing:
                        feed.seq = min(feed.seq + 1, FRAMES - 1)
                    await socket.send_bytes(feed.picture())
                    if not feed.paused:
                        await socket.send_bytes(feed.masks())
                if count % 10 == 0 and self.script.statuses:
                    report = {"link": self.script.link, "age_ms": 5.0, "status": feed.status()}
                    await socket.send_json({"type": "status", "feed": feed.name, "stream": feed.name, **report})
                for event in feed.events[sent_events:]:
                    await socket.send_json(event)
                count, sent_events, due = count + 1, len(feed.events), max(due + 1 / FPS, time.monotonic())
                await asyncio.sleep(max(0.0, due - time.monotonic()))


def main() -> None:
    import uvicorn

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8200)
    parser.add_argument("--scene", type=Path, help="an .npz with frames uint8 [T, H, W, 3] BGR and ids uint8 [T, H, W]")
    options = parser.parse_args()
    scene = Scene(options.scene)
    uvicorn.run(
        FakeConsole(scene).app, host="127.0.0.1", port=options.port, log_level="warning", ws="websockets-sansio"
    )


if __name__ == "__main__":
    main()
