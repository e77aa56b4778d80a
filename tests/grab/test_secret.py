"""No secret of a uri is shown, whatever it looks like; and what is no secret stays."""

from __future__ import annotations

import logging
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from rtseg.grab.secret import guard_logs, redact, scrub, secrets_of

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
        "rtsp://camera:554/Streaming/Channels/101", "udp://@239.0.0.1:5000?fifo_size=9&ttl=2", "srt://:9000?mode=listener",
        "rtsp://camera/cam/realmonitor?channel=1&subtype=0", "synthetic:laparoscopy?seconds=60&seed=7",
        "v4l2:///dev/video0?width=1920&height=1080&fps=25&format=mjpeg", "/data/a=b?token=5@home.mp4", "C:\\x@y=z.mp4",
        "./password=secret.mp4", "rtp:a@b.mp4", "",
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
    ],
)
def test_how_it_is_shown(uri: str, shown: str) -> None:
    assert redact(uri) == shown


def test_the_header_of_basic_authorisation_is_a_secret_too() -> None:
    assert "bWU6aHVudGVyMg==" in secrets_of("rtsp://me:hunter2@cam")
    assert scrub("Authorization: Basic bWU6aHVudGVyMg==", "rtsp://me:hunter2@cam") == "Authorization: Basic ***"


def test_logs_of_ffmpeg_are_guarded_and_others_are_not(caplog: pytest.LogCaptureFixture) -> None:
    guard_logs("rtsp://me:hunter2@cam")
    with caplog.at_level(logging.INFO), caplog.at_level(logging.INFO, "libav"):
        logging.getLogger("libav.tcp").info("to %s", "rtsp://me:hunter2@cam")
        logging.getLogger("other").info("hunter2")
    assert [record.getMessage() for record in caplog.records] == ["to rtsp://***@cam", "hunter2"]
