"""One feed for as long as it lives: opened, read, reopened when it is lost, and its health told to whoever watches."""

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
from ..base.source import MODES, HopelessError, Mode, Source
from ..base.types import Frame
from .address import Address, live_address
from .crop import Cropper
from .health import Health
from .pace import GAP_S, paced
from .secret import UnescapedError, redact
from .web import is_web_recording

Pace = Literal["native", "flat-out"]
PACES: tuple[Pace, ...] = ("native", "flat-out")
# At once, then 0.1 s, twice that, ... A source that is back is seen within this and the time that joining it takes.
FIRST_WAIT_S, LONGEST_WAIT_S = 0.1, 1.0
STEADY_S = 1.0  # a connection that lasted so long was a good one


class Intake:
    """Frames of a live input, for ever, or of a recording, to its end; `SourceError` at once for what never works.

    `pace`: a recording is played as if it were live (`native`), or as fast as it can be read. `deinterlace` is for
    live inputs and video files; `frame.interlaced` says how they are coded all the same. `crop`: what follows sees
    only the box, or with `auto` the endoscope's field, found in the first frames once for each size of picture.
    `first`: no frame of this input was ever seen, so that what trying again cannot mend is an error, also of a live
    one; else it may have been unplugged, and is waited for.
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
        except UnescapedError as e:  # what is said here is logged, and sent to everybody
            raise SourceError(e.public) from None
        if address is not None and is_web_recording(uri):
            address = None  # a recording on a web server, which ends
        self.live = address is not None
        self.uri = redact(uri)
        self._source: Source | None = None
        self._read: Source | None = None  # the same without its pace: it owns the account
        self._before = Account()  # of the connections before this one
        if address is not None:
            _check_live(address, fps, first)
        else:
            self._source = self._recording(fps)

    @property
    def fps(self) -> float:
        """The nominal rate of a recording, or of the latest connection; 0 before the first."""
        source = self._source
        return source.fps if source else 0.0

    @property
    def grab_ms(self) -> float:
        """How long the latest frame took to read and decode; of a live input, with the wait for it."""
        source = self._source
        return source.grab_ms if source else 0.0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width of a recording's pictures, as what follows sees them; None where only reading it tells."""
        source = None if self.live else self._source
        if source is None or self._crop.auto:
            return None
        box = self._crop.box or (0, 0, source.width, source.height)
        return box[3] - box[1], box[2] - box[0]

    @property
    def account(self) -> Account:
        """What the source turned out to hold so far; of a live input, over all connections."""
        now = self._read.account if self._read else Account()
        return added(self._before, now) if self.live else now

    @property
    def crop(self) -> list[int] | None:
        """The box that pictures are cropped to, [x0, y0, x1, y1]; None: they are not."""
        return None if self._crop.now is None else list(self._crop.now)

    def frames(self) -> Iterator[Frame]:
        """Frames with a `session` for each connection and `seq` from 0 in each; `SourceError` from a recording only."""
        try:
            yield from self._connections() if self.live else self._played()
        except SourceError as e:
            self.health.lost(str(e))
            raise
        self.health.ended()

    def close(self) -> None:
        """End `frames`, at the latest when the call it is in is back; from any thread."""
        self._closed.set()
        if self._source:
            self._source.close()

    def _recording(self, fps: float | None) -> Source:
        from . import open_recording

        source = open_recording(self._uri, fps, self._deinterlace)
        box = self._crop.box
        if box and (box[2] > source.width or box[3] > source.height):
            size = f"{source.width}x{source.height}"
            raise SourceError(f"{self.uri}: crop {list(box)} does not lie inside the {size} picture")
        self._read, source.paced = source, self._pace == "native"
        return paced(source) if self._pace == "native" else source

    def _played(self) -> Iterator[Frame]:
        assert self._source is not None
        self.health.opened(self._source.fps, paced=self._pace == "native")
        with closing(self._source) as source:
            yield from self._each(source, GAP_S)

    def _connections(self) -> Iterator[Frame]:
        from .stream import CALL_S, OPENING_S, StreamSource

        wait_s = 0.0
        while not self._closed.wait(wait_s * random.uniform(0.5, 1.0)):
            before, fps = self.health.counters["frames"], 0.0
            self.health.calling(OPENING_S)
            try:
                with closing(StreamSource(self._uri, deinterlace=self._deinterlace)) as source:
                    self.health.returned()
                    self._before, self._source, self._read, fps = self.account, source, source, source.fps
                    self.health.opened(fps if source.rate_known else 0.0)
                    yield from self._each(source, CALL_S)
            except SourceError as e:
                self.health.returned()
                if isinstance(e, HopelessError) and self._first and not self.health.counters["frames"]:
                    raise
                self.health.lost(str(e))
            steady = self.health.counters["frames"] - before > STEADY_S * fps > 0
            wait_s = 0.0 if steady else min(LONGEST_WAIT_S, max(FIRST_WAIT_S, 2 * wait_s))

    def _each(self, source: Source, limit_s: float) -> Iterator[Frame]:
        """The source's frames, watched and cropped."""
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
            yield from self._crop.held()
            raise
        finally:
            self.health.returned()
        yield from self._crop.held()


def _check_live(address: Address, fps: float | None, first: bool) -> None:
    if fps is not None:
        raise SourceError(f"{address.shown}: fps={fps:g}, but a live input has its own times; leave fps out")
    if address.scheme == "srt":
        from .srt import require_srt

        require_srt()
    if first and address.scheme == "v4l2" and not Path(address.url).exists():
        there = ", ".join(sorted(str(path) for path in Path("/dev").glob("video*"))) or "none"
        raise SourceError(f"{address.shown}: no such device; there are: {there}; plug it in, or correct the number")


def added(before: Account, now: Account) -> Account:
    """The account of several connections, one after another; that one ended is no end."""
    gaps = [replace(gap, before=gap.before + before.shown) for gap in now.gaps]
    return Account(
        shown=before.shown + now.shown, leading=before.leading + now.leading, damaged=before.damaged + now.damaged,
        gaps=[*before.gaps, *gaps][:MOST_GAPS], start_s=now.start_s, repaired=before.repaired | now.repaired,
        assumed=before.assumed | now.assumed,
    )  # fmt: skip
