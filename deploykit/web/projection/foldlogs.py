"""What deploys print, as numbered lines in chunks.

Rules:

* Lines are numbered from 0 through all commands of a rollout on a node; a number never changes while a deploy runs.
* What a step printed is preceded by a line that names the step.
* A repeated event is known by its number. A gap is noted; the report's output fills it, if that is not shorter.
* Of too many lines the first are lost; `log_lost` counts them.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import delete, func, select

from deploykit.messages import DeployProgressed, DeployReported
from deploykit.web.projection.cells import Row, clean, packed, unpacked_dict
from deploykit.web.projection.rows import WorkingRows, new_row
from deploykit.web.projection.tables import LOG_CHUNKS, ROLLOUTS

#: Lines and characters of one chunk.
CHUNK_LINES: Final = 200
CHUNK_TEXT: Final = 16_384
#: Most lines and characters of one node in a rollout.
MOST_LINES: Final = 150_000
MOST_TEXT: Final = 32 * 2**20
#: Characters of all logs of a rollout, beyond which each node keeps only `FEW_LINES` lines.
ROLLOUT_TEXT: Final = 256 * 2**20
FEW_LINES: Final = 2000
#: Characters of the longest line; the rest of a longer one follows as further lines.
LINE_TEXT: Final = 8192
#: Steps of a command that are remembered, and characters of a step's name.
STEPS: Final = 200
STEP_TEXT: Final = 200
#: Requests of one node in a rollout whose numbers are remembered.
_REQUESTS: Final = 8


def log_progress(rows: WorkingRows, rollout: Row, node: Row, message: DeployProgressed) -> Row:
    """Return a node's row after an event; its output is kept."""
    request = clean(message.request)
    heard = unpacked_dict(node["heard"])
    known = heard.pop(request, {"next": 0, "gaps": [], "ended": [], "done": False})
    if known["done"] or message.number < known["next"]:
        return node
    step = clean(message.step, STEP_TEXT)
    if message.number > known["next"] and step not in known["gaps"]:
        known["gaps"] = [*known["gaps"], step][-STEPS:]
    known["next"] = message.number + 1
    if message.state == "output":
        node = append(rows, rollout, node, request, message.step, message.output)
    elif message.state != "began":
        node = finish_line(rows, rollout, node, request)
        known["ended"] = [*known["ended"], step][-STEPS:]
    return node | {"heard": _heard(heard, request, known)}


def log_report(rows: WorkingRows, rollout: Row, node: Row, message: DeployReported) -> Row:
    """Return a node's row after a report; what it holds of output that was not heard is kept."""
    request = clean(message.request)
    heard = unpacked_dict(node["heard"])
    known = heard.pop(request, {"next": 0, "gaps": [], "ended": [], "done": False})
    if known["done"]:
        return node
    node = finish_line(rows, rollout, node, request)
    rows.flush()
    lost = [
        step
        for step in message.steps
        if step.output and (step.name in known["gaps"] or step.name not in known["ended"])
    ]
    if lost:
        node = _fill(rows, rollout, node, message)
    return node | {"heard": _heard(heard, request, {**known, "done": True})}


def adopt_log(rows: WorkingRows, node: Row, other: Row) -> Row:
    """Return a node's row after the log of another row of this node was put behind its own.

    Args:
        other: stands under another rollout, which goes.
    """
    rows.flush()
    table = LOG_CHUNKS.c
    theirs = (table.rollout == other["rollout"]) & (table.node == other["node"])
    chunks = rows.connection.execute(select(LOG_CHUNKS).where(theirs).order_by(table.first)).all()
    rows.connection.execute(delete(LOG_CHUNKS).where(theirs))
    if chunks:
        node = finish_line(rows, node, node, node["request"]) | {"log_step": ""}
    for chunk in chunks:
        node = _write(rows, node, node, chunk.request, chunk.step, chunk.text.split("\n"), fresh=True)
    if chunks:
        node |= {"log_step": other["log_step"], "partial": other["partial"]}
    heard = unpacked_dict(other["heard"]) | unpacked_dict(node["heard"])
    return node | {"heard": packed(dict(list(heard.items())[-_REQUESTS:]))}


def _heard(heard: Row, request: str, known: Row) -> str:
    rest = list(heard.items())[-(_REQUESTS - 1) :]
    return packed({**dict(rest), request: known})


def _fill(rows: WorkingRows, rollout: Row, node: Row, message: DeployReported) -> Row:
    """Write a command's part of the log anew: of each step the longer one of what was heard and what is reported."""
    request = clean(message.request)
    start, sections = _take_out(rows, node, request)
    if start is not None:
        size = sum(len(line) + 1 for _, _, lines in sections for line in lines)
        node = node | {"log_lines": start, "log_bytes": max(0, node["log_bytes"] - size)}
        _add_size(rows, rollout, -size)
    reported = {step.name: step.output for step in message.steps if step.output}
    written: set[str] = set()
    node |= {"log_step": ""}
    for of, step, lines in sections:
        output = "\n".join(lines[1:])
        if of == request and step in reported:
            written.add(step)
            output = reported[step] if len(reported[step]) >= len(output) else output
        node = finish_line(rows, rollout, append(rows, rollout, node, of, step, output), of)
    for each in message.steps:
        if each.output and each.name not in written:
            node = finish_line(rows, rollout, append(rows, rollout, node, request, each.name, each.output), request)
    return node


def _take_out(rows: WorkingRows, node: Row, request: str) -> tuple[int | None, list[tuple[str, str, list[str]]]]:
    """Remove what was kept since a command's first output; return where that began, and its lines by step."""
    table = LOG_CHUNKS.c
    mine = (table.rollout == node["rollout"]) & (table.node == node["node"])
    first = select(func.min(table.first)).where(mine & (table.request == request))
    start: int | None = rows.connection.execute(first).scalar_one_or_none()
    sections: list[tuple[str, str, list[str]]] = []
    if start is not None:
        since = mine & (table.first >= start)
        for chunk in rows.connection.execute(select(LOG_CHUNKS).where(since).order_by(table.first)).all():
            if not sections or sections[-1][:2] != (chunk.request, chunk.step):
                sections.append((chunk.request, chunk.step, []))
            sections[-1][2].extend(chunk.text.split("\n"))
        rows.connection.execute(delete(LOG_CHUNKS).where(since))
    return start, sections


def append(rows: WorkingRows, rollout: Row, node: Row, request: str, step: str, output: str) -> Row:
    """Return a node's row after more of a step's output was kept."""
    if node["log_step"] != f"{request} {step}":
        node = finish_line(rows, rollout, node, request)
        node |= {"log_step": f"{request} {step}"}
        node = _write(rows, rollout, node, request, step, [heading(step)], fresh=True)
    text = node["partial"] + clean(output, 2**20)
    *lines, partial = text.replace("\r\n", "\n").split("\n")
    while len(partial) > LINE_TEXT:
        lines.append(partial[:LINE_TEXT])
        partial = partial[LINE_TEXT:]
    node |= {"partial": partial}
    return _write(rows, rollout, node, request, step, lines)


def heading(step: str) -> str:
    """Return the line that precedes what a step printed."""
    return f"--- {clean(step, 200)} ---"


def finish_line(rows: WorkingRows, rollout: Row, node: Row, request: str) -> Row:
    """Return a node's row after a line that has no end yet became one."""
    if not node["partial"]:
        return node
    owner, _, step = node["log_step"].partition(" ")
    line = node["partial"]
    return _write(rows, rollout, node | {"partial": ""}, owner or request, step, [line])


def _write(
    rows: WorkingRows, rollout: Row, node: Row, request: str, step: str, lines: list[str], *, fresh: bool = False
) -> Row:
    pieces = [line[at : at + LINE_TEXT] for line in lines for at in range(0, max(len(line), 1), LINE_TEXT)]
    size = 0
    while pieces:
        chunk = None if fresh else _open_chunk(rows, node, request, clean(step, 200))
        fresh = False
        if chunk is None:
            chunk = new_row(
                LOG_CHUNKS, rollout=node["rollout"], node=node["node"], first=node["log_lines"], request=request
            )
            chunk["step"] = clean(step, 200)
        taken, length = 0, len(chunk["text"])
        while taken < len(pieces) and chunk["lines"] + taken < CHUNK_LINES and length < CHUNK_TEXT:
            length += len(pieces[taken]) + 1
            taken += 1
        added = "\n".join(pieces[:taken])
        chunk["text"] = added if not chunk["lines"] else f"{chunk['text']}\n{added}"
        chunk["lines"] += taken
        rows.put(LOG_CHUNKS, chunk)
        node = node | {"log_lines": node["log_lines"] + taken, "log_last": chunk["first"]}
        size += len(added) + 1
        del pieces[:taken]
    node = node | {"log_bytes": node["log_bytes"] + size}
    _add_size(rows, rollout, size)
    return _cut(rows, rollout, node)


def _open_chunk(rows: WorkingRows, node: Row, request: str, step: str) -> Row | None:
    """Return the last chunk, if more fits into it and it belongs to this step."""
    chunk = rows.get(LOG_CHUNKS, node["rollout"], node["node"], node["log_last"])
    if chunk is None or chunk["request"] != request or chunk["step"] != step:
        return None
    full = chunk["lines"] >= CHUNK_LINES or len(chunk["text"]) >= CHUNK_TEXT
    return None if full or chunk["first"] + chunk["lines"] != node["log_lines"] else chunk


def _add_size(rows: WorkingRows, rollout: Row, size: int) -> None:
    if size:
        row = rows.get(ROLLOUTS, rollout["rollout"])
        if row is not None:
            rows.put(ROLLOUTS, {**row, "log_bytes": max(0, row["log_bytes"] + size)})


def _cut(rows: WorkingRows, rollout: Row, node: Row) -> Row:
    """Return a node's row after its first chunks were removed, while it has too many."""
    row = rows.get(ROLLOUTS, rollout["rollout"])
    few = row is not None and row["log_bytes"] > ROLLOUT_TEXT
    most = FEW_LINES if few else MOST_LINES
    if node["log_lines"] - node["log_lost"] <= most and node["log_bytes"] <= MOST_TEXT:
        return node
    rows.flush()
    table = LOG_CHUNKS.c
    mine = (table.rollout == node["rollout"]) & (table.node == node["node"])
    chunks = rows.connection.execute(
        select(table.first, table.lines, func.length(table.text)).where(mine).order_by(table.first)
    ).all()
    lost, size, last = node["log_lost"], node["log_bytes"], None
    for first, lines, length in chunks[:-1]:
        # A tenth more than needed, so that not every line cuts again.
        if node["log_lines"] - lost <= most * 0.9 and size <= MOST_TEXT * 0.9:
            break
        lost, size, last = first + lines, size - length - 1, first
    if last is not None:
        rows.connection.execute(delete(LOG_CHUNKS).where(mine & (table.first <= last)))
        _add_size(rows, rollout, size - node["log_bytes"])
    return node | {"log_lost": lost, "log_bytes": max(0, size)}
