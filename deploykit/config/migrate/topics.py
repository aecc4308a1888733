"""The original's topics -> `[topics]`, and the switch that tells the daemons who else listens."""

from __future__ import annotations

from deploykit.config.migrate.model import MigrationDraft, Place
from deploykit.config.migrate.oldtable import OldTable
from deploykit.errors import DialectError
from deploykit.messages.destinations import check_destination


def put_topic(table: OldTable, key: str, *names: str) -> None:
    """Take a topic's name and set `topics.NAME`, or `topics.notices.NAME`; and `legacy`, as the original listens there.

    Args:
        table: the old settings.
        key: the old key, such as `listen-topic`.
        names: the new key below `topics`: `"source"`, or `"notices", "mirror"`.
    """
    topic = table.text(key)
    if topic is None:
        return
    try:
        destination = destination_of(topic)
    except DialectError as error:
        table.lose_error(key, error)
        return
    table.put(key, ("topics", *names), destination)
    table.draft.values.setdefault(("legacy",), True)
    put_preset(table.draft, ("topics",))
    table.draft.comments.setdefault(("legacy",), "the original's programs listen on this bus: they are served, too")


def put_preset(draft: MigrationDraft, topics: Place) -> None:
    """Name the preset that `legacy` stands for: the topics that no old file names stay, too, when `legacy` goes."""
    draft.values.setdefault((*topics, "preset"), "future")
    draft.comments.setdefault((*topics, "preset"), "topics that no old file named; keep this when legacy goes")


def destination_of(topic: str) -> str:
    """Return where a topic of the original is, which wrote it without `/topic/`.

    >>> destination_of("future.git.commits"), destination_of("/queue/x")
    ('/topic/future.git.commits', '/queue/x')

    Raises:
        DialectError: it cannot be the name of a topic.
    """
    destination = topic if topic.startswith(("/topic/", "/queue/")) else f"/topic/{topic.lstrip('/')}"
    check_destination(destination)
    return destination


__all__ = ["destination_of", "put_preset", "put_topic"]
