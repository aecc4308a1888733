"""What pushes, builds, fetches and notices leave in the projection."""

from __future__ import annotations

from typing import Final

from deploykit.messages import (
    Build,
    BuildFinished,
    BuildRequested,
    MirrorUpdated,
    Notice,
    RefUpdated,
    RevisionCommitted,
)
from deploykit.messages.source import MAX_COMMITS
from deploykit.names import is_zero
from deploykit.web.projection.cells import clean, digest, micros, packed
from deploykit.web.projection.folding import at_of, heard_order, know_repo, saw_node
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.tables import BUILDS, MIRRORS, NODE_REFS, NODES, NOTICES, PUSHES

_RANKS: Final = {"queued": 1, "joined": 1, "scanned": 1, "started": 2}
#: Above every state of a request and of a build that runs.
_ENDED: Final = 9


def fold_push(rows: WorkingRows, heard: Heard, message: RefUpdated) -> None:
    """Keep a git push."""
    commits = [
        {"id": each.id, "author": each.author, "time": each.time, "message": each.message}
        for each in message.commits[:MAX_COMMITS]
    ]
    row = _pushed(heard, message)
    row |= {
        "ref": clean(message.ref),
        "kind": message.kind,
        "old": message.old,
        "new": message.new,
        "pusher": clean(message.pusher),
        "commits": packed(commits),
        "commit_count": max(message.commit_count, len(commits)),
    }
    _put_first(rows, row)


def fold_revision(rows: WorkingRows, heard: Heard, message: RevisionCommitted) -> None:
    """Keep a Subversion revision."""
    time = message.committed.isoformat() if message.committed is not None else ""
    commit = {"id": str(message.revision), "author": message.author, "time": time, "message": message.log}
    row = _pushed(heard, message)
    row |= {
        "kind": "committed",
        "pusher": clean(message.author),
        "commits": packed([commit]),
        "commit_count": 1,
        "revision": message.revision,
        "projects": packed(list(message.projects)),
    }
    _put_first(rows, row)


def _pushed(heard: Heard, message: RefUpdated | RevisionCommitted) -> dict[str, object]:
    return new_row(
        PUSHES,
        key=digest(message.source, message.id),
        at=at_of(heard),
        id=clean(message.id),
        source=clean(message.source),
        repo=clean(message.repo),
        correlation=clean(message.correlation_id or message.id),
    )


def _put_first(rows: WorkingRows, row: dict[str, object]) -> None:
    know_repo(rows, str(row["repo"]))
    if rows.get(PUSHES, row["key"]) is None:
        rows.put(PUSHES, row)


def fold_build(rows: WorkingRows, heard: Heard, message: Build) -> None:
    """Keep how a build stands: asked for, started, ended. What comes late takes nothing back."""
    know_repo(rows, message.repo)
    rank, state = _build_state(message)
    key = _build_key(rows, message)
    row, new = rows.get_or_new(BUILDS, key=key)
    order = heard_order(heard, message.id)
    if not new and (rank, order) <= (row["rank"], row["ord"]):
        _complete(row, message)
        rows.put(BUILDS, row)
        return
    row |= {
        "id": clean(message.id),
        "at": at_of(heard),
        "state": state,
        "rank": rank,
        "ord": order,
        "signer": clean(heard.signer) if isinstance(message, BuildFinished) else row["signer"],
        "url": clean(message.url) or row["url"],
    }
    _complete(row, message)
    rows.put(BUILDS, row)


def _build_state(message: Build) -> tuple[int, str]:
    if isinstance(message, BuildRequested):
        state = "requested" if message.outcome == "queued" else message.outcome
        return _RANKS.get(message.outcome, _ENDED), state
    return (_ENDED, message.outcome) if isinstance(message, BuildFinished) else (3, "started")


def _complete(row: dict[str, object], message: Build) -> None:
    """Fill in what earlier messages of the build left open."""
    known = {
        "job": message.job,
        "repo": message.repo,
        "ref": message.ref,
        "commit": message.commit,
        "url": message.url,
        "number": str(message.number) if message.number else "",
        "correlation": message.correlation_id,
    }
    for name, value in known.items():
        if value and not row[name]:
            row[name] = clean(value)


def _build_key(rows: WorkingRows, message: Build) -> str:
    """Return the key of the row of a build; a request that had no number yet becomes that of the build it led to."""
    correlation, job = clean(message.correlation_id), clean(message.job)
    waiting = digest("request", job, correlation or message.id, message.project)
    if not message.number:
        led_to = rows.select(BUILDS, correlation=correlation) if correlation else []
        return next((row["key"] for row in led_to if row["job"] == job and row["number"]), waiting)
    key = digest("build", job, message.number, message.repo or "")
    if rows.get(BUILDS, key) is None:
        asked = rows.get(BUILDS, waiting) if correlation else None
        if asked is not None and not asked["number"]:
            rows.remove(BUILDS, waiting)
            rows.put(BUILDS, {**asked, "key": key})
    return key


def fold_mirror(rows: WorkingRows, heard: Heard, message: MirrorUpdated) -> None:
    """Keep how the last fetch of a ref ended on a node, and what its mirror holds now."""
    saw_node(rows, message.node, heard)
    know_repo(rows, message.repo)
    key, order = digest(message.ref), heard_order(heard, message.id)
    row, new = rows.get_or_new(MIRRORS, node=clean(message.node), repo=clean(message.repo), key=key)
    if not new and order <= row["ord"]:
        return
    gone = is_zero(message.new)
    row |= {
        "at": at_of(heard),
        "ref": clean(message.ref),
        "commit": "" if gone else message.new,
        "outcome": message.outcome,
        "detail": clean(message.detail),
        "seconds": message.seconds,
        "ord": order,
    }
    rows.put(MIRRORS, row)
    if message.outcome not in ("updated", "unchanged"):
        return
    held, new = rows.get_or_new(NODE_REFS, node=clean(message.node), repo=clean(message.repo), key=key)
    node = rows.get(NODES, held["node"])
    if not new and order <= max(held["ord"], node["refs_ord"] if node is not None else ""):
        return
    if gone:
        rows.remove(NODE_REFS, held["node"], held["repo"], key)
        return
    # Of a tag this may be the tag's own object. Its commit is known when the node is next asked.
    tag = message.ref.startswith("refs/tags/")
    if not tag:
        held["commit"] = message.new
    elif held["object"] != message.new:
        held["commit"] = ""
    held |= {"ref": clean(message.ref), "object": message.new, "ord": order, "at": held["at"] or micros(message.time)}
    rows.put(NODE_REFS, held)


def fold_notice(rows: WorkingRows, heard: Heard, message: Notice) -> None:
    """Keep a line for people."""
    key = digest(message.source, message.id)
    if rows.get(NOTICES, key) is None:
        row = new_row(NOTICES, key=key, at=at_of(heard), id=clean(message.id), source=clean(message.source))
        rows.put(NOTICES, {**row, "text": clean(message.text)})
