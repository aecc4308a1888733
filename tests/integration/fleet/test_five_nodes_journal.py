"""Five real agents, and the coordinator killed before and after each write of its journal: it is gone on with.

By turns in place, and on another machine from a copy of the journal. `nox -s sweep` takes every write on every broker,
CI a sample on the embedded one.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import pytest

from deploykit.fleet.plan import Target
from tests.support.chance import dice
from tests.support.fivenodes.books import Books
from tests.support.fivenodes.brokers import BROKERS, broker_of
from tests.support.fivenodes.world import FiveNodes
from tests.support.killsweep import sample_size

pytestmark = [pytest.mark.slow, pytest.mark.timeout(7200)]

_SAMPLE = sample_size(1)
#: How often at least a rollout writes its journal: one that succeeds, and one that goes back.
FEWEST = {False: 11, True: 12}


def run_to(fleet: FiveNodes, old: Target, new: Target, when: str, number: int, *, back: bool) -> int:
    """Run a rollout that is killed there, go on with it, and compare the books; return how many writes there were."""
    options = ("--batch", "1", "--on-failure", "rollback") if back else ("--batch", "4")
    if back:
        fleet.order("fail", "web3", "post-deploy", new)
    file = fleet.root / "writes"
    words = fleet.desk.words(new, *options)
    driver = [sys.executable, "-P", "-m", "tests.support.fivenodes.driver", str(file), when, str(number), *words]
    fleet.desk.spawn(driver)
    done = fleet.desk.wait()
    if number:
        assert done.code == -9, done.output
        if fleet.desk.stored.end is None:
            if number % 2:
                fleet.desk.resume()
            else:
                fleet.desk.resume_elsewhere()
            done = fleet.desk.wait()
            assert done.code == (1 if back else 0), done.output
    else:
        assert done.code == (1 if back else 0), done.output
    stored = Books(fleet=fleet, old=old, new=new).compare(**({} if back else dict.fromkeys(fleet.places, "new")))
    assert stored.model.state == ("rolled-back" if back else "succeeded")
    return 0 if number else int(file.read_text())


@pytest.mark.parametrize("kind", BROKERS if _SAMPLE is None else ["embedded"])
def test_killed_at_any_write_of_its_journal_it_is_gone_on_with_to_the_same_end(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with broker_of(kind, tmp_path, request) as broker, FiveNodes(tmp_path, broker) as fleet:
        for back, fewest in FEWEST.items():
            writes = fewest
            if _SAMPLE is None:
                writes = run_to(fleet, fleet.level(), fleet.push(), "never", 0, back=back)
                assert writes >= fewest
            points = list(product(("before", "after"), range(1, writes + 1)))
            for when, number in dice().sample(points, len(points) if _SAMPLE is None else 1):
                try:
                    run_to(fleet, fleet.level(), fleet.push(), when, number, back=back)
                except BaseException as error:
                    error.add_note(f"killed {when} write {number} of {writes}, {back=}; the logs are in {tmp_path}")
                    raise
