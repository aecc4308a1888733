"""One map of an old file, with an account of its keys: what nobody took is lost, with the reason of the kind's table.

    table = OldTable.of(file, draft, ROWS)
    if name := table.text("listen-topic"):
        table.put("listen-topic", ("topics", "source"), name)
    table.finish()                            # whatever is left: lost, with the row's note, or as unknown

Rules:

* A key that was asked for and is of the wrong kind is lost at once; the caller gets None, as for one that is not there.
* No value is in a reason: it may be a passcode.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, TypeGuard

import attrs

from deploykit.config.migrate.model import MigrationDraft, OldFile, Place, Row
from deploykit.errors import DeploykitError

#: Longest text that is taken over.
MAX_TEXT: Final = 4096


@attrs.define(slots=True, eq=False)
class OldTable:
    """A map of an old file.

    Args:
        file: where it stands.
        data: its keys.
        path: where it stands in the file: `("repo-list", "shop")`; empty for the file itself.
        draft: where what is lost goes.
        rows: the kind's table, for the reasons.
    """

    file: OldFile
    data: Mapping[str, object]
    path: tuple[str, ...]
    draft: MigrationDraft
    rows: Sequence[Row] = ()
    _used: set[str] = attrs.field(factory=set, init=False)

    @classmethod
    def of(cls, file: OldFile, draft: MigrationDraft, rows: Sequence[Row]) -> OldTable:
        """Return the whole file as a table."""
        return cls(file=file, data=file.data, path=(), draft=draft, rows=rows)

    # -- taking keys ---------------------------------------------------------------------------------------------------

    def full(self, key: str) -> str:
        """Return a key with where it stands: `repo-list.shop.mode`."""
        return ".".join((*self.path, key))

    def has(self, key: str) -> bool:
        """Return whether a key is there and holds something."""
        return self.data.get(key) is not None

    def take(self, key: str) -> object:
        """Return what a key holds, None where it is not there; it counts as taken."""
        self._used.add(key)
        return self.data.get(key)

    def text(self, key: str) -> str | None:
        """Return a text, or a number as text; None where there is none, or an empty one."""
        value = self.take(key)
        if type(value) in (int, float):
            value = str(value)
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            self.lose(key, f"expected a text, not {kind_of(value)}")
            return None
        if not is_clean(value):
            self.lose(key, "holds a control character, or is too long")
            return None
        return value

    def texts(self, key: str) -> list[str] | None:
        """Return a list of texts; one text is a list of one."""
        value = self.take(key)
        if value is None:
            return None
        items = [str(v) if type(v) in (int, float) else v for v in (value if isinstance(value, list) else [value])]
        texts = [item for item in items if isinstance(item, str) and is_clean(item)]
        if len(texts) < len(items):
            self.lose(key, "expected a list of texts")
            return None
        return texts

    def boolean(self, key: str) -> bool | None:
        """Return a boolean, also from the texts `true` and `false`."""
        value = self.take(key)
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower(), value)
        if value is None or isinstance(value, bool):
            return value
        self.lose(key, f"expected true or false, not {kind_of(value)}")
        return None

    def number(self, key: str) -> int | float | None:
        """Return a number, also from a text of digits."""
        value = self.take(key)
        if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 16:
            value = int(value)
        if value is None:
            return None
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        self.lose(key, f"expected a number, not {kind_of(value)}")
        return None

    def table(self, key: str) -> OldTable | None:
        """Return a map below this one. Its own `finish` has to be called, too."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            self.lose(key, f"expected a map, not {kind_of(value)}")
            return None
        return self._below(key, value)

    def tables(self, key: str) -> Iterator[tuple[str, OldTable]]:
        """Yield each map of a map of maps, with its name. What is no map is lost."""
        outer = self.table(key)
        if outer is not None:
            yield from outer.items()

    def items(self) -> Iterator[tuple[str, OldTable]]:
        """Yield each map in this one that nobody took yet, with its name; what is no map is lost."""
        for name in [*self.data]:
            if name in self._used:
                continue
            if self.data[name] is None:
                self.lose(name, "says nothing: there is only its name")
            elif (below := self.table(name)) is not None:
                yield name, below

    def listed(self, key: str) -> list[OldTable]:
        """Return the maps of a list; what is no map in it is lost. One map is a list of one."""
        value = self.take(key)
        if value is None:
            return []
        if isinstance(value, Mapping):
            return [self._below(key, value)]
        found = []
        for at, item in enumerate(value if isinstance(value, list) else [value]):
            where = f"{key}[{at}]" if isinstance(value, list) else key
            if isinstance(item, Mapping):
                found.append(self._below(where, item))
            else:
                self.lose(where, f"expected a map, not {kind_of(item)}")
        return found

    def rest(self) -> list[str]:
        """Return the keys that nobody took yet."""
        return [key for key in self.data if key not in self._used]

    # -- saying what became of them ------------------------------------------------------------------------------------

    def put(self, key: str, place: Place, value: object, comment: str = "") -> None:
        """Set a new key from an old one."""
        self._used.add(key)
        self.draft.put(self.file, self.full(key), place, value, comment)

    def put_secret(self, key: str, place: Place, name: str, secret: str) -> None:
        """Set a new key that names the file of a secret, from an old one that held the secret."""
        self._used.add(key)
        self.draft.put_secret(self.file, self.full(key), place, name, secret)

    def lose(self, key: str, why: str) -> None:
        """Note that a key is not carried over."""
        self._used.add(key)
        self.draft.lose(self.file, self.full(key), why)

    def lose_error(self, key: str, error: DeploykitError) -> None:
        """Note that a key is not carried over because its value is not accepted."""
        self.lose(key, str(error))

    def lose_whole(self, why: str) -> None:
        """Note that this whole map is not carried over."""
        self._used.update(self.data)
        self.draft.lose(self.file, ".".join(self.path), why)

    def finish(self) -> None:
        """Lose the keys that nobody took: with the note of their row, or as unknown."""
        for key in self.rest():
            self._leave(key, self.data[key])

    def _leave(self, key: str, value: object) -> None:
        path = (*self.path, key)
        row = self._row(path)
        if row is not None:
            self.lose(key, f"cannot be {row.new} in this place" if row.new else row.note)
        elif (
            isinstance(value, Mapping) and value and any(_matches(_parts(r.old)[: len(path)], path) for r in self.rows)
        ):
            self._used.add(key)
            self._below(key, value).finish()
        else:
            self.lose(key, self._unknown(path))

    def _unknown(self, path: tuple[str, ...]) -> str:
        """Return the reason for a key that is in no table, with the key that may be meant."""
        beside = [_parts(row.old) for row in self.rows]
        known = {parts[len(path) - 1] for parts in beside if _matches(parts[: len(path) - 1], path[:-1], parts)}
        plain = sorted(name.removesuffix("[]") for name in known if not _is_free(name))
        close = difflib.get_close_matches(path[-1], plain, n=1)
        if close:
            return f"not a key of these settings (did you mean {close[0]}?)"
        return "not a key of these settings" + (f" (known: {', '.join(plain)})" if plain else "")

    def _row(self, path: tuple[str, ...]) -> Row | None:
        # A row for names that people choose says nothing of one that its kind did not take.
        fits = [row for row in self.rows if _matches(_parts(row.old), path)]
        rows = [row for row in fits if not (row.new and _is_free(_parts(row.old)[-1]))]
        return min(rows, key=lambda row: sum(map(_is_free, _parts(row.old))), default=None)

    def _below(self, key: str, value: Mapping[str, object]) -> OldTable:
        return OldTable(file=self.file, data=value, path=(*self.path, key), draft=self.draft, rows=self.rows)


def is_clean(text: str) -> TypeGuard[str]:
    """Return whether a text can be taken over: printable, in UTF-8, and not too long.

    >>> is_clean("a b"), is_clean("a\\nb")
    (True, False)
    """
    return text.isprintable() and len(text) <= MAX_TEXT


def kind_of(value: object) -> str:
    """Return what kind of value it is, for people."""
    if isinstance(value, Mapping):
        return "a map"
    if isinstance(value, list):
        return "a list"
    if isinstance(value, bool):
        return "true or false"
    return "a number" if isinstance(value, int | float) else "a text" if isinstance(value, str) else "nothing"


def _parts(row: str) -> tuple[str, ...]:
    """Return the names of a row's path.

    >>> _parts("stompconnector.hosts[].login")
    ('stompconnector', 'hosts[]', 'login')
    """
    return tuple(row.split("."))


def _is_free(part: str) -> bool:
    """Return whether a part of a row's path stands for a name that people chose."""
    return part.isupper() and part.isalpha()


def _matches(pattern: tuple[str, ...], path: tuple[str, ...], longer: tuple[str, ...] = ()) -> bool:
    """Return whether a path is one that a row means; `longer`: and that row goes on below it."""
    if len(pattern) != len(path) or (longer and len(longer) <= len(path)):
        return False
    return all(
        _is_free(wanted) or wanted == (part.partition("[")[0] + "[]" if wanted.endswith("[]") else part)
        for wanted, part in zip(pattern, path, strict=True)
    )


__all__ = ["MAX_TEXT", "OldTable", "is_clean", "kind_of"]
