"""The configuration of each worker: its part of the profile, and what the feed has learned since the start."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..engine.recipe import Recipe
from ..grab.redact import redact
from .ipc.messages import Config, GrabConfig, PublishConfig, RecordConfig, SegmentConfig
from .profile import StreamProfile
from .state import FeedState


def worker_config(role: str, state: FeedState) -> Config:
    """The first message to a worker that is started now."""
    profile = state.profile
    match role:
        case "grab":
            # A recording's first frame waits for the network; errors of its source are found before that.
            hold = not state.began_ns
            return GrabConfig(profile.source, profile.pace, profile.deinterlace, profile.crop, hold)
        case "segment":
            return SegmentConfig.from_recipe(state.recipe, profile.overlay, state.source.size)
        case "publish":
            return _publish_config(state)
        case "record":
            return RecordConfig(
                folder=str(profile.record),
                stream=profile.name,
                engine=state.engine,
                fps=profile.target_fps,
                config_hash=profile_hash(profile),
                recipe_hash=recipe_hash(profile.engine),
                resume=state.recording or None,
            )
    raise ValueError(f"no worker {role!r}; expected grab, segment, publish or record")


def _publish_config(state: FeedState) -> PublishConfig:
    profile = state.profile
    return PublishConfig(
        name=profile.name,
        bind=state.endpoint or profile.publish.bind,  # after a restart: the port that its subscribers know
        topics=profile.publish.topics,
        keys=None if profile.keys is None else str(profile.keys),
        target_fps=profile.target_fps,
        overlay=profile.overlay,
        carry=profile.carry,
        opacity=profile.opacity,
        mask_budget_ms=profile.mask_budget_ms,
        record=profile.record is not None,
        recovering=state.conditions.recovering or state.conditions.absent,
        engine=state.engine,
    )


def profile_hash(profile: StreamProfile) -> str:
    """SHA-256 of a profile without the credentials in its source's URI."""
    return sha256_of(_plain(profile) | {"source": redact(profile.source)})


def recipe_hash(recipe: Recipe) -> str:
    """SHA-256 of a recipe."""
    return sha256_of(_plain(recipe))


def sha256_of(plain: dict[str, Any]) -> str:
    """SHA-256 of a configuration as canonical JSON."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _plain(value: object) -> dict[str, Any]:
    return dict(msgspec.to_builtins(value, enc_hook=_canonical))


def _canonical(value: object) -> str | dict[str, Any]:
    """A path or a mask as a JSON value. A mask is given by its hash, because numpy's text omits most of its values."""
    if isinstance(value, np.ndarray):
        flat = np.ascontiguousarray(value).tobytes()
        return {"dtype": str(value.dtype), "shape": list(value.shape), "sha256": hashlib.sha256(flat).hexdigest()}
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a {type(value).__name__} in a configuration has no hash")
