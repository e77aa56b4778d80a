"""Memory policies: which memories an object keeps, and which of them the next frame attends to.

A policy is a pure function of a bank, called right after the newest memory has entered it. Conditioning memories
(frames that were prompted) and the newest one always stay.

    fifo           SAM 2's own: the conditioning memories and those of the last six frames
    efp-window     Surgical SAM 2's public code: of these, the ones most similar to the newest are not attended to
    efp            Surgical SAM 2's paper (arXiv 2408.07931): the one most similar to the newest leaves the bank
    confident      the latest memories of frames that the network was confident of (SAMURAI, arXiv 2411.11922)
    efp-confident  efp among these
    anchor         the best of the first credible frames is pinned (ReSurgSAM2, arXiv 2505.08581)
    diverse        three credible frames that differ are pinned (ReSurgSAM2)
    distractor     frames on which a losing mask shows something else are pinned (DAM4SAM, arXiv 2411.17576)

Each is registered where it is defined, by `register_policy`, together with the sizes that engines prepare for. That is
why policies lie here and not in `rtseg.track`, which runs them: an engine's fixed shapes follow from its recipe's
policy, and imports only go down.
"""

from __future__ import annotations

from . import pinned as pinned
from .registry import POLICIES, MemoryPolicy, get_policy, register_policy
from .values import MAX_CONDITIONING, BankSize, Choice, MaskQuality, Memory, PolicyFunction
from .window import similarity  # registers its policies, and so does the next line, in the order of the table above

__all__ = [
    "MAX_CONDITIONING", "POLICIES", "BankSize", "Choice", "MaskQuality", "Memory", "MemoryPolicy", "PolicyFunction",
    "get_policy", "register_policy", "similarity",
]  # fmt: skip
