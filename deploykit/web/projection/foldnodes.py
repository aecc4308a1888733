"""What nodes' descriptions leave in the projection.

Rules:

* A description shows only what was asked for: what it leaves out is removed only where the question is known.
* An older description, or report, never overwrites a newer one of the same node.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

import attrs

from deploykit.messages import HeldRef, NodeDescribed, NodeQueried, SiteOperation, SiteRelease, SiteState
from deploykit.messages.site import Versioned
from deploykit.web.projection.cells import (
    Row,
    clean,
    micros,
    micros_or_none,
    packed,
    ref_key,
    unpacked_list,
)
from deploykit.web.projection.foldaccess import fold_described_access
from deploykit.web.projection.foldhistory import fold_operations, load_operations
from deploykit.web.projection.folding import at_of, heard_order, know_repo, saw_node, touch_site
from deploykit.web.projection.foldlocks import carried_lock
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.tables import NODE_REFS, NODES, QUESTIONS, SITE_NODES
from deploykit.web.projection.versions import know_versions

_SITES: Final = frozenset({"sites", "drift", "history"})
#: Columns of a site on a node that say nothing about how it stands.
_UNCOMPARED: Final = frozenset({"ord", "seen", "history_first", "history_last"})
#: Most names of one kind that are kept of one description.
_MOST: Final = 5000


@attrs.frozen(kw_only=True, slots=True)
class _Asked:
    """What a description was asked for. `None` as `repo` or `site`: all; `known` false: that is not known."""

    known: bool = False
    details: frozenset[str] = frozenset()
    repo: str = ""
    site: str = ""
    refs_limit: int = 0


def fold_question(rows: WorkingRows, heard: Heard, message: NodeQueried) -> None:
    """Keep what was asked of nodes, to read the answers by it."""
    if rows.get(QUESTIONS, clean(message.id)) is None:
        row = new_row(
            QUESTIONS,
            id=clean(message.id),
            at=at_of(heard),
            details=packed(list(message.details)),
            repo=clean(message.repo),
            site=clean(message.site),
            refs_limit=message.refs_limit,
        )
        rows.put(QUESTIONS, row)


def fold_description(rows: WorkingRows, heard: Heard, message: NodeDescribed) -> None:
    """Keep what a node says of itself."""
    saw_node(rows, message.node, heard)
    asked = _asked(rows, message)
    order = heard_order(heard, message.id)
    row, _ = rows.get_or_new(NODES, node=clean(message.node))
    if order > row["ord"]:
        row |= {
            "ord": order,
            "instance": clean(message.instance),
            "version": clean(message.version),
            "host": clean(message.host),
            "twins": len(message.twins),
            "cut": packed(list(message.cut[:100])),
        }
        if "facts" in asked.details or message.facts or message.classes:
            row |= {"facts": packed(dict(message.facts)), "classes": packed(list(message.classes))}
        rows.put(NODES, row)
    _fold_sites(rows, heard, message, order, asked)
    _fold_refs(rows, message, order, asked)
    if message.protects or message.access or "access" in asked.details:
        fold_described_access(rows, heard, message, asked.site)


def _asked(rows: WorkingRows, message: NodeDescribed) -> _Asked:
    if not message.request:  # as agents describe themselves unasked
        return _Asked(known=True, details=frozenset({"facts", "sites"}))
    row = rows.get(QUESTIONS, clean(message.request))
    if row is None:
        return _Asked()
    return _Asked(
        known=True,
        details=frozenset(unpacked_list(row["details"])),
        repo=row["repo"],
        site=row["site"],
        refs_limit=row["refs_limit"],
    )


def _fold_sites(rows: WorkingRows, heard: Heard, message: NodeDescribed, order: str, asked: _Asked) -> None:
    if not message.sites and not (asked.known and asked.details & _SITES):
        return
    before = {row["site"]: row for row in rows.select(SITE_NODES, node=clean(message.node))}
    states = []
    for state in message.sites[:_MOST]:
        row = before.pop(clean(state.site), None)
        states.append((state, row or new_row(SITE_NODES, site=clean(state.site), node=clean(message.node))))
    load_operations(rows, message.node, states)
    for state, row in states:
        know_repo(rows, state.repo)
        know_versions(rows, heard, _versions_of(state))
        kept = fold_operations(rows, heard, message.node, state, row)
        if order > row["ord"]:
            changes = _described(row, state) | {"ord": order, "seen": micros(heard.received)}
            put_site(rows, row, changes | kept)
        elif kept:
            rows.put(SITE_NODES, row | kept)
    # An asker who may not see all sites gets an answer without them: only what nodes say unasked removes one.
    if not message.request and not message.cut and len(message.sites) <= _MOST:
        for row in before.values():
            if order > row["ord"]:
                rows.remove(SITE_NODES, row["site"], row["node"])
                touch_site(rows, row["site"])


def _versions_of(state: SiteState) -> Iterator[Versioned | None]:
    yield from (state, state.previous, state.prepared, state.last)
    yield from state.history


def put_site(rows: WorkingRows, row: Row, changes: Row) -> None:
    """Keep what changed of a site on a node; it is compared anew where more changed than when it was seen."""
    if any(row[name] != value for name, value in changes.items() if name not in _UNCOMPARED) or not row["ord"]:
        touch_site(rows, row["site"], changes.get("repo", ""))
    rows.put(SITE_NODES, {**row, **changes})


def _described(row: Row, state: SiteState) -> Row:
    last = state.last
    changes = {
        "repo": clean(state.repo),
        **live_cells(state.release, state.ref, state.commit),
        **release_cells("previous", state.previous),
        **release_cells("prepared", state.prepared),
        "since": micros_or_none(state.since),
        "problem": clean(state.problem),
        "lock": carried_lock(state.lock, state.site),
        "by": _asker(state, row),
        "last_phase": clean(last.phase) if last else "",
        "last_outcome": clean(last.outcome) if last else "",
        "last_detail": clean(last.detail) if last else "",
        "last_release": clean(last.release) if last else "",
        "last_ref": clean(last.ref) if last else "",
        "last_commit": clean(last.commit) if last else "",
        "last_at": micros_or_none(last.finished or last.started) if last else None,
    }
    if last is not None:
        changes["rollout"] = clean(last.rollout or last.request)
    if state.modified is not None or row["release"] != changes["release"]:
        changes["modified"] = state.modified
    return changes


def live_cells(release: str, ref: str | None, commit: str | None) -> Row:
    """Return the cells of what is live."""
    return {"release": clean(release), "ref": clean(ref), "commit": clean(commit)}


def release_cells(name: str, release: SiteRelease | None) -> Row:
    """Return the cells of another release than the live one."""
    if release is None:
        return {f"{name}_release": "", f"{name}_ref": "", f"{name}_commit": ""}
    cells = live_cells(release.release, release.ref, release.commit)
    return {f"{name}_{column}": value for column, value in cells.items()}


def _asker(state: SiteState, row: Row) -> str:
    """Return who asked for what is live, as far as the node's own records show."""
    operations: Iterable[SiteOperation] = (*((state.last,) if state.last else ()), *state.history)
    for each in operations:
        if each.release == state.release and each.outcome == "success" and each.phase != "prepare":
            return clean(each.requested_by, 300)
    same = row["release"] == clean(state.release)
    return str(row["by"]) if same else ""


def _fold_refs(rows: WorkingRows, message: NodeDescribed, order: str, asked: _Asked) -> None:
    if not message.refs and not (asked.known and "refs" in asked.details):
        return
    node, _ = rows.get_or_new(NODES, node=clean(message.node))
    if order <= node["refs_ord"]:
        return
    rows.put(NODES, node | {"refs_ord": order})
    before = {(row["repo"], row["key"]): row for row in rows.select(NODE_REFS, node=clean(message.node))}
    for held in message.refs[:_MOST]:
        key = clean(held.repo), ref_key(held.ref)
        row = before.pop(key, None)
        if row is None:
            know_repo(rows, held.repo)
            row = new_row(NODE_REFS, node=clean(message.node), repo=key[0], key=key[1])
            rows.put_new(NODE_REFS, _held(row, held) | {"ord": order})
            continue
        changed = _held(row, held)
        # Not written again only because it was listed again: there may be thousands, and `refs_ord` says it.
        if order > row["ord"] and changed != row:
            rows.put(NODE_REFS, changed | {"ord": order})
    complete = _complete_repos(message, asked)
    for row in before.values():
        if order > row["ord"] and (complete is None or row["repo"] in complete):
            rows.remove(NODE_REFS, row["node"], row["repo"], row["key"])


def _held(row: Row, held: HeldRef) -> Row:
    at = micros_or_none(held.time)
    return row | {"ref": clean(held.ref), "commit": held.commit, "at": row["at"] if at is None else at}


def _complete_repos(message: NodeDescribed, asked: _Asked) -> frozenset[str] | None:
    """Return the repositories all of whose refs were listed; None for all there are."""
    if not asked.known or "refs" not in asked.details:
        return frozenset()
    listed = Counter(clean(held.repo) for held in message.refs)
    if message.cut:
        return frozenset()
    if not asked.repo and not asked.site and message.refs_count == len(message.refs):
        return None
    return frozenset(repo for repo, count in listed.items() if count < asked.refs_limit)
