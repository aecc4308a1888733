"""Old files -> one draft of new settings: which kind each file is, and its conversion. Pure but for lazy imports."""

from __future__ import annotations

from collections.abc import Iterable

from deploykit.config.migrate.kinds import KINDS, all_kinds, kind_of_name
from deploykit.config.migrate.model import Kind, MigrationDraft, OldFile
from deploykit.errors import InvalidName, UsageError
from deploykit.names import parse_node_name


def convert(files: Iterable[OldFile], *, kind: str = "", node: str = "") -> MigrationDraft:
    """Return the new settings that old files stand for.

    Args:
        files: what was read, in the order of their weight: where two say otherwise, the first counts.
        kind: what all of them are, where their keys do not show it.
        node: the node's name; by default settings have none, and a node is called like its machine.

    Raises:
        UsageError: a file is of no known kind, or could be of several; or there is no such kind or name.
    """
    draft = MigrationDraft()
    if node:
        try:
            draft.values[("node",)] = str(parse_node_name(node))
        except InvalidName as error:
            raise UsageError(error.problem, error.remedy) from None
    found = [(file, kind_of_file(file, kind)) for file in files]
    for file, its_kind in sorted(found, key=lambda pair: pair[1].late):
        for note in file.notes:
            draft.warn(f"{file.path}, {note}")
        its_kind.convert(file, draft)
    return draft


def kind_of_file(file: OldFile, name: str = "") -> Kind:
    """Return the kind of a file: the one of that name, or the only one that it fits.

    Raises:
        UsageError: there is none, or more than one.
    """
    names = ", ".join(KINDS)
    if name:
        if name not in KINDS:
            raise UsageError(f"there is no kind {name!a}", f"kinds: {names}")
        return kind_of_name(name)
    found = [kind for kind in all_kinds() if kind.fits(file)]
    if len(found) == 1:
        return found[0]
    if not found:
        raise UsageError(f"{file.path}: not settings of a known kind", f"name it with --kind, one of: {names}")
    several = ", ".join(kind.name for kind in found)
    raise UsageError(f"{file.path}: could be of several kinds", f"name it with --kind, one of: {several}")


__all__ = ["convert", "kind_of_file"]
