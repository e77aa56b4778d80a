"""Markup whose text is escaped by construction: what is not `Html` already, such as a label from a file, is text."""

from __future__ import annotations

from html import escape
from typing import TypeAlias

VOID = {"br", "img", "meta", "link", "path", "rect", "line"}  # elements that have no end tag, or no content


class Html(str):
    """Text that is markup already."""

    __slots__ = ()


Content: TypeAlias = "str | int | float | None"


def text(value: object) -> Html:
    """A value as text. Control characters, which a page may not hold, are shown as a replacement character."""
    shown = "".join("\N{REPLACEMENT CHARACTER}" if _unprintable(letter) else letter for letter in str(value))
    return Html(escape(shown, quote=True))


def _unprintable(letter: str) -> bool:
    code = ord(letter)
    return (
        (code < 32 and letter not in "\t\n") or 127 <= code < 160 or 0xD800 <= code < 0xE000 or code & 0xFFFE == 0xFFFE
    )


def h(tag: str, *content: Content, **attributes: Content) -> Html:
    """An element. An attribute's name has `-` for `_`, and no `_` at its end; None leaves one out.

    Content that is not `Html` is text, and None is nothing.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{text(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in VOID and not content:
        return Html(f"<{tag}{given}>" if tag in ("br", "img", "meta", "link") else f"<{tag}{given}/>")
    return Html(f"<{tag}{given}>{join(*content)}</{tag}>")


def join(*content: Content) -> Html:
    """Several pieces, one after the other."""
    return Html("".join(each if isinstance(each, Html) else text(each) for each in content if each is not None))


def name(value: object) -> Html:
    """A name from a file, kept apart from the text around it: it may be written from right to left."""
    return h("bdi", str(value))


def page(title: str, style: str, body: Html, script: str = "") -> str:
    """A whole page that loads nothing: its policy allows its own style, its own script and its data: pictures."""
    from base64 import b64encode
    from hashlib import sha256

    own = b64encode(sha256(script.encode()).digest()).decode()
    scripts = f"script-src 'sha256-{own}'; " if script else ""
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; {scripts}base-uri 'none'; form-action 'none'"
    )
    head = join(
        h("meta", charset="utf-8"),
        h("meta", http_equiv="Content-Security-Policy", content=policy),
        h("meta", name="viewport", content="width=device-width, initial-scale=1"),
        h("meta", name="color-scheme", content="dark"),
        h("meta", name="referrer", content="no-referrer"),
        h("title", title),
        Html(f"<style>{style}</style>"),
    )
    end = Html(f"<script>{script}</script>" if script else "")
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body>\n{body}\n{end}</body>\n</html>\n'


def clock(seconds: float, tenths: bool = True) -> str:
    """A time, as 0:04.2 or 1:02:03.0."""
    total = round(max(seconds, 0.0) * 10) if tenths else round(max(seconds, 0.0)) * 10
    minutes, rest = divmod(total, 600)
    hours, minutes = divmod(minutes, 60)
    ending = f"{rest / 10:04.1f}" if tenths else f"{rest // 10:02d}"
    return f"{hours}:{minutes:02d}:{ending}" if hours else f"{minutes}:{ending}"


def lasting(seconds: float) -> str:
    """A length of time in words: 0.4 s, 12 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def counted(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 frame, 1,200 frames."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"
