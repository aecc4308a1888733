"""A list of nodes, as `--nodes` reads it: one name a line, or JSON.

* In text, `#` begins a comment, and empty lines do not count.
* JSON is a list of names, or of objects with a `node`; such a list may stand in an object under `nodes`.
* A name given twice counts once. A list without a name is an error: it would choose nobody.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

from deploykit.errors import InvalidName, UsageError
from deploykit.names import NodeName, parse_node_name

#: Longest list, in bytes: 50,000 nodes with all that they tell of themselves would be more.
MAX_LIST: Final = 64 * 1024 * 1024
#: Problems that are listed; the rest is counted.
_SHOWN: Final = 10


def parse_node_list(body: bytes, where: str) -> tuple[NodeName, ...]:
    """Return the names, in their order, each once.

    Args:
        body: the file's content.
        where: the file's name, for errors.

    Raises:
        UsageError: it is no such list, or holds no name; with each line that is wrong.
    """
    if len(body) > MAX_LIST:
        raise UsageError(f"{where} is longer than {MAX_LIST} bytes", "it should hold names of nodes, one a line")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 at byte {error.start}", "names of nodes, one a line") from None
    entries = _json(text, where) if text.lstrip()[:1] in ("[", "{") else _lines(text)
    names: dict[NodeName, None] = {}
    problems: list[str] = []
    for place, name in entries:
        try:
            names[parse_node_name(name)] = None
        except InvalidName as error:
            problems.append(f"{where} {place}: {error}")
    if problems:
        more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
        raise UsageError(f"{where} is not a list of nodes", problems=(*problems[:_SHOWN], *more))
    if not names:
        raise UsageError(f"{where} names no node", "one name a line; --all chooses every node")
    return tuple(names)


def _lines(text: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(text.split("\n"), 1):
        if name := line.partition("#")[0].strip(" \t\r"):
            yield f"line {number}", name


def _json(text: str, where: str) -> Iterator[tuple[str, object]]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        place = f"line {error.lineno}, column {error.colno}"
        raise UsageError(f"{where} begins like JSON and is none: {error.msg} at {place}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{where} begins like JSON and is none: nested too deep, or a number is too long") from None
    if isinstance(value, dict):
        value = value.get("nodes")
    if not isinstance(value, list):
        raise UsageError(f"{where} holds JSON, but no list of nodes", 'as in ["web1", "web2"] or [{"node": "web1"}]')
    for number, entry in enumerate(value, 1):
        yield f"entry {number}", entry.get("node") if isinstance(entry, dict) else entry
