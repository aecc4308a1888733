"""Read old settings: YAML as Ruby wrote and read it, JSON, and lines `name=value`. Hostile until parsed.

Rules:

* Only YAML's syntax is used; no tag makes an object, and a file with one is refused with the line.
* Ruby's symbols, `:login: x` and `mode: :normal`, are text.
* What YAML 1.1 reads as something else than it looks (`0755`, `1.10`, a date, `10:30`) stays the text as written, with
  a note, because that is what its author meant and hardly what Ruby made of it. `yes`, `no`, `on`, `off` are booleans.
* A key given twice, a second document, what is not UTF-8, too large, too deep or too much by aliases is refused.
"""

from __future__ import annotations

import itertools
import os
import re
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from deploykit.config.migrate.model import OldFile
from deploykit.errors import MessageError, UsageError
from deploykit.wire import strictjson

if TYPE_CHECKING:
    import yaml

#: Largest file, in bytes.
MAX_OLD_FILE: Final = 1024 * 1024
#: Deepest nesting, and most values, each alias counted for all that it stands for.
MAX_OLD_DEPTH: Final = 24
MAX_OLD_VALUES: Final = 50_000
#: Notes about how one file was read; beyond that their number is said.
_MOST_NOTES: Final = 20

_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "yes", "on"), True),
    **dict.fromkeys(("false", "no", "off"), False),
}
_NOTHING: Final = frozenset({"", "~", "null", "Null", "NULL"})
_SYMBOL = re.compile(r":(?:([A-Za-z_][\w.-]*[?!]?)|\"([^\"\\]*)\"|'([^'\\]*)')\Z").match
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})\Z", re.ASCII).match
_FLOAT = re.compile(r"-?(?:0|[1-9][0-9]{0,14})\.[0-9]{1,15}\Z", re.ASCII).match
#: What YAML 1.1 takes for a number or a time although it is not written as one is.
_ODD = re.compile(
    r"[-+]?(?:0[0-7_,]+|0x[0-9a-fA-F_,]+|0b[01_,]+|[0-9][0-9_,]*)\Z"
    r"|[-+]?[0-9][0-9_,]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?\Z"
    r"|[-+]?(?:[0-9][0-9_,]*)?\.[0-9]*(?:[eE][-+]?[0-9]+)?\Z|[-+]?[0-9][0-9_,]*[eE][-+]?[0-9]+\Z"
    r"|[-+]?\.(?:inf|Inf|INF)\Z|\.(?:nan|NaN|NAN)\Z"
    r"|[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:[Tt ].*)?\Z",
    re.ASCII,
).match
#: What ERB and Jinja leave where nobody filled them in.
_TEMPLATE = re.compile(r"<%|\{\{|\{%").search
_A_TEMPLATE: Final = "looks like a template: give the file that is made of it"
_QUOTE: Final = "a text that begins with one of * & ! % @ ` | > [ { or holds `: ` needs quotes"
#: Tags that can be named. Any other may be a passcode that begins with `!`.
_TAGS = re.compile(
    r"!ruby/[a-z]{1,20}(?::[A-Z][A-Za-z0-9_:]*)?\Z|tag:yaml\.org,2002:"
    r"(?:str|int|float|bool|null|map|seq|set|omap|pairs|binary|timestamp|python/[a-z/]{1,40}:?[A-Za-z0-9_.]*)\Z"
).match
_FACT = re.compile(r"([A-Za-z0-9_][A-Za-z0-9_.:-]*)[ \t]*=(.*)\Z", re.DOTALL).match


def read_old_file(path: Path) -> OldFile:
    """Read one old file.

    Raises:
        UsageError: it cannot be read, or is not acceptable; with the line where there is one.
    """
    try:
        # Not blocking: a FIFO in the place of the file would be waited for.
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode) and not stat.S_ISFIFO(found.st_mode):
                raise UsageError(f"{path} is no file", "give the settings file itself")
            os.set_blocking(file.fileno(), True)
            raw = file.read(MAX_OLD_FILE + 1)
    except OSError as error:
        remedy = "give the files in it" if isinstance(error, IsADirectoryError) else ""
        raise UsageError(f"cannot read {path}: {error.strerror}", remedy) from error
    return parse_old_file(raw, path, mode=stat.S_IMODE(found.st_mode))


def parse_old_file(raw: bytes, path: Path, *, mode: int | None = None) -> OldFile:
    """Return what an old file holds.

    Args:
        raw: its content.
        path: where it stood; `.txt` and `.cfg` are read as `name=value` lines, `.json` as JSON, else YAML.
        mode: its permission bits.

    Raises:
        UsageError: as `read_old_file`.
    """
    if len(raw) > MAX_OLD_FILE:
        raise UsageError(f"{path} is larger than {MAX_OLD_FILE} bytes")
    if path.suffix.lower() == ".toml":
        raise UsageError(f"{path}: no old settings are TOML", "give the old files; `config check -c` checks new ones")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}, line {line}: not UTF-8", "convert it, as with iconv -t UTF-8") from None
    notes: list[str] = []
    template = next((number for number, line in _lines(text) if _TEMPLATE(line)), 0)
    if template:
        notes.append(f"line {template}: {_A_TEMPLATE}")
    try:
        data = _parse(text, path, notes)
    except UsageError as error:
        raise UsageError(error.problem, _A_TEMPLATE if template else error.remedy) from None
    if not isinstance(data, dict) or not data:
        raise UsageError(f"{path} holds no settings", "expected a map: KEY: VALUE")
    if len(notes) > _MOST_NOTES:
        notes[_MOST_NOTES:] = [f"and {len(notes) - _MOST_NOTES} more values of this kind"]
    return OldFile(path=path, data=data, mode=mode, notes=tuple(notes))


def _parse(text: str, path: Path, notes: list[str]) -> object:
    suffix = path.suffix.lower()
    if suffix in (".txt", ".cfg") or _looks_like_facts(text):
        return _facts(text, path, notes)
    if suffix != ".json":
        return _parse_yaml(text, path, notes)  # also JSON by another name, which is YAML
    try:
        return strictjson.parse(text.encode())
    except MessageError as error:
        raise UsageError(f"{path}: {error.problem}") from None


# -- facts in lines ----------------------------------------------------------------------------------------------------


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield each line that says something, with its number."""
    for number, raw in enumerate(text.split("\n"), 1):
        line = raw.strip(" \t\r")
        if line and not line.startswith("#"):
            yield number, line


def _looks_like_facts(text: str) -> bool:
    """Return whether each line is `name=value`, and so no YAML map."""
    some = False
    for _, line in _lines(text):
        some = True
        if not _FACT(line) or ": " in line.partition("=")[0]:
            return False
    return some


def _facts(text: str, path: Path, notes: list[str]) -> dict[str, object]:
    found: dict[str, object] = {}
    for number, line in _lines(text):
        match = _FACT(line)
        if match is None:
            _refuse(path, number, "not a line of the form name=value")
        if match[1] in found:
            _refuse(path, number, f"{match[1][:60]!a} is given twice")
        found[match[1]] = value = match[2].strip()
        if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
            notes.append(f"line {number}: the quotes are a part of the value")
    if len(found) > MAX_OLD_VALUES:
        raise UsageError(f"{path} holds more than {MAX_OLD_VALUES} values")
    return found


# -- YAML --------------------------------------------------------------------------------------------------------------


def _refuse(path: Path, line: int, why: str, remedy: str = "") -> NoReturn:
    raise UsageError(f"{path}, line {line}: {why}", remedy)


def _parse_yaml(text: str, path: Path, notes: list[str]) -> object:
    try:
        import yaml
    except ImportError:
        raise UsageError(f"{path}: YAML needs PyYAML", "pip install deploykit[migrate]") from None
    # C where there is one. Only events are asked of it: neither loader makes anything.
    events = yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
    try:
        return _YamlReader(events, path, notes).document()
    except yaml.MarkedYAMLError as error:
        why = " ".join(filter(None, (error.context, error.problem)))
        marks = (error.problem_mark, error.context_mark)  # of a quote that nothing ends, where it begins
        mark = next(filter(None, marks[::-1] if "end of stream" in why else marks), None)
        line = mark.line if mark is not None else 0
        shown, remedy = next(itertools.islice(text.splitlines(), line, None), ""), _QUOTE
        if "\t" in shown and "token" in why:
            why, remedy = "a tab where YAML allows only blanks", "write blanks"
        elif re.search(r"[{,]\s*:[A-Za-z_]", shown):
            remedy = "between { and } a symbol is no YAML: write login: in place of :login:"
        _refuse(path, line + 1, why, remedy)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1 if isinstance(error.position, int) else 1
        _refuse(path, line, f"not YAML: a character that is not allowed, near character {error.position}")
    except yaml.YAMLError as error:
        raise UsageError(f"{path} is not YAML: {' '.join(str(error).split())[:200]}") from None
    except UnicodeEncodeError:
        raise UsageError(f"{path} is not YAML: half of a surrogate pair") from None


class _YamlReader:
    """Builds values from the events of one document."""

    def __init__(self, events: Iterator[yaml.Event], path: Path, notes: list[str]) -> None:
        import yaml

        self._yaml = yaml
        self._events = iter(events)
        self._path = path
        self._notes = notes
        self._count = 0
        #: Anchor -> value, and how many values it stands for; None while it is read.
        self._anchors: dict[str, tuple[object, int] | None] = {}

    def document(self) -> object:
        """Return what the only document of the file holds; None for an empty file."""
        yaml, value, documents = self._yaml, None, 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document begins", "the original read the first alone: split the file")
            elif isinstance(event, yaml.NodeEvent):
                value = self._node(event, 0)
        return value

    def _refuse(self, event: yaml.Event, why: str, remedy: str = "") -> NoReturn:
        _refuse(self._path, event.start_mark.line + 1, why, remedy)

    def _counted(self, event: yaml.Event, more: int) -> None:
        self._count += more
        if self._count > MAX_OLD_VALUES:
            self._refuse(event, f"more than {MAX_OLD_VALUES} values, each alias counted for all that it stands for")

    def _node(self, event: yaml.Event, depth: int) -> object:
        yaml = self._yaml
        if depth > MAX_OLD_DEPTH:
            self._refuse(event, f"nested deeper than {MAX_OLD_DEPTH}")
        if isinstance(event, yaml.AliasEvent):
            held = self._anchors.get(event.anchor)
            if held is None:
                self._refuse(event, "an alias for something that is not there, or holds itself", _QUOTE)
            self._counted(event, held[1])
            return held[0]
        if event.tag is not None:
            shown = f"the tag {event.tag[:60]}" if _TAGS(event.tag) else "a tag"
            why = f"{shown} is not read: nothing here makes objects"
            self._refuse(event, why, "write the plain value; one that begins with ! needs quotes")
        before = self._count
        self._counted(event, 1)
        if event.anchor:
            self._anchors[event.anchor] = None
            if isinstance(event, yaml.ScalarEvent) and not event.value and not event.style:
                self._note(event, "empty in YAML: a text that begins with & needs quotes")
        if isinstance(event, yaml.ScalarEvent):
            value: object = self._scalar(event)
        elif isinstance(event, yaml.SequenceStartEvent):
            value = [self._node(item, depth + 1) for item in self._until(yaml.SequenceEndEvent)]
        else:
            value = self._map(depth)
        if event.anchor:
            self._anchors[event.anchor] = (value, self._count - before)
        return value

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        """Yield the events of a collection's items up to its end."""
        for event in self._events:
            if isinstance(event, end):
                return
            yield event

    def _map(self, depth: int) -> dict[str, object]:
        own: dict[str, object] = {}
        merged: dict[str, object] = {}
        for event in self._until(self._yaml.MappingEndEvent):
            if not isinstance(event, self._yaml.ScalarEvent) or event.tag is not None:
                self._node(event, depth + 1)  # says what is wrong with it, where something is
                self._refuse(event, "a key that is no plain text")
            is_merge = not event.style and event.value == "<<"
            key = self._key(event)
            value = self._node(next(self._events), depth + 1)
            if is_merge:
                self._merge(event, merged, value)
            elif key in own:
                why = f"the key {key[:60]!a} is given twice"
                self._refuse(event, why, "Ruby took the last one: take the others out, or rename them")
            else:
                own[key] = value
        return {**{key: value for key, value in merged.items() if key not in own}, **own} if merged else own

    def _merge(self, event: yaml.Event, into: dict[str, object], value: object) -> None:
        """Take the keys of `<<: *other` that were not there before."""
        for each in value if isinstance(value, list) else [value]:
            if not isinstance(each, dict):
                self._refuse(event, "<< takes keys from a map, and this is none")
            for key, item in each.items():
                into.setdefault(key, item)

    def _key(self, event: yaml.ScalarEvent) -> str:
        self._counted(event, 1)
        key = event.value
        key.encode()
        if event.anchor:
            self._anchors[event.anchor] = (key, 1)
        symbol = _SYMBOL(key) if not event.style else None
        return next(part for part in symbol.groups() if part is not None) if symbol else str(key)

    def _scalar(self, event: yaml.ScalarEvent) -> object:
        text: str = event.value
        text.encode()
        if event.style:  # quoted, or a block
            return text
        value: object = text
        if text in _NOTHING:
            value = None
        elif symbol := _SYMBOL(text):
            value = next(part for part in symbol.groups() if part is not None)
        elif text.lower() in _WORDS:
            value = _WORDS[text.lower()]
            if text.lower() not in ("true", "false"):
                self._note(event, f"{text} is {str(value).lower()} in YAML (quote it if it is a text)")
        elif _INTEGER(text):
            value = int(text)
        elif _FLOAT(text) and str(float(text)) == text:
            value = float(text)
        elif _ODD(text):
            # The value may be a passcode: only the line is named.
            self._note(event, "taken as the text that is written there, which YAML reads as a number or a time")
        return value

    def _note(self, event: yaml.Event, what: str) -> None:
        self._notes.append(f"line {event.start_mark.line + 1}: {what}")


__all__ = ["MAX_OLD_DEPTH", "MAX_OLD_FILE", "MAX_OLD_VALUES", "parse_old_file", "read_old_file"]
