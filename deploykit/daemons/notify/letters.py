"""What is sent to a channel at once, made of the lines that waited. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import attrs

from deploykit.daemons.notify.cdevents import cdevent_of
from deploykit.daemons.notify.news import NewsItem
from deploykit.daemons.notify.waiting import NotifyBatch, WaitingLine
from deploykit.daemons.notify.wording import STANDING_MARKS, harmless, is_late, text_of
from deploykit.messages import Notice, one_line
from deploykit.settings.notify import ChannelKind, ChannelSettings
from deploykit.wire.times import format_time

#: Characters of a mail's subject.
_SUBJECT = 150


@attrs.frozen(kw_only=True, slots=True)
class NotifyLetter:
    """What a channel sends at once.

    Args:
        id: the same at each attempt.
        lines: for people; one line each, harmless where they go.
        subject: of a mail.
        time: when it was made; aware.
        data: for programs.
    """

    id: str
    lines: tuple[str, ...]
    subject: str
    time: datetime
    data: Mapping[str, object] = attrs.field(factory=dict, eq=False)


def waiting_line(item: NewsItem, channel: ChannelSettings, *, added: float) -> WaitingLine | None:
    """Return an item as it waits for a channel; None where the channel has no form for it.

    Args:
        added: monotonic seconds.
    """
    data: Mapping[str, object] | None = None
    if channel.kind == "cdevents":
        data = cdevent_of(item)
        if data is None:
            return None
    elif item.machine_only:
        return None
    elif channel.kind == "webhook":
        data = _plain(item)
    return WaitingLine(
        key=item.digest,
        event=item.kinds[0],
        verified=item.verified,
        text=text_of(item, channel.template, channel.kind),
        data=data,
        pair=item.pair if item.pair[0] else None,
        notice=isinstance(item.message, Notice),
        added=added,
        late=is_late(item),
    )


def letter_of(batch: NotifyBatch, kind: ChannelKind, now: datetime) -> NotifyLetter:
    """Return the letter of a batch.

    Args:
        now: aware.
    """
    texts = [line.text for line in batch.lines]
    more = _more_text(batch)
    if more:
        texts = [f"{texts[0]} ({more})"] if len(texts) == 1 else [*texts, more]
    others = len(batch.lines) - 1 + sum(batch.more.values())
    subject = _subject(batch.lines[0]) + (f" (and {others} more)" if others else "")
    data = dict(batch.lines[0].data or {})
    left_out: dict[str, object] = {"more": dict(batch.more)} if batch.more else {}
    left_out |= {"late": batch.late} if batch.late else {}
    if left_out and kind == "cdevents":
        data["data"] = _with_custom(data.get("data"), left_out)
    elif left_out:
        data |= left_out
    return NotifyLetter(id=batch.id, lines=tuple(texts), subject=subject, time=now, data=data)


def _subject(line: WaitingLine) -> str:
    """Return the subject of a mail. A mark that stands behind the line is not cut off."""
    mark = "" if line.verified else next((mark for mark in STANDING_MARKS if mark in line.text), "")
    subject = one_line(f"[deploykit] {line.text}", _SUBJECT)
    return subject if mark in subject else one_line(subject, _SUBJECT - len(mark)) + mark


def _more_text(batch: NotifyBatch) -> str:
    parts = []
    if batch.more:
        kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(batch.more.items()))
        parts.append(f"and {sum(batch.more.values())} more: {kinds}")
    if batch.late:
        parts.append(f"{batch.late} older could not be sent in time")
    return "; ".join(parts)


def _with_custom(event: object, more: Mapping[str, object]) -> Mapping[str, object]:
    """Return a CDEvent whose custom data holds more."""
    found: dict[str, object] = dict(event) if isinstance(event, Mapping) else {}
    custom = found.get("customData")
    kept: dict[str, object] = dict(custom) if isinstance(custom, Mapping) else {}
    return {**found, "customData": {**kept, **more}}


def _plain(item: NewsItem) -> Mapping[str, object]:
    """Return an item for a webhook: its fields, without those that are empty."""
    fields = {name: harmless(value, "webhook") for name, value in item.fields.items() if value and name != "time"}
    return {
        "type": f"deploykit.{item.kinds[0]}",
        "timestamp": format_time(item.message.time),
        "data": {
            **fields,
            "kinds": list(item.kinds),
            "message_id": item.message.id,
            "message_type": item.message.TYPE,
            "correlation_id": item.message.correlation_id,
        },
    }


__all__ = ["NotifyLetter", "letter_of", "waiting_line"]
