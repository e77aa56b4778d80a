"""The synthetic endoscope as a data set: exact ground truth for any number of seeds, without files.

    synthetic:laparoscopy?seed=10000-10009&seconds=8&fps=12.5&width=640&height=480

One sequence per seed; the other options are those of `open_source`. Seeds from 10,000 on are never trained on.
"""

from __future__ import annotations

import re
from functools import lru_cache

from ..base.errors import ConfigError
from ..base.types import Frame
from ..grab import open_source
from ..synthetic import EndoscopeSource
from .dataset import Sequence, Target, Truth

PREFIX = "synthetic:"
SEED = re.compile(r"(?<=[?&]seed=)([^&]*)-([^&]*)")
MAX_SEQUENCES = 10_000
CACHED = 8  # frames of each sequence


def read(uri: str) -> tuple[Sequence, ...]:
    """The sequences of a URI. Raises `ConfigError` for an invalid range of seeds, `SourceError` for other mistakes."""
    found = SEED.search(uri)
    if found is None:
        return (_sequence(uri, uri.removeprefix(PREFIX)),)
    first, last = found.groups()
    if not (first.isdecimal() and last.isdecimal() and 0 <= int(last) - int(first) < MAX_SEQUENCES):
        raise ConfigError(f"{uri}: seed={found[0]}; expected a number, or a range such as 10000-10009")
    seeds = range(int(first), int(last) + 1)
    return tuple(_sequence(SEED.sub(str(seed), uri), f"seed-{seed}") for seed in seeds)


def _sequence(uri: str, name: str) -> Sequence:
    opened = _source(uri)

    @lru_cache(CACHED)
    def frame(t: int) -> Frame:
        return _source(uri).frame(t)

    def truth(t: int) -> Truth:
        ids_hw = frame(t).truth_hw
        assert ids_hw is not None
        return {i: ids_hw == i for i in range(1, opened.tools + 1) if (ids_hw == i).any()}

    targets = tuple(Target(i, f"tool {i}", "tool") for i in range(1, opened.tools + 1))
    assert opened.frame_count is not None
    return Sequence(name, opened.frame_count, targets, lambda t: frame(t).image_hwc, truth)


@lru_cache(4)
def _source(uri: str) -> EndoscopeSource:
    """The source of a URI. Scenes are slow to paint, so only the latest four are cached."""
    source = open_source(uri)
    assert isinstance(source, EndoscopeSource)
    return source
