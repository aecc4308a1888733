"""Two consoles of five real nodes, on one ledger: each a `deploykit web` process with the operators' key."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import httpx

from tests.brokers.process import PortLease
from tests.support.chain.member import Member
from tests.support.cli import command
from tests.support.fivenodes.world import FiveNodes

#: Seconds of a lease.
_LEASE: Final = 3


class FleetConsole:
    """One console.

    Args:
        fleet: made with `console=True`: nodes answer the questions of the operators' key.
        name: of its directory.
        database: URL of a PostgreSQL database; empty: an SQLite file of its own.
        state: a directory that it shares with another console; None: one of its own.
    """

    def __init__(self, fleet: FiveNodes, name: str, *, database: str = "", state: Path | None = None) -> None:
        self._lease = PortLease()
        self.url = f"http://127.0.0.1:{self._lease.port}"
        home = fleet.root / name
        home.mkdir()
        self.file = home / "deploykit.toml"
        self.file.touch(0o600)
        text = fleet.desk_file.read_text().replace(str(fleet.root / "desk"), str(home))
        if state is not None:
            text = text.replace(f'state = "{home}/state"', f'state = "{state}"')
        chosen = f'database = "{database}"\n' if database else ""
        self.file.write_text(
            f'{text}\n[web]\nlisten = "127.0.0.1:{self._lease.port}"\nlease = {_LEASE}\n{chosen}', encoding="utf-8"
        )
        words = command("web", "--config", str(self.file))
        self.member = Member(name, words, fleet.root, ready="ready: console at ")

    def __enter__(self) -> FleetConsole:
        try:
            self.member.start()
        except BaseException:
            self._lease.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.member.kill()
        self._lease.release()

    def post(self, path: str, body: Mapping[str, object] | None = None) -> httpx.Response:
        """Ask the API to do something."""
        return httpx.post(f"{self.url}/api/v1/{path}", json=dict(body or {}), timeout=60)

    def get(self, path: str) -> Any:
        """Return the JSON of an answer of the API."""
        return httpx.get(f"{self.url}/api/v1/{path}", timeout=60).raise_for_status().json()


__all__ = ["FleetConsole"]
