"""A draft -> one commented TOML, in the order that the pages use. By tomlkit, for the comments.

Rules:

* A secret is never written here: its key names a file. An address with passcodes in it is written only where the caller
  says that the file is its owner's alone.
* A comment stays a comment, whatever an old name in it holds. One of several lines is several comments.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

from deploykit.config.migrate.model import HOOKS_FILE, MigrationDraft, Place
from deploykit.errors import UsageError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument
    from tomlkit.items import Table

#: The order of the top: plain keys, then tables. What is not here comes last, by name.
_ORDER: Final = (
    "node", "state", "rollouts", "signing_key", "legacy", "legacy_deletes", "reconcile_every", "fetch_spread",
    "broker", "topics", "outbox", "log", "service", "audit", "trust", "builds", "facts", "repositories", "sites",
    "jenkins", "packages", "access", "keepalive", "web", "webhook", "notify", "via",
)  # fmt: skip
#: The same inside tables, where the order of the draft is not good enough.
_FIRST: Final = (
    "preset",
    "destination",
    "address",
    "login",
    "passcode_file",
    "url",
    "path",
    "repo",
    "kind",
    "job",
    "mode",
    "target",
    "file",
)
#: Where secrets are by default.
SECRETS_DIRECTORY: Final = Path("/etc/deploykit")


def render(
    draft: MigrationDraft,
    sources: Iterable[PurePath] = (),
    *,
    directory: Path = SECRETS_DIRECTORY,
    private: bool = False,
) -> str:
    """Return the settings as TOML.

    Args:
        draft: what they are.
        sources: the old files, for the line at the top.
        directory: where the files of the secrets are.
        private: nobody but its owner will read the text: an address may hold passcodes.

    Raises:
        UsageError: tomlkit is not installed.
    """
    tree = _tree(draft, directory, private=private)
    tree.pop(HOOKS_FILE, None)
    return _document(
        tree, (), draft, sources, "Check it with `deploykit config check`, then remove what you do not need."
    )


def render_hooks(draft: MigrationDraft, sources: Iterable[PurePath] = ()) -> str:
    """Return the settings of the hooks, `/etc/deploykit/hooks.toml`, as TOML; empty where there are none.

    Raises:
        UsageError: tomlkit is not installed.
    """
    tree = _tree(draft, SECRETS_DIRECTORY, private=False).get(HOOKS_FILE)
    if not isinstance(tree, dict):
        return ""
    return _document(
        tree, (HOOKS_FILE,), draft, sources, "For /etc/deploykit/hooks.toml; `deploykit hooks check` reads it."
    )


def _document(
    tree: Mapping[str, object], place: Place, draft: MigrationDraft, sources: Iterable[PurePath], note: str
) -> str:
    try:
        import tomlkit
    except ImportError:
        raise UsageError("writing settings needs tomlkit", "pip install deploykit[migrate]") from None
    document = tomlkit.document()
    names = ", ".join(path.name for path in sources)
    document.add(tomlkit.comment(_one_line(f"Made by `deploykit config migrate`{f' from {names}' if names else ''}.")))
    document.add(tomlkit.comment(note))
    document.add(tomlkit.nl())
    _fill(document, tree, place, draft.comments)
    return tomlkit.dumps(document)


def dotted(place: Place) -> str:
    """Return a place as the problems of `config check` write it.

    >>> dotted(("jenkins", "jobs", 0, "token_file"))
    'jenkins.jobs[0].token_file'
    """
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def holds_passcode(address: object) -> bool:
    """Return whether an address has a passcode in it."""
    return isinstance(address, str) and re.search(r"://[^/@,()]*:[^/@,()]*@", address) is not None


def without_passcode(address: str) -> str:
    """Return an address with `PASSCODE` in place of each passcode."""
    return re.sub(r"(://[^/@:,()]*:)[^/@,()]*@", r"\1PASSCODE@", address)


def _tree(draft: MigrationDraft, directory: Path, *, private: bool) -> dict[str, object]:
    """Return the values as nested maps and lists."""
    root: dict[str | int, object] = {}
    for place, value in draft.values.items():
        at: dict[str | int, object] = root
        for step in place[:-1]:
            below = at.setdefault(step, {})
            if not isinstance(below, dict):
                raise TypeError(f"{place}: a value and a table have the same place")
            at = below
        if place in draft.secrets:
            at[place[-1]] = str(directory / str(value))
        elif place == ("broker", "address") and isinstance(value, str) and not private:
            at[place[-1]] = without_passcode(value)
        else:
            at[place[-1]] = value
    return {str(key): _lists(value) for key, value in root.items()}


def _lists(value: object) -> object:
    """Return maps whose keys are numbers as lists of tables."""
    if not isinstance(value, dict):
        return value
    if value and all(isinstance(key, int) for key in value):
        return [_lists(value[key]) for key in sorted(value)]
    return {str(key): _lists(item) for key, item in value.items()}


def _fill(
    container: Table | TOMLDocument, tree: Mapping[str, object], place: Place, comments: Mapping[Place, str]
) -> None:
    """Add a map's keys to a table or the document: plain keys before tables, as TOML needs it."""
    import tomlkit

    order = _FIRST if place else _ORDER
    ranked = sorted(tree, key=lambda key: (order.index(key) if key in order else len(order), "" if place else key))
    for key in sorted(ranked, key=lambda key: _is_table(tree[key])):
        value, here = tree[key], (*place, key)
        if isinstance(value, dict):
            # A table that holds tables alone needs no header, unless there is something to say at it.
            bare = here not in comments and bool(value) and all(map(_is_table, value.values()))
            container.add(key, _item(value, here, comments, is_super_table=bare))
        elif _is_table(value) and isinstance(value, list):
            tables = tomlkit.aot()
            for at, item in enumerate(value):
                tables.append(_item(item, (*here, at), comments))
            container.add(key, tables)
        else:
            if comment := comments.get(here):
                _comment(container, comment)
            container.add(key, tomlkit.item(value))


def _item(
    item: Mapping[str, object], place: Place, comments: Mapping[Place, str], *, is_super_table: bool = False
) -> Table:
    import tomlkit

    below = tomlkit.table(is_super_table=is_super_table)
    if comment := comments.get(place):
        _comment(below, comment)
    _fill(below, item, place, comments)
    return below


def _comment(container: Table | TOMLDocument, text: str) -> None:
    import tomlkit

    for line in text.split("\n"):
        container.add(tomlkit.comment(_one_line(line)))


def _is_table(value: object) -> bool:
    return isinstance(value, dict) or (isinstance(value, list) and bool(value) and isinstance(value[0], dict))


def _one_line(text: str) -> str:
    """Return a comment's text: printable, on one line."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


__all__ = ["SECRETS_DIRECTORY", "dotted", "holds_passcode", "render", "render_hooks", "without_passcode"]
