"""What commands and nodes' reports about accesses leave in the projection.

Rules:

* A row says what a node reported last: an access that was asked for is `asked` until then.
* An access that ended keeps its row, so that an older report does not bring it back; a description removes it.
* Who asked for an access is in the report: the commands themselves come to no console.
* A node that failed or refused to change an access still has the one it had.
"""

from __future__ import annotations

from deploykit.messages import AccessGrantRequested, AccessReported, AccessRevokeRequested, NodeDescribed
from deploykit.web.projection.cells import Row, clean, micros_or_none
from deploykit.web.projection.folding import audit, heard_order, know_site, saw_node
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows
from deploykit.web.projection.tables import ACCESS, PROTECTED

#: States of rows that are no access.
ENDED = ("revoked", "expired")


def fold_access_command(rows: WorkingRows, heard: Heard, message: AccessGrantRequested | AccessRevokeRequested) -> None:
    """Keep that somebody asked for an access, or for its end, and which nodes have to answer."""
    know_site(rows, message.site)
    granted = isinstance(message, AccessGrantRequested)
    detail = f"access for {message.user}"
    audit(
        *(rows, heard, "grant" if granted else "revoke", "asked"),
        who=message.requested_by,
        site=message.site,
        detail=detail,
    )
    order = heard_order(heard, message.id)
    site, user = clean(message.site), clean(message.user)
    for protects in rows.select(PROTECTED, site=site):
        if message.audience is not None and protects["node"] not in message.audience:
            continue
        row, new = rows.get_or_new(ACCESS, site=site, user=user, node=protects["node"])
        if order <= row["ord"] or order <= row["asked_ord"] or row["request"] == clean(message.id):
            continue
        changes = {"asked": clean(message.id), "asked_ord": order, "asked_by": clean(message.requested_by, 300)}
        if new:
            changes["state"] = "asked" if granted else "revoked"
        rows.put(ACCESS, {**row, **changes})


def fold_access_report(rows: WorkingRows, heard: Heard, message: AccessReported) -> None:
    """Keep what a node reports of an access."""
    saw_node(rows, message.node, heard)
    done = message.outcome in ("granted", *ENDED)
    decision = "done" if done else message.outcome
    audit(rows, heard, "access", decision, place=message.node, site=message.site, detail=message.summary)
    if message.outcome != "refused":
        protects, _ = rows.get_or_new(PROTECTED, site=clean(message.site), node=clean(message.node))
        rows.put(PROTECTED, protects)
    order = heard_order(heard, message.id)
    key = {"site": clean(message.site), "user": clean(message.user), "node": clean(message.node)}
    row, new = rows.get_or_new(ACCESS, **key)
    if order <= row["ord"]:
        return
    changes: Row = {"ord": order, "request": clean(message.request), "detail": clean(message.detail, 1000)}
    by = clean(message.requested_by, 300)
    if message.request is not None and row["asked"] == clean(message.request):
        changes["asked"], by = "", by or row["asked_by"]
    if by and (message.outcome == "granted" or not row["by"]):
        changes["by"] = by
    if done:
        changes |= {"state": message.outcome, "until": micros_or_none(message.until)}
    elif new or row["state"] == "asked":
        changes["state"] = message.outcome
    rows.put(ACCESS, {**row, **changes})


def fold_described_access(rows: WorkingRows, heard: Heard, message: NodeDescribed, site: str) -> None:
    """Keep who may see what, as a node was asked to describe it.

    Args:
        site: the one that it was asked about; empty for all.
    """
    order = heard_order(heard, message.id)
    node = clean(message.node)
    before = {row["site"]: row for row in rows.select(PROTECTED, node=node)}
    if any(order < row["ord"] for row in before.values()):
        return
    protects = {clean(each) for each in message.protects}
    for each in sorted(protects):
        rows.put(PROTECTED, {"site": each, "node": node, "ord": order})
    for each in before.keys() - protects:
        if site in ("", each) and not message.cut:
            rows.remove(PROTECTED, each, node)
    listed = set()
    for access in message.access:
        key = {"site": clean(access.site), "user": clean(access.user), "node": node}
        listed.add((key["site"], key["user"]))
        row, _ = rows.get_or_new(ACCESS, **key)
        if order > row["ord"]:
            until = micros_or_none(access.until)
            by = clean(access.requested_by, 300)
            rows.put(ACCESS, {**row, "ord": order, "state": "granted", "until": until, "by": by, "detail": ""})
    if message.cut:
        return
    for row in rows.select(ACCESS, node=node):
        gone = (row["site"], row["user"]) not in listed and site in ("", row["site"])
        if gone and order > row["ord"] and order > row["asked_ord"]:
            rows.remove(ACCESS, row["site"], row["user"], node)


__all__ = ["ENDED", "fold_access_command", "fold_access_report", "fold_described_access"]
