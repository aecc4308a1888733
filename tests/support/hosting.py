"""Consoles that host rollouts of stand-in nodes: in this process, and in processes of their own."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Self

import attrs
from sqlalchemy import create_engine, text

from deploykit.bus import Bus
from deploykit.fleet.journalformat import encode_plan
from deploykit.fleet.plan import Plan
from deploykit.fleet.replay import Replay, replay
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.rolloutplan import PlannedRollout
from deploykit.settings import Settings
from deploykit.settings.web import WebSettings
from deploykit.web.database import file_of
from deploykit.web.hosting.host import RolloutHost
from deploykit.web.ledger.database import ledger_url
from deploykit.web.ledger.ledger import Ledger
from tests.support.standins import StandIns
from tests.support.wait import wait_until

#: Seconds of a lease in tests.
LEASE = 1.5


def emptied(server: str) -> str:
    """Return the URL of a PostgreSQL database, after all in it was removed."""
    engine = create_engine(server.replace("postgresql:", "postgresql+psycopg:"))
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return server


@contextmanager
def closed_to_all(server: str) -> Iterator[Callable[[], None]]:
    """Have PostgreSQL end every connection and take none, until what is yielded is called, or the block ends.

    When the block begins, none is left: PostgreSQL ends them a moment after it was told to.
    """
    url = server.replace("postgresql:", "postgresql+psycopg:").replace("/postgres?", "/template1?")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    left = "FROM pg_stat_activity WHERE datname = 'postgres'"

    def let_in() -> None:
        with engine.connect() as connection:
            connection.execute(text("ALTER DATABASE postgres WITH ALLOW_CONNECTIONS true"))

    with engine.connect() as connection:
        connection.execute(text("ALTER DATABASE postgres WITH ALLOW_CONNECTIONS false"))
        connection.execute(text(f"SELECT pg_terminate_backend(pid) {left}"))
        wait_until(lambda: connection.execute(text(f"SELECT count(*) {left}")).scalar() == 0, "the end of all of them")
    try:
        yield let_in
    finally:
        let_in()
        engine.dispose()


def console_settings(fleet: StandIns, database: str = "", *, lease: float = LEASE) -> Settings:
    """Return the settings of a console for these nodes."""
    return attrs.evolve(fleet.settings, web=WebSettings(database=database, lease=lease))


def planned_for(settings: Settings, fleet: StandIns, plan: Plan) -> PlannedRollout:
    """Return a plan, ready to be begun."""
    return PlannedRollout(settings=settings, plan=plan, key=fleet.operator, trust=load_report_trust(settings))


@contextmanager
def hosting(settings: Settings, *, name: str = "console", locks: Path | None = None) -> Iterator[RolloutHost]:
    """Yield a host in this process, connected and started; it is closed at the end."""
    ledger = Ledger.open(settings.web, settings.state)
    with Bus(settings.broker, client_id=name) as bus:
        assert bus.wait_connected(60)
        host = RolloutHost(settings, bus, ledger, locks=locks)
        try:
            host.serve()
            yield host
        finally:
            host.close(20)
            ledger.close()


@contextmanager
def ledger_of(settings: Settings) -> Iterator[Ledger]:
    """Yield the ledger, for a test that looks into it."""
    ledger = Ledger.open(settings.web, settings.state)
    try:
        yield ledger
    finally:
        ledger.close()


def wait_ended(ledger: Ledger, rollout: str, timeout: float = 60.0) -> Replay:
    """Wait until a rollout has ended, and return what its journal comes to."""

    def ended() -> bool:
        kept = ledger.rollouts.find(rollout)
        return kept is not None and kept.state == "ended"

    wait_until(ended, f"{rollout} ends", timeout, every=0.05)
    return replay(ledger.rollouts.contents(rollout))


class HostProcess:
    """A console's host in a process of its own.

    Args:
        settings: of the console.
        directory: for its files; consoles that share `locks` see at once when one is killed.
        plan: is begun, unless None.
        when, number: it kills itself `before` or `after` that write of a journal; 0: never.
    """

    def __init__(
        self,
        settings: Settings,
        directory: Path,
        name: str,
        *,
        plan: Plan | None = None,
        locks: Path | None = None,
        when: str = "before",
        number: int = 0,
    ) -> None:
        self._ledger = ledger_url(settings.web, settings.state)
        file = directory / f"{name}.json"
        given = {
            "root": str(settings.state.parent),
            "address": settings.broker.address,
            "database": settings.web.database,
            "lease": settings.web.lease,
            "locks": str(locks or directory / f"{name}-locks"),
            "name": name,
            "plan": encode_plan(plan) if plan is not None else None,
            "when": when,
            "number": number,
        }
        file.write_text(json.dumps(given))
        self.log = directory / f"{name}.log"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.support.hostdriver", str(file)],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            )

    def __enter__(self) -> Self:
        wait_until(lambda: b"ready" in self.log.read_bytes() or self.process.poll() is not None, "ready")
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def stop(self) -> None:
        """Stop it, but not within a write to SQLite: that would stop all consoles of the file."""
        with self._nobody_writes():
            self.process.send_signal(signal.SIGSTOP)
            wait_until(lambda: ") T " in Path(f"/proc/{self.process.pid}/stat").read_text(), "it has stopped")

    @contextmanager
    def _nobody_writes(self) -> Iterator[None]:
        file = file_of(self._ledger)
        if file is None:
            yield
            return
        with closing(sqlite3.connect(file, timeout=60, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield

    def go_on(self) -> None:
        """Let it go on."""
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """Kill it, stopped or not."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(60)

    def leave(self) -> None:
        """Let it leave its rollouts and end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0, self.log.read_text()


__all__ = ["LEASE", "HostProcess", "console_settings", "emptied", "hosting", "ledger_of", "planned_for", "wait_ended"]
