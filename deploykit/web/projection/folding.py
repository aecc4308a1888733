"""What several folds need: which time counts, that a node or site was heard of, rows of the audit."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from deploykit.web.projection.cells import Row, clean, digest, micros, order_of
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.tables import AUDIT, NODES, REPOS, SITE_NODES, SITES

#: By how much a sender's clock may be ahead of ours before its messages are sorted by ours.
AHEAD: Final = timedelta(minutes=5)


def heard_order(heard: Heard, id: str) -> str:
    """Return what sorts the messages of one sender, see `cells.order_of`.

    A clock that was far ahead for a while must not make everything that its node says afterwards an older message.
    """
    return order_of(min(heard.message.time, heard.received + AHEAD), id)


def at_of(heard: Heard) -> int:
    """Return what a row is sorted by: the sender's time, but never later than when the message was received."""
    return min(micros(heard.message.time), micros(heard.received))


def saw_node(rows: WorkingRows, node: str, heard: Heard) -> None:
    """Note that a node was heard: it is not silent.

    A message that is older than another one of the node is no sign of life: anybody who has it may send it again.
    """
    if heard.forgeable:
        return
    row, new = rows.get_or_new(NODES, node=clean(node))
    newest = heard_order(heard, "")
    if new or newest > row["newest"]:
        if row["silent"]:
            for each in rows.select(SITE_NODES, node=clean(node)):
                touch_site(rows, each["site"])
        rows.put(NODES, {**row, "seen": micros(heard.received), "newest": newest, "silent": False})


def touch_site(rows: WorkingRows, site: str, repo: str = "") -> None:
    """Note that a site exists, and that it must be compared anew."""
    row, new = rows.get_or_new(SITES, site=clean(site))
    if new or (repo and row["repo"] != repo):
        rows.put(SITES, {**row, "repo": clean(repo) or row["repo"]})
    rows.touched.add(clean(site))


def know_repo(rows: WorkingRows, repo: str | None) -> None:
    """Note that a repository exists."""
    if repo and rows.get(REPOS, clean(repo)) is None:
        rows.put(REPOS, {"repo": clean(repo)})


def know_site(rows: WorkingRows, site: str) -> None:
    """Note that a site exists."""
    row, new = rows.get_or_new(SITES, site=clean(site))
    if new:
        rows.put(SITES, row)


def asked_by(command: Row | None) -> str:
    """Return who asked for a command, in the words of the node's journal, which says the same later."""
    if command is None:
        return ""
    named, signer = command["requested_by"], command["signer"]
    return f"{named}, signed {signer}" if named and signer else named or signer


def audit(
    rows: WorkingRows,
    heard: Heard,
    action: str,
    decision: str,
    *,
    who: str = "",
    signer: str | None = None,
    place: str = "",
    site: str = "",
    rollout: str = "",
    detail: str = "",
) -> None:
    """Keep that somebody asked for something, or what was decided."""
    message = heard.message
    key = digest(action, decision, message.source, message.id)
    if rows.get(AUDIT, key) is None:
        row = new_row(
            AUDIT,
            key=key,
            at=at_of(heard),
            id=clean(message.id),
            action=action,
            decision=decision,
            who=clean(who, 300),
            signer=clean(heard.signer if signer is None else signer, 300),
            place=clean(place),
            site=clean(site),
            rollout=clean(rollout),
            detail=clean(detail, 1000),
        )
        rows.put(AUDIT, row)
