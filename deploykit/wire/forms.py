"""Fields that stand in place of others: a record has the one or the others, never both and never neither.

`field_types` reads from the message classes which these are (`Field.unless`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from deploykit.wire.field_types import fields, per_class


@per_class
def forms(cls: type) -> Mapping[str, tuple[str, ...]]:
    """Return the fields of which exactly one must be present in place of others, and these others."""
    found: dict[str, tuple[str, ...]] = {}
    for field in fields(cls):
        if field.unless:
            found[field.unless] = (*found.get(field.unless, ()), field.name)
    return found


def form_problems(cls: type, present: Collection[str]) -> list[str]:
    """Return what is wrong with the choice of fields that are present in a record, each line with its field."""
    return [
        f"{name}: not beside {instead}" if instead in present else f"{name}: is missing, and so is {instead}"
        for instead, others in forms(cls).items()
        for name in others
        if (name in present) == (instead in present)
    ]


__all__ = ["form_problems", "forms"]
