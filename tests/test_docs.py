"""What the documents point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "bench", "engines", "streams", "rtseg/sam2/shipped")
DOCUMENTS = sorted(path for folder in FOLDERS for path in (ROOT / folder).glob("*.md"))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_relative_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", path.read_text("utf-8"))
    missing = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert not [link for link in missing if "NAME" not in link]


def test_the_verbs_of_the_readme_exist() -> None:
    from rtseg.base.errors import RtsegError
    from rtseg.cli import _parser

    text = (ROOT / "README.md").read_text("utf-8")
    verbs = set(re.findall(r"(?:^    |`)rtseg (\w+)", text, re.MULTILINE))
    with pytest.raises(RtsegError, match="invalid choice"):
        _parser().parse_args(["no-such-verb"])
    for verb in verbs:
        with pytest.raises(SystemExit) as stop:
            _parser().parse_args([verb, "--help"])
        assert stop.value.code == 0
    assert {"live", "view", "segment", "train", "doctor"} <= verbs
