"""What the daemon publishes about a build: an event for machines, a line for people, a dead letter. Pure.

Rules:

* A report is made of what the queue holds alone. Made again after a crash, it has the same ids and the same bytes.
* A line for people begins as the original's did: `HOST Requested Jenkins build: SUBJECT / JOB`. On a topic of the
  original's fleet it is plain text, for its readers.
* What was not built goes to the dead letters too: the event's own frame, with the reason. Sent back, it is tried again.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from deploykit.daemons.jenkins.decisions import outcome_of
from deploykit.daemons.jenkins.model import QueuedBuild
from deploykit.daemons.legacylines import outgoing_line
from deploykit.messages import BuildRequested, Notice, RequestOutcome, one_line
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.names import NodeName
from deploykit.outbox.format import Outgoing
from deploykit.wire.codec import ID_HEADER, TYPE_HEADER, encode_fitted
from deploykit.wire.frame import Frame, header_text

#: Outcomes that mean that no build comes of a request.
NOT_BUILT: Final[tuple[RequestOutcome, ...]] = ("refused", "failed")
#: Headers of an event that go with its dead letter.
_KEPT: Final = ("content-type", "subject", "correlation-id", ID_HEADER, TYPE_HEADER, "deploykit-signature")
_DETAIL: Final = 1000
_LINE: Final = 1500
_VERBS: Final = {
    "refused": "Refused Jenkins build",
    "failed": "Gave up Jenkins build",
    "cancelled": "Cancelled Jenkins build",
}
_NOTES: Final = {"joined": "joined one in the queue", "scanned": "scanning the branches"}


def request_of(build: QueuedBuild, node: NodeName) -> BuildRequested:
    """Return the event of a build's answer."""
    answer, wanted = build.answer, build.wanted
    outcome = outcome_of(build)
    remedy = answer.remedy if answer is not None else ""
    detail = "" if answer is None else f"{answer.detail} ({remedy})" if remedy else answer.detail
    return BuildRequested(
        id=f"{wanted.key}-{build.state}-{int(build.created * 1000)}",
        source=f"jenkins/{node}",
        time=datetime.fromtimestamp(build.answered, UTC),
        correlation_id=wanted.order.correlation_id,
        job=_job(wanted.order.job),
        number=(answer.number or 0) if answer is not None else 0,
        url=one_line(answer.url, 2000) if answer is not None else "",
        repo=wanted.repo,
        ref=wanted.ref,
        commit=wanted.commit,
        project=wanted.project,
        server=wanted.order.server,
        outcome=outcome,
        queue_item=(answer.queue_item or 0) if answer is not None else 0,
        perhaps_twice=build.doubtful,
        detail=one_line(detail, _DETAIL) if _needs_detail(outcome, remedy) else "",
    )


def _needs_detail(outcome: RequestOutcome, remedy: str) -> bool:
    """Return whether an event says what the server answered. That a build has its number repeats nothing of it."""
    return outcome in (*NOT_BUILT, "cancelled") or (bool(remedy) and outcome != "started")


def line_of(event: BuildRequested, build: QueuedBuild, node: NodeName) -> str:
    """Return the line for people."""
    job = event.job.replace(" ", "_")
    verb = _VERBS.get(event.outcome, "Requested Jenkins build")
    notes = [note for note in (_NOTES.get(event.outcome, ""), "perhaps twice" if event.perhaps_twice else "") if note]
    more = f" ({', '.join(notes)})" if notes else ""
    detail = f": {event.detail}" if event.detail else ""
    return one_line(f"{node} {verb}: {build.wanted.subject} / {job}{more}{detail}", _LINE)


def report(
    build: QueuedBuild,
    node: NodeName,
    topics: TopicMap,
    *,
    dead_letter: str = "",
    frame: tuple[str, Frame] | None = None,
    legacy: bool = False,
) -> tuple[Outgoing, ...]:
    """Return what goes out about a build's answer, in one durable step.

    Args:
        build: in state `answered` or `followed`.
        node: whose daemon this is.
        topics: where each kind goes.
        dead_letter: destination of dead letters; empty sends none.
        frame: where the event came from, and its frame.
        legacy: the line for people is the original's plain text on any topic.
    """
    event = request_of(build, node)
    items = [Outgoing(topic_of(event, topics), encode_fitted(event))]
    if event.outcome != "started":
        notice = Notice(
            id=f"{event.id}-line",
            source=event.source,
            time=event.time,
            text=line_of(event, build, node),
            correlation_id=event.correlation_id,
        )
        items.append(outgoing_line(notice, topics, legacy=legacy))
    if event.outcome in NOT_BUILT and dead_letter and frame is not None:
        items.append(Outgoing(dead_letter, dead_letter_of(build, event, *frame)))
    return tuple(items)


def dead_letter_of(build: QueuedBuild, event: BuildRequested, destination: str, frame: Frame) -> Frame:
    """Return an event's frame as a dead letter, with the headers that the bus gives one."""
    kept = {name: header_text(frame.headers[name]) for name in _KEPT if name in frame.headers}
    reason = f"{event.server}: {event.job}: {event.detail}"
    more = {
        "original-destination": destination,
        "dead-letter-reason": header_text(one_line(reason, _DETAIL)),
        "dead-letter-attempts": str(max(1, build.asks)),
    }
    return Frame({**kept, **more}, frame.body)


def _job(job: str) -> str:
    """Return a job as Jenkins names it in its own variables: old settings write %20 for a blank."""
    return one_line(job.replace("%20", " "))


__all__ = ["NOT_BUILT", "dead_letter_of", "line_of", "report", "request_of"]
