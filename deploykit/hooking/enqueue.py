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
from typing import Final, NamedTuple

import attrs

from deploykit.hooking.process import child_environment, spawn_detached
from deploykit.messages.base import Message
from deploykit.messages.notice import Notice
from deploykit.messages.topics import TopicMap, topic_of
from deploykit.names import is_zero
from deploykit.outbox import Outbox, Outgoing
from deploykit.settings.hooks import HookSettings, default_spool
from deploykit.wire.codec import encode_fitted
from deploykit.wire.frame import Frame
from deploykit.wire.people import line_frame, line_id


class Queued(NamedTuple):
    """How many events are in which spool (empty: the usual one), and notes for a person."""

    events: int
    spool: str
    notes: tuple[str, ...]

    def __str__(self) -> str:
        where = f" in {self.spool}" if self.spool else ""
        line = f"{self.events} event{'' if self.events == 1 else 's'} queued{where}"
        return "; ".join((line, *self.notes))


#: By wire type, not by class: a push imports only the classes it uses.
_REF_UPDATED: Final = "deploykit.source.ref-updated.v1"
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
    legacy_deletes: bool = False,
    key: Callable[[Frame], Frame] | None = None,
) -> list[Outgoing]:
    """Return what goes into the spool for messages: each one and, where wanted, the human line of it.

    Args:
        messages: a `Notice` among them is a line of its own.
        topics: where they go.
        notices: whether each gets a human line.
        legacy: write the original's form. What is signed is native all the same: the original has no signatures, and
            ours are of our own form.
        legacy_deletes: whether deletions are written in the original's form, too, or only their human lines.
        key: signs the frames of messages, not those of lines.

    Raises:
        MessageError: a message cannot be encoded.
    """
    items: list[Outgoing] = []
    for message in messages:
        target = topic_of(message, topics)
        if isinstance(message, Notice):
            items.append(Outgoing(target, line_frame(message, target, legacy=legacy)))
            continue
        if not legacy or legacy_deletes or not is_deletion(message):
            frames = frames_of(message, legacy=legacy and key is None)
            items += (Outgoing(target, key(frame) if key else frame) for frame in frames)
        if notices:
            line = Notice(
                id=line_id(message),
                source=message.source,
                text=message.summary,
                correlation_id=message.correlation_id,
            )
            where = topic_of(line, topics)
            items.append(Outgoing(where, line_frame(line, where, legacy=legacy)))
    return items


def is_deletion(message: Message) -> bool:
    """Return whether a message says that a ref was deleted."""
    return message.TYPE == _REF_UPDATED and is_zero(getattr(message, "new"))  # noqa: B009 -- its class is not loaded here


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
    items = outgoing_of(
        queued,
        settings.topics,
        notices=settings.notices,
        legacy=settings.legacy,
        legacy_deletes=settings.legacy_deletes,
        key=key,
    )
    left = sum(map(is_deletion, queued)) if settings.legacy and not settings.legacy_deletes else 0
    if left:
        what = "1 deletion" if left == 1 else f"{left} deletions"
        notes = (*notes, f"{what} only {'as a line for people' if settings.notices else 'left out'} (legacy_deletes)")
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
