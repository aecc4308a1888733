"""One conversation with an origin: list refs, say what we want and have, take the pack. Protocol versions 2 and 0.

Rules: no I/O here but through a `OriginLink`; a ref id is believed only as far as the origin itself said it in this
conversation; where version 2 is known to be spoken, questions do not wait for answers: the list of the one ref a
message named and the pack for it come back on one round trip.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Final, Protocol

import attrs

from deploykit._version import __version__
from deploykit.errors import DeadlineExceeded, OriginError
from deploykit.git.objectformat import SHA1, HashKind, hash_named
from deploykit.git.transport.pktline import FLUSH, PacketReader, packet, printable, request

_AGENT: Final = b"agent=deploykit/" + __version__.encode()
#: v0 capabilities we use when the server has them.
_V0_WISHES: Final = (b"multi_ack_detailed", b"no-done", b"side-band-64k", b"thin-pack", b"ofs-delta", b"no-progress")


class VersionMismatch(OriginError):
    """The origin does not speak the version that was taken for granted. Converse again, asking first."""


class OriginLink(Protocol):
    """A way to an origin's upload-pack."""

    #: True where each request is an exchange of its own (HTTP).
    stateless: bool
    #: True when the origin sent us to another address: then the first question cannot be left out next time.
    redirected: bool

    def start(self, ahead: bytes) -> PacketReader:
        """Connect and read the greeting; `ahead` is sent along without waiting for it."""

    def ask(self, body: bytes, *, version: int) -> PacketReader:
        """Send a request and read its answer."""

    def close(self) -> None:
        """End it, whatever state it is in."""


@attrs.frozen(slots=True)
class OriginProfile:
    """What an origin spoke last time: enough to talk version 2 to it without asking first."""

    hash_name: str
    tells_format: bool
    tells_unborn: bool


@attrs.define(slots=True)
class Listing:
    """What an origin told of itself.

    Args:
        refs: names and hex ids as they came, in order.
        head: where HEAD points, also while that branch is not yet born; None when not told.
        dialect: how to talk to it next time; None when it has to be asked first.
        peeled: what annotated tags stand for, as far as the origin told.
    """

    refs: list[tuple[str, str]]
    head: str | None
    hash_kind: HashKind
    dialect: OriginProfile | None
    peeled: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(slots=True)
class Ahead:
    """What to ask for before the list has come: the id a message named, and what we have."""

    want: str
    haves: Sequence[str]


class Conversation:
    """Lists refs, then fetches at most once.

    Args:
        link: a fresh one.
        prefixes: what the list shall hold (a server of version 0 sends all it has).
        dialect: what this origin spoke last time: saves a round trip.
        ahead: ask for this before the list has come, where the dialect is known and the link can.
        peel: also ask what annotated tags stand for.
    """

    def __init__(
        self,
        link: OriginLink,
        *,
        prefixes: Sequence[str],
        dialect: OriginProfile | None = None,
        ahead: Ahead | None = None,
        peel: bool = False,
    ) -> None:
        self._link = link
        self._peel = peel
        self._prefixes = prefixes
        self._dialect = dialect
        self._ahead = ahead if dialect is not None and not link.stateless else None
        self._reader: PacketReader | None = None
        self._capabilities: dict[bytes, bytes] = {}
        self._hash = SHA1

    def close(self) -> None:
        """Hang up."""
        self._link.close()

    # -- list --------------------------------------------------------------------------------------------------------

    def list(self) -> Listing:
        """Ask for the refs.

        Raises:
            OriginError: it cannot, or does not speak git.
            VersionMismatch: what it spoke last time is not understood now.
        """
        if self._dialect is not None:
            return self._list_unasked(self._dialect)
        reader = self._link.start(b"")
        self._dialect = self._greeting(reader)
        if self._dialect is None:
            return self._list_v0(reader)
        listing = self._read_refs(self._link.ask(self._ls_refs(self._dialect), version=2), self._dialect)
        return attrs.evolve(listing, dialect=None) if self._link.redirected else listing

    def _list_unasked(self, dialect: OriginProfile) -> Listing:
        body = self._ls_refs(dialect)
        if self._link.stateless:
            try:
                return self._read_refs(self._link.ask(body, version=2), dialect)
            except DeadlineExceeded:
                raise
            except OriginError as exc:
                raise VersionMismatch(exc.problem) from exc
        if self._ahead is not None:
            body += self._fetch_command(dialect, [self._ahead.want], self._ahead.haves)
        reader = self._reader = self._link.start(body)
        try:
            if self._greeting(reader) != dialect:
                raise VersionMismatch("the origin speaks another dialect now")
            return self._read_refs(reader, dialect)
        except DeadlineExceeded:
            raise
        except OriginError as exc:
            raise VersionMismatch(exc.problem) from exc

    def _greeting(self, reader: PacketReader) -> OriginProfile | None:
        """Read a version 2 greeting; None when the first packet is of version 0 (it is then still to be read)."""
        first = reader.read()
        if first is None or not first.startswith(b"version "):
            reader.unread(first)
            return None
        if first.strip() == b"version 1":  # version 0 behind this one line
            return None
        if first.strip() != b"version 2":
            raise OriginError("the origin speaks a git protocol we do not know")
        told: dict[bytes, bytes] = {}
        for line in reader.lines():
            key, _, value = line.partition(b"=")
            told[key] = value
        return OriginProfile(
            _known_format(told.get(b"object-format")).name,
            tells_format=b"object-format" in told,
            tells_unborn=b"unborn" in told.get(b"ls-refs", b"").split(),
        )

    def _ls_refs(self, dialect: OriginProfile) -> bytes:
        wishes = [b"symrefs"] + [b"unborn"] * dialect.tells_unborn + [b"peel"] * self._peel
        prefixes = [b"ref-prefix " + p.encode("utf-8", "surrogateescape") for p in self._prefixes]
        return request(b"ls-refs", _common(dialect), [*wishes, *prefixes])

    def _read_refs(self, reader: PacketReader, dialect: OriginProfile) -> Listing:
        refs: list[tuple[str, str]] = []
        peeled: dict[str, str] = {}
        head: str | None = None
        for line in reader.lines():
            oid, _, rest = line.decode("utf-8", "surrogateescape").partition(" ")
            name, *more = rest.split(" ")
            if not name:
                raise OriginError(f"the origin's list of refs is not understood: {printable(line, 60)!r}")
            if name == "HEAD":
                head = next((m[14:] for m in more if m.startswith("symref-target:")), None)
            elif oid != "unborn":
                refs.append((name, oid))
                if more and more[0].startswith("peeled:"):
                    peeled[name] = more[0][7:]
        return Listing(refs, head, _known_format(dialect.hash_name.encode()), dialect, peeled)

    def _list_v0(self, reader: PacketReader) -> Listing:
        refs: list[tuple[str, str]] = []
        peeled: dict[str, str] = {}
        head: str | None = None
        for n, line in enumerate(reader.lines()):
            told, _, words = line.partition(b"\0")
            if n == 0:
                for word in words.split():
                    key, _, value = word.partition(b"=")
                    if key == b"symref" and value.startswith(b"HEAD:"):
                        head = value[5:].decode("utf-8", "surrogateescape")
                    self._capabilities[key] = value
            oid, _, name = told.decode("utf-8", "surrogateescape").partition(" ")
            if oid == "shallow":
                raise OriginError("the origin is itself a shallow clone: it cannot give whole history", "unshallow it")
            if name.endswith("^{}"):
                peeled[name[:-3]] = oid
            elif name != "HEAD":
                refs.append((name, oid))
        self._hash = _known_format(self._capabilities.get(b"object-format"))
        return Listing(refs, head, self._hash, None, peeled)

    # -- fetch -------------------------------------------------------------------------------------------------------

    def fetch(self, wants: Sequence[str], haves: Sequence[str], sink: Callable[[bytes], None]) -> None:
        """Take the pack that leads from `haves` to `wants`.

        Raises:
            OriginError: the origin refuses or breaks off.
            VersionMismatch: something else was asked for ahead; converse again.
        """
        if self._dialect is None:
            self._fetch_v0(wants, haves, sink)
            return
        if self._ahead is not None:
            if list(wants) != [self._ahead.want] or self._reader is None:
                raise VersionMismatch("the origin shows another id than the message named")
            reader = self._reader
        else:
            reader = self._link.ask(self._fetch_command(self._dialect, wants, haves), version=2)
        while (section := reader.read()) is not None:
            name = section.strip()
            if name == b"packfile":
                reader.pack(sink)
                return
            if name == b"shallow-info":
                raise OriginError("the origin is itself a shallow clone: it cannot give whole history", "unshallow it")
            for _ in reader.lines():
                pass
        raise OriginError("the origin sent no pack")

    @staticmethod
    def _fetch_command(dialect: OriginProfile, wants: Iterable[str], haves: Iterable[str]) -> bytes:
        arguments = [b"thin-pack", b"ofs-delta", b"no-progress"]
        arguments += [b"want " + w.encode() for w in wants]
        arguments += [b"have " + h.encode() for h in haves]
        return request(b"fetch", _common(dialect), [*arguments, b"done"])

    def _fetch_v0(self, wants: Sequence[str], haves: Sequence[str], sink: Callable[[bytes], None]) -> None:
        words: list[bytes] = [w for w in _V0_WISHES if w in self._capabilities]
        if b"object-format" in self._capabilities:
            words.append(b"object-format=" + self._hash.name.encode())
        if b"agent" in self._capabilities:
            words.append(_AGENT)
        lines = [b"want " + w.encode() for w in wants]
        lines[0] += b" " + b" ".join(words)
        body = b"".join(packet(line + b"\n") for line in lines) + FLUSH
        body += b"".join(packet(b"have %b\n" % h.encode()) for h in haves) + packet(b"done\n")
        reader = self._link.ask(body, version=0)
        while True:
            line = (reader.read() or b"").strip()
            if line.startswith(b"shallow "):
                raise OriginError("the origin is itself a shallow clone: it cannot give whole history", "unshallow it")
            if line == b"NAK" or (line.startswith(b"ACK ") and line.count(b" ") == 1):
                break
            if not line.startswith(b"ACK "):
                raise OriginError("the origin's answer to our request is not understood")
        if b"side-band-64k" in self._capabilities:
            reader.pack(sink)
        else:
            reader.raw(sink)


def _common(dialect: OriginProfile) -> list[bytes]:
    told = [b"object-format=" + dialect.hash_name.encode()] if dialect.tells_format else []
    return [_AGENT, *told]


def _known_format(name: bytes | None) -> HashKind:
    text = (name or b"sha1").decode("ascii", "replace")
    found = hash_named(text)
    if found is None:
        raise OriginError(f"the origin's object format {text[:20]!a} is not known here")
    return found
