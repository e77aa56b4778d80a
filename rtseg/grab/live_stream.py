"""Frames from a live input, through FFmpeg (PyAV): each as soon as it is decoded, until the connection is lost.

Damaged pictures, and those predicted from them, are skipped and counted, as in a recording.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from fractions import Fraction
from typing import cast
from urllib.parse import urlsplit

import av
from av.codec.context import Flags
from av.container import InputContainer

from ..base.account import Gap
from ..base.errors import SourceError
from ..base.source import Damaged, Mode, PermanentSourceError, Source
from ..base.types import Frame, now_ns
from .address import Address, live_address
from .decode.convert import Converter
from .decode.decoder import Decoder, Loss
from .decode.orientation import Orientation
from .demux.srt import SrtReader
from .redact import guard_logs, scrub

OPEN_S, READ_S = 6.0, 2.0  # time limits of FFmpeg's calls
# A connection that sends data, but no whole picture for so long, is given up. At its start, the limit is longer: the
# next key frame may be far away.
FIRST_S, GOOD_S = 12.0, 5.0
CALL_S = FIRST_S + READ_S  # time limit until the next frame, or an error
# Time limit until the first frame: at worst two attempts, without and with a parser.
OPENING_S = 2 * (2 * OPEN_S + FIRST_S + READ_S)
# What each picture in MPEG-TS begins with: an access unit delimiter, which the standard demands, or MPEG-2's header.
DELIMITERS = {"h264": b"\0\0\1\x09", "hevc": b"\0\0\1\x46", "mpeg2video": b"\0\0\1\0"}
REORDERED = ("h264", "hevc")  # keep their display order with `low_delay`; MPEG-2 would come in decoding order
# Errors that no retry can fix: a wrong password, a device without read permission, a missing part of FFmpeg.
HOPELESS = (
    av.HTTPUnauthorizedError, av.HTTPForbiddenError, av.ProtocolNotFoundError, av.DemuxerNotFoundError,
    av.DecoderNotFoundError, PermissionError,
)  # fmt: skip
FPS = 25.0  # where the feed does not state its rate
FASTEST = 300  # a higher stated rate is not believed
ReceivedPicture = tuple[av.VideoFrame, int, Loss | None]


class StreamSource(Source):
    """One connection to a live input; `SourceError` when it cannot be made, and when it is lost.

    Iterating again makes a new connection, with a new session: a live feed has no first frame to go back to.
    `frame.interlaced` says show the status coded, also after deinterlacing.
    """

    def __init__(self, uri: str, *, deinterlace: Mode = "auto", damaged: Damaged = "skip") -> None:
        address = live_address(uri)
        if address is None:
            raise SourceError(f"{uri}: not a live input; expected rtsp://, srt://, udp://, /dev/video0, ...")
        self._address, self._mode, self._damaged = address, deinterlace, damaged
        self.corrupt = 0  # how many packets and pictures were damaged, and skipped
        connection = self._connect()
        self._ready = [connection]  # list.pop is atomic: `close` may come from another thread
        size = connection.orientation.size(connection.first)
        super().__init__(address.shown, *size, connection.fps or FPS, None)
        self.sample_aspect = connection.aspect
        self.rate_known = connection.fps > 0

    def frames(self) -> Iterator[Frame]:
        connection = self._ready.pop() if self._ready else self._again()
        convert = Converter(self.uri, self._mode, self.account, connection.orientation)
        with connection:
            self.account.begin()
            for seq, (picture, captured_ns, loss) in enumerate(connection.pictures()):
                self.corrupt = connection.corrupt
                pts, time_base = picture.pts, connection.time_base  # buffered pictures have no time base
                if pts is None or time_base is None:
                    pts, time_base = seq, 1 / Fraction(self.fps).limit_denominator(1001)
                self._note(seq, float(pts * time_base), loss, connection.whole.leading)
                interlaced = bool(picture.interlaced_frame)
                try:
                    image_hwc, color = convert(picture)
                except SourceError as e:  # its colours cannot be converted
                    raise PermanentSourceError(str(e)) from e
                yield Frame(
                    image_hwc, seq, self.session, pts, time_base, captured_ns,
                    pixfmt=picture.format.name, color=color, interlaced=interlaced,
                    sample_aspect=connection.aspect,
                )  # fmt: skip

    def _note(self, seq: int, seconds: float, loss: Loss | None, leading: int) -> None:
        account = self.account
        account.leading = leading
        if loss is not None:
            account.gap(Gap(seq, seconds, loss.lost, loss.why))
            if self._damaged == "stop":
                account.ended = loss.why
                raise SourceError(f"{self.uri}: frame {seq}: {loss.why}; set damaged = skip to continue")
        if seq == 0:
            account.start_s = seconds
        account.shown = seq + 1

    def _connect(self) -> _Connection:
        try:
            return _Connection(self._address)
        except _NoPictureError:
            parsed = self._address.with_parser()
            if parsed is None:
                raise
            self._address = parsed
            return _Connection(parsed)

    def _again(self) -> _Connection:
        connection = self._connect()
        self.session = secrets.token_hex(6)
        return connection

    def close(self) -> None:
        super().close()
        if self._ready:
            self._ready.pop().__exit__()


class _NoPictureError(SourceError):
    """Data arrives, but no whole picture."""


class _Connection:
    """An open input and its decoder, with the first whole picture."""

    def __init__(self, address: Address) -> None:
        self._address = address
        self._stack = ExitStack()
        self.corrupt = 0
        try:
            self._container = self._stack.enter_context(_open(address, self._stack))
            stream = self._container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise SourceError(f"{address.shown}: has no video stream that can be decoded; expected video")
            stream.thread_type = "SLICE"  # each frame thread would delay by one picture
            if stream.codec_context.name in REORDERED:
                stream.codec_context.flags |= Flags.low_delay
            self._stream, self.time_base = stream, stream.time_base
            # Without a parser, each packet has to be one picture, or pictures would be lost unnoticed.
            self._delimiter = DELIMITERS.get(stream.codec_context.name, b"") if address.with_parser() else None
            self._packets = self._container.demux()
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            self.fps = rate if 1 <= rate <= FASTEST else 0.0
            self.whole = Decoder(stream)
            self._started = self._last_corrupt = False
            self._coming = self._decoded()
            self.first, self._first_ns, self._first_loss = next(self._coming)
            self.orientation = Orientation.from_picture(self.first)
            self.aspect = self.orientation.aspect(stream.sample_aspect_ratio)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> _Connection:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def pictures(self) -> Iterator[ReceivedPicture]:
        """Whole pictures, when each left the decoder (ns), and what is missing before it. Ends with a `SourceError`."""
        first = self.first
        del self.first  # a reference would keep a buffer of the decoder in use
        yield first, self._first_ns, self._first_loss
        del first
        yield from self._coming

    def _decoded(self) -> Iterator[ReceivedPicture]:
        good_ns = now_ns()
        while True:
            packet = self._packet()
            if packet.stream_index == self._stream.index:
                for picture in self._decode(cast("av.Packet[av.VideoStream]", packet)):
                    good_ns = now_ns()
                    loss, self.whole.loss = self.whole.loss, None
                    if not self._started:  # pictures sent before the connection were not lost
                        loss = None
                    self.corrupt += 0 if loss is None else loss.lost or 1
                    self._started = True
                    yield picture, good_ns, loss
            silent_ns = now_ns() - good_ns
            if not self._started and silent_ns > FIRST_S / 2 * 1e9:
                self.whole.no_key_frames = True  # some senders mark no key frame at all
            limit_s = FIRST_S if self.whole.waits_for_key_frame else GOOD_S
            if silent_ns > limit_s * 1e9:
                raise _NoPictureError(f"{self._address.shown}: data comes, but no good picture for {limit_s:g} s")

    def _packet(self) -> av.Packet[av.stream.Stream]:
        try:
            packet = next(self._packets, None)
        except av.ExitError:
            raise SourceError(f"{self._address.shown}: no data for {READ_S:g} s") from None
        except (av.FFmpegError, OSError) as e:  # the error's text holds the whole uri
            raise SourceError(f"{self._address.shown}: reading failed ({_reason(e, self._address)})") from None
        # PyAV signals the end of the feed by a packet without data.
        if packet is None or packet.size == 0:
            raise SourceError(f"{self._address.shown}: the feed was ended by its sender")
        return packet

    def _decode(self, packet: av.Packet[av.VideoStream]) -> Iterator[av.VideoFrame]:
        """The whole pictures that the decoder returns for a packet."""
        if not (self._started or packet.is_corrupt):
            self._check_start(packet)
        # With a parser, FFmpeg sets the corrupt flag on the packet before the damaged one.
        late = self._last_corrupt and self._delimiter is None
        self._last_corrupt = packet.is_corrupt
        broken = "packets of the stream are missing" if packet.is_corrupt or late else ""
        return self.whole.feed(packet, broken)

    def _check_start(self, packet: av.Packet[av.VideoStream]) -> None:
        if self._delimiter is not None and (not self._delimiter or bytes(packet).count(self._delimiter) != 1):
            raise _NoPictureError(f"{self._address.shown}: its packets are not one picture each")


def _open(address: Address, stack: ExitStack) -> InputContainer:
    """The opened input; `stack` closes what it reads from."""
    guard_logs(address.uri)
    try:
        file: str | SrtReader = address.url
        if address.scheme == "srt":
            file = stack.enter_context(closing(SrtReader(address.url, READ_S, READ_S)))
        return av.open(file, "r", address.format, dict(address.options), timeout=(OPEN_S, READ_S))
    except av.ExitError:
        raise SourceError(f"{address.shown}: no video within {OPEN_S:g} s; check address and network") from None
    except (av.FFmpegError, OSError, ValueError) as e:  # the error's text holds the whole uri
        gone = isinstance(e, av.HTTPNotFoundError) and address.scheme in ("http", "https")  # a camera may come back
        kind = PermanentSourceError if gone or isinstance(e, HOPELESS) else SourceError
        raise kind(f"{address.shown}: cannot be opened ({_reason(e, address)}); check it and the network") from None


def _reason(error: Exception, address: Address) -> str:
    """The message of FFmpeg or libsrt, without the uri, which it often repeats."""
    # FFmpeg reports an unknown host name as a mere input/output error.
    if getattr(error, "errno", None) == errno.EIO and _is_unresolvable(address):
        return "no host of this name is known here"
    return scrub(getattr(error, "strerror", None) or error, address.uri)


def _is_unresolvable(address: Address) -> bool:
    """Whether the address has a host name that cannot be resolved."""
    host = None if address.scheme == "v4l2" else urlsplit(address.uri).hostname
    try:
        return bool(host) and not socket.getaddrinfo(host, None)
    except OSError:
        return True
