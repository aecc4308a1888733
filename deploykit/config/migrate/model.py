"""What a conversion is made of: kinds of old files, their tables of keys, and the draft they fill. Pure.

Rules:

* A key of an old file is carried over, or it is in `MigrationDraft.lost` with the reason. None is dropped in silence.
* A row of a kind's table says what becomes of a key; the page docs/migration.md is made of the rows.
* Old values are hostile: what becomes a name is parsed, and a secret is in no error, comment or list.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import Final

import attrs

#: Where a value stands in the new settings: `("repositories", "shop", "url")`. A number is the place in a list.
Place = tuple[str | int, ...]
#: A place that begins so is in the settings of the hooks, `/etc/deploykit/hooks.toml`: a file of its own.
HOOKS_FILE: Final = "hooks.toml"


@attrs.frozen(kw_only=True, slots=True)
class Row:
    """What becomes of one old key.

    Args:
        old: its path, with capitals for what people chose: `repo-list.NAME.mode`.
        new: the path of the new key, `repositories.NAME.checkouts[].mode`; empty where there is none.
        note: how the value changes, or why there is no new key.
    """

    old: str
    new: str = ""
    note: str = ""


@attrs.frozen(kw_only=True, slots=True)
class OldFile:
    """One old file, as it was read.

    Args:
        path: where it stood.
        data: what it holds: text, numbers, booleans, None, lists and maps. Keys are text, symbols (`:login`) without
            their colon. What YAML reads as something else than it looks (`0755`, a date) is the text as written.
        mode: the file's permission bits, where they are known.
        notes: what a person should know about how it was read, each with its line.
    """

    path: Path
    data: Mapping[str, object]
    mode: int | None = None
    notes: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class LostKey:
    """A key that could not be carried over, or not whole. `why` says what to do instead."""

    file: Path
    key: str
    why: str


@attrs.define(kw_only=True, slots=True)
class MigrationDraft:
    """The new settings as they are filled. Two files may set the same key to the same value; another is `lost`.

    Args:
        values: place -> value (text, number, boolean, list of these). In place of a secret stands the path of its file.
        secrets: place of a key such as `passcode_file` -> what that file has to hold.
        comments: place of a key or a table -> the line before it.
        lost: what could not be carried over.
        warnings: what a person has to look at before the new settings are used.
        taken: what only one may have (`("sites", DIRECTORY)`) -> whose it is.
    """

    values: dict[Place, object] = attrs.field(factory=dict)
    secrets: dict[Place, str] = attrs.field(factory=dict, repr=False)
    comments: dict[Place, str] = attrs.field(factory=dict)
    lost: list[LostKey] = attrs.field(factory=list)
    warnings: list[str] = attrs.field(factory=list)
    taken: dict[tuple[str, str], str] = attrs.field(factory=dict)

    def put(self, file: OldFile, old: str, place: Place, value: object, comment: str = "") -> None:
        """Set a new key; where another file has set it otherwise, the first stays and this one is lost."""
        before = self.values.setdefault(place, value)
        if before != value:
            self.lose(file, old, f"{'.'.join(map(str, place))}: another file says otherwise, and came first")
        elif comment:
            self.comments.setdefault(place, comment)

    def put_secret(self, file: OldFile, old: str, place: Place, name: str, secret: str) -> None:
        """Set a key that names a file with a secret, such as `passcode_file`.

        The file is called `name`; where another one's secret is in a file of that name, with a number in it.
        """
        before = self.secrets.setdefault(place, secret)
        others = {self.values.get(other) for other in self.secrets if other != place}
        path = PurePath(name)
        numbered = (f"{path.stem}-{number}{path.suffix}" for number in itertools.count(2))
        name = next(free for free in itertools.chain([name], numbered) if free not in others)
        self.put(file, old, place, name if before == secret else None)

    def lose(self, file: OldFile, old: str, why: str) -> None:
        """Note a key that is not carried over."""
        self.lost.append(LostKey(file=file.path, key=old, why=why))

    def warn(self, text: str) -> None:
        """Note what a person has to look at, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def next_in(self, place: Place) -> int:
        """Return the next free number of a list of tables, such as `("jenkins", "jobs")`."""
        taken = {each[len(place)] for each in self.values if each[: len(place)] == place and len(each) > len(place)}
        return 1 + max((n for n in taken if isinstance(n, int)), default=-1)


@attrs.frozen(kw_only=True, slots=True)
class Kind:
    """One kind of old file.

    Args:
        name: a short one, for `--kind` and the page: `stomp-git`.
        title: what the program was, for people: `mirror updater`.
        file: its usual file name.
        fits: says whether a file is of this kind, from its keys alone.
        rows: the table of keys.
        convert: fills the draft from a file.
        late: its files only add to what other files set up, and are converted after them.
    """

    name: str
    title: str
    file: str
    fits: Callable[[OldFile], bool]
    rows: tuple[Row, ...]
    convert: Callable[[OldFile, MigrationDraft], None]
    late: bool = False


__all__ = ["HOOKS_FILE", "MigrationDraft", "Kind", "LostKey", "OldFile", "Place", "Row"]
