"""An operator's desk for a simulated fleet: key, settings, list of nodes; `deploykit` is run from there, measured."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from deploykit.config.load import load_settings
from deploykit.operations.rolloutstore import StoredRollout, read_rollout
from deploykit.settings import Settings
from deploykit.trust.signature import SigningKey
from tests.brokers.server import BrokerServer
from tests.support.cli import command
from tests.support.measured import Measured, run_measured
from tests.support.simfleet.model import Faults
from tests.support.simfleet.process import Fleet

_TOP = Path(__file__).parents[3]


class Desk:
    """Files in a directory, which is all that the command line needs.

    Args:
        root: an empty directory.
        broker: running.
    """

    def __init__(self, root: Path, broker: BrokerServer) -> None:
        self.root = root
        self._broker = broker
        self._operator = SigningKey.generate()
        self._settings = root / "deploykit.toml"
        self._write("operator.key", self._operator.to_openssh().decode())
        self._write(
            self._settings.name,
            f'node = "desk"\nstate = "{root}/state"\nsigning_key = "{root}/operator.key"\n'
            f'broker = {{ address = "{broker.address}" }}\n'
            f'trust = {{ allowed_signers = "{root}/allowed_signers" }}\n',
        )

    def fleet(self, faults: Sequence[Faults]) -> Fleet:
        """Start a fleet that obeys this desk, list its nodes in a file, and trust their keys."""
        fleet = Fleet(
            self._broker.port,
            self._broker.login,
            self._broker.passcode,
            faults=faults,
            operator=self._operator.public_openssh,
            top=_TOP,
        )
        self._write("allowed_signers", fleet.allowed_signers)
        self.list_nodes(fleet.nodes)
        return fleet

    def list_nodes(self, nodes: Iterable[str]) -> None:
        """Write the list of nodes, `nodes.txt`."""
        self._write("nodes.txt", "".join(f"{node}\n" for node in nodes))

    def run(self, *words: str, timeout: float = 300.0) -> Measured:
        """Run `deploykit WORDS`, piped, in a process of its own."""
        env = {"PATH": os.environ["PATH"], "HOME": str(self.root), "LANG": "C.UTF-8", "USER": "op"}
        path = {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        argv = command(*words, "--config", str(self._settings))
        return run_measured(argv, env=env | path, cwd=self.root, timeout=timeout)

    @property
    def settings(self) -> Settings:
        """The settings of the desk."""
        return load_settings(self._settings)

    def rollout(self) -> StoredRollout:
        """The last rollout, as its journal has it."""
        return read_rollout(self.settings, "last")

    def _write(self, name: str, text: str) -> None:
        file = self.root / name
        file.touch(mode=0o600)
        file.write_text(text, encoding="utf-8")
