"""The lines of an OpenSSH `allowed_signers` file, and of a list of revoked keys, one by one. Pure: text in.

Grammar: ssh-keygen(1), ALLOWED SIGNERS. Rules:

* What we accept, ssh-keygen accepts with the same meaning.
* A line of a kind that we do not support is ignored and noted. A line that cannot be read is a problem.
* A revoked key counts whatever its type is. What cannot be read among them is a problem.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

import attrs

from deploykit.errors import KeyFileError
from deploykit.trust.keyformat import KEY_TYPES, decode_key_text, fingerprint, key_type, parse_key

MAX_TEXT: Final = 1 << 20
_MAX_LINE: Final = 8192
_BLANK: Final = " \t"
_ENDS_OPTION: Final = ", \t"
_AUTHORITY: Final = "cert-authority"
#: The options with a value, and those without, in lower case as they are compared.
_OPTIONS: Final = frozenset({"namespaces", "valid-after", "valid-before"})
_FLAGS: Final = frozenset({_AUTHORITY})
_OPTION_NAME: Final = re.compile(r"[A-Za-z-]+")
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z|UTC)?\Z", re.IGNORECASE | re.ASCII)
#: How the names of key types begin; no option does.
_KEY_TYPES: Final = ("ssh-", "sk-ssh-", "ecdsa-", "sk-ecdsa-")


class _LineError(ValueError):
    """One line cannot be read; collected with its number."""


class _Unsupported(ValueError):
    """One line can be read, and holds what does not count here; noted with its number."""


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


def parse_signers(text: str, zone: tzinfo | None, problems: list[str], unused: list[str]) -> Iterator[AllowedSigner]:
    """Yield the lines of an `allowed_signers` file that count; append to `problems` and `unused` the others."""
    for number, line in _lines(text, "the allowed_signers file", problems):
        try:
            yield _parse_line(line, number, zone)
        except _Unsupported as note:
            unused.append(f"line {number}: {note}")
        except (_LineError, KeyFileError) as error:
            problems.append(f"line {number}: {error.problem if isinstance(error, KeyFileError) else error}")


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
    # Only now: what can be read of such a line must be right, too.
    unknown = sorted(options.keys() - _OPTIONS - _FLAGS)
    if unknown:
        raise _Unsupported(f"option {unknown[0][:40]} is not supported, so the line does not count")
    if kind not in KEY_TYPES:
        raise _Unsupported(f"keys of type {kind} do not count here")
    namespaces = options.get("namespaces")
    return AllowedSigner(
        principals=tuple(principals.split(",")),
        key=blob,
        authority=_AUTHORITY in options,
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
    """Read `name="value",flag` up to the first blank outside quotes. Unknown names are read, too."""
    found: dict[str, str] = {}
    at = 0
    while True:
        name_match = _OPTION_NAME.match(text, at)
        name = name_match.group().lower() if name_match else ""
        start, at = at, at + len(name)
        valued = text[at : at + 2] == '="' and name not in _FLAGS
        if not name or not (valued or at >= len(text) or text[at] in _ENDS_OPTION or name in _OPTIONS | _FLAGS):
            raise _LineError(f"neither a public key nor an option: {text[start:][:40]!a}")
        if name in found:
            raise _LineError(f"{name} is given twice")
        if name in _OPTIONS and not valued:
            raise _LineError(f'{name} needs a value in double quotes: {name}="…"')
        found[name] = ""
        if valued:
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


def parse_revoked(text: str, problems: list[str]) -> Iterator[bytes]:
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


__all__ = ["MAX_TEXT", "AllowedSigner", "matches", "parse_revoked", "parse_signers"]
