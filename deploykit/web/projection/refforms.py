"""How many nodes hold each ref in which form: counted when what a node holds changes, so that no page counts.

A form is what a ref names on a node: a commit, the object of a tag, and how old that commit is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, bindparam, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from deploykit.web.projection.cells import Row
from deploykit.web.projection.rows import WorkingRows
from deploykit.web.projection.tables import NODE_REFS, REF_FORMS

#: In place of an age that is not known: a part of a key is never NULL.
NO_AGE: Final = -(2**62)
_Form = tuple[str, str, str, str, int]
_KEYS: Final = ("repo", "key", "commit", "object", "at")


def count_forms(rows: WorkingRows) -> None:
    """Count what changed of the refs that nodes hold; call it before the rows are written."""
    changes: Counter[_Form] = Counter()
    names: dict[_Form, str] = {}
    for before, after in rows.changes(NODE_REFS):
        if before is not None:
            changes[_form(before)] -= 1
        if after is not None:
            changes[_form(after)] += 1
            names[_form(after)] = after["ref"]
    _count(rows.connection, changes, names)


def forget_nodes(connection: Connection, nodes: Sequence[str]) -> None:
    """Count without the refs of nodes that are going to be removed."""
    table = NODE_REFS.c
    at = func.coalesce(table.at, NO_AGE)
    columns = (table.repo, table.key, table.commit, table.object, at)
    statement = select(*columns, func.count()).where(table.node.in_(nodes)).group_by(*columns)
    found = connection.execute(statement).all()
    _count(connection, Counter({(row[0], row[1], row[2], row[3], row[4]): -row[5] for row in found}), {})


def _form(row: Row) -> _Form:
    at = row["at"]
    return row["repo"], row["key"], row["commit"], row["object"], NO_AGE if at is None else at


def _count(connection: Connection, changes: Counter[_Form], names: dict[_Form, str]) -> None:
    more = {form: number for form, number in changes.items() if number > 0}
    less = {form: number for form, number in changes.items() if number < 0}
    if more:
        module = postgresql if connection.dialect.name == "postgresql" else sqlite
        insert = module.insert(REF_FORMS)
        counted = {"nodes": REF_FORMS.c.nodes + insert.excluded.nodes}
        connection.execute(
            insert.on_conflict_do_update(index_elements=_KEYS, set_=counted),
            [
                {**dict(zip(_KEYS, form, strict=True)), "ref": names[form], "nodes": number}
                for form, number in sorted(more.items())
            ],
        )
    if less:
        here = [REF_FORMS.c[name] == bindparam(f"k_{name}") for name in _KEYS]
        values = [
            {**{f"k_{name}": cell for name, cell in zip(_KEYS, form, strict=True)}, "number": -number}
            for form, number in sorted(less.items())
        ]
        connection.execute(
            REF_FORMS.update().where(*here).values(nodes=REF_FORMS.c.nodes - bindparam("number")), values
        )
        gone = [{name: cell for name, cell in each.items() if name != "number"} for each in values]
        connection.execute(delete(REF_FORMS).where(*here, REF_FORMS.c.nodes <= 0), gone)
