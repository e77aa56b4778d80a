"""The prompts of a video, from a local file or a cloud."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path, PurePosixPath

from ...base import prompt_files
from ...base.errors import PromptError
from ...base.prompt import Prompt
from .places import fetch, is_cloud, read


def load_prompts(uri: str) -> dict[int, list[Prompt]]:
    """Read a prompt file; the mask images of one in a cloud are fetched from beside it. Raises `PromptError`."""
    if not is_cloud(uri):
        return prompt_files.load_prompts(uri)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prompts.json"
        try:
            data = read(uri)
            if data is None:
                raise PromptError(f"{uri}: no such file; expected a JSON file of prompts")
            path.write_bytes(data)
            for name in _masks(data):
                (path.parent / name).parent.mkdir(parents=True, exist_ok=True)
                fetch(f"{uri.rpartition('/')[0]}/{name}", path.parent / name)
            return prompt_files.load_prompts(path)
        except PromptError as e:
            raise PromptError(str(e).replace(str(path), uri).replace(folder, uri.rpartition("/")[0])) from e
        except OSError as e:
            raise PromptError(f"{uri}: cannot be read ({' '.join(str(e).split())}); expected prompts") from e


def _masks(data: bytes) -> set[str]:
    """The mask images that prompts name, by paths below the prompt file's folder; others are refused when read."""
    try:
        entries = json.loads(data.decode("utf-8-sig"))
    except ValueError:
        return set()
    names = {entry.get("mask") for entry in entries if isinstance(entry, dict)} if isinstance(entries, list) else set()
    paths = {name for name in names if isinstance(name, str) and name}
    return {name for name in paths if not PurePosixPath(name).is_absolute() and ".." not in PurePosixPath(name).parts}
