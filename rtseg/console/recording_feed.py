"""A recording as the console's page knows feeds: pictures, masks, status and orders."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from ..base.colors import color_of
from ..base.types import Frame
from ..engine.recipe import Recipe
from ..publish.mask_state import measure
from . import messages
from .encoder import RawPicture
from .feed import Feed
from .recording_masks import shown_masks
from .recording_orders import RecordingOrders
from .recording_player import Player
from .recording_session import Session

_AGAIN_S = 0.5  # a status is stated at least this often


class RecordingFeed(Feed):
    """One recording with its session. The errors of `Session` come when it is made."""

    recording = True

    def __init__(self, uri: str | Path, recipe: Recipe, folder: Path | None = None) -> None:
        """Open the recording, and its session if there is one. Nothing runs before `start`."""
        super().__init__(Path(str(uri).partition("?")[0]).name or str(uri))
        self._session = Session(uri, recipe, folder)
        self._player = Player(self._session, self._show, self.tell)
        self._orders = RecordingOrders(self._session, self._player)
        self._closing, self._news = threading.Event(), threading.Event()

    def start(self) -> None:
        """Show the first frame, in the event loop."""
        super().start()
        session = self._session
        session.say = lambda kind, text, who: None if kind == "order" else self.tell(kind, text, who or None)
        session.on_change, session.on_frame = self._changed, self._player.tracked
        self._player.start()
        threading.Thread(target=self._state_status, name=f"status {self.name}", daemon=True).start()

    def close(self) -> None:
        """Stop, and close everything. May be called again."""
        if not self._closing.is_set():
            self._closing.set()
            self._news.set()
            self._player.close()
            self._session.close()
        super().close()

    def ask(self, verb: str, args: dict[str, Any], who: str, key: str | None = None) -> dict[str, Any]:
        """Do an order on the recording."""
        if verb in ("status", "get"):
            return self._status()
        store = self._session.store
        if key is not None and store.knows(key):  # done before this console was started
            return {"repeated": True}
        with store.order(key):
            result = dict(messages.plain(self._orders.do(verb, args, who)))
        self._news.set()
        return result

    def watch(self, on: bool) -> None:
        """Somebody came: show the present frame."""
        if on:
            self._player.again()

    def _changed(self) -> None:
        self._news.set()
        if not self._session.worker.busy:
            self._player.again()

    def _show(self, frame: Frame) -> None:
        """Offer a frame and its masks, which are always its own."""
        size = frame.width, frame.height
        pixels = frame.image_hwc.tobytes()
        aspect = float(frame.sample_aspect)
        self.offer_picture(RawPicture(frame.seq, frame.session, *size, frame.captured_ns, pixels, False, aspect))
        stored = self._session.store.masks(frame.seq)
        objects = self._session.state.objects
        masks = shown_masks(frame, objects, stored)
        looks = {each.id: each for each in objects}
        told, rles = [], []
        for object_id in masks.ids:
            each = looks[object_id]
            rle = stored[each.key].rle
            _, found = measure(masks, object_id)
            told.append(
                messages.Object(
                    id=object_id, label=each.label, score=found.score, area=found.area, box=found.box,
                    color=each.color or color_of(object_id), hidden=each.hidden, size=len(rle),
                )
            )  # fmt: skip
            rles.append(rle)
        header = messages.Masks(
            feed=self.name, seq=frame.seq, session=frame.session, mask_seq=frame.seq, mask_age_ms=0.0, state="fresh",
            width=frame.width, height=frame.height, objects=tuple(told), lost=masks.lost, cut=masks.cut,
        )  # fmt: skip
        self.offer_masks(header, rles)
        self._news.set()

    def _state_status(self) -> None:
        while not self._closing.is_set():
            self._news.wait(_AGAIN_S)
            self._news.clear()
            if not self._closing.is_set():
                self.offer_status(self._status(), self.name)
            self._closing.wait(0.05)

    def _status(self) -> dict[str, Any]:
        session, player = self._session, self._player
        frames, network = session.frames, session.network
        objects = [
            {"id": each.id, "label": each.label, "color": each.color or color_of(each.id), "hidden": each.hidden}
            for each in session.state.objects
        ]
        engine = network.engine.description if network.is_ready else "opening"
        return {
            "state": "failed" if network.error else "running",
            "source": frames.uri, "session": frames.session, "seq": player.position, "width": frames.width,
            "height": frames.height, "engine": engine, "faults": {"engine": network.error} if network.error else {},
            "objects": objects, "recording": {**session.status(), "position": player.position,
                                              "playing": player.playing, "folder": str(session.folder)},
        }  # fmt: skip
