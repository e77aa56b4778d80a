"""What a uri must not tell: passwords and keys become `***` before anything is shown, logged or raised.

Of what stands in a uri's query only the settings named in `HARMLESS` are shown: a camera's maker calls its password
whatever he likes, so that a list of forbidden names is never complete.
"""

from __future__ import annotations

import base64
import logging
import re
from typing import Any
from urllib.parse import unquote, unquote_plus

HIDDEN = "***"
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:(?=/)")
PAIR = re.compile(r"(?<=[?&;#/ ])([^=?&;#/\s]+)=([^&;#\s]*)")
# What a person needs to see in order to tell one feed from another, and what is no secret in any maker's uri.
_HARMLESS = """
    audio bitrate buffer_size camera channel codec connect_timeout encoding ffs fifo_size format fps framerate
    height input_format interface latency linger listen local_addr localaddr localport localrtcpport localrtpport
    lossmaxttl maxbw mode mss multicast oheadbw overrun_nonfatal pbkeylen peerlatency pix_fmt pixel_format
    pkt_size profile rcvbuf rcvlatency reconnect resolution reuse rtcpport rtsp_transport seconds size sndbuf
    sources stream subtype tcp timeout tlpktdrop transport transtype ttl udp unicast video video_size width
"""
HARMLESS = frozenset(_HARMLESS.split())
SHORTEST = 3  # of what is struck out of other people's words, where one letter would take half of them


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
    return head + slashes + (HIDDEN if user else "") + at + host + PAIR.sub(_pair, place)


def _parts(rest: str) -> tuple[str, str, str]:
    """What follows the scheme's colon, as slashes, user and host, and the rest."""
    bare = rest.lstrip("/")
    end = min((at for at in map(bare.find, "/?#") if at >= 0), default=len(bare))
    return rest[: len(rest) - len(bare)], bare[:end], bare[end:]


def _pair(found: re.Match[str]) -> str:
    key, value = found[1], found[2]
    return found[0] if key.lower() in HARMLESS or not value else f"{key}={HIDDEN}"


def secrets_of(uri: str) -> tuple[str, ...]:
    """Every text in the uri that `redact` hides, also as a server or a library may repeat it; the longest first."""
    scheme = SCHEME.match(uri)
    if not scheme:
        return ()
    _, authority, place = _parts(uri[scheme.end() :])
    raw = {value for key, value in PAIR.findall(place) if key.lower() not in HARMLESS}
    user = (authority + place).rpartition("@")[0] if "@" in place else authority.rpartition("@")[0]
    if user:
        raw |= {user, *user.split(":", 1)[1:]}
        raw |= {
            base64.b64encode(text.encode()).decode() for text in (user, unquote(user))
        }  # HTTP's basic authorisation
    forms = raw | {unquote(text) for text in raw} | {unquote_plus(text) for text in raw}
    return tuple(sorted((text for text in forms if len(text) >= SHORTEST), key=len, reverse=True))


def scrub(text: object, uri: str) -> str:
    """What somebody else said about `uri`, on one line and without its secrets."""
    said = str(text).replace(uri, redact(uri))
    for secret in secrets_of(uri):
        said = said.replace(secret, HIDDEN)
    words = (redact(word) for word in said.split())
    return " ".join(words)


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
