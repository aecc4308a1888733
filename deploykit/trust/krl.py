"""What is revoked: keys, and certificates by serial or key id. Reads OpenSSH's binary list (KRL). Pure: bytes in.

Format: OpenSSH's PROTOCOL.krl. Rules:

* A list revokes what it revokes to ssh-keygen. A list that cannot be read whole is refused.
* A revoked key signs nothing, with a certificate or without. A revoked authority's certificates do not count.
* Serial 0 means "not numbered" and cannot be revoked; a key id can.
* A KRL's own signatures are refused, as by OpenSSH 9.4: sign the file another way, and protect it as a file.
* Lookups take the same time for ten revocations and for a million.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final

import attrs

from deploykit.errors import KeyFileError
from deploykit.trust.certificate import CERTIFICATE_SUFFIX, Certificate
from deploykit.trust.keyformat import BlobReader, MalformedBlob, fingerprint, is_whole, key_type

#: How a KRL begins.
KRL_MAGIC: Final = b"SSHKRL\n\0"
_VERSION: Final = 1

_CERTIFICATES: Final = 1
_EXPLICIT_KEY: Final = 2
_SHA1: Final = 3
_SIGNATURE: Final = 4
_SHA256: Final = 5
_EXTENSION: Final = 255

_SERIAL_LIST: Final = 0x20
_SERIAL_RANGE: Final = 0x21
_SERIAL_BITMAP: Final = 0x22
_KEY_ID: Final = 0x23
_CERTIFICATE_EXTENSION: Final = 0x39

_MAX_SERIAL: Final = (1 << 64) - 1
_MAX_BITMAP: Final = 2048  # bytes; OpenSSH's own limit of a number
#: Serials are kept in groups of 256, one number of 256 bits a group.
_GROUP: Final = 8


@attrs.frozen(kw_only=True, slots=True)
class RevokedCertificates:
    """Certificates of one authority, or of any, that are revoked.

    Args:
        groups: single serials: the upper bits of each, and one bit for each value of the lower eight.
        ranges: first and last serial of ranges, sorted; none overlaps another.
        key_ids: as they stand in the certificates.
    """

    groups: Mapping[int, int] = attrs.field(factory=dict, repr=lambda groups: f"<{len(groups)} groups>")
    ranges: tuple[tuple[int, int], ...] = ()
    key_ids: frozenset[bytes] = frozenset()

    def has_serial(self, serial: int) -> bool:
        """Return whether a serial is revoked; 0 never is, for no list can hold it."""
        if self.groups.get(serial >> _GROUP, 0) >> (serial & 0xFF) & 1:
            return True
        at = bisect_right(self.ranges, (serial, _MAX_SERIAL)) - 1
        return at >= 0 and serial <= self.ranges[at][1]


@attrs.frozen(kw_only=True, slots=True)
class Revocations:
    """Everything that is revoked.

    Args:
        keys: blobs of keys, never of certificates.
        sha1s, sha256s: digests of such blobs.
        certificates: what is revoked of each authority, by its key's blob; of every authority under b"".
    """

    keys: frozenset[bytes] = attrs.field(default=frozenset(), repr=lambda keys: f"<{len(keys)} keys>")
    sha1s: frozenset[bytes] = attrs.field(default=frozenset(), repr=lambda keys: f"<{len(keys)} keys>")
    sha256s: frozenset[bytes] = attrs.field(default=frozenset(), repr=lambda keys: f"<{len(keys)} keys>")
    certificates: Mapping[bytes, RevokedCertificates] = attrs.field(factory=dict)

    def has_key(self, key: bytes) -> bool:
        """Return whether a key is revoked. Of a certificate, ask for the key in it."""
        return (
            key in self.keys
            or (bool(self.sha256s) and hashlib.sha256(key).digest() in self.sha256s)
            or (bool(self.sha1s) and hashlib.sha1(key, usedforsecurity=False).digest() in self.sha1s)
        )

    def objection(self, certificate: Certificate) -> str:
        """Return what of a certificate is revoked: its key, its authority, its key id or serial; empty when nothing."""
        if self.has_key(certificate.key):
            return f"key {fingerprint(certificate.key)} is revoked"
        if self.has_key(certificate.authority):
            return f"{certificate}: its authority {fingerprint(certificate.authority)} is revoked"
        for authority in (certificate.authority, b""):
            revoked = self.certificates.get(authority)
            if revoked is None:
                continue
            if certificate.key_id in revoked.key_ids:
                return f"{certificate} is revoked by its key id"
            if revoked.has_serial(certificate.serial):
                return f"{certificate} is revoked by its serial"
        return ""


def is_krl(data: bytes) -> bool:
    """Return whether a file is a binary list, not a text with a key on each line."""
    return data.startswith(KRL_MAGIC[:6])


def parse_krl(data: bytes) -> Revocations:
    """Return what a binary list revokes.

    Raises:
        KeyFileError: it is malformed, or holds what nobody here understands.
    """
    try:
        return _Krl(data).revocations()
    except MalformedBlob as error:
        raise KeyFileError(
            f"the list of revoked keys cannot be read: {error}", "make it again with `ssh-keygen -k`"
        ) from None


class _Krl:
    """Collects the sections of one list."""

    def __init__(self, data: bytes) -> None:
        self._blobs: dict[int, set[bytes]] = {_EXPLICIT_KEY: set(), _SHA1: set(), _SHA256: set()}
        self._certificates: dict[bytes, _Collected] = {}
        reader = BlobReader(data)
        if reader.take(len(KRL_MAGIC), "beginning") != KRL_MAGIC:
            raise MalformedBlob("it does not begin as a KRL does")
        if (version := reader.uint(4, "version")) != _VERSION:
            raise MalformedBlob(f"its version is {version}, not {_VERSION}")
        for what in ("number", "date", "flags"):
            reader.uint(8, what)
        for what in ("reserved field", "comment"):
            reader.string(what)
        while reader.left:
            self._section(reader.uint(1, "section"), reader)

    def revocations(self) -> Revocations:
        return Revocations(
            keys=frozenset(self._blobs[_EXPLICIT_KEY]),
            sha1s=frozenset(self._blobs[_SHA1]),
            sha256s=frozenset(self._blobs[_SHA256]),
            certificates={authority: found.finished() for authority, found in self._certificates.items()},
        )

    def _section(self, kind: int, reader: BlobReader) -> None:
        if kind == _SIGNATURE:
            raise MalformedBlob("it holds a signature of its own, which OpenSSH gave up")
        section = BlobReader(reader.string("section"))
        if kind == _CERTIFICATES:
            authority = section.string("authority's key")
            section.string("reserved field")
            if authority and not is_whole(authority):
                raise MalformedBlob("the key of an authority in it is none, or not whole")
            collected = self._certificates.setdefault(authority, _Collected())
            while section.left:
                collected.section(section.uint(1, "certificate section"), section.string("certificate section"))
        elif kind in self._blobs:
            size = {_EXPLICIT_KEY: None, _SHA1: 20, _SHA256: 32}[kind]
            while section.left:
                blob = section.string("revoked key")
                if size is not None and len(blob) != size:
                    raise MalformedBlob(f"a digest of it has {len(blob)} bytes, not {size}")
                if size is None and (not key_type(blob) or key_type(blob).endswith(CERTIFICATE_SUFFIX)):
                    raise MalformedBlob("what it revokes as a key is none")
                self._blobs[kind].add(blob)
        elif kind == _EXTENSION:
            _skip_extension(section)
        else:
            raise MalformedBlob(f"it holds a section of unknown kind {kind}")


class _Collected:
    """Collects what is revoked of one authority."""

    def __init__(self) -> None:
        self._groups: dict[int, int] = {}
        self._ranges: list[tuple[int, int]] = []
        self._key_ids: set[bytes] = set()

    def finished(self) -> RevokedCertificates:
        return RevokedCertificates(
            groups=self._groups, ranges=tuple(_merged(self._ranges)), key_ids=frozenset(self._key_ids)
        )

    def section(self, kind: int, data: bytes) -> None:
        reader = BlobReader(data)
        if kind == _SERIAL_LIST:
            while reader.left:
                self._add_bits(reader.uint(8, "serial"), 1)
        elif kind == _SERIAL_RANGE:
            first, last = reader.uint(8, "serial"), reader.uint(8, "serial")
            if not 0 < first <= last:
                raise MalformedBlob(f"it revokes serials {first} to {last}, which is no range")
            self._ranges.append((first, last))
        elif kind == _SERIAL_BITMAP:
            offset, bitmap = reader.uint(8, "serial"), reader.string("bitmap")
            if bitmap[:1] >= b"\x80" or len(bitmap.lstrip(b"\0")) > _MAX_BITMAP:
                raise MalformedBlob("a bitmap of it is negative or too long")
            self._add_bits(offset, int.from_bytes(bitmap, "big"))
        elif kind == _KEY_ID:
            while reader.left:
                key_id = reader.string("key id")
                if b"\0" in key_id:
                    raise MalformedBlob("a key id of it holds a NUL")
                self._key_ids.add(key_id)
        elif kind == _CERTIFICATE_EXTENSION:
            _skip_extension(reader)
        else:
            raise MalformedBlob(f"it holds a certificate section of unknown kind {kind}")
        reader.finish()

    def _add_bits(self, offset: int, bits: int) -> None:
        """Revoke serial `offset` + N for each bit N of `bits`."""
        if offset + bits.bit_length() - 1 > _MAX_SERIAL:
            raise MalformedBlob("it revokes serials of more than 64 bits")
        if not offset and bits & 1:
            raise MalformedBlob("it revokes serial 0, which stands for certificates without a number")
        bits <<= offset & 0xFF
        data = bits.to_bytes((bits.bit_length() + 255) // 256 * 32, "little")
        for at in range(0, len(data), 32):
            if mask := int.from_bytes(data[at : at + 32], "little"):
                group = (offset >> _GROUP) + at // 32
                self._groups[group] = self._groups.get(group, 0) | mask


def _merged(ranges: Iterable[tuple[int, int]]) -> Iterable[tuple[int, int]]:
    """Yield ranges in order, those that overlap or touch as one."""
    current: tuple[int, int] | None = None
    for first, last in sorted(ranges):
        if current is not None and first <= current[1] + 1:
            current = current[0], max(current[1], last)
        else:
            if current is not None:
                yield current
            current = first, last
    if current is not None:
        yield current


def _skip_extension(reader: BlobReader) -> None:
    """Ignore an extension that may be ignored."""
    name = reader.string("extension")
    critical = reader.uint(1, "extension")
    reader.string("extension")
    reader.finish()
    if critical:
        raise MalformedBlob(f"it needs the extension {name[:40].decode('ascii', 'replace')!a}, which is not known")


# -- what people write -----------------------------------------------------------------------------------------------


def serial_line(first: int, last: int | None = None) -> str:
    """Return the line of a KRL specification that revokes one serial, or all from `first` to `last`.

    Give such lines to `ssh-keygen -k -u -s CA.pub -f KRL SPEC`.

    Raises:
        KeyFileError: 0, more than 64 bits, or a range that ends before it begins.

    >>> serial_line(7), serial_line(7, 9)
    ('serial: 7', 'serial: 7-9')
    """
    end = first if last is None else last
    if not 0 < first <= end <= _MAX_SERIAL:
        raise KeyFileError(
            f"no serials to revoke: {first} to {end}",
            "from 1 on, in rising order; a certificate of serial 0 has none: revoke its key id",
        )
    return f"serial: {first}" if first == end else f"serial: {first}-{end}"


def key_id_line(key_id: str) -> str:
    """Return the line of a KRL specification that revokes every certificate with a key id.

    Raises:
        KeyFileError: ssh-keygen could not read the line as it is meant.

    >>> key_id_line("ann@laptop")
    'id: ann@laptop'
    """
    if not key_id or key_id != key_id.strip() or not key_id.isprintable() or "#" in key_id:
        raise KeyFileError(
            f"cannot revoke key id {key_id!a} by a specification: it is empty, or holds a # or a blank at an end",
            "revoke its serial, or its file: `ssh-keygen -k -u -f KRL KEY-cert.pub`",
        )
    return f"id: {key_id}"


__all__ = [
    "KRL_MAGIC",
    "Revocations",
    "RevokedCertificates",
    "is_krl",
    "key_id_line",
    "parse_krl",
    "serial_line",
]
