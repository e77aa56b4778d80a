"""How objects are prompted and tracked: one function for each protocol, for one sequence.

    video        prompts once, on the first annotated frame that shows any target
    enter        prompts each object once, on the first annotated frame that shows it
    every        as enter, and again every k frames, or when the object next appears after that
    interactive  as enter, and then corrects bad masks with clicks (SAM 2's online evaluation)
    image        each annotated frame alone
    forward      from chosen slices, or each object's largest, to the last one
    backward     from there to the first one
    both         both ways, each slice from the nearer prompt

The tracker gets nothing of the truth but the prompts and clicks that are derived from it.

A frame on which an object is prompted does not count for this object, whatever the prompt, as DAVIS leaves out the
first frame: so figures after a box or a click are of the same frames as those after a mask. Two protocols also score
prompted frames: `image` all of them, `interactive` all but those prompted by a mask, which would compare the truth with
itself. Otherwise a run in which every frame had to be corrected would look as good as one that needs no correction.
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
