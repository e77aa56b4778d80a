from __future__ import annotations

from dataclasses import replace

import cv2
import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rtseg.base.colors import color_of
from rtseg.base.errors import OutputError
from rtseg.base.types import Frame
from rtseg.publish.overlay import draw_overlay
from rtseg.publish.wire import (
    CLOCK,
    Message,
    decode,
    encode_masks,
    encode_overlay,
    encode_status,
    encode_video,
)

DESIGN_KEYS = [
    "v", "session", "seq", "pts", "time_base", "captured_ns", "published_ns", "clock", "width", "height", "pixfmt",
    "color", "mask_seq", "mask_age_ms", "state", "engine", "objects",
]  # fmt: skip


@pytest.fixture
def messages(make_frame, make_masks, box_mask) -> dict[str, list[bytes]]:
    frame = make_frame()
    masks = make_masks(frame, [box_mask(frame, 10, 20, 40, 60), box_mask(frame, 0, 0, 0, 0)], age_ms=50)
    parts = {
        "video": encode_video(frame, "demo", engine="nano"),
        "overlay": encode_overlay(frame, draw_overlay(frame, masks), "demo"),
        "masks": encode_masks(masks, frame, "demo"),
        "status": encode_status({"state": "live", "fps": np.float32(25)}, "demo", session="p", seq=1, stated_ns=5),
    }
    return {kind: [bytes(part) for part in some] for kind, some in parts.items()}


def test_every_message_has_the_designs_keys(messages):
    for kind, parts in messages.items():
        message = decode(parts)
        assert (message.topic, message.stream, message.kind) == (f"demo/{kind}", "demo", kind)
        assert sorted(message.header) == sorted(DESIGN_KEYS)
        assert message.header["clock"] == CLOCK


def test_video_is_bit_identical(messages, make_frame):
    frame, message = make_frame(), decode(messages["video"])
    assert np.array_equal(message.image_hwc(), frame.image_hwc)
    header = message.header
    assert (header["seq"], header["pts"], header["time_base"], header["session"]) == (7, 25200, [1, 90000], "s1")
    assert header["color"] == {"matrix": "bt709", "range": "limited", "primaries": "unknown", "transfer": "unknown"}
    assert (header["width"], header["height"], header["pixfmt"]) == (160, 120, "rgb24")
    assert (header["mask_seq"], header["mask_age_ms"], header["state"], header["objects"]) == (None, None, "none", [])
    assert header["engine"] == "nano"


def test_overlay_says_which_mask_and_how_old(messages):
    header = decode(messages["overlay"]).header
    assert (header["seq"], header["mask_seq"], header["mask_age_ms"], header["state"]) == (7, 5, 50.0, "fresh")
    thing = {"id": 1, "label": "grasper", "score": 0.75, "area": 30 * 40, "box": [10, 20, 40, 60]}
    assert header["objects"] == [{**thing, "color": list(color_of(1)), "hidden": False}]


def test_carried_is_said_where_it_is_so(messages, make_frame, make_masks, box_mask):
    frame = make_frame()
    masks = make_masks(frame, [box_mask(frame, 10, 20, 40, 60)], age_ms=50)
    moved = [bytes(part) for part in encode_overlay(frame, draw_overlay(frame, masks, carried=True), "demo")]
    header = decode(moved).header
    assert header["carried"] is True and sorted(header) == sorted([*DESIGN_KEYS, "carried"])
    assert (header["v"], header["mask_seq"], header["mask_age_ms"]) == (1, 5, 50.0)  # no newer for it
    assert decode(_edited(moved, carried=False)).header["carried"] is False
    for wrong in (1, None, "yes"):
        with pytest.raises(OutputError, match="carried is .* expected bool"):
            decode(_edited(moved, carried=wrong))


def test_cut_and_lost_are_said_where_they_are_so(messages, make_frame, make_masks, box_mask):
    frame = make_frame()
    masks = replace(make_masks(frame, [box_mask(frame, 0, 0, 0, 0)], age_ms=50), cut=True, lost=(1,))
    header = decode([bytes(part) for part in encode_masks(masks, frame, "demo")]).header
    assert header["cut"] is True and header["lost"] == [1]
    assert sorted(header) == sorted([*DESIGN_KEYS, "cut", "lost"])
    for unseen in (False, True):
        parts = encode_overlay(frame, draw_overlay(frame, masks, unseen=unseen), "demo")
        header = decode([bytes(part) for part in parts]).header
        assert header["lost"] == [1] and sorted(header) == sorted([*DESIGN_KEYS, "lost"])
    for key, wrong in (("cut", 1), ("lost", 1), ("lost", None)):
        with pytest.raises(OutputError, match=f"{key} is .* expected"):
            decode(_edited(messages["masks"], **{key: wrong}))


def test_a_key_of_a_later_minor_version_does_no_harm(messages):
    assert decode(_edited(messages["overlay"], tomorrow=[1])).header["state"] == "fresh"


def test_recovering_goes_over_the_wire(make_frame):
    frame = make_frame()
    message = decode([bytes(p) for p in encode_overlay(frame, draw_overlay(frame, None, recovering=True), "demo")])
    assert (message.header["state"], message.header["mask_seq"], message.header["objects"]) == ("recovering", None, [])


def test_masks_come_back(messages, make_frame, box_mask):
    message, frame = decode(messages["masks"]), make_frame()
    assert len(message.payload) == 2
    masks = message.masks()
    assert np.array_equal(masks[1], box_mask(frame, 10, 20, 40, 60))
    assert not masks[2].any()
    assert message.header["mask_age_ms"] == 50.0


def test_status_comes_back(messages):
    message = decode(messages["status"])
    assert message.status() == {"state": "live", "fps": 25.0}
    assert message.header["state"] == "live"
    with pytest.raises(OutputError, match="cannot be sent"):
        encode_status({"path": object()}, "demo", session="p", seq=1, stated_ns=5)


def test_jpeg_keeps_the_colours(make_frame):
    frame = make_frame()
    frame.image_hwc[:] = (200, 40, 90)
    message = decode(encode_video(frame, "demo", jpeg_quality=90))
    assert message.header["pixfmt"] == "jpeg"
    assert len(message.payload[0]) < frame.image_hwc.nbytes / 10
    assert np.abs(message.image_hwc().astype(int) - (200, 40, 90)).max() <= 4


def _edited(parts: list[bytes], **changes: object) -> list[bytes]:
    header = msgpack.unpackb(parts[1]) | changes
    return [parts[0], msgpack.packb({k: v for k, v in header.items() if v != "gone"}), *parts[2:]]


@pytest.mark.parametrize(
    ("kind", "changes", "named"),
    [
        ("video", {"v": 2}, "version 2"),
        ("video", {"v": "gone"}, "version None"),
        ("video", {"seq": "gone"}, "'seq'"),
        ("video", {"seq": 1.5}, "seq"),
        ("video", {"seq": True}, "seq"),
        ("video", {"color": [1]}, "color"),
        ("video", {"time_base": [1]}, "2 integers"),
        ("video", {"width": 161}, "bytes of pixels"),
        ("video", {"width": -160, "height": -120}, "size"),
        ("video", {"width": None}, "size"),
        ("video", {"width": 1 << 40}, "size"),
        ("video", {"pixfmt": "rle"}, "pixfmt"),
        ("overlay", {"objects": [3]}, "object"),
        ("overlay", {"objects": [{"id": 1}]}, "'label'"),
        ("overlay", {"objects": [{"id": 1, "label": "", "score": 1.0, "area": 1, "box": [1, 2, 3]}]}, "4 integers"),
        ("masks", {"objects": []}, "payload parts"),
        ("masks", {"pixfmt": "rgb24"}, "pixfmt"),
    ],
)
def test_a_wrong_header_is_refused_in_one_line(messages, kind, changes, named):
    assert isinstance(decode(_edited(messages[kind])), Message)
    with pytest.raises(OutputError) as caught:
        decode(_edited(messages[kind], **changes))
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_parts_are_refused(messages):
    video = messages["video"]
    wrong = [
        [], video[:1], video[:2], [*video, b""], [video[0], video[1], video[2][:-1]], [b"demo/films", *video[1:]],
        [b"video", *video[1:]], [b"a\nb/video", *video[1:]], [b"\xff/video", *video[1:]], [video[0], b"", video[2]],
        [video[0], b"\xc1", video[2]], [video[0], msgpack.packb([1]), video[2]], [video[0], b"\x90" * 70000, video[2]],
    ]  # fmt: skip
    for parts in wrong:
        with pytest.raises(OutputError) as caught:
            decode(parts)
        assert "\n" not in str(caught.value)


def test_broken_payloads_are_refused_when_read(messages):
    jpeg = _edited(messages["video"], pixfmt="jpeg")
    for broken in (b"", b"not a jpeg"):
        with pytest.raises(OutputError, match="JPEG"):
            decode([*jpeg[:2], broken]).image_hwc()
    with pytest.raises(OutputError, match="RLE"):
        decode([*messages["masks"][:3], b"zz"]).masks()
    with pytest.raises(OutputError, match="msgpack"):
        decode([*messages["status"][:2], b"\xc1"]).status()


@settings(max_examples=300, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4), st.sampled_from([b"", b"demo/video", b"demo/masks"]))
def test_noise_is_refused(parts, topic):
    with pytest.raises(OutputError):
        decode([topic, *parts])


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_flipped_byte_never_raises_anything_else(make_frame, data):
    parts = [bytes(part) for part in encode_video(make_frame(4, 5), "demo")]
    header = bytearray(parts[1])
    header[data.draw(st.integers(0, len(header) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode([parts[0], bytes(header), parts[2]]).image_hwc()
    except OutputError as e:
        assert "\n" not in str(e)


def test_a_picture_out_of_a_message_may_be_drawn_on() -> None:
    image_hwc = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for quality in (None, 90):
        message = decode(encode_video(Frame(image_hwc, 3), "demo", jpeg_quality=quality))
        drawn_hwc = message.image_hwc()
        before_hwc = drawn_hwc.copy()
        cv2.rectangle(drawn_hwc, (5, 5), (20, 20), (255, 0, 0), 2)
        assert (drawn_hwc != before_hwc).any()
        np.testing.assert_array_equal(message.image_hwc(), before_hwc)  # it is the caller's own
