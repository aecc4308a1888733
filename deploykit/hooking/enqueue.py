"""Put messages into the spool by one durable write, then wake the relay, or start one.

Rules:

* What is on the disk is safe; whatever fails after that becomes a note, never an error.
* A relay is started as the user who pushes, detached, with the settings file that the hook's settings name. It ends
  when the spool is empty, and gives way to pushes meanwhile.
"""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import attrs

from deploykit.hooking.process import child_environment, spawn_detached
from deploykit.messages.base import Message
from deploykit.messages.notice import Notice
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.outbox import Outbox, Outgoing
from deploykit.settings.hooks import HookSettings, default_spool
from deploykit.wire.codec import encode_fitted
from deploykit.wire.frame import Frame


class Queued(NamedTuple):
    """How many events are in which spool (empty: the usual one), and notes for a person."""

    events: int
    spool: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        where = f" in {self.spool}" if self.spool else ""
        line = f"{self.events} event{'' if self.events == 1 else 's'} queued{where}"
        return "; ".join((line, *self.notes))


#: Characters of all commit messages in one event of the original's form. Its JSON takes twelve bytes for an emoji;
#: this leaves room for 50 titles and authors made of nothing else.
_LEGACY_TEXT = 60_000


def frames_of(message: Message, *, legacy: bool) -> tuple[Frame, ...]:
    """Return one message encoded, in the original's form for `legacy`; texts are cut where they would not fit.

    Raises:
        MessageError: a field holds what no reader would accept, or there is no such form.
    """
    if legacy:
        from deploykit.wire.legacy import legacy_frames

        return legacy_frames(_fitting_legacy(message))
    return (encode_fitted(message),)


def outgoing_of(
    messages: Iterable[Message],
    topics: TopicMap,
    *,
    notices: bool,
    legacy: bool,
    key: Callable[[Frame], Frame] | None = None,
) -> list[Outgoing]:
    """Return what goes into the spool for messages: each one and, where wanted, the human line of it.

    Args:
        messages: a `Notice` among them is a line of its own.
        topics: where they go.
        notices: whether each gets a human line.
        legacy: write the original's form.
        key: signs the frames of messages, not those of lines.

    Raises:
        MessageError: a message cannot be encoded.
    """
    items: list[Outgoing] = []
    for message in messages:
        target = topic_of(message, topics)
        items += (Outgoing(target, key(frame) if key else frame) for frame in frames_of(message, legacy=legacy))
        if notices and not isinstance(message, Notice):
            notice = Notice(
                id=_notice_id(message),
                source=message.source,
                text=message.summary,
                correlation_id=message.correlation_id,
            )
            items += (Outgoing(topic_of(notice, topics), frame) for frame in frames_of(notice, legacy=legacy))
    return items


def _notice_id(message: Message) -> str:
    """Return the id of a message's human line: a message that is published again has the same line, no second one."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{message.id}\0notice"))


def _fitting_legacy(message: Message) -> Message:
    """Return a push whose commit messages fit the original's form; other messages as they are."""
    from deploykit.messages.source import Commit, RefUpdated

    if not isinstance(message, RefUpdated):
        return message
    commits = message.commits
    if sum(len(commit.message) for commit in commits) <= _LEGACY_TEXT:
        return message
    each = _LEGACY_TEXT // len(commits)
    cut = (Commit(id=c.id, author=c.author, time=c.time, message=c.message[:each]) for c in commits)
    return attrs.evolve(message, commits=tuple(cut))


def enqueue(
    messages: Iterable[Message],
    settings: HookSettings,
    environ: Mapping[str, str],
    *,
    sign: bool = False,
    notes: Sequence[str] = (),
) -> Queued:
    """Put all messages, and the human line of each, into the spool in one durable step; wake or start a relay.

    Raises:
        OutboxError: nothing was queued.
        MessageError: a message cannot be encoded; nothing was queued.
        KeyFileError: the signing key cannot be used; nothing was queued.
    """
    key = _signing_key(settings) if sign and settings.signing_key else None
    queued = tuple(messages)
    items = outgoing_of(queued, settings.topics, notices=settings.notices, legacy=settings.legacy, key=key)
    path, shared = (settings.spool, True) if settings.spool else default_spool(environ)
    if not items:
        return Queued(0, "", tuple(notes))
    outbox = Outbox(path, shared=shared)
    outbox.put_many(items)
    more = _start_sending(outbox, settings, environ)
    shown = path if more or not settings.spool else ""
    return Queued(len(queued), shown, (*notes, *more))


def _signing_key(settings: HookSettings) -> Callable[[Frame], Frame]:
    from pathlib import Path

    from deploykit.trust.keyfiles import load_signing_key
    from deploykit.trust.signature import sign

    key = load_signing_key(Path(settings.signing_key))
    return lambda frame: sign(frame, key)


def _start_sending(outbox: Outbox, settings: HookSettings, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Start a relay where none is at work; return notes for a person."""
    if outbox.relay_listens():
        return ()
    if not settings.relay:
        return ("no relay is at work",)
    if not os.access(settings.relay, os.R_OK):
        return (f"no relay is at work, and this user cannot read {settings.relay} to start one",)
    command = [sys.executable, "-I", "-m", "deploykit", "relay", "--once", "--background"]
    try:
        where = ("--config", settings.relay, "--spool", outbox.path)
        spawn_detached([*command, *where], child_environment(environ, {}))
    except OSError as error:
        return (f"no relay is at work, and none could be started: {error.strerror}",)
    return ()
