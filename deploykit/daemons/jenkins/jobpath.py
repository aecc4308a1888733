"""The name of a job -> its path at Jenkins. Pure.

Rules:

* A name is `/`-separated: folders, the job, and for a multibranch project the branch.
* We quote each part; Jenkins' own escapes in a name are quoted again: item `a%2Fb` stands at `a%252Fb`.
* `%20` and the like, which the original's settings wrote by hand, are understood: no ordinary name holds a `%`.
* Refused: an empty part, `.` and `..` in any spelling, control characters. So no name leads out of the server's jobs.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from deploykit.errors import InvalidName
from deploykit.settings.jenkins import MAX_JOB

#: What no item's name holds; the name of a multibranch branch has `%XX` instead.
_NOT_IN_NAMES: Final = frozenset("?*/\\%!@#$^&|<>[]:;")
_ESCAPES: Final = re.compile(r"(?:%[0-9A-Fa-f]{2})+")
_REMEDY: Final = "write FOLDER/JOB as Jenkins shows it; one part may not be empty, . or .."


def parse_job_name(text: object) -> tuple[str, ...]:
    """Return the parts of a job's name.

    >>> parse_job_name("team/my%20tests"), parse_job_name("shop/feature%2Flogin")
    (('team', 'my tests'), ('shop', 'feature%2Flogin'))

    Raises:
        InvalidName: it is no name, or would lead to something else.
    """
    if not isinstance(text, str) or not text or len(text) > MAX_JOB:
        raise InvalidName(f"not the name of a job: {str(text)[:60]!a}", _REMEDY)
    parts = tuple(_ESCAPES.sub(_decoded, part) for part in text.split("/"))
    for part in parts:
        if not part.strip() or part.strip() in (".", "..") or not part.isprintable() or "\\" in part:
            raise InvalidName(f"not the name of a job: {text[:60]!a}", _REMEDY)
    return parts


def job_path(parts: tuple[str, ...]) -> str:
    """Return the path of a job below the server's own, without slashes around it.

    >>> job_path(("team", "my tests")), job_path(("shop", "feature%2Flogin"))
    ('job/team/job/my%20tests', 'job/shop/job/feature%252Flogin')
    """
    return "/".join(f"job/{quote(part, safe='')}" for part in parts)


def branch_item(branch: str) -> str:
    """Return the name of the item that a multibranch project has for a branch: one part of a job's name.

    >>> branch_item("feature/login")
    'feature%2Flogin'
    """
    if branch in (".", ".."):
        return branch.replace(".", "%2E")
    return "".join(_escaped(c) if c in _NOT_IN_NAMES or not c.isprintable() else c for c in branch)


def _escaped(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "replace"))


def _decoded(hit: re.Match[str]) -> str:
    """Return the text that stands for a run of `%XX`; what Jenkins itself escapes in names stays as it is."""
    try:
        text = bytes.fromhex(hit[0].replace("%", "")).decode()
    except UnicodeDecodeError:
        raise InvalidName(f"not the name of a job: {hit[0]} is not UTF-8", _REMEDY) from None
    return "".join(c if c == "%" or c not in _NOT_IN_NAMES else _escaped(c) for c in text)


__all__ = ["branch_item", "job_path", "parse_job_name"]
