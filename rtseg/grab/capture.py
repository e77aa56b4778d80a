"""The frames of a feed and their health: from a live input, which is reopened when it is lost, or from a recording."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from ..base.account import MOST_GAPS, Account
from ..base.errors import SourceError, did_you_mean
from ..base.source import MODES, Mode, PermanentSourceError, Source
from ..base.types import Frame
from .address import Address, live_address
from .crop import Cropper
from .demux.http_file import is_web_recording
from .health import Health
from .opening import open_recording
from .pace import GAP_S, paced
from .redact import UnescapedError, redact

Pace = Literal["native", "flat-out"]
PACES: tuple[Pace, ...] = ("native", "flat-out")
# A lost input is reopened at once, then after 0.1 s, 0.2 s, ... An input that is back is found within the longest wait.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 1.0
STABLE_S = 1.0  # a connection that lasted this long was good: when it is lost, the next attempt is made at once


class Capture:
    """Frames of a live input, without end, or of a recording, to its end.

    Arguments:
        uri: what `open_source` opens.
        fps: the frame rate of images and drawn sources.
        pace: play a recording in real time (`native`), or as fast as it can be read (`flat-out`).
        deinterlace: as for `open_source`. `frame.interlaced` says how the source is coded, also after deinterlacing.
        crop: `off`, a box, or `auto`: the endoscope's field of view, found once for each picture size.
        first: no frame of this input was read before, so an error that no retry can fix ends a live input, too.
            Otherwise it may have been unplugged, and is waited for.

    Raises:
        SourceError: the input can never work.
    """

    def __init__(
        self, uri: str, *, fps: float | None = None, pace: Pace = "native", deinterlace: Mode = "auto",
        crop: Any = "off", first: bool = True,
    ) -> None:  # fmt: skip
        self._uri, self._first = uri, first
        for key, value, known in (("pace", pace, PACES), ("deinterlace", deinterlace, MODES)):
            if value not in known:
                raise SourceError(f"{key} {value!r}: {did_you_mean(str(value), known)}")
        self._pace, self._deinterlace = pace, deinterlace
        self._closed = threading.Event()
        self.health = Health()
        self._crop = Cropper(crop, self.health.misfit)
        try:
            address = live_address(uri)
        except UnescapedError as e:  # the message is logged, and sent to every subscriber
            raise SourceError(e.public) from None
        if address is not None and is_web_recording(uri):
            address = None  # a recording on a web server, which has an end
        self.live = address is not None
        self.uri = redact(uri)
        self._source: Source | None = None
        self._read: Source | None = None  # the source below `paced`, which owns the account
        self._before = Account()  # the accounts of earlier connections, added up
        if address is not None:
            _check_live(address, fps, first)
        else:
            self._source = self._recording(fps)

    @property
    def fps(self) -> float:
        """The nominal frame rate of a recording, or of the latest connection; 0 before the first."""
        source = self._source
        return source.fps if source else 0.0

    @property
    def grab_ms(self) -> float:
        """How long the latest frame took to read and decode, in ms; of a live input, including the wait for it."""
        source = self._source
        return source.grab_ms if source else 0.0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of a recording's frames, after cropping; None if they are known only when it is read."""
        source = None if self.live else self._source
        if source is None or self._crop.auto:
            return None
        box = self._crop.box or (0, 0, source.width, source.height)
        return box[3] - box[1], box[2] - box[0]

    @property
    def account(self) -> Account:
        """The account of the source so far; of a live input, over all connections."""
        now = self._read.account if self._read else Account()
        return added_up(self._before, now) if self.live else now

    @property
    def crop(self) -> list[int] | None:
        """The box that frames are cropped to, [x0, y0, x1, y1]; None: they are not cropped."""
        return None if self._crop.current_box is None else list(self._crop.current_box)

    def frames(self) -> Iterator[Frame]:
        """Frames, with a `session` for each connection and `seq` from 0 in each.

        Only recordings raise `SourceError`.
        """
        try:
            yield from self._connections() if self.live else self._recorded()
        except SourceError as e:
            self.health.lost(str(e))
            raise
        self.health.ended()

    def close(self) -> None:
        """End `frames`, at the latest when its current call returns; from any thread."""
        self._closed.set()
        if self._source:
            self._source.close()

    def _recording(self, fps: float | None) -> Source:
        source = open_recording(self._uri, fps, self._deinterlace)
        box = self._crop.box
        if box and (box[2] > source.width or box[3] > source.height):
            size = f"{source.width}x{source.height}"
            raise SourceError(f"{self.uri}: crop {list(box)} does not lie inside the {size} picture")
        self._read, source.paced = source, self._pace == "native"
        return paced(source) if self._pace == "native" else source

    def _recorded(self) -> Iterator[Frame]:
        assert self._source is not None
        self.health.opened(self._source.fps, paced=self._pace == "native")
        with closing(self._source) as source:
            yield from self._watched(source, GAP_S)

    def _connections(self) -> Iterator[Frame]:
        from .live_stream import CALL_S, OPENING_S, StreamSource

        wait_s = 0.0
        while not self._closed.wait(wait_s * random.uniform(0.5, 1.0)):
            before, fps = self.health.counters["frames"], 0.0
            self.health.calling(OPENING_S)
            try:
                with closing(StreamSource(self._uri, deinterlace=self._deinterlace)) as source:
                    self.health.returned()
                    self._before, self._source, self._read, fps = self.account, source, source, source.fps
                    self.health.opened(fps if source.rate_known else 0.0)
                    yield from self._watched(source, CALL_S)
            except SourceError as e:
                self.health.returned()
                if isinstance(e, PermanentSourceError) and self._first and not self.health.counters["frames"]:
                    raise
                self.health.lost(str(e))
            stable = self.health.counters["frames"] - before > STABLE_S * fps > 0
            wait_s = 0.0 if stable else min(LONGEST_WAIT_S, max(FIRST_WAIT_S, 2 * wait_s))

    def _watched(self, source: Source, limit_s: float) -> Iterator[Frame]:
        """The source's frames, cropped, with its health measured."""
        frames, corrupt = iter(source), 0
        try:
            while True:
                self.health.calling(limit_s)
                frame = next(frames, None)
                self.health.returned()
                damaged: int = getattr(source, "corrupt", 0)
                self.health.corrupt(damaged - corrupt)
                corrupt = damaged
                if frame is None or self._closed.is_set():
                    break
                self.health.frame(frame)
                yield from self._crop(frame)
        except SourceError:
            yield from self._crop.flush()
            raise
        finally:
            self.health.returned()
        yield from self._crop.flush()


def _check_live(address: Address, fps: float | None, first: bool) -> None:
    if fps is not None:
        raise SourceError(f"{address.shown}: fps={fps:g}, but a live input has its own times; leave fps out")
    if address.scheme == "srt":
        from .demux.srt import require_srt

        require_srt()
    if first and address.scheme == "v4l2" and not Path(address.url).exists():
        there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{address.shown}: no such device; there are: {there}; plug it in, or correct the number")


def added_up(before: Account, now: Account) -> Account:
    """The accounts of two connections as one; without `ended`, as the feed continues when a connection ends."""
    gaps = [replace(gap, before=gap.before + before.shown) for gap in now.gaps]
    return Account(
        shown=before.shown + now.shown, leading=before.leading + now.leading, damaged=before.damaged + now.damaged,
        gaps=[*before.gaps, *gaps][:MOST_GAPS], start_s=now.start_s, repaired=before.repaired | now.repaired,
        assumed=before.assumed | now.assumed,
    )  # fmt: skip
