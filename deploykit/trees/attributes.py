"""The `.gitattributes` of a tree, as far as they change what git would write.

Rules:

* They are read from the tree itself, as `git archive` does.
* Precedence is git's: a deeper file before a higher one, a later line before an earlier one.
* Macros (`[attr]name`) count only in the root.
* A repository inside another one has attributes of its own: none of the outer one's count in it.
* A pattern that could take exponential time to match is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

from dulwich.attrs import Pattern
from dulwich.wildmatch import MalformedPattern

from deploykit.errors import TreeError
from deploykit.trees.names import shown

Value = bytes | bool | None
_Macros = dict[bytes, "tuple[tuple[bytes, Value], ...]"]

_MAX_LINE: Final = 2048  # git ignores longer ones
_MAX_FILE: Final = 10 * 1024 * 1024
_MAX_STARS: Final = 8
_BLANK: Final = b" \t\r\n"
_ESCAPES: Final = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"a": b"\a", b"b": b"\b", b"f": b"\f", b"v": b"\v"}
_BINARY: Final = ((b"diff", False), (b"merge", False), (b"text", False))
_RELEVANT: Final = frozenset({b"filter", b"ident", b"working-tree-encoding", b"eol"})
_EXPORT: Final = frozenset({b"export-ignore", b"export-subst"})
_IDENT: Final = re.compile(rb"\$Id(?::[^$\n]*)?\$")


class _Rule:
    """One line: a pattern and its assignments, last first."""

    def __init__(self, pattern: bytes, base: bytes, assignments: tuple[tuple[bytes, Value], ...]) -> None:
        self.directories_only = pattern.endswith(b"/")
        pattern = pattern.rstrip(b"/") if self.directories_only else pattern
        self._pattern = Pattern(pattern, base)
        self.assignments = assignments[::-1]

    def matches(self, path: bytes, *, directory: bool) -> bool:
        return (directory or not self.directories_only) and self._pattern.match(path)


class TreeAttributes:
    """The attributes of one tree.

    Args:
        files: (directory, content) of each `.gitattributes`, the root's directory being empty.
        roots: the roots of other repositories inside this tree.
    """

    def __init__(self, files: Iterable[tuple[bytes, bytes]], roots: frozenset[bytes] = frozenset()) -> None:
        self._roots = roots | {b""}
        binary: _Macros = {b"binary": _BINARY[::-1]}
        self._macros: dict[bytes, _Macros] = {root: dict(binary) for root in self._roots}
        self._rules: dict[bytes, list[_Rule]] = {}
        for directory, content in sorted(files):
            if len(content) <= _MAX_FILE:
                self._rules[directory] = self._parse(directory, content)

    def are_relevant(self, *, export: bool) -> bool:
        """Return whether any attribute that this package acts on is assigned anywhere."""
        relevant = _RELEVANT | _EXPORT if export else _RELEVANT
        rules = (rule.assignments for rules in self._rules.values() for rule in rules)
        macros = (given for known in self._macros.values() for given in known.values())
        return any(name in relevant for given in (*rules, *macros) for name, _ in given)

    def of(self, path: bytes, *, directory: bool = False) -> dict[bytes, Value]:
        """Return the attributes of a path relative to the root; those unspecified are absent."""
        decided: dict[bytes, Value] = {}
        bases = list(self._bases(path))
        macros = self._macros[bases[-1]] if bases else {}
        for base in bases:
            for rule in reversed(self._rules.get(base, ())):
                if rule.matches(path, directory=directory):
                    _decide(decided, rule.assignments, macros)
        return {name: value for name, value in decided.items() if value is not None}

    def root_of(self, path: bytes) -> bytes:
        """Return the root of the repository that a file is of."""
        return list(self._bases(path))[-1]

    def _bases(self, path: bytes) -> Iterable[bytes]:
        """Yield the directories whose `.gitattributes` apply to a path, deepest first; the last is its repository's."""
        base = path
        while base:
            base = base.rpartition(b"/")[0]
            yield base
            if base in self._roots:
                return

    def _parse(self, base: bytes, content: bytes) -> list[_Rule]:
        rules: list[_Rule] = []
        for raw in content.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
            line = raw.strip(_BLANK)
            if not line or line.startswith(b"#") or len(raw) > _MAX_LINE:
                continue
            pattern, rest = _split(line)
            assignments = tuple(_assignment(word) for word in rest.split())
            if pattern.startswith(b"[attr]"):
                if base in self._roots:
                    self._macros[base][pattern[6:]] = assignments[::-1]
                continue
            if not pattern or pattern.startswith(b"!") or not assignments:
                continue  # git has no negative patterns here
            if len(re.findall(rb"\*+", pattern)) > _MAX_STARS:
                raise TreeError(
                    f"the pattern {shown(pattern)} in {shown(base) or 'the root'}'s .gitattributes is too costly",
                    f"use at most {_MAX_STARS} stars in one pattern",
                )
            try:
                rules.append(_Rule(pattern, base, assignments))
            except (MalformedPattern, re.error):
                continue  # matches nothing, as for git
        return rules


def _decide(decided: dict[bytes, Value], assignments: tuple[tuple[bytes, Value], ...], macros: _Macros) -> None:
    for name, value in assignments:
        if name not in decided:
            decided[name] = value
            if value is True and name in macros:
                _decide(decided, macros[name], macros)


def _split(line: bytes) -> tuple[bytes, bytes]:
    """Split a line into its pattern, which may be quoted as in C, and the rest."""
    if not line.startswith(b'"'):
        pattern, _, rest = line.replace(b"\t", b" ").partition(b" ")
        return pattern, rest
    out = bytearray()
    at = 1
    while at < len(line):
        byte = line[at : at + 1]
        if byte == b'"':
            return bytes(out), line[at + 1 :]
        if byte == b"\\":
            at += 1
            byte = line[at : at + 1]
            if byte in b"0123" and re.match(rb"[0-3][0-7]{2}", line[at : at + 3]):
                out.append(int(line[at : at + 3], 8))
                at += 3
                continue
            byte = _ESCAPES.get(byte, byte)
        out += byte
        at += 1
    return line.split()[0], b" ".join(line.split()[1:])  # no closing quote: taken literally


def _assignment(word: bytes) -> tuple[bytes, Value]:
    if word.startswith(b"-"):
        return word[1:], False
    if word.startswith(b"!"):
        return word[1:], None
    name, equals, value = word.partition(b"=")
    return name, value if equals else True


def conversions(attributes: dict[bytes, Value]) -> frozenset[str]:
    """Return the conversions that these attributes may make git apply to the stored bytes.

    >>> sorted(conversions({b"filter": b"lfs", b"text": True, b"eol": b"crlf"}))
    ['eol', 'filter']
    """
    found = set()
    if isinstance(attributes.get(b"filter"), bytes):
        found.add("filter")
    if attributes.get(b"ident") is True:
        found.add("ident")
    encoding = attributes.get(b"working-tree-encoding")
    if isinstance(encoding, bytes) and encoding.upper() not in (b"UTF-8", b"UTF8"):
        found.add("working-tree-encoding")
    if attributes.get(b"eol") == b"crlf" and attributes.get(b"text", attributes.get(b"crlf", True)) is not False:
        found.add("eol")
    return frozenset(found)


def would_change(conversion: str, content: bytes, *, automatic: bool) -> bool:
    """Return whether a conversion would change this content; in doubt, True.

    Args:
        automatic: `text=auto`: git looks at the content before it touches line ends.
    """
    if conversion == "ident":
        return _IDENT.search(content) is not None
    if conversion == "eol":
        if not re.search(rb"(?<!\r)\n", content):
            return False
        return not (automatic and (b"\r" in content or b"\0" in content))
    return bool(content)
