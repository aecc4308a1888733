"""Put messages into the spool by one durable write, then wake the relay, or start one.

Rules:

* What is on the disk is safe; whatever fails after that becomes a note, never an error.
* A relay is started as the user who pushes, detached, with the settings file that the hook's settings name. It ends
  when the spool is empty, and gives way to pushes meanwhile.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from deploykit.hooking.process import child_environment, spawn_detached
from deploykit.messages.base import Message
from deploykit.messages.notice import Notice
from deploykit.messages.topics import topic_of
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


def frames_of(message: Message, settings: HookSettings) -> tuple[Frame, ...]:
    """Return one message encoded in the form that the settings ask for."""
    if settings.legacy:
        from deploykit.wire.legacy import legacy_frames

        return legacy_frames(message)
    return (encode_fitted(message),)


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
    items: list[Outgoing] = []
    count = 0
    for message in messages:
        count += 1
        target = topic_of(message, settings.topics)
        items += (Outgoing(target, key(frame) if key else frame) for frame in frames_of(message, settings))
        if settings.notices:
            notice = Notice(source=message.source, text=message.summary, correlation_id=message.correlation_id)
            items += (Outgoing(topic_of(notice, settings.topics), frame) for frame in frames_of(notice, settings))
    path, shared = (settings.spool, True) if settings.spool else default_spool(environ)
    if not items:
        return Queued(0, "", tuple(notes))
    outbox = Outbox(path, shared=shared)
    outbox.put_many(items)
    more = _start_sending(outbox, settings, environ)
    shown = path if more or not settings.spool else ""
    return Queued(count, shown, (*notes, *more))


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
