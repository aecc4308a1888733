"""The options of a line of an OpenSSH `allowed_signers` file. Pure: text in.

Grammar: ssh-keygen(1), ALLOWED SIGNERS. Rules:

* What we accept, ssh-keygen accepts with the same meaning.
* Options that we do not know are read like others. A line with one does not count.
* A time without a Z is of the machine's zone, and standard time all the year round, as in ssh-keygen.
"""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

import attrs

_BLANK: Final = " \t"
_ENDS_OPTION: Final = ", \t"
_AUTHORITY: Final = "cert-authority"
#: The options with a value, and those without, in lower case as they are compared.
_OPTIONS: Final = frozenset({"namespaces", "valid-after", "valid-before"})
_FLAGS: Final = frozenset({_AUTHORITY})
_OPTION_NAME: Final = re.compile(r"[A-Za-z-]+")
_TIME: Final = re.compile(r"(\d{4})(\d\d)(\d\d)(?:(\d\d)(\d\d)(\d\d)?)?(Z|UTC)?\Z", re.IGNORECASE | re.ASCII)


class LineError(ValueError):
    """One line cannot be read; collected with its number."""


class UnsupportedLine(ValueError):
    """One line can be read, and holds what does not count here; noted with its number."""


@attrs.frozen(kw_only=True, slots=True)
class LineOptions:
    """What the options of a line mean."""

    authority: bool = False
    namespaces: tuple[str, ...] | None = None
    valid_after: datetime | None = None
    valid_before: datetime | None = None


def meaning_of(options: dict[str, str], zone: tzinfo | None) -> LineOptions:
    """Return what the options of a line mean.

    Raises:
        LineError: a value is wrong.
        UnsupportedLine: all can be read, and one is unknown.
    """
    after, before = (_parse_time(options, name, zone) for name in ("valid-after", "valid-before"))
    if after is not None and before is not None and before <= after:
        raise LineError("valid-before is not later than valid-after")
    # Only now: what can be read of such a line must be right, too.
    unknown = sorted(options.keys() - _OPTIONS - _FLAGS)
    if unknown:
        raise UnsupportedLine(f"option {unknown[0][:40]} is not supported, so the line does not count")
    namespaces = options.get("namespaces")
    return LineOptions(
        authority=_AUTHORITY in options,
        namespaces=None if namespaces is None else tuple(namespaces.split(",")),
        valid_after=after,
        valid_before=before,
    )


def take_options(text: str) -> tuple[dict[str, str], str]:
    """Read `name="value",flag` up to the first blank outside quotes. Unknown names are read, too."""
    found: dict[str, str] = {}
    at = 0
    while True:
        name_match = _OPTION_NAME.match(text, at)
        name = name_match.group().lower() if name_match else ""
        start, at = at, at + len(name)
        valued = text[at : at + 2] == '="' and name not in _FLAGS
        if not name or not (valued or at >= len(text) or text[at] in _ENDS_OPTION or name in _OPTIONS | _FLAGS):
            raise LineError(f"neither a public key nor an option: {text[start:][:40]!a}")
        if name in found:
            raise LineError(f"{name} is given twice")
        if name in _OPTIONS and not valued:
            raise LineError(f'{name} needs a value in double quotes: {name}="…"')
        found[name] = ""
        if valued:
            found[name], at = _take_quoted(text, at + 2, name)
        if at >= len(text) or text[at] in _BLANK:
            return found, text[at:].lstrip(_BLANK)
        if text[at] != ",":
            raise LineError(f"{name} is followed by neither a comma nor a blank")
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
    raise LineError(f"the quotes around the value of {name} are not closed")


def _parse_time(options: dict[str, str], name: str, zone: tzinfo | None) -> datetime | None:
    """Return the instant of an option: YYYYMMDD or YYYYMMDDHHMM[SS], with a Z for UTC."""
    text = options.get(name)
    if text is None:
        return None
    found = _TIME.match(text)
    if not found:
        raise LineError(f"{name} is not a time: {text[:40]!a} (expected YYYYMMDD[HHMM[SS]][Z])")
    numbers = [int(part or 0) for part in found.groups()[:6]]
    try:
        instant = _instant(numbers, UTC if found.group(7) else zone)
    except (ValueError, OverflowError, OSError):
        raise LineError(f"{name} is not a time on any calendar: {text[:40]!a}") from None
    if instant.timestamp() <= 0:  # the first second itself means "no time" to ssh-keygen
        raise LineError(f"{name} lies before 1970")
    return instant


def _instant(numbers: list[int], zone: tzinfo | None) -> datetime:
    """Return the instant of a local time as ssh-keygen does: standard time in summer too (mktime with tm_isdst = 0)."""
    year, month, day, hour, minute, second = numbers
    there = datetime(year, month, day, hour, minute, second, tzinfo=zone or UTC)
    if zone is None:
        return datetime.fromtimestamp(time.mktime((*numbers[:6], 0, 0, 0)), UTC)  # type: ignore[arg-type]
    return (there + (there.dst() or timedelta())).astimezone(UTC)


__all__ = ["LineError", "LineOptions", "UnsupportedLine", "meaning_of", "take_options"]
