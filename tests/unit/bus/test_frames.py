"""Frames: whole, byte by byte and with trailing data; bounded; and as stomp.py reads and writes them."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.bus.stomp.frames import (
    MAX_HEADERS,
    FrameReader,
    HeaderRefused,
    ProtocolError,
    Received,
    encode_frame,
    escaping,
)

MESSAGE = b"MESSAGE\nmessage-id:1\nsubject:a\\cb\\n\\\\\ncontent-length:5\n\na\0b\nc\0"
PLAIN = b"\n\r\nMESSAGE\r\nx:1\r\n\r\nno length\0\n"
RECEIPTS = b"RECEIPT\nreceipt-id:7\n\n\0\n\nRECEIPT\r\nreceipt-id:x-8\r\n\r\n\0"


def read(*chunks: bytes, max_body: int = 1000) -> tuple[list[bytes], list[Received]]:
    reader = FrameReader(max_body)
    receipts: list[bytes] = []
    frames: list[Received] = []
    for chunk in chunks:
        some, more = reader.feed(chunk)
        receipts += some
        frames += more
        assert reader.buffered <= max_body + MAX_HEADERS + len(chunk)
    return receipts, frames


def test_frames_and_receipts_come_out_in_order_and_whole() -> None:
    receipts, frames = read(MESSAGE + RECEIPTS + PLAIN + MESSAGE)
    assert receipts == [b"7", b"x-8"]
    assert [frame.body for frame in frames] == [b"a\0b\nc", b"no length", b"a\0b\nc"]
    assert frames[0].headers["subject"] == "a:b\n\\"
    assert frames[1].headers == {"x": "1"}


def test_a_receipt_after_an_error_stays_behind_it() -> None:
    receipts, frames = read(RECEIPTS + b"ERROR\nmessage:not_found\n\n\0" + RECEIPTS)
    assert receipts == [b"7", b"x-8"]
    assert [frame.headers for frame in frames] == [{"message": "not_found"}, {"receipt-id": "7"}, {"receipt-id": "x-8"}]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_slicing_changes_nothing(size: int) -> None:
    data = (MESSAGE + RECEIPTS + PLAIN) * 3
    assert read(*(data[at : at + size] for at in range(0, len(data), size))) == read(data)


@pytest.mark.parametrize("at", range(len(RECEIPTS + PLAIN) + 1))
def test_a_cut_anywhere_in_a_receipt_changes_nothing_for_what_follows(at: int) -> None:
    whole = RECEIPTS + PLAIN
    assert read(whole[:at], whole[at:]) == read(whole)


@given(st.lists(st.sampled_from([MESSAGE, PLAIN, RECEIPTS, b"\n", b"\r\n"]), max_size=6), st.data())
def test_any_slicing_of_any_sequence_changes_nothing(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    chunks = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    assert read(*chunks) == read(whole)


@given(st.binary(max_size=300))
def test_any_bytes_are_frames_or_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        read(data, MESSAGE)


@pytest.mark.parametrize(
    "bad",
    [
        b"\0",
        b"MESSAGE\n\0",
        b"MESSAGE\ncontent-length:x\n\n\0",
        b"MESSAGE\ncontent-length:-1\n\n\0",
        b"MESSAGE\ncontent-length:1\n\nab\0",
        b"HTTP/1.1 400 Bad Request\r\n\r\n\0x",
        b"\x15\x03\x03\x00\x02\x02\x46" + b"x" * 30,
        b"MESSAGE\n" + b"x:1\n" * (MAX_HEADERS // 4),
        b"MESSAGE\nx:" + b"1" * MAX_HEADERS,
    ],
)
def test_what_is_no_stomp_ends_the_connection(bad: bytes) -> None:
    with pytest.raises(ProtocolError):
        read(bad, b"y" * 2000 + b"\0")


@pytest.mark.parametrize("chunk", [1, 3, 4096])
def test_large_headers_are_read_where_they_are_allowed_in_linear_time(chunk: int) -> None:
    size = 20_000 if chunk < 10 else 2_000_000
    reader = FrameReader(1000)
    reader.max_headers = 4_000_000
    data = b"MESSAGE\nx:" + b"1" * size + b"\r\ny:2\r\n\r\nbody\0" + MESSAGE
    frames = [frame for at in range(0, len(data), chunk) for frame in reader.feed(data[at : at + chunk])[1]]
    assert [(frame.headers.get("y"), frame.body) for frame in frames] == [("2", b"body"), (None, b"a\0b\nc")]
    assert len(frames[0].headers["x"]) == size


def test_an_announced_body_over_the_limit_is_thrown_away_as_it_comes() -> None:
    head = b"MESSAGE\nmessage-id:9\ncontent-length:5000\n\n"
    for chunk in (1, 100, 10_000):
        data = head + b"x" * 5000 + b"\0" + MESSAGE
        _, frames = read(*(data[at : at + chunk] for at in range(0, len(data), chunk)))
        assert [(f.oversized, len(f.body)) for f in frames] == [(5000, 0), (0, 5)]
        assert frames[0].headers["message-id"] == "9"


def test_an_unannounced_body_over_the_limit_ends_the_connection_with_little_kept() -> None:
    reader = FrameReader(1000)
    reader.feed(b"MESSAGE\n\n" + b"x" * 950)
    assert reader.buffered < 1000
    with pytest.raises(ProtocolError):
        reader.feed(b"x" * 100)


def test_a_long_frame_in_small_pieces_takes_linear_time() -> None:
    body = b"x" * 3_000_000
    data = b"MESSAGE\ncontent-length:3000000\n\n" + body + b"\0"
    reader = FrameReader(4_000_000)
    frames = [f for at in range(0, len(data), 100) for f in reader.feed(data[at : at + 100])[1]]
    assert frames[0].body == body


def test_the_first_of_repeated_headers_counts() -> None:
    assert read(b"MESSAGE\na:1\na:2\n\n\0")[1][0].headers == {"a": "1"}


def test_a_strangers_broken_header_line_does_not_cost_the_connection() -> None:
    """ActiveMQ gives out an escaped line break as it is on STOMP 1.0."""
    assert read(b"MESSAGE\nsubject:one\ntwo\nx:1\n\n\0")[1][0].headers == {"subject": "one", "x": "1"}


def test_an_unknown_escape_stays_as_it_is() -> None:
    assert read(b"MESSAGE\na:C\\conf\\t\n\n\0")[1][0].headers == {"a": "C:onf\\t"}


def test_nothing_is_unescaped_on_1_0_nor_in_connected() -> None:
    reader = FrameReader(100)
    reader.unescape = escaping("1.0").into
    assert reader.feed(b"MESSAGE\na:C\\conf\n\n\0")[1][0].headers == {"a": "C\\conf"}
    assert read(b"CONNECTED\nserver:a\\cb\n\n\0")[1][0].headers == {"server": "a\\cb"}


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
@pytest.mark.parametrize("evil", ["a\0b", "a\nb", "a\rb", "a\r\nx:y\n\nbody"])
def test_no_header_breaks_out_of_its_line(version: str, evil: str) -> None:
    for headers in ({"x": evil}, {evil: "x"}):
        try:
            data = encode_frame("SEND", headers, b"", escaping(version))
        except HeaderRefused:
            continue
        assert data.count(b"\n") == 3
        assert b"\r" not in data
        reader = FrameReader(100)
        assert dict(reader.feed(data)[1][0].headers) == headers


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2"])
@pytest.mark.parametrize("always", [False, True])
@given(
    headers=st.dictionaries(
        st.text(alphabet="ab:\\-é", min_size=1, max_size=5), st.text(alphabet="ab:\\ é\n\r", max_size=8), max_size=4
    ),
    body=st.binary(max_size=20),
)
def test_what_is_encoded_is_read_back_the_same(
    version: str, always: bool, headers: dict[str, str], body: bytes
) -> None:
    rule = escaping(version, always_in=always, always_out=always)
    try:
        data = encode_frame("SEND", {**headers, "content-length": str(len(body))}, body, rule)
    except HeaderRefused:
        return
    reader = FrameReader(100)
    reader.unescape = rule.into
    (frame,) = reader.feed(data)[1]
    assert frame.body == body
    assert {key: value for key, value in frame.headers.items() if key != "content-length"} == headers


@given(
    st.dictionaries(
        st.text(alphabet="abc-", min_size=1, max_size=5),
        st.text(alphabet="ab:\\ é\n", max_size=8),
        min_size=1,
        max_size=5,
    ),
    st.binary(min_size=1, max_size=30),
)
def test_stomp_py_reads_our_frames_and_we_read_its(headers: dict[str, str], body: bytes) -> None:
    """The oracle: stomp.py's own reader and writer, on 1.1, where they are right."""
    from stomp.protocol import Protocol11
    from stomp.utils import convert_frame, parse_frame

    ours = encode_frame("SEND", {**headers, "content-length": str(len(body))}, body, escaping("1.1"))
    theirs = parse_frame(ours[:-1])
    assert {k: v for k, v in theirs.headers.items() if k != "content-length"} == {
        k: v for k, v in headers.items() if k != "content-length"
    }
    assert theirs.body == body

    written: list[bytes] = []

    class Transport:
        def set_listener(self, *_: object) -> None: ...

        def transmit(self, frame: object) -> None:
            written.append(b"".join(convert_frame(frame)))

    Protocol11(Transport()).send_frame("SEND", {**headers, "content-length": len(body)}, body)
    (frame,) = FrameReader(100).feed(written[0])[1]
    assert frame.body == body
    assert {k: v for k, v in frame.headers.items() if k != "content-length"} == {
        k: v for k, v in headers.items() if k != "content-length"
    }
