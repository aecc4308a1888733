"""One session with an origin: list its refs, negotiate, receive the pack. Protocol versions 2 and 0.

Rules:

* All I/O goes through an `OriginLink`.
* A ref id counts only if the origin itself sent it in this session.
* Where the origin is known to speak version 2, requests do not wait for answers: the list of the one ref that a
  message named, and the pack for it, take one round trip.
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
#: Version 0 capabilities that are used where the server has them.
_V0_WISHES: Final = (b"multi_ack_detailed", b"no-done", b"side-band-64k", b"thin-pack", b"ofs-delta", b"no-progress")


class VersionMismatch(OriginError):
    """The origin does not speak as its profile says. Open another session without a profile."""


class OriginLink(Protocol):
    """A connection to an origin's upload-pack."""

    #: True where each request is an exchange of its own (HTTP).
    stateless: bool
    #: True when the origin redirected: then the greeting cannot be left out next time.
    redirected: bool

    def open(self, early: bytes) -> PacketReader:
        """Connect, send `early` without waiting for the greeting, and return a reader at the greeting."""

    def request(self, body: bytes, *, version: int) -> PacketReader:
        """Send a request and return a reader of its answer."""

    def close(self) -> None:
        """Disconnect, in any state."""


@attrs.frozen(slots=True)
class OriginProfile:
    """What an origin spoke last time: enough to speak version 2 without waiting for its greeting."""

    hash_name: str
    tells_format: bool
    tells_unborn: bool


@attrs.define(slots=True)
class RefListing:
    """The refs an origin listed, and how it speaks.

    Args:
        refs: names and hex ids as they came, in order.
        head: the branch HEAD points to, even one without a commit; None where the origin did not send it.
        profile: how to speak to it next time; None where its greeting has to be read first.
        peeled: what annotated tags stand for, where the origin sent it.
    """

    refs: list[tuple[str, str]]
    head: str | None
    hash_kind: HashKind
    profile: OriginProfile | None
    peeled: dict[str, str] = attrs.field(factory=dict)


@attrs.frozen(slots=True)
class EarlyRequest:
    """A fetch to send before the list has come: the id a message named, and the tips we have."""

    want: str
    haves: Sequence[str]


class OriginSession:
    """Lists refs, then fetches at most once.

    Args:
        link: one that is not open yet.
        prefixes: of the refs to list (a server of version 0 sends all it has).
        profile: what this origin spoke last time; saves a round trip.
        early: a fetch to send before the list has come; needs a profile and a link that is not stateless.
        peel: also request what annotated tags stand for.
    """

    def __init__(
        self,
        link: OriginLink,
        *,
        prefixes: Sequence[str],
        profile: OriginProfile | None = None,
        early: EarlyRequest | None = None,
        peel: bool = False,
    ) -> None:
        self._link = link
        self._peel = peel
        self._prefixes = prefixes
        self._profile = profile
        self._early = early if profile is not None and not link.stateless else None
        self._reader: PacketReader | None = None
        self._capabilities: dict[bytes, bytes] = {}
        self._hash = SHA1

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

    # -- list --------------------------------------------------------------------------------------------------------

    def list(self) -> RefListing:
        """Return the refs of the origin.

        Raises:
            OriginError: it cannot list them, or does not speak git.
            VersionMismatch: it does not speak as its profile says.
        """
        if self._profile is not None:
            return self._list_by_profile(self._profile)
        reader = self._link.open(b"")
        self._profile = self._greeting(reader)
        if self._profile is None:
            return self._list_v0(reader)
        listing = self._read_refs(self._link.request(self._ls_refs(self._profile), version=2), self._profile)
        return attrs.evolve(listing, profile=None) if self._link.redirected else listing

    def _list_by_profile(self, profile: OriginProfile) -> RefListing:
        body = self._ls_refs(profile)
        if self._link.stateless:
            try:
                return self._read_refs(self._link.request(body, version=2), profile)
            except DeadlineExceeded:
                raise
            except OriginError as exc:
                raise VersionMismatch(exc.problem) from exc
        if self._early is not None:
            body += self._fetch_command(profile, [self._early.want], self._early.haves)
        reader = self._reader = self._link.open(body)
        try:
            if self._greeting(reader) != profile:
                raise VersionMismatch("the origin speaks another version or format now")
            return self._read_refs(reader, profile)
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
            raise OriginError("the origin speaks an unknown version of the git protocol")
        capabilities: dict[bytes, bytes] = {}
        for line in reader.lines():
            key, _, value = line.partition(b"=")
            capabilities[key] = value
        return OriginProfile(
            _known_format(capabilities.get(b"object-format")).name,
            tells_format=b"object-format" in capabilities,
            tells_unborn=b"unborn" in capabilities.get(b"ls-refs", b"").split(),
        )

    def _ls_refs(self, profile: OriginProfile) -> bytes:
        wishes = [b"symrefs"] + [b"unborn"] * profile.tells_unborn + [b"peel"] * self._peel
        prefixes = [b"ref-prefix " + p.encode("utf-8", "surrogateescape") for p in self._prefixes]
        return request(b"ls-refs", _common(profile), [*wishes, *prefixes])

    def _read_refs(self, reader: PacketReader, profile: OriginProfile) -> RefListing:
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
        return RefListing(refs, head, _known_format(profile.hash_name.encode()), profile, peeled)

    def _list_v0(self, reader: PacketReader) -> RefListing:
        refs: list[tuple[str, str]] = []
        peeled: dict[str, str] = {}
        head: str | None = None
        for n, line in enumerate(reader.lines()):
            entry, _, words = line.partition(b"\0")
            if n == 0:
                for word in words.split():
                    key, _, value = word.partition(b"=")
                    if key == b"symref" and value.startswith(b"HEAD:"):
                        head = value[5:].decode("utf-8", "surrogateescape")
                    self._capabilities[key] = value
            oid, _, name = entry.decode("utf-8", "surrogateescape").partition(" ")
            if oid == "shallow":
                raise OriginError("the origin is itself a shallow clone: it cannot give whole history", "unshallow it")
            if name.endswith("^{}"):
                peeled[name[:-3]] = oid
            elif name != "HEAD":
                refs.append((name, oid))
        self._hash = _known_format(self._capabilities.get(b"object-format"))
        return RefListing(refs, head, self._hash, None, peeled)

    # -- fetch -------------------------------------------------------------------------------------------------------

    def fetch(self, wants: Sequence[str], haves: Sequence[str], sink: Callable[[bytes], None]) -> None:
        """Receive the pack that leads from `haves` to `wants`.

        Raises:
            OriginError: the origin refuses or breaks off.
            VersionMismatch: the early request was for something else; open another session.
        """
        if self._profile is None:
            self._fetch_v0(wants, haves, sink)
            return
        if self._early is not None:
            if list(wants) != [self._early.want] or self._reader is None:
                raise VersionMismatch("the origin shows another id than the message named")
            reader = self._reader
        else:
            reader = self._link.request(self._fetch_command(self._profile, wants, haves), version=2)
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
    def _fetch_command(profile: OriginProfile, wants: Iterable[str], haves: Iterable[str]) -> bytes:
        arguments = [b"thin-pack", b"ofs-delta", b"no-progress"]
        arguments += [b"want " + w.encode() for w in wants]
        arguments += [b"have " + h.encode() for h in haves]
        return request(b"fetch", _common(profile), [*arguments, b"done"])

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
        reader = self._link.request(body, version=0)
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


def _common(profile: OriginProfile) -> list[bytes]:
    chosen = [b"object-format=" + profile.hash_name.encode()] if profile.tells_format else []
    return [_AGENT, *chosen]


def _known_format(name: bytes | None) -> HashKind:
    text = (name or b"sha1").decode("ascii", "replace")
    found = hash_named(text)
    if found is None:
        raise OriginError(f"the origin's object format {text[:20]!a} is not supported")
    return found
