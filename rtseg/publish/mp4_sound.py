"""Adds the sound of a recording to the video that was made of it, in step with the pictures.

The pictures and, where MP4 players know its codec, the sound are copied; other sound is encoded as AAC.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.stream import Discard
from av.video.stream import VideoStream

from ..base.files import commit, discard, part_of, unwritable
from .mp4_writer import FAILURES, TICK, OutputFile

COPIED = ("aac", "mp3", "ac3", "eac3", "opus", "flac", "alac")  # that players find in an MP4
OTHERWISE = "aac"
if TYPE_CHECKING:  # PyAV's packets are generic for type checkers alone
    Timed = tuple[Fraction, int, av.Packet[VideoStream] | av.Packet[AudioStream]]


@dataclass(frozen=True, slots=True)
class Sound:
    """The sound of one file: where its times lie in the video, and the part of the video that it belongs to.

    `url` is FFmpeg's name of the file. What the file has at t s belongs to t + `shift_s` of the video. Sound
    that begins before `start_s` or from `end_s` on is left out; None: there is no end.
    """

    url: str
    shift_s: Fraction
    start_s: Fraction = Fraction(0)
    end_s: Fraction | None = None


def add_sound(video: Path, sounds: Sequence[Sound]) -> str:
    """Add sound to an MP4, in place of the file.

    Arguments:
        video: what `Mp4Writer` wrote.
        sounds: of the files that the video was made of, in order.

    Returns:
        How it was added, or why not: "copied", "encoded as AAC", or a reason; "" if there is none.

    Raises:
        OutputError: it cannot be written; the video is as it was.
    """
    with ExitStack() as stack:
        try:
            files = [stack.enter_context(_opened(sound.url)) for sound in sounds]
        except FAILURES as e:
            return f"left out, for it cannot be read ({getattr(e, 'strerror', None) or e})"
        streams = [file.streams.best("audio") for file in files]
        tracks = [each for each in streams if isinstance(each, AudioStream) and each.codec_context is not None]
        if not tracks:
            return ""
        if len(tracks) < len(files) or len({_kind(each) for each in tracks}) > 1:
            return "left out, for the files have none, or of several kinds"
        place = part_of(video)
        try:
            outcome = _write(video, place, list(zip(sounds, files, tracks, strict=True)))
            commit(place, video)
        except _UnreadableError as e:
            return f"left out, for it cannot be read ({e})"
        except FAILURES as e:
            raise unwritable(video, e) from e
        finally:
            discard(place)
    return outcome


class _UnreadableError(Exception):
    """The sound itself cannot be read."""


def _opened(url: str) -> InputContainer:
    container = av.open(url, options={"correct_ts_overflow": "0"})
    assert isinstance(container, InputContainer)
    for stream in container.streams:
        if stream.type != "audio":
            stream.discard = Discard.all  # formats with an index then skip the pictures
    return container


def _kind(stream: AudioStream) -> tuple[str, int, str, bytes]:
    context = stream.codec_context
    return context.name, context.sample_rate, context.layout.name, context.extradata or b""


def _write(video: Path, place: Path, sounds: list[tuple[Sound, InputContainer, AudioStream]]) -> str:
    file = OutputFile(place)
    try:
        with av.open(str(video)) as pictures:
            container = av.open(file, "w", format="mp4")
            shown = pictures.streams.video[0]
            stream = container.add_stream_from_template(shown)
            stream.time_base = TICK
            add, outcome = _adder(container, sounds[0][2])
            timed = heapq.merge(_shown(pictures, stream), _sound_packets(sounds), key=lambda each: each[:2])
            for _, kind, packet in timed:
                if kind == 0:
                    container.mux(packet)
                else:
                    add(packet)  # type: ignore[arg-type]  # of the sound
            add(None)
            container.close()
            return outcome
    finally:
        file.close()


def _shown(pictures: InputContainer, stream: VideoStream) -> Iterator[Timed]:
    for packet in pictures.demux(pictures.streams.video[0]):
        if packet.dts is not None and packet.time_base is not None:
            time_s = packet.dts * packet.time_base
            packet.stream = stream
            yield time_s, 0, packet


def _sound_packets(sounds: Sequence[tuple[Sound, InputContainer, AudioStream]]) -> Iterator[Timed]:
    """The packets that belong to the video, in its time."""
    last_s: Fraction | None = None
    for sound, file, stream in sounds:
        try:
            for packet in file.demux(stream):
                if packet.pts is None or packet.dts is None or packet.time_base is None or packet.is_corrupt:
                    continue
                shift = round(sound.shift_s / packet.time_base)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                begins_s = packet.pts * packet.time_base
                ends_s = begins_s + (packet.duration or 0) * packet.time_base
                outside = ends_s <= sound.start_s or (sound.end_s is not None and begins_s >= sound.end_s)
                if not outside and (last_s is None or begins_s > last_s):
                    last_s = begins_s
                    yield begins_s, 1, packet
        except av.EOFError:
            continue
        except av.FFmpegError as e:
            raise _UnreadableError(e.strerror) from e


def _adder(
    container: OutputContainer, track: AudioStream
) -> tuple[Callable[[av.Packet[AudioStream] | None], None], str]:
    """What adds a packet (None: the end) to an MP4, and how."""
    if track.codec_context.codec.canonical_name in COPIED:
        copied = container.add_stream_from_template(track)

        def copy(packet: av.Packet[AudioStream] | None) -> None:
            if packet is not None:
                packet.stream = copied
                container.mux(packet)

        return copy, "copied"
    rate, layout = track.codec_context.sample_rate, track.codec_context.layout.name
    stream = container.add_stream(OTHERWISE, rate=rate, layout=layout)
    assert isinstance(stream, AudioStream)
    resampler = av.AudioResampler("fltp", layout, rate, frame_size=1024)

    def encode(packet: av.Packet[AudioStream] | None) -> None:
        try:
            decoded = track.codec_context.decode(packet)
        except av.FFmpegError:  # a damaged piece; the next one has its own time
            return
        for whole in [*decoded, None] if packet is None else decoded:
            for frame in resampler.resample(whole):
                container.mux(stream.encode(frame))
        if packet is None:
            container.mux(stream.encode(None))

    return encode, "encoded as AAC"
