"""Objects through time: a frame in, a mask of every object out, one frame at a time, for ever.

The tracker owns the objects and their banks; the engine owns the network. Between them pass only values.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..base.errors import EngineError, PromptError, SourceError
from ..base.forks import in_child
from ..base.prompt_schema import as_id, as_ids, as_label
from ..base.tables import short, whole
from ..base.types import BoolMask, Frame, ImageU8, Masks, Prompt, as_prompt
from ..engine import Array, Decoded, Engine, PromptBatch, Recall, Remembered, Rivals
from ..engine.arrays import namespace, on_host
from ..engine.policy import NEED_LIKENESS, NEED_RIVALS, Memory, Size, Verdict, get_policy
from .answer import Answer, check, read
from .asking import decode, to_network
from .bank import Bank, recalls
from .beside import Beside
from .objects import Object, found, losing, masks_of, placed, verdicts_of
from .scene import Scene
from .small import is_doubtful, read_back, warnings

RECENT = 256  # steps whose frames are known by number; more than a live feed keeps pictures of


class Tracker:
    """Follows up to `engine.recipe.max_objects` objects.

    Objects are prompted, corrected, renamed and removed at any time, from any thread; a call waits for a step that
    is under way. Each object is tracked as if it were alone; they only share the work. `policy` names a memory
    policy; None takes the recipe's.

    Where another scene begins, all objects are lost: their masks are empty, and nothing is remembered, until what the
    network shows agrees with what is remembered of their scene, or a person prompts them. So is an object
    that the camera has turned away from, where the network takes something elsewhere for it, until it is drawn at its
    place. Set `cuts` to False where pictures are no film, as stills and slices are not.
    """

    def __init__(self, engine: Engine, policy: str | None = None) -> None:
        if not hasattr(engine, "recipe"):
            raise EngineError(f"engine = {short(engine)}; expected what open_engine gives")
        plan = engine.recipe.memory
        self.engine = engine
        self.policy = plan.policy if policy is None else policy
        self._select = get_policy(self.policy)
        self._asks: Rivals | None = None
        if self.policy in NEED_RIVALS:
            if not isinstance(engine, Rivals):
                raise EngineError(f"policy {self.policy}: {engine.description} draws no rival masks; use runtime torch")
            self._asks = engine
        self._size = Size(engine.preset.num_maskmem, plan.spatial)
        self._objects: dict[int, Object] = {}
        self._prompts: dict[int, Prompt] = {}
        self.cuts = True
        self._scene = Scene()
        self._cut_at: deque[int] = deque(maxlen=RECENT)  # frames with which another scene began
        self._steps = 0
        self._seqs: deque[int] = deque(maxlen=RECENT)  # of the frames of the latest steps
        self._lock = threading.RLock()
        in_child(self, Tracker._freed)

    def _freed(self) -> None:
        """In a child that was forked: whoever held the lock is not there to let it go."""
        self._lock = threading.RLock()

    @property
    def ids(self) -> tuple[int, ...]:
        """Objects that the next step will report, prompted ones included."""
        with self._lock:
            return tuple(sorted({*self._objects, *self._prompts}))

    def prompt(
        self,
        object_id: int,
        *,
        points: Sequence[Sequence[float]] = (),
        box: Sequence[float] | None = None,
        mask: BoolMask | None = None,
        label: str | None = None,
    ) -> None:
        """Say where an object is on the next frame: a new object, or a correction of a known one.

        `points` are (x, y, 1 for object or 0 for background), `box` is (x0, y0, x1, y1), both in pixels of the
        frame; `mask` is bool [H, W], or 0/1, or 0/255. Points and boxes given before the next step add up; a mask
        replaces them, and they replace a mask. All is checked and copied here. Raises `PromptError`; what does not fit
        the next frame is found, and dropped, there.
        """
        self.give(Prompt(object_id, points, box, mask, label))

    def give(self, prompt: Prompt) -> None:
        """`prompt`, with the prompt as a value."""
        prompt = as_prompt(prompt)
        limit = self.engine.recipe.max_objects
        with self._lock:
            if prompt.id not in self.ids and len(self.ids) >= limit:
                full = f"{limit} objects are tracked already"
                raise PromptError(f"object {prompt.id}: {full}; remove one, or raise max_objects in the recipe")
            self._prompts[prompt.id] = _merged(self._prompts.get(prompt.id), prompt)

    def rename(self, object_id: int, label: str) -> None:
        """Change an object's label; what is remembered of it stays. `PromptError` if there is no such object."""
        object_id, label = (
            as_id(object_id, "rename"),
            as_label(label, "rename"),
        )
        with self._lock:
            self._known(object_id)
            if object_id in self._prompts:
                self._prompts[object_id] = replace(self._prompts[object_id], label=label)
            if object_id in self._objects:
                self._objects[object_id].label = label

    def remove(self, object_id: int) -> None:
        """Forget an object and free its memory. `PromptError` if there is no such object."""
        object_id = as_id(object_id, "remove")
        with self._lock:
            self._known(object_id)
            self._objects.pop(object_id, None)
            self._prompts.pop(object_id, None)

    def fork(self, ids: Sequence[int], seq: int) -> Tracker:
        """A tracker that follows these objects alone, and remembers of them what this one did before frame `seq`.

        With it a prompt acts on a frame of the past, while the present goes on here: give it there, step through
        later frames, then `adopt` the outcome, which replaces what is remembered here; so do not go back behind an
        object's latest prompt. Ids that are not tracked may be new objects there.
        """
        ids, seq = as_ids(ids, "fork"), _frame_number(seq)
        with self._lock:
            fork = Tracker(self.engine, self.policy)
            fork.cuts = self.cuts
            fork._steps = self._steps - sum(seen >= seq for seen in self._seqs)
            for i in set(ids) & set(self._objects):
                bank, lost = self._objects[i].bank.before(seq), self._objects[i].lost
                if len(bank):
                    known = lost if lost and lost.since < seq else None
                    place = self._objects[i].place if known else None
                    fork._objects[i] = Object(i, self._objects[i].label, bank, known, place)
                    fork._steps = max(fork._steps, 1 + bank.memories[-1].step)
            return fork

    def adopt(self, fork: Tracker) -> None:
        """Take over the objects of a fork in place of what is remembered of them here. `PromptError`: no room."""
        if not isinstance(fork, Tracker):
            raise PromptError(f"adopt: found {short(fork)}; expected what `fork` gave")
        with self._lock:
            limit = self.engine.recipe.max_objects
            if len({*self.ids, *fork._objects}) > limit:
                raise PromptError(f"{limit} objects are tracked already; remove one, or raise it in the recipe")
            last = fork._seqs[-1] if fork._seqs else -1
            missed = [seq for seq in self._cut_at if seq > last]  # what the fork did not get to
            adopted = fork._objects
            self._objects |= losing(adopted, adopted, missed[0]) if missed else adopted
            self._steps = max(self._steps, fork._steps)

    def _known(self, object_id: int) -> None:
        if object_id not in self.ids:
            tracked = ", ".join(map(str, self.ids)) or "none"
            raise PromptError(f"no object {object_id} is tracked; there are: {tracked}")

    def step(self, frame: Frame | ImageU8) -> Masks:
        """Take the next frame, a `Frame` or uint8 [H, W, 3] RGB, and return the masks of all objects on it.

        A step that raises did not happen: the same frame, or the next one, can be given. `SourceError` if it is no
        picture; `PromptError` if a waiting prompt does not fit it, and that prompt is dropped; `AnswerError`, an
        `EngineError`, if the network's answer is not a number.
        """
        with self._lock:
            frame = frame if isinstance(frame, Frame) else Frame(np.asarray(frame), seq=self._steps)
            _check_picture(frame)
            self._check_prompts(frame)
            scene, cut = self._scene.see(frame.image_hwc) if self.cuts else (self._scene, False)
            objects = self._with_new_ones(frame.seq if cut else None)
            prompts, size = list(self._prompts.values()), self.engine.image_size
            answer = Answer.none(size // 4)
            if objects:
                seen = recalls([o.bank for o in objects], self._steps)
                given = [to_network(self._prompts.get(o.id), frame, size) for o in objects]
                doubtful = [is_doubtful(self._prompts.get(o.id), size) for o in objects]
                decoded, written, rivals = self._answer(frame.image_hwc, seen, given, doubtful)
                answer, beside = self._read(decoded, written, rivals, objects, frame.seq)
                objects = found(objects, answer, beside)
                if self.cuts:
                    objects = placed(objects, self._prompts, answer, frame.seq, self._scene.view, scene.view)
                verdicts = verdicts_of(answer, beside.rivals_bkhw)
                self._commit(frame.seq, objects, given, decoded.pointer_bc, verdicts, written, beside.alike)
            self._count(frame, scene, cut)
            masks = masks_of(frame, objects, answer, cut)
            told = warnings(prompts, frame, masks, size)
            return replace(masks, warnings=told) if told else masks

    def _count(self, frame: Frame, scene: Scene, cut: bool) -> None:
        self._steps += 1
        self._seqs.append(frame.seq)
        self._scene = scene
        if cut:
            self._cut_at.append(frame.seq)

    def _answer(
        self, image_hwc: ImageU8, seen: list[Recall | None], given: list[PromptBatch | None], doubtful: list[bool]
    ) -> tuple[Decoded, list[Remembered], Array | None]:
        """What the network says of this frame, what is to be remembered of it, and, for whom it matters, what lost."""
        engine, rivals = self.engine, None
        known = [r for r in seen if r is not None]
        if len(known) == len(seen) and not any(given) and self._asks is None:
            return *engine.track(image_hwc, known), None
        features = engine.encode_image(image_hwc)
        conditioned_bchw = engine.attend(features, seen)
        decoded = decode(engine, features, conditioned_bchw, seen, given)
        if self._asks is not None:
            rivals = self._asks.rivals(conditioned_bchw, features)
        prompted = [p is not None for p in given]
        written = engine.remember(features, decoded.logits_b1hw, decoded.score_b, prompted)
        return read_back(engine, features, decoded, written, doubtful), written, rivals

    def _read(
        self, decoded: Decoded, written: list[Remembered], rivals: Array | None, objects: list[Object], seq: int
    ) -> tuple[Answer, Beside]:
        """The answer on the host, and what is decided beside it: all in one copy."""
        side = self.engine.image_size // 4
        check(decoded, written, len(objects), seq, side)
        witnesses = [o.lost.witness if o.lost else None for o in objects]
        beside = Beside([o.bank.memories for o in objects], written, witnesses, rivals, self.policy in NEED_LIKENESS)
        answer, brought = read(decoded, written, seq, self.engine.recipe, beside.wanted)
        beside.take(brought)
        return answer, beside

    def _check_prompts(self, frame: Frame) -> None:
        for prompt in self._prompts.values():
            try:
                prompt.check(frame.height, frame.width, first=prompt.id not in self._objects)
            except PromptError:
                del self._prompts[prompt.id]
                raise

    def _with_new_ones(self, cut: int | None) -> list[Object]:
        """All objects of this frame, by id; with a `cut` at this frame they are lost, but for those that are prompted.

        What changes in an object is a value of its own until the step has succeeded.
        """
        objects = dict(self._objects)
        if not self.cuts:  # from here on places are not known
            objects = {i: replace(o, lost=None, place=None) if o.place else o for i, o in objects.items()}
        if cut is not None:
            objects |= losing(objects, objects.keys() - self._prompts.keys(), cut)
        for i, prompt in self._prompts.items():
            if i in objects:
                objects[i] = Object(i, prompt.label or objects[i].label, objects[i].bank)
            else:
                bank = Bank(self._select, self._size, self.engine.recipe.memory.pointers)
                objects[i] = Object(i, prompt.label or f"object {i}", bank)
        return [objects[i] for i in sorted(objects)]

    def _commit(
        self, seq: int, objects: list[Object], given: list[PromptBatch | None], pointer_bc: Array,
        verdicts: list[Verdict], written: list[Remembered], alike: list[Mapping[int, float] | None],
    ) -> None:  # fmt: skip
        """Make the step count. Corrected frames are conditioning ones: what a person said must not be pruned away.

        (In Meta's predictor that is the option `add_all_frames_to_correct_as_cond`, on in training.)
        """
        # Copies: an engine may write its own again, and a view keeps a batch alive as long as one object remembers it.
        # On a GPU one for all: there a launch costs more than the kilobytes.
        away = not on_host(pointer_bc)
        pointers = pointer_bc.clone() if away else [namespace(p).asarray(p, copy=True) for p in pointer_bc]
        for i, o in enumerate(objects):
            if o.lost:
                continue  # of a scene that is not its own it remembers nothing
            prompted = given[i] is not None
            o.bank.add(Memory(self._steps, written[i], pointers[i], prompted, seq, verdicts[i], alike=alike[i]))
        self._objects = {o.id: o for o in objects}
        self._prompts = {}


def _merged(before: Prompt | None, prompt: Prompt) -> Prompt:
    """Two prompts for one object before one frame, as one."""
    if before is None:
        return prompt
    prompt = replace(prompt, label=prompt.label or before.label)
    if prompt.mask is not None or before.mask is not None:
        return prompt
    return replace(prompt, points=before.points + prompt.points, box=prompt.box or before.box)


def _check_picture(frame: Frame) -> None:
    image = frame.image_hwc
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        found = f"{image.dtype}, {' x '.join(map(str, image.shape))}"
        raise SourceError(f"frame {frame.seq} is {found}; expected uint8, H x W x 3, RGB")


def _frame_number(seq: object) -> int:
    """The `seq` of a frame, as a whole number."""
    number = whole(seq)
    if number is None:
        raise PromptError(f"fork: seq = {short(seq)}; expected the number of a frame")
    return number
