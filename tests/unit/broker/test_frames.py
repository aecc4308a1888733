"""The frame parser and serialiser of the embedded broker."""

from __future__ import annotations

import contextlib
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.broker.frames import VERSIONS, FrameLimits, FrameParser, StompFrame, encode_frame
from deploykit.errors import FrameError

_SMALL = FrameLimits(max_headers=3, max_header_line=20, max_head=60, max_body=10)


def _parse(data: bytes, version: str = "1.2", limits: FrameLimits | None = None, step: int = 0) -> list[StompFrame]:
    parser = FrameParser(limits, version)
    frames = []
    pieces = [data[i : i + step] for i in range(0, len(data), step)] if step else [data]
    for piece in pieces:
        parser.feed(piece)
        while (frame := parser.next_frame()) is not None:
            frames.append(frame)
    return frames


_SEND = StompFrame(command="SEND", headers={"destination": "/queue/a"}, body=b"hello")


@pytest.mark.parametrize("step", [0, 1, 2, 3, 7])
@pytest.mark.parametrize(
    "data",
    [
        b"SEND\ndestination:/queue/a\n\nhello\0",
        b"SEND\ndestination:/queue/a\ncontent-length:5\n\nhello\0",
        b"\n\r\n\nSEND\r\ndestination:/queue/a\r\n\r\nhello\0\n\n",
        b"SEND\ndestination:/queue/a\ndestination:/queue/b\n\nhello\0",
    ],
    ids=["until NUL", "content-length", "CR LF and beats", "first header wins"],
)
def test_a_frame_is_read_the_same_however_its_bytes_arrive(data: bytes, step: int) -> None:
    frames = _parse(data, step=step)
    assert [(f.command, f.headers["destination"], f.body) for f in frames] == [("SEND", "/queue/a", b"hello")]


def test_a_body_with_content_length_may_hold_nul_and_what_looks_like_a_frame() -> None:
    body = b"\0\0SEND\n\n\0"
    frames = _parse(encode_frame(StompFrame(command="SEND", headers={"destination": "/queue/a"}, body=body), "1.2") * 2)
    assert [frame.body for frame in frames] == [body, body]


def test_trailing_data_stays_for_the_next_frame() -> None:
    parser = FrameParser()
    parser.feed(encode_frame(_SEND, "1.2") + b"\nSEND\ndest")
    assert parser.next_frame() == _parse(encode_frame(_SEND, "1.2"))[0]
    assert parser.next_frame() is None
    assert parser.buffered == len(b"SEND\ndest")


def test_the_version_may_change_between_two_frames_that_came_together() -> None:
    parser = FrameParser(version="1.0")
    parser.feed(b"CONNECT\naccept-version:1.2\nlogin:a\\cb\n\n\0SEND\ndestination:/queue/a\\cb\n\n\0")
    first = parser.next_frame()
    assert first is not None
    assert first.headers["login"] == "a\\cb"
    parser.version = "1.2"
    second = parser.next_frame()
    assert second is not None
    assert second.headers["destination"] == "/queue/a:b"


@pytest.mark.parametrize(
    ("version", "raw", "value"),
    [
        ("1.0", "C:\\conf\\n", "C:\\conf\\n"),
        ("1.1", "a\\nb\\cc\\\\d", "a\nb:c\\d"),
        ("1.2", "a\\nb\\cc\\\\d\\re", "a\nb:c\\d\re"),
    ],
)
def test_escapes_are_read_as_the_version_says(version: str, raw: str, value: str) -> None:
    (frame,) = _parse(f"SEND\nx:{raw}\n\n\0".encode(), version)
    assert frame.headers["x"] == value


@pytest.mark.parametrize(("version", "raw"), [("1.1", "a\\rb"), ("1.1", "a\\tb"), ("1.2", "a\\tb"), ("1.2", "end\\")])
def test_an_unknown_escape_is_an_error(version: str, raw: str) -> None:
    with pytest.raises(FrameError, match="escape"):
        _parse(f"SEND\nx:{raw}\n\n\0".encode(), version)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_line_break_in_a_header_never_becomes_a_second_header(version: str) -> None:
    data = encode_frame(StompFrame(command="MESSAGE", headers={"x\ny": "1\r\nevil:2"}), version)
    (frame,) = _parse(data, version)
    assert "evil" not in frame.headers
    assert len(frame.headers) == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"SEND\na:1\nb:2\nc:3\nd:4\n\n\0", "more than 3 headers"),
        (b"SEND\na:" + b"x" * 30 + b"\n\n\0", "header line is longer"),
        (b"SEND\na:" + b"x" * 100, "headers of a frame are longer"),
        (b"SEND\n\n" + b"x" * 11, "body is longer"),
        (b"SEND\ncontent-length:11\n\n", "body is longer"),
        (b"SEND\ncontent-length:99999999999999999999\n\n", "content-length"),
        (b"SEND\ncontent-length:-1\n\n", "content-length is not a number"),
        (b"SEND\ncontent-length:+1\n\n", "content-length is not a number"),
        (b"SEND\ncontent-length:2\n\nabc\0", "does not end"),
        (b"SEND\nno colon\n\n\0", "no name or no colon"),
        (b"SEND\n:x\n\n\0", "no name or no colon"),
        (b"SEND\na:1\0", "ends inside its headers"),
        (b"SEND\na:\xff\n\n\0", "not UTF-8"),
    ],
)
@pytest.mark.parametrize("step", [0, 1])
def test_what_is_not_a_frame_within_the_limits_is_an_error_that_says_why(data: bytes, reason: str, step: int) -> None:
    limits = FrameLimits(max_headers=3, max_header_line=40, max_head=90, max_body=10)
    if "line is longer" in reason:
        limits = FrameLimits(max_headers=3, max_header_line=20, max_head=90, max_body=10)
    with pytest.raises(FrameError, match=reason):
        _parse(data, limits=limits, step=step)


@pytest.mark.parametrize("start", [b"SEND\n\n", b"SEND\nx:", b"\n"], ids=["body", "header", "line ends"])
def test_memory_stays_flat_when_a_frame_never_ends(start: bytes) -> None:
    parser = FrameParser(FrameLimits(max_body=100_000))
    chunk = (b"\n" if start == b"\n" else b"x") * 16_384
    tracemalloc.start()
    try:
        parser.feed(start)
        for _ in range(2000):
            parser.feed(chunk)
            try:
                parser.next_frame()
            except FrameError:
                break
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1_000_000


def test_no_repr_shows_a_passcode() -> None:
    frame = StompFrame(command="CONNECT", headers={"passcode": "canary-7"}, body=b"canary-7")
    assert "canary" not in repr(frame)


_TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=20)
_KEY = _TEXT.filter(lambda text: text not in ("", "content-length"))


@given(
    headers=st.dictionaries(_KEY, _TEXT, max_size=5),
    body=st.binary(max_size=50),
    step=st.integers(min_value=1, max_value=40),
)
def test_any_frame_survives_the_wire_on_1_2(headers: dict[str, str], body: bytes, step: int) -> None:
    data = encode_frame(StompFrame(command="SEND", headers=headers, body=body), "1.2")
    (frame,) = _parse(data + b"\n", step=step)
    got = dict(frame.headers)
    got.pop("content-length", None)
    assert (got, frame.body) == (headers, body)


@given(data=st.binary(max_size=200), step=st.integers(min_value=1, max_value=50))
def test_any_bytes_end_in_frames_or_a_frame_error(data: bytes, step: int) -> None:
    with contextlib.suppress(FrameError):
        _parse(data, limits=_SMALL, step=step)
