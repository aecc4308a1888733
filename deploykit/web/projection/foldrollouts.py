"""What is announced of rollouts, and what follows from their nodes where nobody announced it."""

from __future__ import annotations

from collections import Counter
from typing import Final

from deploykit.fleet.rolloutstates import ENDS
from deploykit.messages import RolloutAbort, RolloutApproved, RolloutReported
from deploykit.web.projection.cells import Row, clean, packed
from deploykit.web.projection.folding import at_of, audit, heard_order, know_site
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows
from deploykit.web.projection.tables import ROLLOUT_NODES, ROLLOUTS
from deploykit.web.projection.versions import know_versions

_SUCCESS: Final = {"prepare": "prepared", "rollback": "rolled-back", "discard": "skipped"}
_COUNTED: Final = {"": "asked", "began": "asked", "failure": "failed", "rolled-back": "failed", "refused": "refused"}


def open_rollout(
    rows: WorkingRows, heard: Heard, rollout: str, site: str, *, single: bool, kind: str = ""
) -> Row | None:
    """Return the row of a rollout, made now if it is new; None where the id belongs to another site's."""
    row, new = rows.get_or_new(ROLLOUTS, rollout=rollout)
    if new:
        at = at_of(heard)
        row |= {"site": clean(site), "kind": kind or "deploy", "at": at, "began": at, "changed": at, "single": single}
        rows.put(ROLLOUTS, row)
        return row
    if row["site"] != clean(site):
        return None
    if kind and row["single"]:
        row["kind"] = kind
    earliest = min(row["at"], at_of(heard))
    row |= {"at": earliest, "began": earliest}
    rows.put(ROLLOUTS, row)
    return row


def fold_announcement(rows: WorkingRows, heard: Heard, message: RolloutReported) -> None:
    """Keep what a coordinator announces of its rollout."""
    know_site(rows, message.site)
    row = open_rollout(rows, heard, clean(message.rollout), message.site, single=False)
    order = heard_order(heard, message.id)
    if row is None or order <= row["ord"]:
        return
    know_versions(rows, heard, [message])
    at = at_of(heard)
    row |= {
        "ord": order,
        "kind": message.kind,
        "ref": "" if message.parts else clean(message.ref) or row["ref"],
        "commit": clean(message.commit) or row["commit"],
        "state": message.state,
        "counts": packed({clean(str(name), 50): count for name, count in list(message.nodes.items())[:50]}),
        "failed": packed(list(message.failed[:100])),
        "requested_by": clean(message.requested_by, 300) or row["requested_by"],
        "host": clean(message.host, 300),
        "detail": clean(message.detail),
        "changed": at,
        "ended": at if message.state in ENDS else None,
        "single": False,
    }
    rows.put(ROLLOUTS, row)


def fold_approval(rows: WorkingRows, heard: Heard, message: RolloutApproved) -> None:
    """Keep that people approved a rollout."""
    know_site(rows, message.site)
    audit(
        rows,
        heard,
        "approve",
        "done",
        who=message.requested_by,
        site=message.site,
        rollout=message.rollout,
        detail=message.summary,
    )


def fold_abort(rows: WorkingRows, heard: Heard, message: RolloutAbort) -> None:
    """Keep that somebody asked for the end of a rollout."""
    know_site(rows, message.site)
    audit(
        rows,
        heard,
        "abort",
        "asked",
        who=message.requested_by,
        site=message.site,
        rollout=message.rollout,
        detail=message.reason,
    )


def follow_nodes(rows: WorkingRows, heard: Heard, rollout: str) -> None:
    """Let the state of a rollout that nobody announced follow from its nodes."""
    row = rows.get(ROLLOUTS, rollout)
    if row is None or row["ord"]:
        return
    nodes = rows.select(ROLLOUT_NODES, rollout=rollout)
    counts = Counter(_counted(node, row["kind"]) for node in nodes)
    ended = bool(nodes) and all(node["ended"] is not None for node in nodes)
    failed = sorted(node["node"] for node in nodes if _counted(node, row["kind"]) in ("failed", "refused"))
    state = ("failed" if failed else "succeeded") if ended and row["single"] else "rolling"
    if state == "succeeded" and all(node["phase"] == "prepare" for node in nodes):
        state = "prepared"
    changed = max(at_of(heard), row["changed"] or 0)
    row |= {
        "counts": packed(counts),
        "failed": packed(failed[:100]),
        "state": state,
        "detail": next((node["detail"] for node in nodes if node["node"] in failed[:1]), ""),
        "changed": changed,
        "ended": changed if state in ("succeeded", "failed", "prepared") else None,
    }
    rows.put(ROLLOUTS, row)


def _counted(node: Row, kind: str) -> str:
    """Return the state of a node in a coordinator's words."""
    if node["state"] != "success":
        return _COUNTED.get(node["state"], "asked")
    if node["phase"] == "rollback" and kind == "rollback":
        return "active"
    return _SUCCESS.get(node["phase"], "active")
