"""Raw commit objects to `Commit`: any encoding, any nonsense, never an error. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import NamedTuple

from deploykit.messages.source import COMMIT_TEXT, NAME_TEXT, Commit
from deploykit.names import ObjectId

#: Enough bytes for `COMMIT_TEXT` characters in any encoding.
_BYTES = 4 * COMMIT_TEXT


class Parsed(NamedTuple):
    """A parsed commit: its parents in git's order, and what messages carry of it."""

    parents: tuple[str, ...]
    commit: Commit


def parse_commit(oid: str, raw: bytes) -> Parsed:
    """Parse a commit as git stores it (gitformat: header lines, an empty line, the message).

    A text is decoded by the commit's own `encoding` header, else as UTF-8, else as Latin-1: git does not check the
    header, and a wrong letter is better than a lost line.
    """
    head, _, body = raw.partition(b"\n\n")
    parents: list[str] = []
    author = encoding = b""
    for line in head.split(b"\n"):
        key, _, value = line.partition(b" ")
        if key == b"parent" and len(value) in (40, 64) and not value.strip(b"0123456789abcdef"):
            parents.append(value.decode("ascii"))
        elif key == b"author":
            author = author or value
        elif key == b"encoding":
            encoding = encoding or value
    codec = encoding.decode("ascii", "replace").strip().lower()
    who, _, when = author.rpartition(b"> ")
    # A client that writes UTF-16 does so in the message alone: the header lines would not be lines any more.
    name = _text(who + b">" if when and who else author, "" if codec.startswith(_WIDE) else codec)
    message = _text(body, "utf-16" if body.startswith(_MARKS) else codec).strip("\n")
    return Parsed(
        tuple(parents),
        Commit(id=ObjectId(oid), author=name[:NAME_TEXT], time=_time(when), message=message[:COMMIT_TEXT]),
    )


_WIDE = ("utf-16", "utf16", "utf-32", "utf32", "ucs")
_MARKS = (b"\xff\xfe", b"\xfe\xff")
#: Codecs of Python that name no character set, some of them slow on hostile input.
_NO_TEXT = frozenset({"idna", "punycode", "unicode_escape", "raw_unicode_escape", "unicode-escape", "undefined"})


def _text(raw: bytes, codec: str) -> str:
    # A text that we cut may end inside a character; one in UTF-16 often ends in half a line end.
    ragged = len(raw) > _BYTES or codec.startswith(_WIDE)
    raw = raw[:_BYTES]
    for name in (codec, "utf-8"):
        if not name or name in _NO_TEXT:
            continue
        try:
            return _clean(raw.decode(name))
        except UnicodeDecodeError as error:
            if ragged and error.start > len(raw) - 4:
                return _clean(raw[: error.start].decode(name, "replace"))
        except (LookupError, ValueError, TypeError):
            continue  # no such codec: go on as if it had not been named
    return raw.decode("latin-1")


def _clean(text: str) -> str:
    """Drop what no JSON can carry: halves of surrogate pairs (UTF-16 and UTF-7 may make them)."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()


def _time(raw: bytes) -> str:
    """Return git's `SECONDS +HHMM` as git prints it (ISO 8601, strict)."""
    seconds, _, offset = raw.decode("ascii", "replace").partition(" ")
    try:
        sign = -1 if offset.startswith("-") else 1
        zone = timezone(sign * timedelta(hours=int(offset[1:3]), minutes=int(offset[3:5])))
        return datetime.fromtimestamp(int(seconds), zone).isoformat()
    except (ValueError, OverflowError, OSError):
        return datetime.fromtimestamp(0, UTC).isoformat()
