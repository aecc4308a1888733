"""Files with facts or classes: bytes to values, pure; and the reading, bounded.

Rules:

* Whatever a file holds, the answer is facts or `FactsError`: it is read up to a cap, and only if it is a regular file.
* YAML is read event by event and makes maps, lists, texts, numbers and booleans. Tags make no objects.
* In YAML an alias may stand for a single value, not for a list or map, and `<<` is refused: a few lines of these can
  stand for more than any memory holds.
* What YAML 1.1 takes for a date, a base-60 or an octal number stays the text that it is.
* A key that is given twice is refused: two readers would disagree.
"""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Any, Final

import attrs

from deploykit.errors import FactsError, MessageError
from deploykit.settings.facts import MAX_CLASSES, MAX_FACT_DEPTH, MAX_FACT_NAME, shown
from deploykit.wire import strictjson

#: Longest file.
MAX_FILE: Final = 1 << 20

_NULL: Final = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEANS: Final = {
    spelled: meant
    for meant, words in ((True, ("true", "yes", "on")), (False, ("false", "no", "off")))
    for word in words
    for spelled in (word, word.title(), word.upper())
}
_INTEGER: Final = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,17})\Z")
_FLOAT: Final = re.compile(
    r"[-+]?(?:[0-9]{1,40}\.[0-9]{0,40}|\.[0-9]{1,40}|[0-9]{1,18}(?=[eE]))(?:[eE][-+]?[0-9]{1,3})?\Z"
)
_STRING_TAG: Final = "tag:yaml.org,2002:str"
_COLLECTION_TAGS: Final = ("!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


# -- reading -----------------------------------------------------------------------------------------------------------


def read_facts(path: Path) -> dict[str, object]:
    """Return the facts of a JSON or YAML file.

    Raises:
        FactsError: it cannot be read, is too large, or holds no map; the text names the file.
    """
    return parse_facts(read_bounded(path), str(path))


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the classes of a file with one on each line; see `parse_classes`.

    Raises:
        FactsError: it cannot be read or is too large; the text names the file.
    """
    return parse_classes(read_bounded(path))


def read_bounded(path: Path) -> bytes:
    """Return the content of a regular file that is not too large. Never waits, as opening a pipe would.

    Raises:
        FactsError: there is no such file, or it cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
        with open(fd, "rb", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise FactsError(f"{path} is not a regular file", "name a file of facts")
            raw = b"" if found.st_size > MAX_FILE else _read_up_to(file.fileno(), MAX_FILE + 1)
    except OSError as error:
        raise FactsError(f"{path}: {error.strerror}", "create it, or correct its mode or the setting") from None
    except ValueError:
        raise FactsError(f"{str(path)!a} is no path", "correct the setting") from None
    if found.st_size > MAX_FILE or len(raw) > MAX_FILE:
        raise FactsError(f"{path} is longer than {MAX_FILE} bytes", "name a smaller file")
    return raw


def _read_up_to(fd: int, size: int) -> bytes:
    parts, left = [], size
    while left and (part := os.read(fd, left)):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


# -- facts -------------------------------------------------------------------------------------------------------------


def parse_facts(raw: bytes, name: str) -> dict[str, object]:
    """Return the facts in a file's content.

    Args:
        raw: JSON or YAML, at most `MAX_FILE` bytes.
        name: the file's; `.json`, `.yaml` or `.yml` at its end decides, else JSON is what begins with `{`.

    Raises:
        FactsError: neither, or no map; the text begins with the name.
    """
    if len(raw) > MAX_FILE:
        raise FactsError(f"{name} is longer than {MAX_FILE} bytes", "name a smaller file")
    suffix = name.rpartition("/")[2].rpartition(".")[2].lower()
    is_json = suffix == "json" or (suffix not in ("yaml", "yml") and raw.lstrip()[:1] == b"{")
    try:
        found = strictjson.parse(raw) if is_json else _parse_yaml(raw, name)
    except MessageError as error:
        raise FactsError(f"{name} is not JSON that can be used: {error.problem}", "correct it") from None
    if found is None and not is_json:  # a file with nothing but comments
        return {}
    if not isinstance(found, dict):
        raise FactsError(f"{name} holds no map of facts", "write a line such as  env: live")
    return found


def _parse_yaml(raw: bytes, name: str) -> object:
    try:
        import yaml
    except ModuleNotFoundError:
        raise FactsError(f"{name} is YAML, and PyYAML is not installed", "pip install 'deploykit[yaml]'") from None
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise FactsError(f"{name} is not UTF-8 at byte {error.start}", "save it as UTF-8") from None
    reader = _YamlReader(name)
    try:
        for event in yaml.parse(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            reader.take(event)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        where = f" in line {mark.line + 1}" if mark is not None else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "not YAML"
        raise FactsError(f"{name} is not YAML{where}: {str(problem)[:100]!a}", "correct it") from None
    except (ValueError, RecursionError, OverflowError):  # a foreign parser's own limit
        raise FactsError(f"{name} is not YAML that can be used", "correct it") from None
    return reader.value


_NO_KEY: Final = object()


@attrs.define(slots=True)
class _YamlReader:
    """Builds one value from the events of one document."""

    name: str
    value: object = None
    _open: list[dict[str, object] | list[object]] = attrs.field(factory=list)
    _keys: list[object] = attrs.field(factory=list)
    _anchors: dict[str, object] = attrs.field(factory=dict)
    _documents: int = 0

    def take(self, event: Any) -> None:
        """Take the next event.

        Raises:
            FactsError: what follows from it is refused.
        """
        match type(event).__name__:
            case "DocumentStartEvent":
                self._documents += 1
                if self._documents > 1:
                    raise self._refused(event, "a second document")
            case "MappingStartEvent" | "SequenceStartEvent":
                self._begin(event, {} if type(event).__name__ == "MappingStartEvent" else [])
            case "MappingEndEvent" | "SequenceEndEvent":
                self._open.pop()
                self._keys.pop()
            case "ScalarEvent":
                value = self._scalar(event)
                if event.anchor is not None:
                    self._anchors[event.anchor] = value
                self._add(event, value)
            case "AliasEvent":
                if event.anchor not in self._anchors:
                    raise self._refused(event, "an alias that stands for a list or a map, or for nothing")
                self._add(event, self._anchors[event.anchor])

    def _begin(self, event: Any, value: dict[str, object] | list[object]) -> None:
        if len(self._open) >= MAX_FACT_DEPTH + 2:
            raise self._refused(event, f"nested deeper than {MAX_FACT_DEPTH}")
        if event.anchor is not None:
            self._anchors.pop(event.anchor, None)
        if event.tag is not None and event.tag not in _COLLECTION_TAGS:
            raise self._refused(event, "a tag")
        self._add(event, value)
        self._open.append(value)
        self._keys.append(_NO_KEY)

    def _add(self, event: Any, value: object) -> None:
        if not self._open:
            self.value = value
            return
        into = self._open[-1]
        if isinstance(into, list):
            into.append(value)
        elif self._keys[-1] is _NO_KEY:
            self._keys[-1] = self._key(event, into)
        else:
            into[str(self._keys[-1])] = value
            self._keys[-1] = _NO_KEY

    def _key(self, event: Any, into: dict[str, object]) -> str:
        """Return a map's key: as it is written, also where it looks like a number."""
        key = getattr(event, "value", None)
        if not isinstance(key, str) or len(key) > 4 * MAX_FACT_NAME:
            raise self._refused(event, "a key that is no short text")
        if key == "<<":
            raise self._refused(event, "the key <<")
        if key in into:
            raise self._refused(event, f"the key {shown((key,))} twice")
        return key

    def _scalar(self, event: Any) -> object:
        tag, text = event.tag, event.value
        if tag is not None and tag not in ("!", _STRING_TAG):
            raise self._refused(event, "a tag")
        if tag is not None or not event.implicit[0] or event.style:
            return text
        if text in _NULL:
            return None
        if text in _BOOLEANS:
            return _BOOLEANS[text]
        if _INTEGER.match(text):
            return int(text)
        return float(text) if _FLOAT.match(text) else text

    def _refused(self, event: Any, what: str) -> FactsError:
        return FactsError(f"{self.name}, line {event.start_mark.line + 1}: {what} cannot be used", "correct it")


# -- classes -----------------------------------------------------------------------------------------------------------


def parse_classes(raw: bytes) -> tuple[str, ...]:
    """Return the classes in a file's content, each once, in its order; at most one more than a node sends.

    A line that is no name (too long, with control characters, not UTF-8) is passed over, so is what begins with `#`.
    """
    found: dict[str, None] = {}
    for line in raw.decode("utf-8", "surrogateescape").split("\n"):
        name = line.strip()
        if name and not name.startswith("#") and len(name) <= MAX_FACT_NAME and name.isprintable():
            found[name] = None
            if len(found) > MAX_CLASSES:
                break
    return tuple(found)
