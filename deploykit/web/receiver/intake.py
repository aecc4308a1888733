"""What the receiver does with a body that has arrived: read, compare with earlier ones, publish, remember, answer.

    read_delivery (pure) -> seen? -> outbox (one durable write) -> mark -> 202

Rules:

* 202 once the outbox has it. 503 where it cannot be written: the sender may try again; nothing is marked.
* A mark that cannot be written loses nothing: a copy would be published with the same ids.
* The log names which headers came, how long the body was and of which type; never a digest or a secret.
* What can come in any number is logged once a minute for each source; an unmapped repository once.
* Nothing a sender writes makes a 500.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, Literal

import attrs

from deploykit.daemons.service.throttle import KeyedThrottle
from deploykit.errors import DeploykitError, MessageError, OutboxError, WebError, WebhookRefused
from deploykit.messages import Message, one_line, utc_now
from deploykit.settings.webhook import WebhookSettings
from deploykit.web.receiver.deliveries import PublishedDelivery, SeenDeliveries
from deploykit.web.receiver.reading import ReadDelivery, read_delivery, unforeseen
from deploykit.web.receiver.signatures import KNOWN_HEADERS
from deploykit.web.receiver.sourcesecrets import SourceSecrets

_log = logging.getLogger(__name__)

#: Puts messages into the outbox by one durable write. Raises `OutboxError` where it has none of them.
Publish = Callable[[Sequence[Message]], None]

WebhookResult = Literal[
    "queued", "copy", "ignored", "unmapped", "unverified", "refused", "too-large", "too-slow", "failed"
]
#: Seconds after which a sender may try again.
RETRY_AFTER: Final = 30
#: Deliveries that may be written at a time.
_TURNS: Final = 32
#: Seconds for which a failure is shown when nothing else comes.
_SHOWN_FOR: Final = 60.0
#: Unmapped repositories that are remembered as logged.
_MOST_LOGGED: Final = 1000


@attrs.frozen(kw_only=True, slots=True)
class WebhookAnswer:
    """What a sender is answered.

    Args:
        status: HTTP's.
        result: what became of the request.
        detail: one line for people; never a secret.
        messages: how many were published.
        headers: of the answer.
        read: what was understood; None where nothing was.
    """

    status: int
    result: WebhookResult
    detail: str
    messages: int = 0
    headers: Mapping[str, str] = attrs.field(factory=dict)
    read: ReadDelivery | None = None


class WebhookIntake:
    """Takes what arrives, for all sources. Use it from any thread.

    Args:
        settings: the receiver's.
        publish: puts messages into the outbox.
        seen: what was published before.
        now: the wall clock.
        count: called with source and result of each request.

    Raises:
        SettingsError: a file with a secret cannot be used.
    """

    def __init__(
        self,
        settings: WebhookSettings,
        publish: Publish,
        seen: SeenDeliveries,
        *,
        now: Callable[[], datetime] = utc_now,
        count: Callable[[str, str], None] = lambda _source, _result: None,
    ) -> None:
        self._settings = settings
        self._publish = publish
        self._seen = seen
        self._now = now
        self._count = count
        self._secrets = {name: SourceSecrets(name, source) for name, source in settings.sources.items()}
        self._throttle = KeyedThrottle()
        self._turns = tuple(threading.Lock() for _ in range(_TURNS))
        self._logged: set[tuple[str, str]] = set()
        self._failure, self._failed_at = "", 0.0

    @property
    def failure(self) -> str:
        """Why the last delivery could not be taken; empty if it could, or if that was a while ago.

        A balancer that sends nothing here while this is not ready would else never find out that it works again.
        """
        return self._failure if time.monotonic() - self._failed_at < _SHOWN_FOR else ""

    @property
    def problems(self) -> tuple[str, ...]:
        """What a person has to correct, one line each."""
        return tuple(filter(None, (self.failure, *(each.problem for each in self._secrets.values()))))

    def take(self, name: str, headers: Mapping[str, str], raw: bytes, *, peer: str = "") -> WebhookAnswer:
        """Take one request, publish what it says, and return the answer. It blocks for a durable write.

        Args:
            name: of the source.
            headers: by lower-case name.
            raw: the whole body.
            peer: who sent it, for the log.
        """
        try:
            read = self._read(name, headers, raw)
            answer = self._act(read)
        except WebhookRefused as error:
            answer = self.refuse(name, error, headers, len(raw), peer=peer)
        else:
            self._count(name, answer.result)
        return answer

    def refuse(
        self, name: str, error: WebhookRefused, headers: Mapping[str, str], size: int, *, peer: str = ""
    ) -> WebhookAnswer:
        """Count and log a refusal, and return the answer.

        Args:
            size: bytes of the body; 0 where it was not read whole: then the log has the length that was announced.
        """
        result = _RESULTS.get(error.status, "refused")
        self._count(name, result)
        if self._throttle.due((name, error.status), time.monotonic()):
            seen = ", ".join(sorted(header for header in headers if header in KNOWN_HEADERS)) or "none that is known"
            _log.warning(
                "source %s: %d: %s (%s bytes, content-type %s, headers: %s%s)",
                name,
                error.status,
                one_line(error.problem),
                size or one_line(headers.get("content-length", "unknown"), 20),
                one_line(headers.get("content-type", "none"), 60),
                seen,
                f", from {peer}" if peer else "",
            )
        more = {"www-authenticate": 'Basic realm="deploykit"'} if error.status == 401 and self._is_basic(name) else {}
        return WebhookAnswer(status=error.status, result=result, detail=str(error), headers=more)

    def _is_basic(self, name: str) -> bool:
        source = self._settings.sources[name]
        return source.forge == "azure" and not source.header

    def _read(self, name: str, headers: Mapping[str, str], raw: bytes) -> ReadDelivery:
        """Return what a request means.

        Raises:
            WebhookRefused: it is not taken.
        """
        secrets = self._secrets[name].current()
        try:
            return read_delivery(name, self._settings.sources[name], secrets, headers, raw, now=self._now())
        except WebhookRefused:
            raise
        except Exception as error:  # noqa: BLE001 -- logged with its traceback, and answered as a refusal
            # Whatever a stranger's payload breaks is a bug of ours, and no reason to end or to answer with 500.
            if self._throttle.due((name, "bug"), time.monotonic()):
                _log.exception("source %s: a payload cannot be understood", name)
            raise unforeseen(error) from None

    def _act(self, read: ReadDelivery) -> WebhookAnswer:
        ignored = WebhookAnswer(status=200, result="ignored", detail=read.reason, read=read)
        if read.outcome == "unmapped":
            self._log_unmapped(read)
            return WebhookAnswer(status=202, result="unmapped", detail=read.reason, read=read)
        if read.outcome == "ignored":
            _log.debug("source %s: %s: ignored: %s", read.source, read.event, read.reason)
            if not read.wanted_messages(notices=self._settings.notices):
                return ignored
        # Of two copies at the same time the second one finds the mark of the first. Others do not wait: the file system
        # makes several files durable in one step.
        with self._turns[read.digest[0] % _TURNS]:
            answer = self._publish_once(read)
        if answer.result == "queued":
            for message in read.messages:
                _log.info("source %s: %s", read.source, message.summary)
        return ignored if read.outcome == "ignored" and answer.status == 202 else answer

    def _publish_once(self, read: ReadDelivery) -> WebhookAnswer:
        """Publish a delivery, unless it is a copy, and remember it.

        Raises:
            WebhookRefused: it makes a message that nobody could read.
        """
        if (earlier := self._earlier(read)) is not None:
            detail = _copy_of(earlier)
            # Whoever saw one request can repeat it. An id that comes again with another payload loses a push, though:
            # the mapping of a `generic` sender may name as its id what is none.
            level = logging.INFO if earlier.same_body else logging.WARNING
            if self._throttle.due((read.source, "copy", level), time.monotonic()):
                _log.log(level, "source %s: %s", read.source, detail)
            return WebhookAnswer(status=202, result="copy", detail=detail, read=read)
        try:
            self._publish(read.wanted_messages(notices=self._settings.notices))
        except MessageError as error:
            raise WebhookRefused(f"cannot be published: {error.problem}") from None
        except (OutboxError, OSError) as error:
            return self._failed(read, str(error))
        self._failure = ""
        self._mark(read)
        count = read.refs
        detail = f"{count} ref{'' if count == 1 else 's'} queued"
        return WebhookAnswer(status=202, result="queued", detail=detail, messages=count, read=read)

    def _earlier(self, read: ReadDelivery) -> PublishedDelivery | None:
        """Return what a delivery is a copy of; None for nothing, also where that cannot be found out."""
        try:
            return self._seen.find(read.source, read.id, read.digest)
        except WebError as error:
            self._log_store(error)
            return None

    def _mark(self, read: ReadDelivery) -> None:
        try:
            self._seen.mark(read.source, read.id, read.digest, self._now().timestamp())
        except WebError as error:
            self._log_store(error)

    def _log_store(self, error: DeploykitError) -> None:
        if self._throttle.due("store", time.monotonic()):
            _log.error("%s (copies of deliveries are published meanwhile, with the same ids)", error)

    def _failed(self, read: ReadDelivery, why: str) -> WebhookAnswer:
        self._failure, self._failed_at = f"webhooks are answered with 503: {why}", time.monotonic()
        if self._throttle.due("outbox", time.monotonic()):
            _log.error("%s", self._failure)
        return WebhookAnswer(
            status=503,
            result="failed",
            detail="not queued: the outbox cannot be written",
            headers={"retry-after": str(RETRY_AFTER)},
            read=read,
        )

    def _log_unmapped(self, read: ReadDelivery) -> None:
        key = (read.source, read.repository)
        if key not in self._logged and len(self._logged) < _MOST_LOGGED:
            self._logged.add(key)
            _log.warning("source %s: %s: nothing of it is published", read.source, read.reason)


def _copy_of(earlier: PublishedDelivery) -> str:
    at = datetime.fromtimestamp(earlier.at, UTC)
    what = "the payload" if earlier.same_body else "the id, with another payload,"
    shown = one_line(earlier.id, 80) or "without an id"
    return f"a copy: {what} of delivery {shown}, published {at:%Y-%m-%dT%H:%M:%SZ}"


_RESULTS: Final[Mapping[int, WebhookResult]] = {
    401: "unverified",
    408: "too-slow",
    413: "too-large",
    503: "failed",
}

__all__ = ["RETRY_AFTER", "Publish", "WebhookAnswer", "WebhookIntake", "WebhookResult"]
