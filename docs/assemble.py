"""Collects the pages of the site in out/docs: docs/, and files that live elsewhere because of who reads them there.

Links are rewritten to where their targets lie in the site. A link to a file that is no page becomes that file's path,
and one to a script that stands alone on its line becomes the script itself. A link to nothing ends the build.
Used by `make docs`.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OUT = ROOT / "out" / "docs"
# Pages that lie outside docs/, and their places in the site.
ELSEWHERE = {
    "bench/RESULTS.md": "results.md",
    "bench/README.md": "benchmarks.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "README.md": "index.md",
    "rtseg/sam2/shipped/micro.md": "models/micro.md",
    "rtseg/sam2/shipped/nano.md": "models/nano.md",
}
SCRIPTS = {".py": "python", ".mjs": "javascript"}
LINK = re.compile(r"(!?)\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def places(root: Path) -> dict[str, str]:
    """Where each file of the repository that the site shows lies in the site."""
    found = dict(ELSEWHERE)
    for path in sorted((root / "docs").rglob("*")):
        if path.suffix in (".md", ".svg", ".png", ".jpg", ".css"):
            found[path.relative_to(root).as_posix()] = path.relative_to(root / "docs").as_posix()
    for path in sorted((root / "bench").glob("*.jpg")):
        found[path.relative_to(root).as_posix()] = f"pictures/{path.name}"
    return found


def rewritten(text: str, source: str, place: str, known: dict[str, str], root: Path) -> str:
    """A page's text with the links that it has at `place` in the site."""

    def link(match: re.Match[str]) -> str:
        picture, words, target, anchor = match[1], match[2], match[3], match[4] or ""
        if not target or "://" in target or target.startswith("mailto:"):
            return match[0]
        path = os.path.normpath(Path(source).parent / target)
        if path in known:
            return f"{picture}[{words}]({os.path.relpath(known[path], Path(place).parent)}{anchor})"
        if not (root / path).exists():
            raise SystemExit(f"{source}: a link to {target}; expected a file of the repository; correct the link")
        language = SCRIPTS.get(Path(path).suffix)
        if match[0] == match.string and language:
            return f'```{language} title="{path}"\n{(root / path).read_text("utf-8")}```'
        return f"`{path}`" if words.strip("`") in path else f"{words} (`{path}`)"

    lines, code = [], False
    for line in text.split("\n"):
        code ^= line.lstrip().startswith("```")
        lines.append(line if code or line.startswith("    ") else LINK.sub(link, line))
    return "\n".join(lines)


def assemble(root: Path = ROOT, out: Path = OUT) -> None:
    """Write the site's sources to `out`, which is made anew."""
    shutil.rmtree(out, ignore_errors=True)
    known = places(root)
    for source, place in known.items():
        target = out / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.suffix == ".md":
            target.write_text(rewritten((root / source).read_text("utf-8"), source, place, known, root), "utf-8")
        else:
            shutil.copyfile(root / source, target)


if __name__ == "__main__":
    sys.exit(assemble())
