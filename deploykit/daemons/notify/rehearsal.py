"""What recorded messages would become, channel by channel; and one line that is sent to try a channel."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import attrs

from deploykit.daemons.notify.cdevents import custom_event
from deploykit.daemons.notify.channels import make_channel
from deploykit.daemons.notify.hearing import NewsHearing
from deploykit.daemons.notify.letters import letter_of, waiting_line
from deploykit.daemons.notify.news import NewsItem, kinds_of, news_of
from deploykit.daemons.notify.ports import SendOutcome
from deploykit.daemons.notify.routing import goes_to
from deploykit.daemons.notify.service import news_trust
from deploykit.daemons.notify.waiting import NotifyBatch, WaitingLine
from deploykit.errors import MessageError, UsageError
from deploykit.fleet.recordformat import RecordedMessage
from deploykit.fleet.tracetrust import SignatureVerdict
from deploykit.messages import Notice, new_id, one_line, utc_now
from deploykit.settings.node import Settings
from deploykit.settings.notify import ChannelSettings
from deploykit.wire import decode, encode


@attrs.frozen(kw_only=True, slots=True)
class RehearsedMessage:
    """What one recorded message becomes.

    Args:
        summary: its line.
        kinds: of which kinds it is; empty where it is no news.
        standing: what its signature is worth.
        why: why nothing is sent; empty where something is.
        sent: channel -> what it would get.
    """

    summary: str
    kinds: tuple[str, ...] = ()
    standing: str = ""
    why: str = ""
    sent: Mapping[str, str] = attrs.field(factory=dict)


def rehearse(settings: Settings, records: Iterable[RecordedMessage]) -> Iterator[RehearsedMessage]:
    """Yield what each recorded message becomes. Nothing is sent.

    Raises:
        SettingsError: the grants are wrong.
    """
    hearing = NewsHearing(news_trust(settings), console=settings.notify.console)
    for record in records:
        yield _rehearse(settings, hearing, record)


def _rehearse(settings: Settings, hearing: NewsHearing, record: RecordedMessage) -> RehearsedMessage:
    try:
        message = decode(record.headers, record.body, record.destination)
    except MessageError as error:
        return RehearsedMessage(summary=f"no message: {one_line(error.problem)}", why="it cannot be read")
    if message is None or record.left_out:
        return RehearsedMessage(summary=record.left_out or "a keepalive", why="it is no news")
    kinds = kinds_of(message)
    if not kinds:
        return RehearsedMessage(summary=message.summary, why=f"{message.TYPE or 'its type'} is no news")
    item = hearing.item_of(record, message)
    if item is None:
        why = "its signature is missing or not believed"
        return RehearsedMessage(summary=message.summary, kinds=kinds, standing="doubtful", why=why)
    if item == "old":
        return RehearsedMessage(summary=message.summary, kinds=kinds, why="it was sent again, and is not new")
    sent = {name: text for name, each in settings.notify.channels.items() if (text := _shown(item, each)) is not None}
    why = "" if sent else "no channel wants it (see events and sites)"
    return RehearsedMessage(
        summary=message.summary, kinds=item.kinds, standing=item.fields["standing"], why=why, sent=sent
    )


def _shown(item: NewsItem, channel: ChannelSettings) -> str | None:
    if not goes_to(item, channel):
        return None
    line = waiting_line(item, channel, added=0.0)
    if line is None:
        return None
    return line.text if line.data is None else json.dumps(line.data, ensure_ascii=False)


def try_channel(settings: Settings, name: str, *, now: datetime | None = None) -> SendOutcome:
    """Send one line to a channel, and return what became of it.

    Raises:
        UsageError: there is no such channel.
        SettingsError: a file that its settings name cannot be used.
    """
    channels = settings.notify.channels
    if name not in channels:
        there = ", ".join(channels) or "none; add [notify.channels.NAME]"
        raise UsageError(f"no channel {name[:60]!a} in the settings", f"there are: {there}")
    found = channels[name]
    channel = make_channel(name, found, node=settings.node, ending=threading.Event())
    try:
        letter = letter_of(_test_batch(settings, found), found.kind, now or utc_now())
        return channel.send(letter)
    finally:
        channel.close()


def _test_batch(settings: Settings, channel: ChannelSettings) -> NotifyBatch:
    """Return one line that says where it comes from; for CDEvents, which has no lines, an event of its own."""
    notice = Notice(source=settings.node, text=f"test of channel {channel.kind} by deploykit notify on {settings.node}")
    verdict = SignatureVerdict(standing="verified", signer=settings.node)
    item = news_of(notice, verdict, body=encode(notice).body, received=notice.time, console=settings.notify.console)
    line = waiting_line(item, channel, added=0.0) if item is not None else None
    if line is None:
        data = custom_event("notify.tested", settings.node, notice)
        line = WaitingLine(key=notice.id, event="notice", verified=True, text=notice.text, data=data)
    return NotifyBatch(id=new_id(), lines=(line,))


__all__ = ["RehearsedMessage", "rehearse", "try_channel"]
