"""What commands, their steps and reports leave in the projection.

Rules:

* A command that belongs to no rollout is a rollout of its own, under the command's id.
* A report names no rollout: where the command was not heard before, it stands under its own id until it is.
* A rollout keeps its site: a message that names the id of another site's rollout changes nothing.
* A command is for its nodes: what another node reports of it changes nothing.
* What a coordinator announced of its rollout counts; else its state follows from its nodes.
"""

from __future__ import annotations

from typing import Final

from deploykit.messages import DeployProgressed, DeployReported, DeployRequested
from deploykit.messages.site import name_of
from deploykit.web.projection.cells import Row, clean, micros, packed, unpacked_list
from deploykit.web.projection.foldhistory import fold_reported
from deploykit.web.projection.folding import asked_by, at_of, audit, heard_order, know_site, saw_node
from deploykit.web.projection.foldlogs import adopt_log, log_progress, log_report
from deploykit.web.projection.foldnodes import live_cells, put_site, release_cells
from deploykit.web.projection.foldrollouts import follow_nodes, open_rollout
from deploykit.web.projection.heard import Heard
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.stepcells import merged_steps, with_event, with_report
from deploykit.web.projection.tables import COMMANDS, ROLLOUT_NODES, ROLLOUTS, SITE_NODES
from deploykit.web.projection.versions import know_versions

#: Sort order of nodes in a rollout: those that failed, those at work, then the others.
RANKS: Final = {"failure": 0, "refused": 0, "rolled-back": 0, "began": 1, "": 2, "success": 3}
_DECISIONS: Final = {"success": "done", "refused": "refused"}
_MOST_NODES: Final = 10_000
#: Cells of a node that are of its newest command.
_OF_COMMAND: Final = ("request", "phase", "ord", "began", "ended", "state", "detail", "rank")


def fold_command(rows: WorkingRows, heard: Heard, message: DeployRequested) -> None:
    """Keep a command, and the nodes it is for."""
    request, rollout = clean(message.id), clean(message.rollout) or clean(message.id)
    known = rows.get(COMMANDS, request)
    if known is not None and known["commit"]:
        return  # a copy: one command goes to the topic of each of its nodes
    know_site(rows, message.site)
    know_versions(rows, heard, [message])
    row = open_rollout(
        rows,
        heard,
        rollout,
        message.site,
        single=message.rollout is None,
        kind="rollback" if message.phase == "rollback" and message.rollout is None else "",
    )
    if row is None:
        return
    nodes = ", ".join(message.audience[:20])
    audit(
        rows,
        heard,
        message.phase,
        "asked",
        who=message.requested_by,
        site=message.site,
        rollout=rollout,
        detail=f"{name_of(message)} on {nodes}",
    )
    _note_command(rows, heard, message, rollout)
    if not row["ord"]:  # not announced: what is known is what its commands say
        row |= {"requested_by": clean(message.requested_by, 300) or row["requested_by"]}
        if message.phase not in ("rollback", "discard") or row["single"]:
            row |= {"ref": clean(message.ref), "commit": message.commit}
        rows.put(ROLLOUTS, row)
    for node in message.audience[:_MOST_NODES]:
        found, new = rows.get_or_new(ROLLOUT_NODES, rollout=rollout, node=clean(node))
        if new:
            rows.put(ROLLOUT_NODES, {**found, "request": request, "phase": message.phase, "rank": RANKS[""]})
    follow_nodes(rows, heard, rollout)


def _note_command(rows: WorkingRows, heard: Heard, message: DeployRequested, rollout: str) -> None:
    request = clean(message.id)
    known = rows.get(COMMANDS, request)
    if known is not None and known["rollout"] != rollout and known["rollout"] == request:
        _move(rows, request, rollout)
    row = new_row(
        COMMANDS,
        request=request,
        at=at_of(heard),
        rollout=rollout,
        site=clean(message.site),
        phase=message.phase,
        ref=clean(message.ref),
        commit=message.commit,
        requested_by=clean(message.requested_by, 300),
        signer=clean(heard.signer, 300),
    )
    rows.put(COMMANDS, row)


def _move(rows: WorkingRows, request: str, rollout: str) -> None:
    """Let what stood under a command's own id belong to its rollout, which is known only now."""
    old = rows.get(ROLLOUTS, request)
    if old is None or not old["single"]:
        return
    for row in rows.select(ROLLOUT_NODES, rollout=request):
        rows.remove(ROLLOUT_NODES, request, row["node"])
        known = rows.get(ROLLOUT_NODES, rollout, row["node"])
        if known is None:
            known, _ = rows.get_or_new(ROLLOUT_NODES, rollout=rollout, node=row["node"])
        newer = row if row["ord"] > known["ord"] else known
        merged = known | {name: newer[name] for name in _OF_COMMAND}
        merged["steps"] = packed(merged_steps(unpacked_list(known["steps"]), unpacked_list(row["steps"])))
        rows.put(ROLLOUT_NODES, adopt_log(rows, merged, row))
    rows.remove(ROLLOUTS, request)


def _rollout_of(
    rows: WorkingRows, heard: Heard, message: DeployProgressed | DeployReported, named: str
) -> tuple[str, Row | None]:
    """Return the rollout that a step or report belongs to, with its row; None where it must not count."""
    command = rows.get(COMMANDS, clean(message.request))
    if command is not None and not _is_for(rows, command, message):
        return "", None
    rollout = command["rollout"] if command is not None else clean(named) or clean(message.request)
    row = open_rollout(rows, heard, rollout, message.site, single=rollout == clean(message.request))
    if row is not None and command is None:
        made = new_row(
            COMMANDS, request=clean(message.request), at=at_of(heard), rollout=rollout, site=clean(message.site)
        )
        rows.put(COMMANDS, {**made, "phase": message.phase})
    return rollout, row


def _is_for(rows: WorkingRows, command: Row, message: DeployProgressed | DeployReported) -> bool:
    """Return whether a command is for the site and the node that speak of it; where only they do, that is not known."""
    if command["site"] != clean(message.site):
        return False
    return not command["ref"] or rows.get(ROLLOUT_NODES, command["rollout"], clean(message.node)) is not None


def fold_progress(rows: WorkingRows, heard: Heard, message: DeployProgressed) -> None:
    """Keep that a step began or ended, or what it printed."""
    saw_node(rows, message.node, heard)
    know_site(rows, message.site)
    rollout, row = _rollout_of(rows, heard, message, message.rollout or "")
    if row is None:
        return
    node, _ = rows.get_or_new(ROLLOUT_NODES, rollout=rollout, node=clean(message.node))
    before = node["state"]
    _take_request(node, heard, message)
    if node["request"] == clean(message.request) and node["ended"] is None:
        node |= {"state": "began", "rank": RANKS["began"]}
    if message.state != "output":
        node["steps"] = packed(with_event(unpacked_list(node["steps"]), message, at_of(heard), heard_order(heard, "")))
    node = log_progress(rows, row, node, message)
    rows.put(ROLLOUT_NODES, node)
    if node["state"] != before:
        follow_nodes(rows, heard, rollout)


def _take_request(node: Row, heard: Heard, message: DeployProgressed | DeployReported) -> None:
    """Let a row show the command of a message, if that is newer than the one it shows."""
    request, order = clean(message.request), heard_order(heard, "")
    if node["request"] == request:
        node["began"] = at_of(heard) if node["began"] is None else min(node["began"], at_of(heard))
        node["ord"] = max(node["ord"], order)
    elif order >= node["ord"]:
        node |= {
            "request": request,
            "phase": message.phase,
            "ord": order,
            "began": at_of(heard),
            "ended": None,
            "state": "",
            "detail": "",
        }


def fold_report(rows: WorkingRows, heard: Heard, message: DeployReported) -> None:
    """Keep what a node says has become of a command, and what is live there now."""
    saw_node(rows, message.node, heard)
    know_site(rows, message.site)
    rollout, row = _rollout_of(rows, heard, message, "")
    if row is None:
        return
    know_versions(rows, heard, [message, message.target, message.previous])
    command = rows.get(COMMANDS, clean(message.request))
    audit(
        rows,
        heard,
        message.phase,
        _DECISIONS.get(message.outcome, "failed"),
        who=command["requested_by"] if command is not None else "",
        place=message.node,
        site=message.site,
        rollout=rollout,
        detail=message.detail,
    )
    node, _ = rows.get_or_new(ROLLOUT_NODES, rollout=rollout, node=clean(message.node))
    _take_request(node, heard, message)
    if node["request"] == clean(message.request):
        node |= {
            "state": message.outcome,
            "rank": RANKS.get(message.outcome, 0),
            "detail": clean(message.detail),
            "ended": at_of(heard),
        }
    node["steps"] = packed(with_report(unpacked_list(node["steps"]), message, heard_order(heard, "")))
    node = log_report(rows, row, node, message)
    rows.put(ROLLOUT_NODES, node)
    fold_reported(rows, heard, message, command)
    _fold_live(rows, heard, message, command)
    follow_nodes(rows, heard, rollout)


def _fold_live(rows: WorkingRows, heard: Heard, message: DeployReported, command: Row | None) -> None:
    """Keep what is live on the node, as the report has read it from the site."""
    row, new = rows.get_or_new(SITE_NODES, site=clean(message.site), node=clean(message.node))
    order = heard_order(heard, message.id)
    if not message.live_known or (not new and order <= row["ord"]):
        return
    changes = live_cells(message.release, message.ref, message.commit) | release_cells("previous", message.previous)
    changes |= {"ord": order, "seen": micros(heard.received), "problem": ""}
    if changes["release"] != row["release"]:
        changes |= {"since": micros(message.time), "modified": None}
        changes["by"] = asked_by(command)
    if message.outcome == "success" and message.phase == "prepare":
        changes |= release_cells("prepared", message.target)
    elif message.outcome == "success":
        changes |= release_cells("prepared", None)
    if message.outcome != "refused":
        target = message.target
        changes |= {
            "last_phase": message.phase,
            "last_outcome": message.outcome,
            "last_detail": clean(message.detail),
            "last_release": clean(target.release) if target is not None else "",
            "last_ref": clean(target.ref) if target is not None else "",
            "last_commit": clean(target.commit) if target is not None else "",
            "last_at": micros(message.time),
        }
    if command is not None:
        changes["rollout"] = command["rollout"]
    put_site(rows, row, changes)
