"""Print each message on the bus as it passes, for people or for scripts.

A hook sends with each event the same line as a notice for chat. Of such a pair only the event is shown, which holds
more; the notice is shown where its event does not come.

With a recorder each message is also appended to a log, byte for byte, before anything is left out on the screen.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, Literal

from deploykit.bus import Ack, Bus, Delivery, Retry, Subscription, Verdict
from deploykit.bus.events import Connected, ConnectFailed, ConnectionLost, Event, SubscriptionRefused
from deploykit.daemons.nodetopics import NodeTopics, topic_of_all
from deploykit.daemons.recorder import MessageRecorder
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.durable import forget_subscriptions
from deploykit.daemons.service.group import ServiceGroup
from deploykit.daemons.service.service import Service
from deploykit.errors import MessageError
from deploykit.fleet.recordwriter import RecordWriter
from deploykit.messages import Message, Notice, one_line
from deploykit.settings.node import Settings
from deploykit.wire import decode, redact

#: Seconds a notice waits for the event it belongs to; they come over different topics, in any order.
_ITS_EVENT: Final = 1.0
_REMEMBERED: Final = 1000


def run(
    load: Callable[[], Settings],
    *,
    destinations: Sequence[str],
    count: int | None,
    durable: str | None,
    as_json: bool,
    show: Callable[[str], None],
    on_ready: Callable[[], None],
    on_notice: Callable[[str], None] = lambda _: None,
    recorder: RecordWriter | None = None,
) -> None:
    """Show messages until TERM, or until `count` were shown. HUP reads the settings again; wrong ones change nothing.

    Args:
        load: returns the settings.
        destinations: instead of every topic in the settings.
        durable: a name under which the broker keeps messages while nobody watches; None keeps none.
        show: prints one line.
        on_ready: called once the broker answered.
        on_notice: prints a line when the connection is lost or back, and when HUP has read the settings.
        recorder: entered; each message is appended to it as well.

    Raises:
        SettingsError: the first settings are wrong.
        LoginRefused: the broker refuses the login.
        BusError: the broker refuses every destination.
        OSError: `show` raised it: its reader is gone.
    """
    shown = _Shown(show, count)
    keeper = MessageRecorder(recorder) if recorder is not None else None

    def make(settings: Settings) -> ServiceGroup:
        watch = _Watch(settings, destinations, durable, shown, keeper, as_json=as_json, on_notice=on_notice)
        return ServiceGroup([watch])

    lifecycle.serve(
        load,
        make,
        on_ready=lambda _: on_ready(),
        set_up=lambda _: None,
        on_reloaded=on_notice,
        on_problem=on_notice,
    )
    if shown.error is not None:
        raise shown.error


class _Shown:
    """Prints up to `count` lines, over all reloads. Used under its lock."""

    def __init__(self, show: Callable[[str], None], count: int | None) -> None:
        self.lock = threading.Lock()
        self.error: OSError | None = None
        self._show = show
        self._left = count

    @property
    def over(self) -> bool:
        """Whether nothing more is to be shown: all was, or the reader is gone."""
        return self.error is not None or self._left == 0

    def show(self, line: str) -> bool:
        """Print a line; return whether somebody reads it."""
        try:
            self._show(line)
        except OSError as error:  # `deploykit watch | head`
            self.error = error
            return False
        if self._left is not None:
            self._left -= 1
        return True


class _Watch(Service):
    """Shows the messages of some destinations."""

    def __init__(
        self,
        settings: Settings,
        destinations: Sequence[str],
        durable: str | None,
        shown: _Shown,
        recorder: MessageRecorder | None,
        *,
        as_json: bool,
        on_notice: Callable[[str], None],
    ) -> None:
        super().__init__(
            "watch", settings.broker, client_id=_client_id(durable), on_event=_ConnectionNotices(on_notice)
        )
        self._watched = _named(destinations or settings.topics.destinations, durable)
        notices = {settings.topics.notice, *settings.topics.notices.values()}
        self._pairs = _Pairs(events_come=not {each for each, _ in self._watched} <= notices)
        self._lines = shown
        self._recorder = recorder
        self._topics = settings.topics
        self._nodes: NodeTopics | None = None
        if not destinations:
            self._nodes = NodeTopics(self.link.bus, settings.topics, partial(self._listen, durable=durable))
        self._as_json = as_json
        self._subscriptions: list[Subscription] = []
        self._answered = False

    def _start(self) -> None:
        self.link.start()
        for each, name in self._watched:
            self._subscriptions.append(self.link.subscribe(each, self._handle, durable=name))

    def _listen(self, topic: str, *, durable: str | None) -> None:
        name = _node_topics_name(durable) if topic == topic_of_all(self.link.bus, self._topics) else None
        self.link.subscribe(topic, self._handle, durable=name)

    @property
    def finished(self) -> bool:
        """Whether nothing more is to be shown."""
        return self._lines.over

    def check(self) -> None:
        """Make sure that messages may come.

        Raises:
            BusError: the broker refuses every destination.
        """
        super().check()
        if self._nodes is not None:
            self._nodes.look()
        if self._answered or not self.wait_connected(0):
            return
        self._answered = True
        problems = [one.problem for one in self._subscriptions if one.problem is not None]
        if problems and len(problems) == len(self._subscriptions):
            raise problems[0]  # no message would ever come

    def _handle(self, delivery: Delivery) -> Verdict:
        as_json, shown = self._as_json, self._lines
        try:
            message = decode(delivery.headers, delivery.body, delivery.destination)
            line = "" if message is None else _as_json(delivery, message) if as_json else _as_line(message)
        except MessageError as error:
            message, line = None, _unreadable(delivery, error, as_json=as_json)
        if self._nodes is not None:
            self._nodes.heard(message)
        with shown.lock:
            if shown.over:
                return Retry(after=60.0)  # the broker keeps it for the next watcher
            if self._recorder is not None:
                self._recorder.record(delivery, message, self._topics)
            match self._pairs.decide(message, delivery.attempt, same_text=not as_json):
                case "wait":
                    return Retry(after=_ITS_EVENT)
                case "skip":
                    return Ack()
            return Ack() if not line or shown.show(line) else Retry(after=60.0)


class _ConnectionNotices:
    """Prints why no messages come: once for each lost connection, not for each attempt to connect."""

    def __init__(self, notify: Callable[[str], None]) -> None:
        self._notify = notify
        self._down = False

    def __call__(self, event: Event) -> None:
        match event:
            case Connected():
                if self._down:
                    self._notify("connected")
                self._down = False
            case SubscriptionRefused(destination=destination, problem=problem):
                self._notify(f"no messages from {destination}: {problem}")
            case ConnectFailed(problem=problem) | ConnectionLost(reason=problem) if not self._down:
                self._down = True
                self._notify(f"waiting for a broker: {problem}")


def forget(settings: Settings, *, destinations: Sequence[str], durable: str) -> None:
    """Remove the durable subscriptions that `run` made at the broker."""
    with Bus(settings.broker, client_id=_client_id(durable)) as bus:
        bus.wait_connected(settings.broker.connect_timeout)
        named = _named(destinations or settings.topics.destinations, durable)
        if not destinations and (topic := topic_of_all(bus, settings.topics)) is not None:
            named.append((topic, _node_topics_name(durable)))
        forget_subscriptions(bus, named, settings.broker.connect_timeout)


def _client_id(durable: str | None) -> str:
    return f"deploykit-watch-{durable}" if durable else ""


def _named(destinations: Sequence[str], durable: str | None) -> list[tuple[str, str | None]]:
    """Return each destination with the name of its durable subscription."""
    return [(each, f"{durable}-{each.rpartition('/')[2]}" if durable else None) for each in destinations]


def _node_topics_name(durable: str | None) -> str | None:
    return f"{durable}-nodes" if durable else None


class _Pairs:
    """Finds the notice that belongs to an event. Used under a lock.

    Args:
        events_come: events are watched too, so that a notice waits for its own.
    """

    def __init__(self, *, events_come: bool) -> None:
        self._events_come = events_come
        self._open: dict[tuple[str, str], bool] = {}  # (correlation id, line) -> shown as a notice (not as the event)

    def decide(self, message: Message | None, attempt: int, *, same_text: bool) -> Literal["show", "wait", "skip"]:
        """Return what to do with a message.

        Args:
            attempt: how often this message was delivered, this time included.
            same_text: an event is shown by the same line as its notice, so one of the two is enough.
        """
        if message is None:
            return "show"
        key = message.correlation_id, message.summary
        by_notice = isinstance(message, Notice)
        if self._open.get(key, by_notice) is not by_notice and (by_notice or same_text):
            del self._open[key]
            return "skip"
        if by_notice and attempt == 1 and self._events_come:
            return "wait"
        self._open[key] = by_notice
        if len(self._open) > _REMEMBERED:
            del self._open[next(iter(self._open))]
        return "show"


def _as_line(message: Message) -> str:
    return f"{message.time:%H:%M:%S} {message.summary}"


def _as_json(delivery: Delivery, message: Message) -> str:
    try:
        body: object = json.loads(delivery.body)
    except ValueError:
        body = redact(message)
    return json.dumps({"destination": delivery.destination, "summary": message.summary, "message": body}, default=str)


def _unreadable(delivery: Delivery, error: MessageError, *, as_json: bool) -> str:
    if as_json:
        return json.dumps({"destination": delivery.destination, "error": str(error)})
    return one_line(f"not a message on {delivery.destination}: {error}")
