"""Frames from a recording, through FFmpeg (PyAV): right colours, right way up, right times, or a clear error."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import av

from ..base.account import Account, Gap, PartStart
from ..base.errors import SourceError
from ..base.source import Damaged, Mode, Source
from ..base.types import Frame, now_ns
from .convert import Converter, checked_color
from .demux import Demuxer
from .inputs import Input
from .reading import MOST_PROVEN, MOST_PROVEN_PACED, BrokenError, Reading, Timed, broken
from .times import Times
from .turn import Turn

if TYPE_CHECKING:
    from .nvdec import Gpu

RATE_APART = 0.01  # that joined recordings may differ by


@dataclass(slots=True)
class _Look:
    """What opening a file tells of it."""

    rate: Fraction
    turn: Turn
    size: tuple[int, int]
    aspect: Fraction
    declared: int | None
    interlaced: bool
    any_start: bool
    bare: bool
    codec: str


class FileSource(Source):
    """The best video stream of a file, or of several that are one recording: every whole frame, at the file's times.

    `frame.interlaced` says how the file is coded, also where `deinterlace` has made the picture whole. `damaged` says
    what is done where pictures are damaged or missing: `skip` leaves them out, with what was predicted from them, and
    `account` says so; `stop` is a `SourceError` there. A file that was cut off is one at its end, either way. A pipe
    can be read once.
    """

    def __init__(
        self, inputs: Sequence[Input], *, deinterlace: Mode = "off", damaged: Damaged = "skip",
        rate: Fraction | None = None, gpu: Gpu | None = None,
    ) -> None:  # fmt: skip
        """`gpu`: where the inputs are decoded, and their pictures stay."""
        self._rate, self._gpu = rate, gpu
        self._inputs, self._mode, self._damaged = inputs, deinterlace, damaged
        self._names = list(dict.fromkeys(each.name for each in inputs))
        account, self._held = Account(), ExitStack()
        self._once: Iterator[Timed] | None = None
        self._looks = [self._look(each, account) for each in inputs]
        first = self._looks[0]
        self._check_alike()
        super().__init__(" + ".join(self._names), *first.size, float(first.rate), None)
        self.account, self.sample_aspect = account, first.aspect
        if self._looks[0].bare and rate is None:
            account.assumed["rate"] = f"{self.fps:g} frames a second, for a bare stream has no times; --fps sets it"
        account.declared = None if any(look.declared is None for look in self._looks) else sum(
            look.declared or 0 for look in self._looks
        )  # fmt: skip
        counts = [each.count(interlaced=look.interlaced) for each, look in zip(inputs, self._looks, strict=True)]
        account.count = self.frame_count = None if None in counts else sum(count or 0 for count in counts)

    def _look(self, each: Input, account: Account) -> _Look:
        """Open an input, and find its first whole picture. Of one that is read once, the rest is kept."""
        why, demuxer = "", None
        for any_start in (False, True):  # some files mark no key frame at all
            with ExitStack() as stack:
                demuxer = stack.enter_context(each.open())
                stream = demuxer.stream
                if self._rate is not None and not demuxer.bare:
                    raise SourceError(
                        f"{each.name}: fps={float(self._rate):g}, but a video has its own times; leave fps out"
                    )
                rate = self._rate or Fraction(stream.average_rate or stream.guessed_rate or 25)
                kept = account if each.once else Account()
                damaged = self._damaged if each.once else "skip"
                reading = Reading(
                    demuxer,
                    Times(rate, counted=self._rate is not None),
                    kept,
                    damaged,
                    any_start=any_start,
                    most_proven=MOST_PROVEN if each.once else 0,
                )
                pictures = reading.pictures()
                timed = next(pictures, None)
                if timed is not None:
                    if each.once:
                        self._once = _chained(timed, pictures)
                        self._held = stack.pop_all()
                    return _looked(each.name, demuxer, timed[0], rate, any_start)
                if reading.why_none or each.once:
                    why = f" ({reading.why_none})" if reading.why_none else ""
                    break
        where = "" if self._gpu is None else " by NVDEC"
        raise SourceError(f"{each.name}: holds no picture that can be decoded{where}{why}; expected a video")

    def _check_alike(self) -> None:
        first = self._looks[0]
        for each, look in zip(self._inputs, self._looks, strict=True):
            if each.name == self._inputs[0].name:
                continue  # that a single file changes its size is said when it does
            alike = abs(look.rate / first.rate - 1) <= RATE_APART
            if look.size != first.size or look.aspect != first.aspect or not alike:
                raise SourceError(
                    f"{each.name}: {_shape(look)}, but {self._inputs[0].name} is {_shape(first)}; "
                    "expected one size, one shape of pixels and one rate in files that are one recording"
                )

    def frames(self) -> Iterator[Frame]:
        account, times = self.account, Times(self._looks[0].rate, counted=self._rate is not None)
        if not any(each.once for each in self._inputs):
            account.begin()
        for index, (each, look) in enumerate(zip(self._inputs, self._looks, strict=True)):
            convert = self._converter(each.name, look)
            first = True
            with ExitStack() as stack:
                pictures = self._taken(each) if each.once else self._opened(index, times, stack)
                try:
                    for timed in pictures:
                        frame = self._frame(timed, convert)
                        if first and len(self._names) > 1:
                            account.parts.append(PartStart(each.name, frame.seq, frame.seconds))
                        first = False
                        yield frame
                except BrokenError as e:
                    raise SourceError(f"{each.name}: {e}") from None
        self._settle()

    def _converter(self, name: str, look: _Look) -> Converter:
        if self._gpu is None:
            return Converter(name, self._mode, self.account, look.turn)
        from .nvdec import OnGpuConverter

        return OnGpuConverter(name, self.account, look.turn, look.codec, self._gpu)

    def _opened(self, index: int, times: Times, stack: ExitStack) -> Iterator[Timed]:
        each, look = self._inputs[index], self._looks[index]
        last = index == len(self._inputs) - 1
        demuxer = stack.enter_context(each.open())
        return Reading(
            demuxer, times, self.account, self._damaged, any_start=look.any_start, lacks=each.lacks(), last=last,
            most_proven=MOST_PROVEN_PACED if self.paced else MOST_PROVEN,
        ).pictures()  # fmt: skip

    def _taken(self, each: Input) -> Iterator[Timed]:
        pictures, self._once = self._once, None
        if pictures is None:
            raise SourceError(f"{each.name}: a pipe can be read only once; put it into a file")
        return pictures

    def _frame(self, timed: Timed, convert: Converter) -> Frame:
        captured_ns = now_ns()
        picture, pts, time_base = timed
        seq, size = self.account.shown - 1, convert.size(picture)
        if size != (self.width, self.height):
            self.account.shown = seq
            why = f"the size changes from {self.width}x{self.height} to {size[0]}x{size[1]}"
            raise broken(self.account, seq, why)
        image_hwc, color = convert(picture)
        return Frame(
            image_hwc, seq, self.session, pts, time_base, captured_ns,
            color=color, interlaced=bool(picture.interlaced_frame), sample_aspect=self.sample_aspect,
        )  # fmt: skip

    def _settle(self) -> None:
        """All was read: now the number of frames is certain."""
        account, counted = self.account, self.frame_count
        if counted is not None and account.shown < counted and not account.gaps:
            lost = counted - account.shown
            account.gap(Gap(account.shown, 0.0, lost, "fewer pictures came than the file lists"))
            if self._damaged == "stop":
                raise SourceError(f"{self.uri}: {account.gaps[-1].why}: {account.shown} of {counted}")
        account.count = account.shown

    def close(self) -> None:
        super().close()
        self._held.close()


def _chained(first: Timed, rest: Iterator[Timed]) -> Iterator[Timed]:
    yield first
    del first  # a picture that is kept would keep a buffer of the decoder's
    yield from rest


def _looked(name: str, demuxer: Demuxer, first: av.VideoFrame, rate: Fraction, any_start: bool) -> _Look:
    checked_color(name, first)
    turn, stream = Turn.of(first), demuxer.stream
    return _Look(
        rate, turn, turn.size(first), turn.aspect(stream.sample_aspect_ratio), stream.frames or None,
        bool(first.interlaced_frame), any_start, demuxer.bare, stream.codec_context.name,
    )  # fmt: skip


def _shape(look: _Look) -> str:
    pixels = f" with pixels of {look.aspect.numerator}:{look.aspect.denominator}" if look.aspect != 1 else ""
    return f"{look.size[0]}x{look.size[1]}{pixels} at {float(look.rate):g} frames a second"
