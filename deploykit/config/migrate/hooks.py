"""What goes to the settings of the hooks, `/etc/deploykit/hooks.toml`: a file of its own, that is rendered apart."""

from __future__ import annotations

from typing import Final

from deploykit.config.migrate.model import HOOKS_FILE
from deploykit.config.migrate.oldtable import OldTable
from deploykit.config.migrate.topics import destination_of, put_preset
from deploykit.errors import DialectError
from deploykit.messages.topics import PRESETS

LEGACY_COMMENT: Final = "and `legacy = true`: text bodies, which the original's programs read"
_NOTE: Final = "the original's programs read text bodies; take this out when the last of them is gone"


def put_hook_topic(table: OldTable, key: str, *names: str) -> None:
    """Take a topic's name and set `topics.NAME` of the hooks."""
    topic = table.text(key)
    if topic is None:
        return
    try:
        table.put(key, (HOOKS_FILE, "topics", *names), destination_of(topic))
    except DialectError as error:
        table.lose_error(key, error)


def put_hook_legacy(table: OldTable, *topics: str) -> None:
    """Switch the hooks to the original's form, and set topics that its source had instead of its settings.

    Args:
        table: the old settings.
        topics: names of `[topics]`, or `notices.KIND`.
    """
    draft, future = table.draft, PRESETS["future"]
    draft.values.setdefault((HOOKS_FILE, "legacy"), True)
    draft.comments.setdefault((HOOKS_FILE, "legacy"), _NOTE)
    put_preset(draft, (HOOKS_FILE, "topics"))
    for name in topics:
        head, _, kind = name.partition(".")
        destination = future.notices[kind] if kind else getattr(future, head)
        draft.values.setdefault((HOOKS_FILE, "topics", *name.split(".")), destination)


__all__ = ["LEGACY_COMMENT", "put_hook_legacy", "put_hook_topic"]
