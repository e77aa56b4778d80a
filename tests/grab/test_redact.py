"""No secret of a uri is shown, whatever it looks like; and what is no secret stays."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rtseg.grab.redact import guard_logs, redact, scrub, secrets_of

SIGNS = st.characters(
    codec="utf-8", exclude_characters=" \t\r\n\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0", exclude_categories=("C", "Z")
)
# Longer than any word of the rest, so that finding it means that it was told.
SECRET = st.text(SIGNS, min_size=12, max_size=30)
KEYS = ("passphrase", "password", "token", "key", "streamid", "pwd", "X-Amz-Signature", "apiKey", "what")
FORMS = (
    "rtsp://nurse:{}@camera:554/live?channel=1",
    "https://{}@camera/live",
    "srt://camera:9000?{key}={}&latency=120",
    "rtsp://camera/live?channel=1&{key}={}#part",
    "rtsp://camera/user=nurse&{key}={}&stream=0",
    "rtmp://nurse:{}@camera/live?{key}={}",
    "rtmp://camera/live {key}={}",
    "rtsp://camera/live?{}",
    "rtsp://camera/live?channel=1&{key}:{}",
    "rtsp://camera/live?channel=1#{}",
    "rtmp://camera/live/{}",
    "rtmps://camera/app/{}/?fps=25",
    "rtsp://camera/auth:nurse:{}/live",
)


@given(SECRET, st.sampled_from(FORMS), st.sampled_from(KEYS), st.booleans())
def test_no_secret_survives(secret: str, form: str, key: str, escaped: bool) -> None:
    written = quote(secret, safe="") if escaped else secret
    if not escaped:
        # These end a value, or begin another part: what is behind them is no secret's part for any reader.
        assume(not set(secret) & set("&;#=/?") or "{}@" in form)
    uri = form.replace("{key}", key).replace("{}", written)
    for shown in (redact(uri), scrub(f"could not open {uri}: {secret} or {written}, said the server", uri)):
        assert written not in shown and secret not in shown
        assert shown.count("***") >= 1
    assert not escaped or "camera" in redact(uri)


@given(st.text(SIGNS, max_size=40))
def test_any_text_is_taken(text: str) -> None:
    for uri in (text, "rtsp://" + text, "srt://h:1?passphrase=" + text):
        assert isinstance(redact(uri), str) and isinstance(scrub(text, uri), str)


@pytest.mark.parametrize(
    "plain",
    [
        "rtsp://camera:554/Streaming/Channels/101", "udp://@239.0.0.1:5000?fifo_size=9&ttl=2",
        "srt://:9000?mode=listener", "rtsp://camera/cam/realmonitor?channel=1&subtype=0",
        "synthetic:laparoscopy?seconds=60&seed=7", "v4l2:///dev/video0?width=1920&height=1080&fps=25&format=mjpeg",
        "/data/a=b?token=5@home.mp4", "C:\\x@y=z.mp4", "./password=secret.mp4", "rtp:a@b.mp4", "",
        "rtsp://camera/live?tcp", "rtsp://camera/live?TCP&multicast#unicast", "https://[fe80::1]:8443/live/a;b/c.m3u8",
        "rtsp://camera/live:", "v4l2:///dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0?fps=25",
        "https://camera/a b.m3u8", "rtmp://camera", "rtmp://camera/",
    ],
)  # fmt: skip
def test_what_is_no_secret_stays(plain: str) -> None:
    assert redact(plain) == plain


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("rtsp://me:pw@cam/1", "rtsp://***@cam/1"),
        ("rtsp://me:p@w@cam/1", "rtsp://***@cam/1"),
        ("rtsp://me:p@w/x@cam/1", "rtsp://***"),
        ("RTSP://me@cam", "RTSP://***@cam"),
        ("rtsp:/me:pw@cam/1", "rtsp:/***@cam/1"),
        ("srt://h:1?streamid=a/b,c&mode=caller", "srt://h:1?streamid=***&mode=caller"),
        ("https://h/x.m3u8?token=a%20b&fps=25", "https://h/x.m3u8?token=***&fps=25"),
        ("rtsp://h/live?9f8e7d6ctoken", "rtsp://h/live?***"),
        ("rtsp://h/live?passwd:abc&tcp&fps=25", "rtsp://h/live?***&tcp&fps=25"),
        ("rtsp://h/live?channel=1?token=abc", "rtsp://h/live?channel=***"),
        ("rtsp://h/live?channel=1/token=abc", "rtsp://h/live?channel=***"),
        ("rtsp://h/live?password=a#b", "rtsp://h/live?password=***#***"),
        ("rtsp://h/auth:admin:pw/live", "rtsp://h/***/live"),
        ("rtsp://h/auth%3Aadmin%3Apw/live", "rtsp://h/***/live"),
        ("rtsp://h/user=me&password=a:b&channel=1", "rtsp://h/user=***&password=***&channel=1"),
        ("rtmp://h/app/key", "rtmp://h/app/***"),
        ("RTMPS://me:pw@h:443/app/key/?fps=25", "RTMPS://***@h:443/app/***/?fps=25"),
        ("rtmpt://h/key", "rtmpt://h/***"),
        ("rtsp://h/app/key", "rtsp://h/app/key"),
    ],
)
def test_how_it_is_shown(uri: str, shown: str) -> None:
    assert redact(uri) == shown


def test_the_header_of_basic_authorisation_is_a_secret_too() -> None:
    assert "bWU6aHVudGVyMg==" in secrets_of("rtsp://me:hunter2@cam")
    assert scrub("Authorization: Basic bWU6aHVudGVyMg==", "rtsp://me:hunter2@cam") == "Authorization: Basic ***"


@pytest.mark.parametrize(
    ("uri", "said", "shown"),
    [
        ("rtmp://h/app/stream-key", "publish stream-key: denied", "publish ***: denied"),
        ("rtsp://h/live?passwd:abc", "401 for passwd:abc, or abc", "401 for ***, or ***"),
        ("rtsp://h/auth:admin:hunter2/x", "no hunter2 at /auth:admin:hunter2/x", "no *** at /***/x"),
        ("rtsp://h/live", "publish stream-key: denied", "publish stream-key: denied"),
        ("rtmp://h/app/key", "rtmp://h/app/key: gone, rtmp://h/a/b.", "rtmp://h/app/***: gone, rtmp://h/a/***."),
    ],
)  # fmt: skip
def test_what_others_say_is_free_of_them(uri: str, said: str, shown: str) -> None:
    assert scrub(said, uri) == shown


def test_logs_of_ffmpeg_are_guarded_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    guard_logs("rtsp://me:hunter2@cam")
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, "libav"):
        logging.getLogger("libav.tcp").info("to %s", "rtsp://me:hunter2@cam")
        logging.getLogger("other").info("hunter2")
    assert [record.getMessage() for record in caplog.records] == ["to rtsp://***@cam", "hunter2"]
