"""Memory policies: which memories an object keeps, and which of them the next frame attends to.

A policy is a pure function of a bank, called right after the newest memory was added. Conditioning memories (of
prompted frames) and the newest one always stay.

    fifo           SAM 2's own: the conditioning memories and those of the last six frames
    efp-window     Surgical SAM 2's public code: as fifo, but without attention to those most similar to the newest
    efp            Surgical SAM 2's paper (arXiv 2408.07931): removes the memory most similar to the newest
    confident      the latest memories of frames that the network was confident of (SAMURAI, arXiv 2411.11922)
    efp-confident  efp among the memories of `confident`
    anchor         pins the best of the first credible frames (ReSurgSAM2, arXiv 2505.08581)
    diverse        pins three credible frames that differ (ReSurgSAM2)
    distractor     pins frames on which a rival mask shows something else (DAM4SAM, arXiv 2411.17576)

Each is registered where it is defined, by `register_policy`, together with the sizes that engines prepare for. An
engine's fixed shapes follow from its recipe's policy: that is why policies are here, below `rtseg.track`, which runs
them.
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
