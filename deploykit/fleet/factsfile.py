"""Files with facts and classes of a node, read as what they are: text from elsewhere.

* Facts are a JSON object or a YAML map, which of the two is seen from the file's name, else from its first character.
* YAML needs PyYAML, of which only the parser is used: no tag makes an object, no alias lets a small file grow.
* Of YAML's plain values only `true`, `false`, null and decimal numbers are no texts: `no`, `10:30` and dates are.
* Classes stand one a line, `#` begins a comment; or as a JSON list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final

from deploykit.errors import MessageError, UsageError
from deploykit.wire import strictjson

if TYPE_CHECKING:
    import yaml

#: Longest file, in bytes; as long as the longest message.
MAX_FILE: Final = strictjson.MAX_BODY
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,299})\Z", re.ASCII).match
_FLOAT = re.compile(r"[-+]?[0-9]{1,20}\.[0-9]{1,20}(?:[eE][-+]?[0-9]{1,2})?\Z", re.ASCII).match
#: The other plain scalars of YAML that are no texts.
_WORDS: Final[Mapping[str, bool | None]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


def parse_facts(body: bytes, where: str) -> Mapping[str, object]:
    """Return the facts that a file holds.

    Args:
        body: the file's content.
        where: the file's name: `.yaml`, `.yml` or `.json` says what it holds.

    Raises:
        UsageError: it holds no facts, or needs PyYAML.
    """
    if len(body) > MAX_FILE:
        raise UsageError(f"{where} is longer than {MAX_FILE} bytes")
    lower = where.lower()
    is_yaml = lower.endswith((".yaml", ".yml"))
    if not is_yaml and (lower.endswith(".json") or body.lstrip()[:1] == b"{"):
        try:
            value = strictjson.parse(body)
        except MessageError as error:
            raise UsageError(f"{where}: {error.problem}") from None
    else:
        value = _parse_yaml(body, where)
    if value is None and is_yaml:
        return {}
    if not isinstance(value, dict):
        raise UsageError(f"{where} holds no facts", "expected names and values: a JSON object, or a YAML map")
    if not strictjson.within_limits(value):
        raise UsageError(f"{where} holds facts that are no texts, numbers, booleans, lists and maps, or too many")
    return value


def parse_classes(body: bytes, where: str) -> tuple[str, ...]:
    """Return the classes that a file holds, each once, in their order.

    Raises:
        UsageError: it is no text, or a line is no class.
    """
    if len(body) > MAX_FILE:
        raise UsageError(f"{where} is longer than {MAX_FILE} bytes")
    try:
        text = body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 at byte {error.start}") from None
    if text.lstrip()[:1] == "[":
        try:
            listed = strictjson.parse(text.encode())
        except MessageError as error:
            raise UsageError(f"{where}: {error.problem}") from None
        names = listed if isinstance(listed, list) else []
    else:
        names = [name for line in text.split("\n") if (name := line.partition("#")[0].strip(" \t\r"))]
    for number, name in enumerate(names, 1):
        if not isinstance(name, str) or not name.isprintable() or not name or " " in name:
            raise UsageError(f"{where}: class {number} is none: {ascii(name)[:80]}", "one class a line")
    return tuple(dict.fromkeys(names))


def _parse_yaml(body: bytes, where: str) -> object:
    try:
        import yaml
    except ImportError:
        raise UsageError(f"{where}: YAML needs PyYAML", "pip install deploykit[yaml], or use JSON") from None
    try:
        text, loader = body.decode("utf-8-sig"), getattr(yaml, "CBaseLoader", yaml.BaseLoader)  # C where there is one
        _check_depth(yaml.parse(text, Loader=loader))
        value = _value_of(yaml.compose(text, Loader=loader), set())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark is not None else ""
        raise UsageError(f"{where} is not YAML: {error.problem or error.context}{place}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{where} is not YAML: {' '.join(str(error).split())[:200]}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not UTF-8 at byte {error.start}") from None
    except UnicodeEncodeError:
        raise UsageError(f"{where} is not YAML that is read here: half of a surrogate pair") from None
    except _NotRead as error:
        raise UsageError(f"{where}: {error}") from None
    return value


class _NotRead(Exception):
    """Carries the reason out of the walk over a tree of YAML."""


def _check_depth(events: Iterable[yaml.Event]) -> None:
    """Refuse what nests deep, before a parser follows it: written in C, one has no limit of its own."""
    import yaml

    depth = 0
    for event in events:
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > strictjson.MAX_DEPTH:
            raise _NotRead("it is nested too deep")


def _value_of(node: yaml.Node | None, seen: set[int]) -> object:
    """Return what a part of a YAML document holds; tags are passed over."""
    import yaml

    if id(node) in seen and not isinstance(node, yaml.ScalarNode):
        raise _NotRead("an alias (*name) is not followed; write the value out")
    match node:
        case yaml.ScalarNode():
            if id(node) not in seen:  # an alias may stand for it a hundred thousand times
                node.value.encode()
                seen.add(id(node))
            return node.value if node.style else _plain(node.value)
        case yaml.SequenceNode():
            seen.add(id(node))
            return [_value_of(one, seen) for one in node.value]
        case yaml.MappingNode():
            seen.add(id(node))
            pairs = [(key.value, _value_of(value, seen)) for key, value in node.value]
            if not all(isinstance(key, str) for key, _ in pairs) or len(dict(pairs)) < len(pairs):
                raise _NotRead("a key is no text, or stands twice in one map")
            return dict(pairs)
    return None


def _plain(text: str) -> object:
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER(text):
        return int(text)
    return float(text) if _FLOAT(text) else text
