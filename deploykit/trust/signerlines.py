"""The lines of an OpenSSH `allowed_signers` file, and of a list of revoked keys, one by one. Pure: text in.

Grammar: ssh-keygen(1), ALLOWED SIGNERS. Rules:

* What we accept, ssh-keygen accepts with the same meaning.
* A line of a kind that we do not support is ignored and noted. A line that cannot be read is a problem.
* A revoked key counts whatever its type is. What cannot be read among them is a problem.
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from collections.abc import Iterable, Iterator
from datetime import datetime, tzinfo
from typing import Final

import attrs

from deploykit.errors import KeyFileError
from deploykit.trust.certificate import certified_key
from deploykit.trust.keyformat import (
    KEY_TYPES,
    decode_key_text,
    fingerprint,
    is_weak_key,
    is_whole,
    key_type,
    parse_key,
)
from deploykit.trust.lineoptions import LineError, LineOptions, UnsupportedLine, meaning_of, take_options

#: Longest file. A line for a node's key takes 130 to 160 bytes, so that more than 100,000 of them fit.
MAX_TEXT: Final = 1 << 24
_MAX_LINE: Final = 8192
#: After so many mistakes the rest is not read.
MOST_PROBLEMS: Final = 200
_BLANK: Final = " \t"
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]").search
#: How the names of key types begin; no option does.
_KEY_TYPES: Final = ("ssh-", "sk-ssh-", "ecdsa-", "sk-ecdsa-")
#: The canonical base64 of every Ed25519 key blob, and of nothing else: 17 groups of three bytes, of which type, lengths
#: and two zero bits come first.
_ED25519: Final = r"ssh-ed25519 (AAAAC3NzaC1lZDI1NTE5AAAAI[A-P][A-Za-z0-9+/]{42})(?: ([^\x00-\x1f\x7f]{0,1024}))?\Z"
_USUAL_LINE: Final = re.compile(
    r"([A-Za-z0-9@._*?!,:/+-]{1,1024}) (?:(?!ssh-|sk-|ecdsa-)([a-zA-Z][!-~]{0,1024}) )?" + _ED25519
).match
_USUAL_REVOKED: Final = re.compile(_ED25519).match


def matches(patterns: Iterable[str], text: str) -> bool:
    """Return whether a pattern list matches, as in ssh_config(5): a `!pattern` that matches overrules all others.

    >>> matches(["*@example.com", "!guest@example.com"], "ann@example.com")
    True
    >>> matches(["*@example.com", "!guest@example.com"], "guest@example.com")
    False
    """
    found = False
    for pattern in patterns:
        if pattern.startswith("!"):
            if _glob(pattern[1:], text):
                return False
        elif _glob(pattern, text):
            found = True
    return found


def _glob(pattern: str, text: str) -> bool:
    """Return whether a `*` and `?` pattern matches, in time bounded by len(pattern) x len(text)."""
    if pattern == text:
        return True
    if "*" not in pattern and "?" not in pattern:
        return False
    p = t = mark = 0
    star = -1
    while t < len(text):
        if p < len(pattern) and pattern[p] == "*":
            star, mark = p, t
            p += 1
        elif p < len(pattern) and pattern[p] in ("?", text[t]):
            p += 1
            t += 1
        elif star >= 0:
            mark += 1
            p, t = star + 1, mark
        else:
            return False
    return all(c == "*" for c in pattern[p:])


@attrs.frozen(kw_only=True, slots=True)
class AllowedSigner:
    """One line: this key may sign as these principals, for these purposes, in this time.

    Args:
        principals: patterns of the names this key may sign as.
        key: the public key blob.
        authority: the key signs certificates (`cert-authority`), and no message itself. The principals are then
            patterns of the names that a certificate may hold.
        namespaces: patterns; None means any purpose.
        valid_after, valid_before: both ends still count, as in ssh-keygen.
        line: its number in the file, from 1.
    """

    principals: tuple[str, ...]
    key: bytes = attrs.field(repr=fingerprint)
    authority: bool = False
    namespaces: tuple[str, ...] | None = None
    valid_after: datetime | None = None
    valid_before: datetime | None = None
    comment: str = ""
    line: int = 0

    def objection(self, namespace: str, now: datetime) -> str:
        """Return why this line does not count for `namespace` at `now`; empty when it does."""
        if self.namespaces is not None and not matches(self.namespaces, namespace):
            return f"line {self.line} does not allow the key for namespace {namespace!r}"
        if self.valid_after is not None and now < self.valid_after:
            return f"line {self.line} is valid only after {self.valid_after:%Y-%m-%dT%H:%M:%SZ}"
        if self.valid_before is not None and now > self.valid_before:
            return f"line {self.line} was valid only before {self.valid_before:%Y-%m-%dT%H:%M:%SZ}"
        return ""


def _lines(text: str, what: str, problems: list[str]) -> Iterator[tuple[int, str]]:
    """Yield lines that are neither blank nor comments, with their numbers. U+2028 must not start a new entry."""
    if len(text) > MAX_TEXT:
        problems.append(f"{what} is longer than {MAX_TEXT} characters")
        return
    for number, raw in enumerate(text.split("\n"), 1):
        if len(problems) >= MOST_PROBLEMS:  # it is refused; a file of another kind has a mistake in each line
            return
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        if line.startswith("\ufeff"):  # ssh-keygen takes it for a part of the first name
            problems.append(f"line {number}: begins with a byte order mark")
        elif len(line) > _MAX_LINE:
            problems.append(f"line {number}: longer than {_MAX_LINE} characters")
        elif _CONTROL(line):
            problems.append(f"line {number}: holds a control character")
        else:
            yield number, line


def parse_signers(text: str, zone: tzinfo | None, problems: list[str], unused: list[str]) -> Iterator[AllowedSigner]:
    """Yield the lines of an `allowed_signers` file that count; append to `problems` and `unused` the others."""
    usual = _UsualLines(zone)
    for number, line in _lines(text, "the allowed_signers file", problems):
        try:
            yield usual.parse(line, number) or _parse_line(line, number, zone)
        except UnsupportedLine as note:
            unused.append(f"line {number}: {note}")
        except (LineError, KeyFileError) as error:
            problems.append(f"line {number}: {error.problem if isinstance(error, KeyFileError) else error}")


class _UsualLines:
    """Parses in a tenth of the time the lines that most files consist of: a plain name, a few options, an Ed25519 key.

    It leaves to `_parse_line` whatever is not certain to be right, and yields nothing that `_parse_line` would not.
    """

    def __init__(self, zone: tzinfo | None) -> None:
        self._zone = zone
        self._options: dict[str, LineOptions | None] = {"": LineOptions()}

    def parse(self, line: str, number: int) -> AllowedSigner | None:
        found = _USUAL_LINE(line)
        if found is None:
            return None
        principals, text, encoded, comment = found.groups("")
        names: tuple[str, ...] = (principals,)
        if "," in principals or "!" in principals:
            _check_principals(principals)
            names = tuple(principals.split(","))
        if text not in self._options:
            self._options[text] = self._read_options(text)
        options = self._options[text]
        if options is None:
            return None
        blob = a2b_base64(encoded)
        if is_weak_key(blob):
            return None
        return AllowedSigner(
            principals=names,
            key=blob,
            authority=options.authority,
            namespaces=options.namespaces,
            valid_after=options.valid_after,
            valid_before=options.valid_before,
            comment=comment.strip(),
            line=number,
        )

    def _read_options(self, text: str) -> LineOptions | None:
        try:
            options, rest = take_options(text)
            return None if rest else meaning_of(options, self._zone)
        except (LineError, UnsupportedLine):
            return None


def _parse_line(line: str, number: int, zone: tzinfo | None) -> AllowedSigner:
    principals, rest = _take_principals(line)
    options: dict[str, str] = {}
    if not rest.startswith(_KEY_TYPES):
        options, rest = take_options(rest)
    kind, _, rest = rest.replace("\t", " ").partition(" ")
    encoded, _, comment = rest.lstrip(" ").partition(" ")
    if not kind.startswith(_KEY_TYPES) or not encoded:
        raise LineError("no public key where one should be")
    blob = decode_key_text(encoded)
    if key_type(blob) != kind:
        raise LineError(f"the line says {kind[:40]!a} but the key says {key_type(blob)[:40]!a}")
    if kind in KEY_TYPES:
        parse_key(blob)
    meant = meaning_of(options, zone)
    if kind not in KEY_TYPES:
        raise UnsupportedLine(f"keys of type {kind} do not count here")
    return AllowedSigner(
        principals=tuple(principals.split(",")),
        key=blob,
        authority=meant.authority,
        namespaces=meant.namespaces,
        valid_after=meant.valid_after,
        valid_before=meant.valid_before,
        comment=comment.strip(),
        line=number,
    )


def _take_principals(line: str) -> tuple[str, str]:
    """Return the first field, which may stand in double quotes, and the rest."""
    if line.startswith('"'):
        principals, quote, rest = line[1:].partition('"')
        if not quote or rest[:1] not in ("", *_BLANK):
            raise LineError("the quotes around the principals are not closed")
    else:
        end = next((at for at, c in enumerate(line) if c in _BLANK), len(line))
        principals, rest = line[:end], line[end:]
        if '"' in principals:
            raise LineError("a quote inside the principals (quote the whole field, or none of it)")
    _check_principals(principals)
    return principals, rest.lstrip(_BLANK)


def _check_principals(principals: str) -> None:
    if not all(principal.lstrip("!") for principal in principals.split(",")):
        raise LineError("an empty principal")


def parse_revoked(text: str, problems: list[str]) -> Iterator[bytes]:
    """Yield public keys, one a line. Keys of other types are kept: they can be revoked too.

    A certificate stands for the key in it, as in ssh-keygen: the key is revoked with every certificate it has.
    """
    for number, line in _lines(text, "the list of revoked keys", problems):
        usual = _USUAL_REVOKED(line)
        if usual is not None:
            yield a2b_base64(usual.group(1))
            continue
        kind, _, rest = line.replace("\t", " ").partition(" ")
        encoded = rest.lstrip(" ").partition(" ")[0]
        try:
            blob = decode_key_text(encoded) if encoded else b""
            plain = certified_key(blob)
        except KeyFileError as error:
            problems.append(f"revoked keys, line {number}: {error.problem}")
            continue
        if not kind.startswith(_KEY_TYPES) or key_type(blob) != kind:
            problems.append(f"revoked keys, line {number}: not a public key line")
            continue
        if is_whole(plain) is False:  # it would revoke nothing
            problems.append(f"revoked keys, line {number}: the key is not whole")
            continue
        yield plain


__all__ = ["MAX_TEXT", "MOST_PROBLEMS", "AllowedSigner", "matches", "parse_revoked", "parse_signers"]
