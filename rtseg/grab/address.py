"""Live uris: their grammar, the FFmpeg options that each needs, and errors for those that can never work.

rtsp://[user:password@]host[:port]/path     also rtsps, http, https, rtmp: as in the camera's manual
srt://host:port?passphrase=...              MPEG-TS; also mode=listener, latency=MS (120), streamid, pbkeylen
udp://[group]:port  tcp://host:port         MPEG-TS
rtp://host:port                             MPEG-TS in RTP
/dev/video0                                 or v4l2:///dev/video0?width=1920&height=1080&fps=25&format=mjpeg
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from urllib.parse import SplitResult, parse_qsl, urlsplit

from ..base.errors import SourceError, did_you_mean
from .demux.srt import srt_settings
from .paths import kind_of
from .redact import redact, unescaped

LIVE = ("rtsp", "rtsps", "rtmp", "srt", "udp", "tcp", "rtp", "http", "https", "v4l2")
PORT_NEEDED = ("srt", "udp", "tcp", "rtp")
V4L2 = {"width": (16, 16384), "height": (16, 16384), "fps": (1, 1000)}
SOCKET_US = "2000000"  # time limit for a host that does not answer; a later attempt finds a host that is back
# Two pictures give the frame rate where the stream does not state it. Not `nobuffer`: it discards what was read while
# probing, the first key frame included, and makes nothing faster after that.
QUICK = {"probesize": "1000000", "analyzeduration": "500000", "fpsprobesize": "2"}
# In MPEG-TS FFmpeg's parser returns a picture only when the next one begins. Without it, each comes one frame earlier.
NO_PARSER = {"fflags": "noparse"}


@dataclass(frozen=True, slots=True)
class Address:
    """A live uri, ready to open. It may hold a password: show only `shown`."""

    uri: str
    scheme: str
    url: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)

    @property
    def shown(self) -> str:
        return redact(self.uri)

    def with_parser(self) -> Address | None:
        """The address with FFmpeg's parser, for senders whose packets are not one picture each; None if it has it."""
        options = {key: value for key, value in self.options.items() if key not in NO_PARSER}
        return replace(self, options=options) if options != self.options else None


def live_address(uri: str) -> Address | None:
    """The address in a live uri; None if it is not a live uri. `SourceError` if it can never work.

    The name of an existing file or folder is never a live uri.
    """
    if kind_of(uri) in ("file", "folder", "pipe"):
        return None
    if re.match(r"/dev/(video|v4l/)", uri):
        return _v4l2(uri, f"v4l2://{uri}")
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):/", uri)  # with a colon but no slash it may be a file's name
    scheme = found[1].lower() if found else ""
    if scheme not in LIVE:
        return None
    if scheme == "v4l2":
        return _v4l2(uri, uri)
    shown = redact(uri)
    form = f"{scheme}://HOST{':PORT' if scheme in PORT_NEEDED else '/PATH'}"
    if "\0" in uri or uri != uri.strip():
        raise SourceError(f"{shown.strip()!r}: spaces around it or a zero in it; expected {form}")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:  # the error's text may hold the password
        raise unescaped(uri) or SourceError(f"{shown}: not a uri; expected {form}") from None
    advice = unescaped(uri) if _is_credentials(parts) else None
    if advice:
        raise advice
    listens = scheme in PORT_NEEDED and port is not None  # udp://:5000
    if not parts.netloc or not (host or listens):
        raise unescaped(uri) or SourceError(f"{shown}: no host; expected {form}")
    if port is None and scheme in PORT_NEEDED:
        raise SourceError(f"{shown}: no port; expected {form}")
    return _with_options(uri, scheme)


def _is_credentials(parts: SplitResult) -> bool:
    """Whether the apparent host and port are the beginning of a user name and a password."""
    if "@" in parts.netloc:
        return False
    after_path = parts.path.rpartition("@")
    is_name = parts.port is not None and "." not in (parts.hostname or ".") and parts.hostname != "localhost"
    return "@" in parts.fragment or bool(is_name and after_path[1] and set(after_path[2]) & set(".["))


def _with_options(uri: str, scheme: str) -> Address:
    url = re.sub(r"^[^:]+", scheme, uri, count=1)
    if scheme in ("rtsp", "rtsps"):
        # Over UDP, one lost datagram would damage every picture until the next key frame.
        return Address(uri, scheme, url, None, QUICK | {"rtsp_transport": "tcp", "timeout": SOCKET_US})
    if scheme in ("udp", "tcp", "srt"):
        if scheme == "srt":
            srt_settings(uri)
        own = {"udp": {"overrun_nonfatal": "1"}, "tcp": {"timeout": SOCKET_US, "tcp_nodelay": "1"}}
        return Address(uri, scheme, url, "mpegts", QUICK | NO_PARSER | own.get(scheme, {}))
    if scheme == "rtmp":  # its option `timeout` would make FFmpeg a server that waits for a caller
        return Address(uri, scheme, url, None, QUICK | {"rtmp_live": "live", "rw_timeout": SOCKET_US})
    return Address(uri, scheme, url, None, QUICK | ({"timeout": SOCKET_US} if scheme != "rtp" else {}))


def _v4l2(uri: str, full: str) -> Address:
    path, _, query = full.removeprefix("v4l2:").partition("?")
    path = "/" + path.lstrip("/")
    if not path.startswith("/dev/"):
        raise SourceError(f"{uri}: no device; expected v4l2:///dev/video0?width=1920&height=1080&fps=25&format=mjpeg")
    given = dict(parse_qsl(query, keep_blank_values=True))
    for key, text in given.items():
        if key not in (*V4L2, "format"):
            raise SourceError(f"{uri}: unknown key {key!r}; {did_you_mean(key, (*V4L2, 'format'))}")
        if key == "format":
            if not re.fullmatch(r"[a-z0-9_]+", text):
                raise SourceError(
                    f"{uri}: format={text!r}; expected FFmpeg's name of a format, such as mjpeg or yuyv422"
                )
        elif not (text.isdecimal() and V4L2[key][0] <= int(text) <= V4L2[key][1]):
            raise SourceError(f"{uri}: {key}={text!r}; expected a whole number from {V4L2[key][0]} to {V4L2[key][1]}")
    if ("width" in given) != ("height" in given):
        raise SourceError(f"{uri}: width and height go together; give both or none")
    options = {"video_size": f"{given['width']}x{given['height']}"} if "width" in given else {}
    options |= {"framerate": given["fps"]} if "fps" in given else {}
    options |= {"input_format": given["format"]} if "format" in given else {}
    return Address(uri, "v4l2", path, "v4l2", options)
