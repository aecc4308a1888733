"""One conversation, without a network: versions 2 and 0, asked first and asked ahead."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import OriginError
from deploykit.git.objectformat import SHA256
from deploykit.git.transport.pktline import PacketReader, packet, printable
from deploykit.git.transport.protocol import EarlyRequest, OriginProfile, OriginSession, VersionMismatch

A, B = "a" * 40, "b" * 40
DIALECT = OriginProfile("sha1", tells_format=True, tells_unborn=True)
HELLO = b"".join(map(packet, [b"version 2\n", b"ls-refs=unborn\n", b"fetch\n", b"object-format=sha1\n"])) + b"0000"
REFS = (
    packet(f"{A} HEAD symref-target:refs/heads/main\n".encode()) + packet(f"{A} refs/heads/main\n".encode()) + b"0000"
)
PACK = packet(b"packfile\n") + packet(b"\1PACK") + packet(b"\2counting\n") + packet(b"\1rest") + b"0000"


def source(data: bytes, *, step: int = 1 << 20) -> Callable[[], bytes]:
    pieces = iter([data[at : at + step] for at in range(0, len(data), step)])
    return lambda: next(pieces, b"")


class FakeLink:
    """Answers from a script, and keeps what it was sent."""

    def __init__(
        self, answer: bytes, *, stateless: bool = False, redirected: bool = False, step: int = 1 << 20
    ) -> None:
        self.stateless, self.redirected = stateless, redirected
        self.reader = PacketReader(source(answer, step=step), limit=1 << 20)
        self.started: list[bytes] = []
        self.asked: list[bytes] = []

    def open(self, ahead: bytes) -> PacketReader:
        self.started.append(ahead)
        return self.reader

    def request(self, body: bytes, *, version: int) -> PacketReader:
        self.asked.append(body)
        return self.reader

    def close(self) -> None:
        """Nothing is open."""


def taken(conversation: OriginSession) -> bytes:
    got: list[bytes] = []
    conversation.fetch([B], [A], got.append)
    return b"".join(got)


@given(st.integers(1, 30))
def test_version_2_is_read_in_any_pieces(step: int) -> None:
    link = FakeLink(HELLO + REFS + PACK, step=step)
    conversation = OriginSession(link, prefixes=["HEAD", "refs/heads/"])
    listing = conversation.list()
    assert listing.refs == [("refs/heads/main", A)]
    assert listing.head == "refs/heads/main"
    assert listing.profile == DIALECT
    assert taken(conversation) == b"PACKrest"
    assert b"want " + B.encode() in link.asked[1]
    assert b"have " + A.encode() in link.asked[1]


def test_a_known_dialect_saves_the_first_question_over_http() -> None:
    link = FakeLink(REFS + PACK, stateless=True)
    conversation = OriginSession(link, prefixes=["HEAD"], profile=DIALECT, early=EarlyRequest(B, [A]))
    assert conversation.list().refs == [("refs/heads/main", A)]
    assert link.started == []
    assert len(link.asked) == 1
    assert b"want" not in link.asked[0]


def test_a_known_dialect_asks_for_everything_at_once_on_a_connection() -> None:
    link = FakeLink(HELLO + REFS + PACK)
    conversation = OriginSession(link, prefixes=["HEAD"], profile=DIALECT, early=EarlyRequest(B, [A]))
    conversation.list()
    assert taken(conversation) == b"PACKrest"
    assert link.asked == []
    assert b"command=ls-refs" in link.started[0]
    assert b"want " + B.encode() in link.started[0]


def test_what_was_asked_ahead_is_dropped_when_the_origin_shows_something_else() -> None:
    link = FakeLink(HELLO + REFS + PACK)
    conversation = OriginSession(link, prefixes=["HEAD"], profile=DIALECT, early=EarlyRequest(B, [A]))
    conversation.list()
    with pytest.raises(VersionMismatch):
        conversation.fetch([A], [], lambda _: None)


@pytest.mark.parametrize(
    "answer",
    [
        HELLO.replace(b"sha1", b"ssha").replace(b"ssha", b"sha1").replace(b"ls-refs=unborn\n", b"ls-refs=others\n"),
        packet(f"{A} HEAD\0agent=x\n".encode()) + b"0000",
        packet(b"ERR gone") + b"0000",
        b"",
    ],
)
def test_an_origin_that_speaks_differently_now_is_asked_again(answer: bytes) -> None:
    conversation = OriginSession(FakeLink(answer), prefixes=["HEAD"], profile=DIALECT)
    with pytest.raises(VersionMismatch):
        conversation.list()


def test_a_redirected_origin_is_asked_first_every_time() -> None:
    link = FakeLink(HELLO + REFS, stateless=True, redirected=True)
    assert OriginSession(link, prefixes=["HEAD"]).list().profile is None


def v0(*lines: bytes) -> bytes:
    return b"".join(map(packet, lines)) + b"0000"


CAPS = b"multi_ack_detailed side-band-64k thin-pack ofs-delta symref=HEAD:refs/heads/main agent=git/2"


@pytest.mark.parametrize("first", [b"", packet(b"version 1\n")])
def test_version_0_is_spoken_with_old_servers(first: bytes) -> None:
    listing = v0(
        f"{A} HEAD\0".encode() + CAPS + b"\n", f"{A} refs/heads/main\n".encode(), f"{B} refs/tags/v1\n".encode(),
        f"{A} refs/tags/v1^{{}}\n".encode(),
    )  # fmt: skip
    acks = packet(f"ACK {A} common\n".encode()) + packet(f"ACK {A} ready\n".encode()) + packet(f"ACK {A}\n".encode())
    link = FakeLink(first + listing + acks + packet(b"\1PACK") + b"0000")
    conversation = OriginSession(link, prefixes=["HEAD"])
    told = conversation.list()
    assert told.refs == [("refs/heads/main", A), ("refs/tags/v1", B)]
    assert told.peeled == {"refs/tags/v1": A}
    assert told.head == "refs/heads/main"
    assert told.profile is None
    assert taken(conversation) == b"PACK"
    assert link.asked[0].count(b"want") == 1
    assert b"thin-pack" in link.asked[0]
    assert b"no-done" not in link.asked[0], "only what the server has"


def test_a_server_without_side_bands_sends_the_pack_bare() -> None:
    link = FakeLink(v0(f"{A} refs/heads/main\0ofs-delta\n".encode()) + packet(b"NAK\n") + b"PACKbare")
    conversation = OriginSession(link, prefixes=["HEAD"])
    conversation.list()
    assert taken(conversation) == b"PACKbare"


@pytest.mark.parametrize(
    "listing", [v0(), v0(b"0" * 40 + b" capabilities^{}\0" + CAPS + b"\n")], ids=["nothing", "capabilities"]
)
def test_an_empty_repository_of_version_0_has_no_refs(listing: bytes) -> None:
    told = OriginSession(FakeLink(listing), prefixes=["HEAD"]).list()
    assert [name for name, _ in told.refs if name.startswith("refs/")] == []


def test_an_unborn_branch_is_told_and_is_no_ref() -> None:
    told = OriginSession(
        FakeLink(HELLO + v0(b"unborn HEAD symref-target:refs/heads/trunk\n")), prefixes=["HEAD"]
    ).list()
    assert told.refs == []
    assert told.head == "refs/heads/trunk"


def test_sha256_is_known_by_its_name_and_another_is_refused() -> None:
    told = OriginSession(
        FakeLink(
            HELLO.replace(b"0018", b"001a").replace(packet(b"object-format=sha1\n"), packet(b"object-format=sha256\n"))
            + v0()
        ),
        prefixes=["HEAD"],
    ).list()
    assert told.hash_kind is SHA256
    strange = HELLO.replace(b"format=sha1", b"format=md51")
    with pytest.raises(OriginError, match="md51"):
        OriginSession(FakeLink(strange + v0()), prefixes=["HEAD"]).list()


@pytest.mark.parametrize("section", [b"shallow-info\n", b"acknowledgments\n"])
def test_sections_before_the_pack(section: bytes) -> None:
    link = FakeLink(HELLO + REFS + packet(section) + packet(b"x\n") + b"0001" + PACK)
    conversation = OriginSession(link, prefixes=["HEAD"])
    conversation.list()
    if section.startswith(b"shallow"):
        with pytest.raises(OriginError, match="shallow"):
            taken(conversation)
    else:
        assert taken(conversation) == b"PACKrest"


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (packet(b"\3out of memory"), "out of memory"),
        (packet(b"\7x"), "unknown side band"),
        (packet(b"\1PAC"), "closed the connection"),
    ],
)
def test_a_pack_that_fails_says_why(answer: bytes, match: str) -> None:
    conversation = OriginSession(FakeLink(HELLO + REFS + packet(b"packfile\n") + answer), prefixes=["HEAD"])
    conversation.list()
    with pytest.raises(OriginError, match=match):
        taken(conversation)


def test_no_pack_where_one_was_asked_for_is_an_error() -> None:
    conversation = OriginSession(FakeLink(HELLO + REFS + b"0000"), prefixes=["HEAD"])
    conversation.list()
    with pytest.raises(OriginError, match="no pack"):
        taken(conversation)


@given(st.binary(max_size=300))
def test_any_bytes_are_packets_or_an_origin_error(data: bytes) -> None:
    reader = PacketReader(source(data, step=7), limit=200)
    said = ""
    try:
        for _ in range(100):
            reader.read()
    except OriginError as error:
        said = str(error)
    assert said.isprintable()


@given(st.binary(max_size=2000))
def test_words_of_the_other_side_are_one_bounded_line(data: bytes) -> None:
    shown = printable(data, 100)
    assert shown.isprintable()
    assert len(shown) <= 100
