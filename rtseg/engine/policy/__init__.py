"""Which memories an object keeps, and which it looks at: pure functions, one name each.

A policy sees a bank right after the newest memory has entered it, and answers for the next frame. Conditioning
memories (frames that a person prompted) and the newest one always stay.

    fifo           SAM 2's own: the conditioning memories and those of the last six frames
    efp-window     Surgical SAM 2's public code: of these, the ones most like the newest are not looked at
    efp            Surgical SAM 2's paper (arXiv 2408.07931): the one most like the newest leaves the bank for good
    confident      the latest memories of frames that the network was sure of (SAMURAI, arXiv 2411.11922)
    efp-confident  efp among these
    anchor         the best of the first credible frames stays (ReSurgSAM2, arXiv 2505.08581)
    diverse        three credible frames that differ stay (ReSurgSAM2)
    distractor     frames on which a mask that lost took something else stay (DAM4SAM, arXiv 2411.17576)

They are put together from three kinds of parts: what is looked at (`window`), what is not shown to it (`only`), and
what is held on to beside it (`held`).
"""

from __future__ import annotations

from ...base.errors import ConfigError, did_you_mean
from ...base.tables import short
from .held import anchor, distractor, diverse
from .values import Choice, Memory, Policy, Size, Verdict
from .window import confident, efp, efp_confident, efp_window, fifo

__all__ = ["NEED_LIKENESS", "NEED_RIVALS", "POLICIES", "Choice", "Memory", "Policy", "Size", "Verdict", "get_policy"]

POLICIES: dict[str, Policy] = {
    "fifo": fifo,
    "efp-window": efp_window,
    "efp": efp,
    "confident": confident,
    "efp-confident": efp_confident,
    "anchor": anchor,
    "diverse": diverse,
    "distractor": distractor,
}
NEED_LIKENESS = frozenset({"efp-window", "efp", "efp-confident", "diverse"})  # these ask for `similarity`
NEED_RIVALS = frozenset({"distractor"})  # for all of a `Verdict`; the others read its first two numbers


def get_policy(name: object) -> Policy:
    """The policy of this name; `ConfigError` that names the nearest one if there is none."""
    if not isinstance(name, str) or name not in POLICIES:
        raise ConfigError(f"memory policy {short(name)}: no such policy; {did_you_mean(str(name), POLICIES)}")
    return POLICIES[name]
