"""The orders of a page to a recording: each is checked, and done on the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Struct

from ..base.errors import OutputError, PromptError, did_you_mean
from ..base.prompt_schema import FrameNumber, ObjectId
from ..base.rle import encode_rle
from ..base.schema import convert
from ..live.control import snapshot_result
from ..live.control.messages import VERSION, request_of
from .recording_player import Player
from .recording_session import Session

Args = dict[str, Any]


class Seek(Struct, frozen=True, forbid_unknown_fields=True):
    """Go to a frame."""

    frame: FrameNumber


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """Go on, or back, by some frames."""

    by: int


class Play(Struct, frozen=True, forbid_unknown_fields=True):
    """Play, or stop playing. `rate`: 1 is the recording's own."""

    on: bool
    rate: Annotated[float, Meta(ge=0.1, le=8)] = 1.0


class Track(Struct, frozen=True, forbid_unknown_fields=True):
    """Carry on what is not carried on yet, up to frame `to`."""

    direction: str
    to: FrameNumber | None = None


class Stretch(Struct, frozen=True, forbid_unknown_fields=True):
    """Frames of an object."""

    id: ObjectId
    first: FrameNumber
    last: FrameNumber


class RecordingOrders:
    """Does orders on a session and its player."""

    def __init__(self, session: Session, player: Player) -> None:
        self._session, self._player = session, player
        self._verbs: dict[str, Callable[[str, Args, str], Args]] = {
            **dict.fromkeys(("add", "correct", "preview"), self._prompt),
            **dict.fromkeys(("remove", "rename", "look", "undo", "redo", "reset"), self._object),
            **dict.fromkeys(("seek", "step", "play", "pause", "resume"), self._move),
            **dict.fromkeys(("track", "stop", "export"), self._work),
            **dict.fromkeys(("lock", "unlock"), self._lock),
            "snapshot": self._snapshot,
            "hold": self._hold,
        }

    def do(self, verb: str, args: Args, who: str) -> Args:
        """Do an order. Raises `RtsegError` if it is not done."""
        if verb not in self._verbs:
            raise OutputError(f"{verb:.40}: not an order for a recording; {did_you_mean(verb, self._verbs)}")
        return self._verbs[verb](verb, args, who)

    def _prompt(self, verb: str, args: Args, who: str) -> Args:
        request: Any = request_of({"v": VERSION, "n": 0, "verb": verb, "args": _with_bytes(args)})
        session, own = request.session, self._session.frames.session
        if session is not None and session != own:
            raise PromptError(f"{verb}: session {session!r}; expected {own!r}: load the page again")
        number = self._player.position if request.seq is None else request.seq
        prompt = request.prompt
        if verb == "preview":
            found = self._session.preview(prompt, number)
        else:
            found = self._session.prompt(prompt, number, who, new=verb == "add")
        height, width = found.mask_hw.shape
        about: Args = {"id": prompt.id, "seq": number, "warnings": list(found.warnings)}
        if verb != "preview":
            return about
        rle = encode_rle(found.mask_hw).decode("ascii")
        return {**about, "rle": rle, "height": height, "width": width, "score": found.score, "iou": found.iou}

    def _object(self, verb: str, args: Args, who: str) -> Args:
        request: Any = request_of({"v": VERSION, "n": 0, "verb": verb, "args": args})
        session = self._session
        if verb in ("undo", "redo"):
            return {"undone" if verb == "undo" else "redone": getattr(session, verb)(who)}
        if verb == "reset":
            removed = [each.id for each in session.state.objects]
            session.reset(who)
            return {"removed": removed}
        if verb == "remove":
            session.remove(request.id, who)
        elif verb == "rename":
            session.rename(request.id, request.label, who)
        else:
            session.look(request.id, None if request.color is None else tuple(request.color), request.hidden)
        return {"id": request.id}

    def _move(self, verb: str, args: Args, who: str) -> Args:
        player = self._player
        if verb == "seek":
            player.seek(convert(args, Seek, verb, OutputError).frame)
        elif verb == "step":
            player.step(convert(args, Step, verb, OutputError).by)
        elif verb == "play":
            play = convert(args, Play, verb, OutputError)
            player.play(play.on, play.rate)
        else:
            player.play(verb == "resume", 1.0)
        return {"position": player.position, "playing": player.playing}

    def _work(self, verb: str, args: Args, who: str) -> Args:
        if verb == "track":
            track = convert(args, Track, verb, OutputError)
            self._player.follow()
            return self._session.track(track.direction, track.to, who)  # type: ignore[arg-type]  # it is checked there
        if verb == "stop":
            return {"stopped": self._session.stop()}
        return self._session.export(who)

    def _lock(self, verb: str, args: Args, who: str) -> Args:
        stretch = convert(args, Stretch, verb, OutputError)
        self._session.lock(stretch.id, stretch.first, stretch.last, who, on=verb == "lock")
        return {"id": stretch.id}

    def _snapshot(self, verb: str, args: Args, who: str) -> Args:
        request: Any = request_of({"v": VERSION, "n": 0, "verb": verb, "args": args})
        number = self._player.position if request.seq is None else request.seq
        frame = self._session.frames.frame(number)
        return snapshot_result(frame, self._session.masks(frame))

    def _hold(self, verb: str, args: Args, who: str) -> Args:
        return {"seq": args.get("seq", self._player.position)}  # a recording keeps every frame


def _with_bytes(args: Args) -> Args:
    """The arguments with the RLE of a mask as bytes, as the wire format has it."""
    prompt = args.get("prompt")
    mask = prompt.get("mask") if isinstance(prompt, dict) else None
    if not isinstance(prompt, dict) or not isinstance(mask, dict) or not isinstance(mask.get("rle"), str):
        return args
    rle = mask["rle"].encode("ascii", "replace")
    return {**args, "prompt": {**prompt, "mask": {**mask, "rle": rle}}}
