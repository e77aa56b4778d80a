"""The tracker: for each frame, a mask of every object.

The tracker owns the objects and their memory banks; the engine owns the network. They exchange only values.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..base.errors import EngineError, PromptError, short
from ..base.forks import disable_after_fork
from ..base.prompt_schema import as_id, as_ids, as_label
from ..base.state import State
from ..base.types import BoolMask, Frame, ImageU8, Masks, Prompt, as_prompt
from ..engine import Array, Decoded, Engine, PromptBatch, Recall, Remembered, Rivals
from ..engine.arrays import namespace, on_host
from ..engine.policy import BankSize, MaskQuality, Memory, get_policy
from ..engine.recipe import warn_once
from . import checkpoint
from .answer import Answer, check_shapes, read_answer
from .bank import Bank, BankReport, recalls
from .cut_detector import CutDetector
from .decoding import run_network, to_batch
from .host_copy import HostCopy
from .inputs import as_frame_number, check_picture, check_prompts, merged
from .objects import Object, located, mask_qualities, reidentified, to_masks, with_lost
from .overlaps import Overlaps
from .small_objects import is_doubtful, warnings

RECENT = 256  # latest steps whose frame numbers are kept; more than the pictures that a live feed keeps


class Tracker:
    """Tracks up to `engine.recipe.max_objects` objects.

    Objects can be prompted, corrected, renamed and removed at any time, from any thread; a call waits for a running
    step. Each object gets the masks that it would have alone; the objects only share the work. There is one exception:
    where two objects come to cover the same thing, the one that was there keeps it, and the other is absent.

    At a scene cut all objects are lost: their masks are empty and nothing is remembered, until the network finds them
    in a scene that matches their memories, or until they are prompted. An object is also lost if the camera turns away
    and the network takes something elsewhere for it; then until its mask is back at its location. Set `cuts` to False
    for pictures that are no video, such as stills and slices: then neither this is done, nor do objects give way. With
    `across_cuts` True cuts are reported alone, and objects are tracked across them.

    Arguments:
        engine: what `open_engine` returns.
        policy: the name of a memory policy; None takes the recipe's.

    Raises `ConfigError` for an unknown policy, `EngineError` for an engine that cannot do what the policy needs.
    """

    def __init__(self, engine: Engine, policy: str | None = None) -> None:
        if not hasattr(engine, "recipe"):
            raise EngineError(f"engine = {short(engine)}; expected what open_engine gives")
        settings, window = engine.recipe.memory, engine.preset.num_maskmem
        self.engine = engine
        self.policy = settings.policy if policy is None else policy
        self._policy = get_policy(self.policy)
        warn_once(replace(settings, policy=self.policy), window, engine.recipe.path or "recipe")
        self._rivals: Rivals | None = None
        if self._policy.needs_rivals:
            if not isinstance(engine, Rivals):
                raise EngineError(f"policy {self.policy}: {engine.description} has no rival masks; use runtime torch")
            self._rivals = engine
        self._size = BankSize(window, settings.spatial)
        self._objects: dict[int, Object] = {}
        self._prompts: dict[int, Prompt] = {}
        self.cuts, self.across_cuts, self._cut_detector = True, False, CutDetector()
        self._cut_at: deque[int] = deque(maxlen=RECENT)  # numbers of the frames that began a new scene
        self._overlaps, self._steps = Overlaps(), 0
        self._seqs: deque[int] = deque(maxlen=RECENT)  # numbers of the latest frames
        self._lock = threading.RLock()
        disable_after_fork(self, Tracker._freed)

    def _freed(self) -> None:
        """Make a new lock in a forked child, where the thread that held the old one does not exist."""
        self._lock = threading.RLock()

    @property
    def ids(self) -> tuple[int, ...]:
        """The ids of the objects that the next step will report, newly prompted ones included."""
        with self._lock:
            return tuple(sorted({*self._objects, *self._prompts}))

    def prompt(
        self, object_id: int, *, points: Sequence[Sequence[float]] = (), box: Sequence[float] | None = None,
        mask: BoolMask | None = None, label: str | None = None,
    ) -> None:  # fmt: skip
        """Prompt an object on the next frame: a new object, or a correction of a known one.

        Points and boxes given before the next step add up; a mask replaces them, and they replace a mask. Values are
        checked and copied here. If the prompt does not fit the next frame, `step` drops it and raises `PromptError`.

        Arguments:
            object_id: 1 to 255.
            points: (x, y, 1 for object or 0 for background), in pixels of the frame.
            box: (x0, y0, x1, y1), in pixels of the frame.
            mask: bool [H, W], or 0/1, or 0/255, of the frame's size.
            label: a name for people; None keeps the present one.

        Raises `PromptError` for a value that is not valid, and for more than `max_objects` objects.
        """
        self.give(Prompt(object_id, points, box, mask, label))

    def give(self, prompt: Prompt) -> None:
        """The same as `prompt`, with all arguments as one `Prompt`."""
        prompt = as_prompt(prompt)
        limit = self.engine.recipe.max_objects
        with self._lock:
            if prompt.id not in self.ids and len(self.ids) >= limit:
                full = f"{limit} objects are tracked already"
                raise PromptError(f"object {prompt.id}: {full}; remove one, or raise max_objects in the recipe")
            self._prompts[prompt.id] = merged(self._prompts.get(prompt.id), prompt)

    def rename(self, object_id: int, label: str) -> None:
        """Change an object's label and keep its memory. Raises `PromptError` if there is no such object."""
        object_id, label = as_id(object_id, "rename"), as_label(label, "rename")
        with self._lock:
            self._known(object_id)
            if object_id in self._prompts:
                self._prompts[object_id] = replace(self._prompts[object_id], label=label)
            if object_id in self._objects:
                self._objects[object_id].label = label

    def remove(self, object_id: int) -> None:
        """Forget an object and free its memory. Raises `PromptError` if there is no such object."""
        object_id = as_id(object_id, "remove")
        with self._lock:
            self._known(object_id)
            self._objects.pop(object_id, None)
            self._prompts.pop(object_id, None)
            self._overlaps = self._overlaps.without(object_id)

    def banks(self) -> dict[int, BankReport]:
        """What the memory bank of each object holds, by id, and why memories left it."""
        with self._lock:
            return {i: self._objects[i].bank.report() for i in sorted(self._objects)}

    def fork(self, ids: Sequence[int], seq: int) -> Tracker:
        """A tracker for these objects alone, with the memories that this tracker had of them before frame `seq`.

        Use it to apply a prompt to a past frame while this tracker continues: prompt the fork, step it through the
        later frames, then `adopt` it, which replaces the memories here. So `seq` must not be before an object's latest
        prompt. An id that is not tracked here can become a new object in the fork.
        """
        ids, seq = as_ids(ids, "fork"), as_frame_number(seq)
        with self._lock:
            fork = Tracker(self.engine, self.policy)
            fork.cuts, fork.across_cuts = self.cuts, self.across_cuts
            fork._steps = self._steps - sum(seen >= seq for seen in self._seqs)
            for i in set(ids) & set(self._objects):
                bank, lost = self._objects[i].bank.before(seq), self._objects[i].lost
                if len(bank):
                    lost = lost if lost and lost.since < seq else None
                    location = self._objects[i].location if lost else None
                    fork._objects[i] = Object(i, self._objects[i].label, bank, lost, location)
                    fork._steps = max(fork._steps, 1 + bank.memories[-1].step)
            return fork

    def adopt(self, fork: Tracker) -> None:
        """Replace objects by those of a fork. Raises `PromptError` if that makes more objects than `max_objects`."""
        if not isinstance(fork, Tracker):
            raise PromptError(f"adopt: found {short(fork)}; expected what `fork` returned")
        with self._lock:
            limit = self.engine.recipe.max_objects
            if len({*self.ids, *fork._objects}) > limit:
                raise PromptError(f"{limit} objects are tracked already; remove one, or raise it in the recipe")
            last = fork._seqs[-1] if fork._seqs else -1
            missed = [seq for seq in self._cut_at if seq > last and not self.across_cuts]  # which it has not reached
            adopted = fork._objects
            self._objects |= with_lost(adopted, adopted, missed[0]) if missed else adopted
            self._overlaps = self._overlaps.with_objects(fork._overlaps, adopted)
            self._steps = max(self._steps, fork._steps)

    def state(self) -> State:
        """All that later masks depend on, for `restore`; checkpoint.py says what that is."""
        with self._lock:
            return checkpoint.state_of(self)

    def restore(self, state: State) -> None:
        """Go on from another tracker's state, with the same masks. Raises `ConfigError` if its settings were others."""
        with self._lock:
            checkpoint.restore(self, state)

    def _known(self, object_id: int) -> None:
        if object_id not in self.ids:
            tracked = ", ".join(map(str, self.ids)) or "none"
            raise PromptError(f"no object {object_id} is tracked; there are: {tracked}")

    def step(self, frame: Frame | ImageU8) -> Masks:
        """Track all objects on the next frame, a `Frame` or uint8 [H, W, 3] RGB, and return their masks.

        A step that raises changes nothing else: give the same frame again, or the next one. Raises `SourceError` for a
        malformed picture; `PromptError` for a waiting prompt that does not fit the picture, and drops that prompt;
        `AnswerError`, an `EngineError`, if the network's answer has other shapes than expected or is not finite.
        """
        with self._lock:
            frame = frame if isinstance(frame, Frame) else Frame(np.asarray(frame), seq=self._steps)
            check_picture(frame)
            check_prompts(self._prompts, self._objects, frame)
            old = self._cut_detector
            detector, cut = old.update(frame.image_hwc) if self.cuts else (old, False)
            objects = self._objects_on(frame.seq if cut else None)
            prompts, size = list(self._prompts.values()), self.engine.image_size
            answer, overlaps, taken = Answer.none(size // 4), self._overlaps, set[int]()
            if objects:
                recalled = recalls([o.bank for o in objects], self._steps)
                given = [to_batch(self._prompts.get(o.id), frame, size) for o in objects]
                doubtful = [is_doubtful(self._prompts.get(o.id), size) for o in objects]
                decoded, written, rivals = self._run_network(frame.image_hwc, recalled, given, doubtful)
                answer, copy = self._to_host(decoded, written, rivals, objects, frame.seq)
                objects = reidentified(objects, answer, copy)
                if self.cuts:
                    overlaps, taken = overlaps.settle([o.id for o in objects], self._prompts, answer)
                    objects = located(objects, self._prompts, answer, frame.seq, old.picture, detector.picture)
                qualities = mask_qualities(answer, copy.rivals_bkhw)
                self._commit(
                    frame.seq, objects, given, decoded.pointer_bc, qualities, written, copy.similarities, taken
                )
            self._overlaps = overlaps
            self._steps, self._cut_detector = self._steps + 1, detector
            self._seqs.append(frame.seq)
            self._cut_at.extend([frame.seq] if cut else [])
            masks = to_masks(frame, objects, answer, cut)
            lines = warnings(prompts, frame, masks, size)
            return replace(masks, warnings=lines) if lines else masks

    def _run_network(
        self, image_hwc: ImageU8, recalled: list[Recall | None], given: list[PromptBatch | None], doubtful: list[bool]
    ) -> tuple[Decoded, list[Remembered], Array | None]:
        """The masks, the new memories, and the rival masks. A method of its own because `rtseg bench` times it."""
        return run_network(self.engine, self._rivals, image_hwc, recalled, given, doubtful)

    def _to_host(
        self, decoded: Decoded, written: list[Remembered], rivals: Array | None, objects: list[Object], seq: int
    ) -> tuple[Answer, HostCopy]:
        """Copy the answer, and everything else that the step needs, to the host at once."""
        grid = self.engine.image_size // 16
        check_shapes(decoded, written, len(objects), seq, 4 * grid, self.engine.preset.memory_shape(grid))
        matchers = [o.lost.matcher if o.lost else None for o in objects]
        banks = [o.bank.memories for o in objects]
        copy = HostCopy(banks, written, matchers, rivals, self._policy.needs_similarity)
        answer, copied = read_answer(decoded, written, seq, self.engine.recipe, copy.arrays)
        copy.receive(copied)
        return answer, copy

    def _objects_on(self, cut: int | None) -> list[Object]:
        """All objects of this frame, by id. `cut` is its number if it begins a new scene; then all are lost but those
        that are prompted. Changed objects are copies, because the step may still fail.
        """
        objects = dict(self._objects)
        if not self.cuts or (cut is not None and self.across_cuts):  # an old location must not count
            objects = {i: replace(o, lost=None, location=None) if o.location else o for i, o in objects.items()}
        elif cut is not None:
            objects |= with_lost(objects, objects.keys() - self._prompts.keys(), cut)
        for i, prompt in self._prompts.items():
            if i in objects:
                objects[i] = Object(i, prompt.label or objects[i].label, objects[i].bank)
            else:
                bank = Bank(self._policy, self._size, self.engine.recipe.memory.pointers)
                objects[i] = Object(i, prompt.label or f"object {i}", bank)
        return [objects[i] for i in sorted(objects)]

    def _commit(
        self, seq: int, objects: list[Object], given: list[PromptBatch | None], pointer_bc: Array,
        qualities: list[MaskQuality], written: list[Remembered], similarities: list[Mapping[int, float] | None],
        taken: set[int],
    ) -> None:  # fmt: skip
        """Update the objects and their banks, save the banks of `taken`: ids whose mask is on another object's thing. A
        corrected frame becomes a conditioning memory, so that no policy prunes it (in Meta's predictor the option
        `add_all_frames_to_correct_as_cond`, on in training).
        """
        # Copies: an engine may reuse its arrays, and a view keeps a whole batch alive as long as one object needs it.
        # On a GPU one copy serves all objects, because a kernel launch costs more than the extra kilobytes.
        on_gpu = not on_host(pointer_bc)
        pointers = pointer_bc.clone() if on_gpu else [namespace(p).asarray(p, copy=True) for p in pointer_bc]
        updates = []
        for i, o in enumerate(objects):
            if o.lost or o.id in taken:
                continue  # a lost object remembers nothing: this may be another scene
            prompted = given[i] is not None
            memory = Memory(
                self._steps, written[i], pointers[i], prompted, seq, qualities[i], similarities=similarities[i]
            )
            updates.append((o.bank, o.bank.prepare(memory)))
        for bank, update in updates:
            bank.apply(update)
        self._objects = {o.id: o for o in objects}
        self._prompts = {}
