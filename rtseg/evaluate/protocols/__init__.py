"""How objects are shown to the network and followed: one function a protocol, over one sequence.

    video        once, on the first annotated frame that shows any target
    enter        each object once, on the first annotated frame that shows it
    every        so, and again every k frames, or at its next appearance after that
    interactive  so, and then corrected with clicks where the mask is bad (SAM 2's online evaluation)
    image        each annotated frame alone
    forward      from chosen slices, or each object's largest, to the last one
    backward     from there to the first one
    both         both ways, each slice from the nearer prompt

The prompts derive from the truth, and nothing else of the truth reaches the tracker, except through the clicks.

A frame on which an object is prompted does not count for it, whatever the prompt, as DAVIS leaves out the first frame:
so figures after a box or a click are of the same frames as those after a mask. Two protocols judge the answers to
prompts, too: `image` all of them, `interactive` all but those to a mask, which would be the truth beside itself; else a
run in which every frame had to be corrected would look as good as one that needs no help.
"""

from .clicks import Patience, alone, interactive
from .passes import OpenTracker, both_ways, follow, merged
from .schedule import Areas, Schedule, every, on_all, on_entry, on_first_frame, on_slices, passes, scheduled, survey

PROTOCOLS = ("video", "enter", "every", "interactive", "image", "forward", "backward", "both")

__all__ = [
    "PROTOCOLS",
    "Areas",
    "OpenTracker",
    "Patience",
    "Schedule",
    "alone",
    "both_ways",
    "every",
    "follow",
    "interactive",
    "merged",
    "on_all",
    "on_entry",
    "on_first_frame",
    "on_slices",
    "passes",
    "scheduled",
    "survey",
]
