"""The daemon that sends what happens to IRC, Matrix, Slack, webhooks and e-mail.

Rules:

* Each channel has a thread of its own: one that is away holds up no other, and no message on the bus.
* What waits is kept in memory: HUP hands it on, and a restart tries to send it first. The bus keeps nothing for it.
* It changes nothing and publishes nothing.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import partial
from typing import ClassVar, Final
from weakref import WeakKeyDictionary

from deploykit.bus import Ack, Bus, Delivery, Verdict
from deploykit.daemons.notify.channels import make_channel
from deploykit.daemons.notify.hearing import HeardBodies, NewsHearing, destinations_of_news
from deploykit.daemons.notify.ports import NotifyChannel
from deploykit.daemons.notify.sending import LAST, ChannelSender
from deploykit.daemons.notify.waiting import WaitingLine
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.service import Service
from deploykit.errors import SettingsError
from deploykit.fleet.tracetrust import TraceTrust
from deploykit.messages import utc_now
from deploykit.settings.node import Settings
from deploykit.settings.notify import ChannelSettings
from deploykit.trust.policy import Policy
from deploykit.trust.trustreader import TrustReader

_log = logging.getLogger(__name__)

#: Seconds for the threads to end: to send what waits, and a little more.
_END: Final = LAST + 1.0

MakeChannel = Callable[[str, ChannelSettings, threading.Event], NotifyChannel]


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None] = lambda _: None) -> None:
    """Send until TERM. HUP reads the settings again; wrong ones change nothing.

    Args:
        load: returns the settings.
        on_ready: called with `notify to NAMES` once it listens.

    Raises:
        SettingsError: the first settings are wrong, or name no channel.
        LoginRefused: every broker refuses the login.
    """
    lifecycle.serve_one(
        "notify", load, lambda settings, metrics: NotifyService(settings, metrics=metrics), on_ready=on_ready
    )


class NotifyMemory:
    """What outlasts a reload: what waits, and what was sent. One for a process, which is known by its metrics."""

    _of: ClassVar[WeakKeyDictionary[Metrics, NotifyMemory]] = WeakKeyDictionary()
    _lock: ClassVar = threading.Lock()

    def __init__(self) -> None:
        self.heard = HeardBodies()
        self._left: dict[str, tuple[WaitingLine, ...]] = {}

    @classmethod
    def of(cls, metrics: Metrics) -> NotifyMemory:
        """Return the memory of a process."""
        with cls._lock:
            return cls._of.setdefault(metrics, cls())

    def leave(self, left: Mapping[str, tuple[WaitingLine, ...]]) -> None:
        """Keep what the channels have left."""
        self._left = dict(left)

    def take(self, name: str) -> tuple[WaitingLine, ...]:
        """Return what a channel has left, once."""
        return self._left.pop(name, ())


class NotifyService(Service):
    """Sends what happens to the channels of the settings. Use it as a context manager.

    Args:
        settings: of this machine.
        bus: a started bus that it shares; None: it makes its own.
        metrics: where it counts.
        make: makes a channel, but in tests `channels.make_channel`.
        now: the wall clock, aware UTC.

    Raises:
        SettingsError: there is no channel, or a file that one names cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        bus: Bus | None = None,
        metrics: Metrics | None = None,
        make: MakeChannel | None = None,
        now: Callable[[], datetime] = utc_now,
    ) -> None:
        notify = settings.notify
        if not notify.channels:
            raise SettingsError("notify.channels: there is none", "add [notify.channels.NAME]; see docs/notify.md")
        counted = metrics or Metrics()
        ending = threading.Event()
        make = make or partial(_make, settings.node)
        channels = {name: make(name, each, ending) for name, each in notify.channels.items()}
        super().__init__(
            f"notify to {', '.join(channels)}",
            settings.broker,
            bus=bus,
            client_id=f"deploykit-{settings.node}-notify",
            metrics=counted,
        )
        self.ending = ending
        self._settings = settings
        self._memory = NotifyMemory.of(counted)
        self.senders = tuple(
            ChannelSender(name, notify.channels[name], channel, keep=notify.keep, count=counted.notify_sent, now=now)
            for name, channel in channels.items()
        )
        self._hearing = NewsHearing(
            news_trust(settings),
            console=notify.console,
            heard=self._memory.heard,
            now=now,
        )
        for sender in self.senders:
            self.threads.add(f"notify-{sender.name}", partial(sender.run, ending))

    # -- its life ------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self.metrics.expect(
            "notify", channels=self._settings.notify.channels, counters=("notify_heard_total", "notify_sent_total")
        )
        for sender in self.senders:
            sender.resume(self._memory.take(_kept_as(sender)))
        self.link.start()
        for destination in destinations_of_news(self._settings.topics):
            self._listen(destination)
        self.threads.start()

    def _listen(self, destination: str) -> None:
        self.link.subscribe(destination, self._hear, on_failure="drop")

    def _end(self) -> None:
        self.ending.set()
        for sender in self.senders:
            sender.wake()
        end = time.monotonic() + _END
        self.link.stop(_END)
        self.threads.join(end)  # one that waits for an answer is left behind, and what it sends may come twice
        left = {_kept_as(sender): lines for sender in self.senders if (lines := sender.leave())}
        self._memory.leave(left)
        for name, lines in left.items():
            _log.warning("notify: %s: %d messages were not sent before the end", name, len(lines))

    def discard(self) -> None:
        """Free what was made: sockets and a bus."""
        super().discard()
        for sender in self.senders:
            sender.close()

    def _hear(self, delivery: Delivery) -> Verdict:
        result, item = self._hearing.hear(delivery)
        self.metrics.notify_heard(result)
        if item is not None:
            for sender in self.senders:
                sender.take(item)
            self.metrics.notify_waiting(self.waiting)
        return Ack()

    # -- what it says of itself ----------------------------------------------------------------------------------------

    @property
    def waiting(self) -> int:
        """How many lines wait, in all channels."""
        return sum(sender.waiting for sender in self.senders)

    @property
    def status(self) -> str:
        """Whether a broker is connected, and how much waits."""
        waiting = self.waiting
        return f"{super().status}; {waiting} waiting" if waiting else super().status

    @property
    def problems(self) -> tuple[str, ...]:
        """The channels that cannot be reached."""
        return tuple(sender.problem for sender in self.senders if sender.problem)

    @property
    def blocking(self) -> tuple[str, ...]:
        """Nothing, while one channel works; all of them, where none does."""
        problems = self.problems
        return problems if len(problems) == len(self.senders) else ()

    def check(self) -> None:
        """Make sure that it can still do its work; see `Service.check`."""
        super().check()
        self.metrics.notify_waiting(self.waiting)


def _kept_as(sender: ChannelSender) -> str:
    """Return under which name lines are kept: they are harmless where their kind of channel is, and nowhere else."""
    return f"{sender.name} ({sender.settings.kind})"


def news_trust(settings: Settings) -> TraceTrust | None:
    """Return whom to believe; None where the settings name no allowed signers.

    Raises:
        SettingsError: the grants are wrong.
    """
    if settings.trust.allowed_signers is None:
        return None
    return TraceTrust(trusted=TrustReader(settings.trust), policy=Policy.from_settings(settings.trust, repos=None))


def _make(node: str, name: str, settings: ChannelSettings, ending: threading.Event) -> NotifyChannel:
    return make_channel(name, settings, node=node, ending=ending)


__all__ = ["MakeChannel", "NotifyMemory", "NotifyService", "news_trust", "run"]
