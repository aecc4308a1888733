"""Whose signatures count: an ordinary OpenSSH `allowed_signers` file, and a list of revoked keys. Pure: text in.

Grammar: ssh-keygen(1), ALLOWED SIGNERS. Rules:

* What we accept, ssh-keygen accepts with the same meaning.
* A line that cannot be read refuses the whole file, with every such line by its number. A key that is silently ignored
  is a bad surprise during an incident; a revocation that is silently ignored is worse.
* Lines with other key types are accepted and ignored, so that one file can serve git too. `unused` lists them.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

import attrs

from deploykit.errors import KeyFileError
from deploykit.trust.keyformat import KEY_TYPES, decode_key_text, fingerprint, key_type, parse_key
from deploykit.trust.signaturerules import SignatureRules

MAX_TEXT: Final = 1 << 20
_MAX_LINE: Final = 8192
_BLANK: Final = " \t"
_OPTION_NAME: Final = re.compile(r"[A-Za-z-]+")
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z|UTC)?\Z", re.IGNORECASE | re.ASCII)
#: How the names of key types begin; no option does.
_KEY_TYPES: Final = ("ssh-", "sk-ssh-", "ecdsa-", "sk-ecdsa-")


class _LineError(ValueError):
    """One line cannot be read; collected with its number."""


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
        namespaces: patterns; None means any purpose.
        valid_after, valid_before: both ends still count, as in ssh-keygen.
        line: its number in the file, from 1.
    """

    principals: tuple[str, ...]
    key: bytes = attrs.field(repr=fingerprint)
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


@attrs.frozen(kw_only=True, slots=True)
class AllowedSigners:
    """An `allowed_signers` file and the keys revoked since. The empty one allows nobody.

    Args:
        signers: the lines that count, in order.
        revoked: blobs of keys that count for nothing, whatever `signers` says.
        unused: lines that were read and ignored (other key types), as `line N: why`.
        rules: what signatures by security keys and passkeys must show; by default no passkey counts.
    """

    signers: tuple[AllowedSigner, ...] = ()
    revoked: tuple[bytes, ...] = attrs.field(default=(), repr=lambda keys: f"<{len(keys)} keys>")
    unused: tuple[str, ...] = ()
    rules: SignatureRules = attrs.field(factory=SignatureRules)

    @classmethod
    def parse(cls, text: str, *, revoked: str = "", zone: tzinfo | None = None) -> AllowedSigners:
        """Read the text of an `allowed_signers` file.

        Args:
            text: the file.
            revoked: public keys, one a line, as `ssh-keygen -Y verify -r` takes them (a binary KRL is refused).
            zone: of times written without a Z; None is the machine's own. As in ssh-keygen they are standard time
                all the year round, which surprises people: write the Z.

        Raises:
            KeyFileError: with every line that cannot be read in `problems`.
        """
        problems: list[str] = []
        unused: list[str] = []
        signers = list(_parse_lines(text, zone, problems, unused))
        gone = tuple(_parse_revoked(revoked, problems))
        if problems:
            head = problems[0] if len(problems) == 1 else f"{len(problems)} mistakes in the trusted keys"
            raise KeyFileError(
                head, "see ALLOWED SIGNERS in ssh-keygen(1), or use `deploykit keys trust`", problems=tuple(problems)
            )
        return cls(signers=tuple(signers), revoked=gone, unused=tuple(unused))

    def lines_for(self, key: bytes) -> tuple[AllowedSigner, ...]:
        """Return every line that names this key."""
        return tuple(signer for signer in self.signers if hmac.compare_digest(signer.key, key))

    def is_revoked(self, key: bytes) -> bool:
        """Return whether this key was revoked."""
        return any(hmac.compare_digest(gone, key) for gone in self.revoked)


# -- lines -----------------------------------------------------------------------------------------------------------


def _lines(text: str, what: str, problems: list[str]) -> Iterator[tuple[int, str]]:
    """Yield lines that are neither blank nor comments, with their numbers. U+2028 must not start a new entry."""
    if len(text) > MAX_TEXT:
        problems.append(f"{what} is longer than {MAX_TEXT} characters")
        return
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if not line or line.startswith("#"):
            continue
        if line.startswith("\ufeff"):  # ssh-keygen takes it for a part of the first name
            problems.append(f"line {number}: begins with a byte order mark")
        elif len(line) > _MAX_LINE:
            problems.append(f"line {number}: longer than {_MAX_LINE} characters")
        elif any(ord(c) < 32 and c != "\t" for c in line) or "\x7f" in line:
            problems.append(f"line {number}: holds a control character")
        else:
            yield number, line


def _parse_lines(text: str, zone: tzinfo | None, problems: list[str], unused: list[str]) -> Iterator[AllowedSigner]:
    for number, line in _lines(text, "the allowed_signers file", problems):
        try:
            signer = _parse_line(line, number, zone)
        except (_LineError, KeyFileError) as error:
            problems.append(f"line {number}: {error.problem if isinstance(error, KeyFileError) else error}")
            continue
        if key_type(signer.key) in KEY_TYPES:
            yield signer
        else:
            unused.append(f"line {number}: keys of type {key_type(signer.key)} do not count here")


def _parse_line(line: str, number: int, zone: tzinfo | None) -> AllowedSigner:
    principals, rest = _take_principals(line)
    options: dict[str, str] = {}
    if not rest.startswith(_KEY_TYPES):
        options, rest = _take_options(rest)
    kind, _, rest = rest.replace("\t", " ").partition(" ")
    encoded, _, comment = rest.lstrip(" ").partition(" ")
    if not kind.startswith(_KEY_TYPES) or not encoded:
        raise _LineError("no public key where one should be")
    blob = decode_key_text(encoded)
    if key_type(blob) != kind:
        raise _LineError(f"the line says {kind[:40]!a} but the key says {key_type(blob)[:40]!a}")
    if kind in KEY_TYPES:
        parse_key(blob)
    after, before = (_parse_time(options, name, zone) for name in ("valid-after", "valid-before"))
    if after is not None and before is not None and before <= after:
        raise _LineError("valid-before is not later than valid-after")
    namespaces = options.get("namespaces")
    return AllowedSigner(
        principals=tuple(principals.split(",")),
        key=blob,
        namespaces=None if namespaces is None else tuple(namespaces.split(",")),
        valid_after=after,
        valid_before=before,
        comment=comment.strip(),
        line=number,
    )


def _take_principals(line: str) -> tuple[str, str]:
    """Return the first field, which may stand in double quotes, and the rest."""
    if line.startswith('"'):
        principals, quote, rest = line[1:].partition('"')
        if not quote or rest[:1] not in ("", *_BLANK):
            raise _LineError("the quotes around the principals are not closed")
    else:
        end = next((at for at, c in enumerate(line) if c in _BLANK), len(line))
        principals, rest = line[:end], line[end:]
        if '"' in principals:
            raise _LineError("a quote inside the principals (quote the whole field, or none of it)")
    if not all(principal.lstrip("!") for principal in principals.split(",")):
        raise _LineError("an empty principal")
    return principals, rest.lstrip(_BLANK)


def _take_options(text: str) -> tuple[dict[str, str], str]:
    """Read `name="value",name="value"` up to the first blank outside quotes."""
    found: dict[str, str] = {}
    at = 0
    while True:
        name_match = _OPTION_NAME.match(text, at)
        name = name_match.group().lower() if name_match else ""
        at += len(name)
        if name == "cert-authority":
            raise _LineError("cert-authority is not supported (list each key itself)")
        if name not in ("namespaces", "valid-after", "valid-before"):
            raise _LineError(f"neither a public key nor a known option: {text[at - len(name) :][:40]!a}")
        if name in found:
            raise _LineError(f"{name} is given twice")
        if text[at : at + 2] != '="':
            raise _LineError(f'{name} needs a value in double quotes: {name}="…"')
        found[name], at = _take_quoted(text, at + 2, name)
        if at >= len(text) or text[at] in _BLANK:
            return found, text[at:].lstrip(_BLANK)
        if text[at] != ",":
            raise _LineError(f"{name} is followed by neither a comma nor a blank")
        at += 1


def _take_quoted(text: str, at: int, name: str) -> tuple[str, int]:
    out: list[str] = []
    while at < len(text):
        if text.startswith('\\"', at):
            out.append('"')
            at += 2
        elif text[at] == '"':
            return "".join(out), at + 1
        else:
            out.append(text[at])
            at += 1
    raise _LineError(f"the quotes around the value of {name} are not closed")


def _parse_time(options: dict[str, str], name: str, zone: tzinfo | None) -> datetime | None:
    """Return the instant of an option: YYYYMMDD or YYYYMMDDHHMM[SS], with a Z for UTC."""
    text = options.get(name)
    if text is None:
        return None
    found = _TIME.match(text)
    if not found:
        raise _LineError(f"{name} is not a time: {text[:40]!a} (expected YYYYMMDD[HHMM[SS]][Z])")
    numbers = [int(part or 0) for part in found.groups()[:6]]
    try:
        instant = _instant(numbers, UTC if found.group(7) else zone)
    except (ValueError, OverflowError, OSError):
        raise _LineError(f"{name} is not a time on any calendar: {text[:40]!a}") from None
    if instant.timestamp() <= 0:  # the first second itself means "no time" to ssh-keygen
        raise _LineError(f"{name} lies before 1970")
    return instant


def _instant(numbers: list[int], zone: tzinfo | None) -> datetime:
    """Return the instant of a local time as ssh-keygen does: standard time in summer too (mktime with tm_isdst = 0)."""
    year, month, day, hour, minute, second = numbers
    there = datetime(year, month, day, hour, minute, second, tzinfo=zone or UTC)
    if zone is None:
        return datetime.fromtimestamp(time.mktime((*numbers[:6], 0, 0, 0)), UTC)  # type: ignore[arg-type]
    return (there + (there.dst() or timedelta())).astimezone(UTC)


def _parse_revoked(text: str, problems: list[str]) -> Iterator[bytes]:
    """Yield public keys, one a line. Keys of other types are kept: they can be revoked too."""
    for number, line in _lines(text, "the list of revoked keys", problems):
        kind, _, rest = line.replace("\t", " ").partition(" ")
        encoded = rest.lstrip(" ").partition(" ")[0]
        try:
            blob = decode_key_text(encoded) if encoded else b""
        except KeyFileError as error:
            problems.append(f"revoked keys, line {number}: {error.problem}")
            continue
        if not kind.startswith(_KEY_TYPES) or key_type(blob) != kind:
            problems.append(f"revoked keys, line {number}: not a public key line (a binary KRL is not supported)")
            continue
        yield blob


__all__ = ["AllowedSigner", "AllowedSigners", "MAX_TEXT", "matches"]
