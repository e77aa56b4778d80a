"""What a uri must not tell: passwords and keys become `***` before anything is shown, logged or raised.

Of what stands in a uri's query only the settings and the words named in `HARMLESS` are shown: a camera's maker calls
its password whatever he likes, so that a list of forbidden names is never complete. Of a path, what is hidden are
settings that are not named there, a part with a colon in it (`/auth:admin:password/`), and of RTMP the last part: that
is the stream's key.
"""

from __future__ import annotations

import base64
import logging
import re
from typing import Any
from urllib.parse import quote, unquote, unquote_plus

from ..base.errors import SourceError

HIDDEN = "***"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=/)")
# In a path a word counts only as `key=value`; what follows the first `?`, `#` or (of RTMP) space is all settings.
_PATH = re.compile(r"[^?#]*")
_PATH_RTMP = re.compile(r"[^?#\s]*")
_PAIR = re.compile(r"(?:^|(?<=[&;\s]))([^=&;\s]+)=([^&;\s]+)")
_WORD = re.compile(r"(?<=[?&;#\s])[^?&;#\s][^&;#\s]*")
# What a person needs to see in order to tell one feed from another, and what is no secret in any maker's uri.
_HARMLESS = """
    audio bitrate buffer_size camera channel codec connect_timeout encoding ffs fifo_size format fps framerate
    height input_format interface latency linger listen local_addr localaddr localport localrtcpport localrtpport
    lossmaxttl maxbw mode mss multicast oheadbw overrun_nonfatal pbkeylen peerlatency pix_fmt pixel_format
    pkt_size profile rcvbuf rcvlatency reconnect resolution reuse rtcpport rtsp_transport seconds size sndbuf
    sources stream subtype tcp timeout tlpktdrop transport transtype ttl udp unicast video video_size width
"""
HARMLESS = frozenset(_HARMLESS.split())
_LOCAL = ("v4l2:", "file:")  # whose paths have colons of their own: /dev/v4l/by-path/pci-0000:00:14.0-usb
SHORTEST = 3  # of what is struck out of other people's words, where one letter would take half of them


class UnescapedError(SourceError):
    """A secret with a character that ends it. The text tells the person who typed it how to write it.

    It is for that person alone: what is logged, sent or kept gets `public`.
    """

    def __init__(self, shown: str, what: str, secret: str) -> None:
        self.public = f"{shown}: a character in the {what} ends it; escape the {what}"
        super().__init__(f"{self.public}: {quote(secret, safe='')}")


def unescaped(uri: str) -> UnescapedError | None:
    """What to say of a uri that cannot be taken apart, if an `@` shows that its password is why."""
    scheme, _, rest = uri.partition("://")
    user, at, host = rest.rpartition("@")
    if not at or user.startswith("/") or not re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[\w.-]+)(:\d+)?([/?].*)?", host):
        return None
    name, colon, password = user.partition(":")
    name_is_plain = not set(name) & set("/?#@[]")
    what, secret = ("password", password) if colon and name_is_plain else ("user name", name if colon else user)
    return UnescapedError(f"{scheme}://{HIDDEN}@{redact(f'{scheme}://{host}').partition('://')[2]}", what, secret)


def redact(uri: str) -> str:
    """The uri with what may be secret as `***`; what is no uri (a path, `synthetic:...`) is given back as it is."""
    scheme = SCHEME.match(uri)
    if not scheme:
        return uri
    head, rest = uri[: scheme.end()], uri[scheme.end() :]
    slashes, authority, place = _parts(rest)
    if "@" in place:  # or is it a password with a slash in it, not escaped? Then nobody can tell what is what
        return head + slashes + HIDDEN
    user, at, host = authority.rpartition("@")
    return head + slashes + (HIDDEN if user else "") + at + host + _hide(scheme[0], place)[0]


def _parts(rest: str) -> tuple[str, str, str]:
    """What follows the scheme's colon, as slashes, user and host, and the rest."""
    bare = rest.lstrip("/")
    end = min((at for at in map(bare.find, "/?#") if at >= 0), default=len(bare))
    return rest[: len(rest) - len(bare)], bare[:end], bare[end:]


def _hide(scheme: str, place: str) -> tuple[str, set[str]]:
    """What follows the host, as it may be shown, and every text that was taken out of it."""
    scheme, hidden = scheme.lower(), set[str]()
    is_rtmp = scheme.startswith("rtmp")
    found = (_PATH_RTMP if is_rtmp else _PATH).match(place)
    path = found[0] if found else ""

    def word(found: re.Match[str]) -> str:
        key, is_pair, value = found[0].partition("=")
        if key.lower() in HARMLESS and not {"=", "?"} & set(value):
            return found[0]
        hidden.add(value if is_pair else key)
        return f"{key}={HIDDEN if value else ''}" if is_pair else HIDDEN

    parts = path.split("/")
    key_at = max((i for i, part in enumerate(parts) if part), default=-1) if is_rtmp else -1
    for i, part in enumerate(parts):
        parts[i] = _PAIR.sub(word, part)
        has_colon = ":" in unquote(parts[i]).rstrip(":")
        if i == key_at or (has_colon and scheme not in _LOCAL):
            hidden.add(part)
            parts[i] = HIDDEN
    return "/".join(parts) + _WORD.sub(word, place[len(path) :]), hidden


def secrets_of(uri: str) -> tuple[str, ...]:
    """Every text in the uri that `redact` hides, also as a server or a library may repeat it; the longest first."""
    scheme = SCHEME.match(uri)
    if not scheme:
        return ()
    _, authority, place = _parts(uri[scheme.end() :])
    raw = _hide(scheme[0], place)[1]
    user = (authority + place).rpartition("@")[0] if "@" in place else authority.rpartition("@")[0]
    if user:
        raw |= {user, *user.split(":", 1)[1:]}
        raw |= {
            base64.b64encode(text.encode()).decode() for text in (user, unquote(user))
        }  # HTTP's basic authorisation
    forms = raw | {unquote(text) for text in raw} | {unquote_plus(text) for text in raw}
    forms |= {text[mark.end() :] for text in forms for mark in re.finditer("[:=?]", text)}  # name:password
    return tuple(sorted((text for text in forms if len(text) >= SHORTEST), key=len, reverse=True))


def scrub(text: object, uri: str) -> str:
    """What somebody else said about `uri`, on one line and without its secrets."""
    said = str(text).replace(uri, redact(uri))
    for secret in secrets_of(uri):
        said = said.replace(secret, HIDDEN)
    return " ".join(_redact_word(word) for word in said.split())


def _redact_word(word: str) -> str:
    """A word of a text, with the stop or the colon behind it, which is no part of a uri."""
    bare = word.rstrip(":,.;")
    return redact(bare) + word[len(bare) :]


_guarded: set[str] = set()


def guard_logs(uri: str) -> None:
    """From now on, what FFmpeg logs (PyAV passes it to `logging`, if asked to) is free of this uri's secrets."""
    if not secrets_of(uri) or uri in _guarded:
        return
    if not _guarded:
        make = logging.getLogRecordFactory()

        def scrubbed(*values: Any, **named: Any) -> logging.LogRecord:
            record = make(*values, **named)
            if record.name.startswith("libav"):
                record.msg, record.args = record.getMessage(), ()
                for known in tuple(_guarded):
                    record.msg = scrub(record.msg, known)
            return record

        # Not a filter: those of a logger are not asked about the records of its children, one for each FFmpeg module.
        logging.setLogRecordFactory(scrubbed)
    _guarded.add(uri)
