"""The build daemon as a process: until TERM, once to the end, or to drop its subscription."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import attrs

from deploykit.bus import Bus
from deploykit.daemons.jenkins.setup import queue_lock, subscriptions_of
from deploykit.daemons.jenkins.trigger import JenkinsTrigger
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.durable import forget_subscriptions
from deploykit.daemons.service.logs import set_up_from
from deploykit.settings.node import Settings

#: For a run to the end: seconds without a message after which none waits, and between two looks.
_QUIET: Final = 1.0
_LOOK_OFTEN: Final = 0.05


def run(load: Callable[[], Settings], *, on_ready: Callable[[str], None]) -> None:
    """Run the build daemon until TERM. HUP reads the settings again; while those are bad, the old ones stay in force.

    Args:
        load: reads the settings.
        on_ready: called with `jenkins on NODE` once it is connected and subscribed.

    Raises:
        SettingsError: the first settings are wrong, or name no job.
        LoginRefused: no broker accepts the credentials.
        LockBusy: another build daemon uses the state directory.
        DeploykitError: outbox or queue cannot be opened.
    """
    lifecycle.serve_one("jenkins", load, lambda each, metrics: JenkinsTrigger(each, metrics=metrics), on_ready=on_ready)


def once(settings: Settings, deadline: float) -> OnceReport:
    """Take the messages that wait at the broker, ask for the builds that wait here, and end.

    Args:
        settings: the node's.
        deadline: seconds.

    Returns:
        What came of it; `left` builds still wait.
    """
    set_up_from(settings)
    end = time.monotonic() + deadline
    with JenkinsTrigger(settings) as trigger:
        while not trigger.idle(_QUIET) and time.monotonic() < end:
            trigger.wait_connected(_LOOK_OFTEN)
            time.sleep(_LOOK_OFTEN)
        trigger.wait_sent(end)
        return OnceReport(connected=trigger.link.connected, asked=trigger.asked, left=trigger.waiting)


def forget(settings: Settings) -> None:
    """Delete the daemon's durable subscription at the broker, for a node that is to start no builds any more.

    Raises:
        LockBusy: it runs here, and would lose pushes.
    """
    with (
        queue_lock(settings.state),
        Bus(settings.broker, client_id=f"deploykit-{settings.node}-jenkins") as bus,
    ):
        bus.wait_connected(settings.broker.connect_timeout)
        forget_subscriptions(bus, subscriptions_of(settings), settings.broker.connect_timeout)


@attrs.frozen(kw_only=True, slots=True)
class OnceReport:
    """What one run to the end came to.

    Args:
        connected: whether the broker was there.
        asked: builds that got their server's answer.
        left: builds that still wait.
    """

    connected: bool
    asked: int
    left: int


__all__ = ["OnceReport", "forget", "once", "run"]
