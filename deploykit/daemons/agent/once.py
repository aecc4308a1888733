"""`deploykit agent --once`: bring a node up to date without the bus's commands, for cron and for rescue.

Rules:

* Interrupted deploys are finished, every mirror is compared with its origin, its directories follow, and what the
  outbox holds is sent. What is fetched after builds alone is fetched only where a success, or the mirror, is missing:
  results stay at the broker, as commands do.
* Deploy commands stay at the broker: only a daemon can know that none is left.
* Where one part fails, the others are done all the same.
"""

from __future__ import annotations

import threading
import time

import attrs

from deploykit.bus import Bus
from deploykit.daemons.agent.mirrors import MirrorHandler
from deploykit.daemons.agent.recovery import recover_sites
from deploykit.daemons.agent.reports import Reporter
from deploykit.daemons.agent.statelock import StateLock
from deploykit.daemons.relay import drain, open_outbox
from deploykit.daemons.service.logs import set_up_from
from deploykit.errors import BusError
from deploykit.settings.node import Settings
from deploykit.trust.keyfiles import load_signing_key


@attrs.frozen(kw_only=True, slots=True)
class NodeReport:
    """What came of one run.

    Args:
        mirrors: how many were compared with their origins.
        sent: how many messages the broker has confirmed.
        problems: what failed, one line each.
    """

    mirrors: int
    sent: int
    problems: tuple[str, ...]


def once(settings: Settings, deadline: float) -> NodeReport:
    """Bring the node up to date, within `deadline` seconds for what goes over a network.

    Raises:
        LockBusy: an agent is at work here.
        DeploykitError: outbox or key cannot be opened.
    """
    set_up_from(settings)
    end = time.monotonic() + deadline
    compared = sum(chosen.fetch_on == "push" for chosen in settings.repositories.values())
    key = load_signing_key(settings.signing_key) if settings.signing_key else None
    outbox = open_outbox(settings.outbox)
    with StateLock(settings.state):
        found = [f"site {name}: {problem}" for name, problem in recover_sites(settings, threading.Event()).items()]
        reporter = Reporter(outbox, settings.topics, key, legacy=settings.legacy)
        mirrors = MirrorHandler(attrs.evolve(settings, fetch_spread=0.0), reporter)
        mirrors.start()
        try:
            found += [f"mirror {name}: {problem}" for name, problem in mirrors.sync_all(end).items()]
        finally:
            mirrors.stop()
    try:
        with Bus(settings.broker) as bus:
            sent = drain(outbox, bus, settings.outbox, max(1.0, end - time.monotonic()))
    except BusError as error:
        return NodeReport(mirrors=compared, sent=0, problems=(*found, str(error)))
    if not sent.complete:
        found.append(f"messages are left in the outbox: {sent.problem}")
    found += [f"dead letter {dead.id} for {dead.destination}: {dead.reason}" for dead in sent.dead_letters]
    return NodeReport(mirrors=compared, sent=sent.sent, problems=tuple(found))
