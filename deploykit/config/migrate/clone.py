"""Where a local clone was cloned from: its `config` is read, and git is not run. The file may be anybody's."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Final

_MOST_BYTES: Final = 256 * 1024
_SECTION = re.compile(r'\[\s*([A-Za-z0-9.-]+)\s*(?:"((?:[^"\\]|\\.)*)")?\s*\]').match
_ESCAPES: Final = {"n": "\n", "t": "\t", "b": "\b"}


def origin_of_clone(path: Path) -> str | None:
    """Return the URL of `origin` in a clone's configuration; None where there is none that can be read."""
    for config in (path / ".git" / "config", path / "config"):
        text = _read(config)
        if text is not None:
            return origin_in_config(text)
    return None


def origin_in_config(text: str) -> str | None:
    """Return `remote.origin.url` of a git configuration, the last one as for git; None where there is none.

    >>> origin_in_config('[remote "origin"]\\n\\turl = git@example.org:shop.git # ours\\n')
    'git@example.org:shop.git'
    """
    found, inside = None, False
    for line in re.sub(r"\\\r?\n", "", text).splitlines():
        rest = line.strip()
        if section := _SECTION(rest):
            inside = section[1].lower() == "remote" and re.sub(r"\\(.)", r"\1", section[2] or "") == "origin"
            rest = rest[section.end() :].strip()
        name, equals, value = rest.partition("=")
        if inside and equals and name.strip().lower() == "url":
            found = _value(value.strip())
    return found or None


def _value(text: str) -> str:
    """Return a value as git reads it: quotes, escapes, and no comment."""
    out, quoted, at = "", False, 0
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            at += 1
            out += _ESCAPES.get(text[at], text[at])
        elif char == '"':
            quoted = not quoted
        elif char in "#;" and not quoted:
            break
        else:
            out += char
        at += 1
    return out.strip()


def _read(path: Path) -> str | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                return None
            return file.read(_MOST_BYTES).decode("utf-8", "replace")
    except (OSError, ValueError):
        return None


__all__ = ["origin_in_config", "origin_of_clone"]
