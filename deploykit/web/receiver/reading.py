"""One request -> what is to be published of it, or why nothing is. Pure.

    headers, raw bytes -> kind -> verify -> parse -> forge's parser -> repository, refs -> messages

Rules:

* Nothing is parsed before the signature was verified.
* Which repository is meant is in the settings; a name in a payload only chooses among them.
* Ids of messages follow from source, body, ref and commit: the same delivery makes the same ids at any time, on any
  machine.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Final, Literal

import attrs

from deploykit.errors import WebhookRefused
from deploykit.hooking.git import wanted
from deploykit.messages import Message, Notice, RefUpdated, one_line
from deploykit.messages.source import bounded_commits
from deploykit.names import RepoName
from deploykit.settings.webhook import WebhookSourceSettings
from deploykit.web.receiver.forges import ForgeDelivery, Pushed, parse
from deploykit.web.receiver.payload import WebhookBody, body_of, kind_of
from deploykit.web.receiver.signatures import WebhookSecret, verify

#: The first part of the source of our messages; `topics.notices` knows it.
KIND: Final = "webhook"
_IDS: Final = uuid.UUID("0b5c3f0e-7f7b-5a86-9b0e-0d3a52f6c1d4")
_ID_TEXT: Final = 200

Outcome = Literal["queued", "ignored", "unmapped"]


@attrs.frozen(kw_only=True, slots=True)
class ReadDelivery:
    """A request that was verified and understood.

    Args:
        source: the name of the source.
        id: the forge's id of the delivery; may be empty.
        event: the forge's name of the event.
        digest: SHA-256 of the JSON text; where the signature covers the delivery's id, of that id and the text.
        repository: the forge's name of it.
        outcome: what comes of it, unless it is a copy.
        reason: why nothing of it is published; empty where something is.
        messages: what is published; a `Notice` among them only where notices are wanted.
    """

    source: str
    id: str
    event: str
    digest: bytes
    repository: str
    outcome: Outcome
    reason: str = ""
    messages: tuple[Message, ...] = ()

    def wanted_messages(self, *, notices: bool) -> tuple[Message, ...]:
        """Return the messages, without lines for people where those are not wanted."""
        return self.messages if notices else tuple(m for m in self.messages if not isinstance(m, Notice))

    @property
    def refs(self) -> int:
        """How many refs are announced."""
        return sum(isinstance(message, RefUpdated) for message in self.messages)


def read_delivery(
    name: str,
    source: WebhookSourceSettings,
    secrets: Sequence[WebhookSecret] | None,
    headers: Mapping[str, str],
    raw: bytes,
    *,
    now: datetime,
) -> ReadDelivery:
    """Return what is to be published of a request.

    Args:
        name: of the source.
        source: its settings.
        secrets: one of them must verify; None: not asked, for a payload that a person replays.
        headers: by lower-case name; a header that came twice has both values, with a comma.
        raw: the body as it came.
        now: the wall clock.

    Raises:
        WebhookRefused: nothing; its `status` is the answer's.
    """
    body = body_of(kind_of(headers), raw)
    signed_id = ""
    if secrets is not None:
        signed_id = verify(source.forge, source.header, secrets, headers, body.signed, now=now.timestamp())
    delivery = parse(source.forge, headers, body.parsed(), source.mapping)
    return _judge(name, source, delivery, _digest(body, signed_id), now)


def _digest(body: WebhookBody, signed_id: str) -> bytes:
    """Return what tells deliveries apart: two equal payloads are two deliveries where the sender signed two ids."""
    if not signed_id:
        return body.digest
    return hashlib.sha256(signed_id.encode() + b"\0" + body.digest).digest()


def _judge(
    name: str, source: WebhookSourceSettings, delivery: ForgeDelivery, digest: bytes, now: datetime
) -> ReadDelivery:
    known = ReadDelivery(
        source=name,
        id=delivery.id[:_ID_TEXT],
        event=one_line(delivery.event, 100),
        digest=digest,
        repository=one_line(delivery.repository),
        outcome="ignored",
    )
    repo = source.repositories.get(delivery.repository)
    if delivery.ignored:
        line = _notice(known, delivery, now) if repo is not None else ()
        return attrs.evolve(known, reason=one_line(delivery.ignored), messages=line)
    if repo is None:
        return attrs.evolve(
            known,
            outcome="unmapped",
            reason=f"repository {known.repository!a} is not in webhook.sources.{name}.repositories",
        )
    pushes = [push for push in delivery.pushes if wanted(push.ref, source.refs)]
    if not pushes:
        refs = ", ".join(one_line(push.ref, 100) for push in delivery.pushes[:3]) or "no ref"
        return attrs.evolve(known, reason=f"{refs}: not among webhook.sources.{name}.refs")
    messages = _messages(known, repo, pushes, now)
    return attrs.evolve(known, outcome="queued", messages=(*messages, *_notice(known, delivery, now)))


def _messages(known: ReadDelivery, repo: RepoName, pushes: Sequence[Pushed], now: datetime) -> tuple[RefUpdated, ...]:
    """Return one message for each ref; all have the first one's id as correlation id."""
    ids = [_message_id(known, "ref", push.ref, push.new) for push in pushes]
    return tuple(
        RefUpdated(
            id=own,
            source=f"{KIND}/{known.source}",
            time=now,
            correlation_id=ids[0],
            repo=repo,
            ref=push.ref,
            old=push.old,
            new=push.new,
            forced=push.forced,
            pusher=one_line(push.pusher, 255),
            commits=bounded_commits(push.commits),
            commit_count=push.commit_count,
        )
        for own, push in zip(ids, pushes, strict=True)
    )


def _notice(known: ReadDelivery, delivery: ForgeDelivery, now: datetime) -> tuple[Notice, ...]:
    if not delivery.notice:
        return ()
    own = _message_id(known, "notice")
    return (
        Notice(id=own, correlation_id=own, source=f"{KIND}/{known.source}", time=now, text=one_line(delivery.notice)),
    )


def _message_id(known: ReadDelivery, *parts: str) -> str:
    return str(uuid.uuid5(_IDS, "\0".join((known.source, known.digest.hex(), *parts))))


def unforeseen(error: Exception) -> WebhookRefused:
    """Return the refusal of a payload that made our own code fail: the sender gets an answer, the log the rest."""
    return WebhookRefused(f"cannot be understood ({type(error).__name__}); the receiver's log says more")


__all__ = ["KIND", "Outcome", "ReadDelivery", "read_delivery", "unforeseen"]
