"""What a console announces of proposals, and when it looks again whether one can begin.

Announcements are for people who watch, and for those who are to sign. Without a broker they wait for a while.
"""

from __future__ import annotations

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from datetime import datetime, timedelta
from functools import partial
from typing import Final, Literal

from deploykit.bus import Bus
from deploykit.errors import DeploykitError
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate
from deploykit.messages import RolloutProposed
from deploykit.operations.approval import ApprovalDesk
from deploykit.operations.mandatefiles import blobs_of
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.operations.siteasks import asked_here, strictest
from deploykit.settings.node import Settings
from deploykit.trust.mandate import Requirement
from deploykit.trust.signature import BodySigner, sign
from deploykit.web.ledger.rollouts import ProposalMark
from deploykit.wire import Frame, encode

_log = logging.getLogger(__name__)

#: How long after a failure a proposal that looked ready is tried again.
AGAIN: Final = timedelta(seconds=15)
#: How long a proposal is still shown whose mandate is over.
OVER_FOR: Final = timedelta(days=1)
_NEVER: Final = timedelta(days=36500)
#: Announcements that wait for a broker; of more, the oldest are left out.
_MOST_WAITING: Final = 1000


def proposed_message(
    head: JournalHead, settings: Settings, now: datetime, *, withdrawn: bool = False
) -> RolloutProposed:
    """Return the message that says that a rollout waits for people, or does no more.

    Args:
        head: with a mandate.
        settings: of the console.
        now: aware.
        withdrawn: it does not wait any more, and has not begun.

    Raises:
        ValueError: there is no mandate.
    """
    if head.mandate is None:
        raise ValueError("a proposal has a mandate")
    approved, asks = head.mandate.message, strictest((asked_here(settings, head.plan.site), head.asks))
    base = settings.web.url.rstrip("/")
    return RolloutProposed(
        source=f"operator/{socket.gethostname()}",
        time=now,
        correlation_id=head.plan.correlation_id or head.plan.rollout,
        site=head.plan.site,
        rollout=head.plan.rollout,
        kind=head.plan.kind,
        ref=approved.ref,
        commit=approved.commit,
        count=len(head.plan.nodes),
        signed=len(blobs_of(head.mandate)),
        wanted=asks.signatures if asks is not None else 0,
        not_after=approved.not_after,
        digest=head.mandate.digest,
        requested_by=approved.requested_by,
        reason=approved.reason,
        url=f"{base}/deploys/{head.plan.rollout}/approve" if base else "",
        withdrawn=withdrawn,
    )


def head_of(
    planned: PlannedRollout, mandate: HeldMandate | None, now: datetime, asks: Requirement | None = None
) -> JournalHead:
    """Return what the journal of a rollout begins with.

    Args:
        planned: what it is to do.
        mandate: with the signatures so far; None where nobody must sign.
        now: aware.
        asks: what the site asks of the mandate.
    """
    return JournalHead(
        plan=planned.plan,
        begun=now.timestamp(),
        evidence=planned.evidence,
        without_build=planned.without_build,
        override_lock=planned.override_lock,
        mandate=mandate,
        asks=asks,
    )


def enough_signed(settings: Settings, mandate: HeldMandate, now: datetime, asks: Requirement | None = None) -> bool:
    """Return whether the signatures that count here are enough: by these settings, and for what was asked elsewhere.

    Raises:
        KeyFileError: the files of allowed signers cannot be read.
    """
    desk = ApprovalDesk.from_settings(settings).asking(asks)
    return not desk.judge(desk.counting(mandate, now)[0], now)


def what_next(
    settings: Settings, mandate: HeldMandate | None, now: datetime, asks: Requirement | None = None
) -> Literal["begin", "withdraw"] | datetime:
    """Return what becomes of a proposal now, or when to look at it again if nobody changes it before.

    Args:
        settings: of the console.
        mandate: with the signatures so far; None where it has none, and nothing ever becomes of it.
        now: aware.
        asks: what the site asks for, by the settings of the console where it was proposed.

    Raises:
        KeyFileError: the files of allowed signers cannot be read.
    """
    if mandate is None:
        return now + _NEVER
    first, last = mandate.message.not_before, mandate.message.not_after
    if now > last + OVER_FOR:
        return "withdraw"
    if now > last or not blobs_of(mandate):
        return last + OVER_FOR + timedelta(seconds=1)
    if now < first:
        return first
    return "begin" if enough_signed(settings, mandate, now, asks) else now + AGAIN


class ProposalClock:
    """Remembers when to look at each proposal again: at each change of it, and when its time comes."""

    def __init__(self) -> None:
        self._again: dict[ProposalMark, datetime] = {}

    def due(self, marks: Iterable[ProposalMark], now: datetime) -> Iterator[ProposalMark]:
        """Yield the proposals to look at; those that are not there any more are forgotten."""
        known = tuple(marks)
        self._again = {mark: self._again[mark] for mark in known if mark in self._again}
        for mark in known:
            if self._again.get(mark, now) <= now:
                yield mark

    def again(self, mark: ProposalMark, at: datetime) -> None:
        """Look at a proposal again at a time."""
        self._again[mark] = at


class ProposalAnnouncer:
    """Publishes what changes of proposals, signed by the console's key. Use it from any thread.

    Args:
        settings: of the console.
        bus: shared with the console.
        key: returns the key.
    """

    def __init__(self, settings: Settings, bus: Bus, key: Callable[[], BodySigner]) -> None:
        self._settings = settings
        self._bus = bus
        self._key = key
        self._lock = threading.Lock()
        self._unsent: deque[Frame] = deque(maxlen=_MOST_WAITING)

    def tell(self, head: JournalHead, now: datetime, *, withdrawn: bool = False) -> None:
        """Publish how a proposal stands; see `proposed_message`. What goes wrong is in the log."""
        try:
            frame = sign(encode(proposed_message(head, self._settings, now, withdrawn=withdrawn)), self._key())
        except (DeploykitError, ValueError) as error:
            _log.warning("nobody else is shown the proposal %s: %s", head.plan.rollout, error)
            return
        self._keep(frame)
        self.send()

    def send(self) -> None:
        """Publish what waits. Never blocks."""
        with self._lock:
            frames = list(self._unsent)
            self._unsent.clear()
        for frame in frames:
            try:
                future = self._bus.publish_nowait(self._settings.topics.report, frame)
            except DeploykitError:
                self._keep(frame)
            else:
                future.add_done_callback(partial(self._settled, frame))

    def _settled(self, frame: Frame, future: Future[None]) -> None:
        if not future.cancelled() and isinstance(future.exception(), DeploykitError):
            self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        with self._lock:
            self._unsent.append(frame)


__all__ = [
    "AGAIN",
    "OVER_FOR",
    "ProposalAnnouncer",
    "ProposalClock",
    "enough_signed",
    "head_of",
    "proposed_message",
    "what_next",
]
