"""A coordinator that is killed at any instant: whoever goes on, here or elsewhere, ends in the same state.

The coordinator runs in a process of its own and is killed at each call that changes its journal, its locks or what the
broker hears. Then another one goes on from the journal: in its place, or from a copy of the file on "another machine".
"""

from __future__ import annotations

import json
import shutil
import sys
from collections import Counter
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.fleet.journal import read_journal
from deploykit.fleet.journalformat import encode_plan
from deploykit.fleet.plan import Plan
from deploykit.names import NodeName
from deploykit.operations.rolloutstore import list_rollouts, read_rollout
from tests.support.killsweep import Run, kill_sweep, sample_size
from tests.support.rollouts import NEW, ONE_BY_ONE, go_on, plan_of
from tests.support.standins import OLD, Behaviour, StandIns, names

SUCCESS: dict[str, dict[str, Behaviour]] = {}
GOES_BACK: dict[str, dict[str, Behaviour]] = {"web2": {"activate": "failure"}}


class Lab:
    """A fleet, and a plan that is begun anew for each run."""

    def __init__(self, root: Path, fleet: StandIns, behaves: dict[str, dict[str, Behaviour]]) -> None:
        self.root, self.fleet, self.behaves = root, fleet, behaves
        self.file = root / "driver.json"
        self.plan: Plan = plan_of(fleet.nodes)
        self.runs = 0
        self.elsewhere = 0

    @property
    def argv(self) -> list[str]:
        """The process that is killed."""
        return [sys.executable, "-P", "-m", "tests.support.rolldriver", str(self.file)]

    def prepare(self) -> None:
        """Put everything back to the beginning."""
        self.runs += 1
        state = self.fleet.settings.state
        shutil.rmtree(state, ignore_errors=True)
        state.mkdir()
        self.fleet.reset(self.behaves)
        self.plan = plan_of(self.fleet.nodes, batch=ONE_BY_ONE, on_failure="rollback")
        address = self.fleet.settings.broker.address
        self.file.write_text(json.dumps([str(self.root), address, encode_plan(self.plan)]))

    def check(self, run: Run) -> None:
        """Go on after what was left, and compare the books."""
        entries = list_rollouts(self.fleet.settings)
        assert not any(entry.problem for entry in entries), entries
        if not entries:
            assert all(not stand.heard for stand in self.fleet.nodes.values()), "something was sent without a journal"
            return
        (entry,) = entries
        if entry.ended is None:
            self.go_on()
        else:
            assert run.killed or run.returncode == (1 if self.behaves else 0), run.stderr
        self.compare()

    def go_on(self) -> None:
        """Resume, by turns in place and from a copy of the journal alone."""
        if self.runs % 2:
            result = go_on(self.fleet, self.plan.rollout)
        else:
            self.elsewhere += 1
            there = self.root / f"elsewhere-{self.runs}"
            there.mkdir()
            journal = there / "copied.jsonl"
            journal.write_bytes(read_rollout(self.fleet.settings, self.plan.rollout).path.read_bytes())
            home = attrs.evolve(self.fleet.settings, state=there / "state")
            shutil.rmtree(self.fleet.settings.state)
            result = go_on(self.fleet, journal, settings=home)
            shutil.move(there / "state", self.fleet.settings.state)
        assert result.model.state == ("rolled-back" if self.behaves else "succeeded")

    def compare(self) -> None:
        """Compare nodes and journal."""
        stored = read_rollout(self.fleet.settings, self.plan.rollout)
        live = OLD.commit if self.behaves else NEW.commit
        assert set(self.fleet.live().values()) == {live}, self.fleet.live()
        assert stored.model.state == ("rolled-back" if self.behaves else "succeeded")
        assert stored.end is not None
        for node, stand in self.fleet.nodes.items():
            phases = Counter(phase for _, phase in stand.acted)
            assert max(phases.values(), default=0) == 1, f"{node} acted twice: {stand.acted}"
            assert stand.prepared is None or node in self.behaves, f"{node} keeps something prepared"
            assert all(len(bodies) == 1 for bodies in stand.bodies.values())
        sent = {record.command.request.id for record in read_journal(stored.path).records if hasattr(record, "command")}
        heard = {request for stand in self.fleet.nodes.values() for request in stand.heard}
        assert heard <= sent, "a command was sent that the journal does not hold"
        state = stored.model.nodes[NodeName("web1")].state
        assert state == ("rolled-back" if self.behaves else "active")


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("behaves", [SUCCESS, GOES_BACK], ids=["success", "goes-back"])
def test_killed_at_any_call_it_is_gone_on_with_to_the_same_end(
    tmp_path: Path,
    deploykit_broker: EmbeddedBroker,
    behaves: dict[str, dict[str, Behaviour]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    with StandIns(tmp_path, deploykit_broker.address, names(3)) as fleet:
        lab = Lab(tmp_path, fleet, behaves)
        report = kill_sweep(
            lab.argv,
            roots=[fleet.settings.state],
            prepare=lab.prepare,
            check=lab.check,
            network=True,
            allow_missed=0.5,  # how sends are joined, and so their number, varies
            sample=sample_size(4),
            timeout=120,
        )
    with capsys.disabled():
        print(f"\n{report}")
