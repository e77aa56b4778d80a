"""The registry of memory policies, which `register_policy` adds to."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from ...base.errors import ConfigError, did_you_mean, short
from .values import MAX_CONDITIONING, BankSize, Choice, Memory, PolicyFunction

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def _window(size: BankSize) -> int:
    return size.window


def _prompted_and_window(size: BankSize) -> int:
    return MAX_CONDITIONING + size.window - 1


def _no_warning(size: BankSize) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class MemoryPolicy:
    """A memory policy and what it declares; the fields are the arguments of `register_policy`.

    Calling it calls `choose` and checks the answer.
    """

    name: str
    choose: PolicyFunction
    full_bank: Callable[[BankSize], int] = _window
    most: Callable[[BankSize], int] = _prompted_and_window
    needs_similarity: bool = False
    needs_rivals: bool = False
    compared: bool = False
    warning: Callable[[BankSize], str] = _no_warning

    def __call__(self, memories: Sequence[Memory], size: BankSize) -> Choice:
        """The choice of `choose`. Raises `ConfigError`, with the policy's name, if it is not valid."""
        choice = self.choose(memories, size)
        fault = _fault(choice, memories, size, self.most(size))
        if fault:
            raise ConfigError(f"memory policy {self.name!r}: {fault}; this is a fault of the policy's function")
        return choice


_registered: dict[str, MemoryPolicy] = {}
POLICIES: Mapping[str, MemoryPolicy] = MappingProxyType(_registered)
"""All registered policies by name, in the order in which they were registered."""


def register_policy(
    name: str,
    *,
    full_bank: Callable[[BankSize], int] = _window,
    most: Callable[[BankSize], int] = _prompted_and_window,
    needs_similarity: bool = False,
    needs_rivals: bool = False,
    compared: bool = False,
    warning: Callable[[BankSize], str] = _no_warning,
) -> Callable[[PolicyFunction], PolicyFunction]:
    """Register a function as the memory policy `name`, for recipes and for `Tracker(engine, policy=name)`.

    The function is called for each object and frame, right after the newest memory was added to the bank. It takes the
    memories, oldest first, and a `BankSize`, and returns a `Choice`. It must be pure, and keep the conditioning
    memories and the newest one. The registration holds in this process only; a live feed knows the built-in policies.

    Arguments:
        name: lower-case letters, digits and hyphens.
        full_bank: how many spatial memories an object prompted once attends to in the long run. Engines prepare for it.
        most: the most spatial memories that an object ever attends to. Engines with fixed shapes have no room for
            more. The default is enough for the conditioning memories and `window` - 1 others.
        needs_similarity: the function calls `similarity`, which is then computed beforehand if the maps are on a GPU.
        needs_rivals: the function reads `MaskQuality.area` or `rival_overlap`. This makes steps slower.
        compared: `rtseg bench --compare policy` measures the policy.
        warning: a line for sizes with which this policy acts like another one; "" for all other sizes.

    Raises `ConfigError` if the name is malformed, or taken by another function.
    """
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"memory policy {short(name)}: expected a name of lower-case letters, digits and hyphens")

    def register(choose: PolicyFunction) -> PolicyFunction:
        _add(MemoryPolicy(name, choose, full_bank, most, needs_similarity, needs_rivals, compared, warning))
        return choose

    return register


def get_policy(name: object) -> MemoryPolicy:
    """The policy of this name. If there is none, raises `ConfigError` with the nearest name."""
    if not isinstance(name, str) or name not in POLICIES:
        raise ConfigError(f"memory policy {short(name)}: no such policy; {did_you_mean(str(name), POLICIES)}")
    return POLICIES[name]


def _add(policy: MemoryPolicy) -> None:
    before = _registered.get(policy.name)
    if before and _identity(before.choose) != _identity(policy.choose):  # equal if a notebook's cell runs twice
        raise ConfigError(f"memory policy {policy.name!r}: the name is taken; expected another name")
    _registered[policy.name] = policy


def _identity(choose: PolicyFunction) -> tuple[object, object]:
    return getattr(choose, "__module__", None), getattr(choose, "__qualname__", id(choose))


def _fault(choice: Choice, memories: Sequence[Memory], size: BankSize, most: int) -> str:
    """What is wrong with a policy's choice; "" if it is valid."""
    keep, attended = choice.keep, [i for i, _ in choice.attend]
    last = len(memories) - 1
    if any(not 0 <= i <= last for i in keep) or any(a >= b for a, b in pairwise(keep)):
        return f"keep = {short(keep)}; expected indices from 0 to {last}, each once, in ascending order"
    stay = {*keep}
    if not stay.issuperset(attended) or not stay.issuperset(choice.pin):
        return "attend or pin names a memory that is not in keep; expected indices that are"
    if last not in stay or any(m.conditioning and i not in stay for i, m in enumerate(memories)):
        return "the newest memory, or a conditioning one, is not in keep; expected that these stay"
    if any(not 0 <= slot < size.window for _, slot in choice.attend):
        return f"attend = {short(choice.attend)}; expected slots from 0 to {size.window - 1}"
    prompted = sum(m.conditioning for m in memories)
    if len(attended) > most and prompted <= MAX_CONDITIONING:
        return f"it attends to {len(attended)} memories, and declares that {most} are the most"
    return ""
