"""Two hundred simulated nodes on a RabbitMQ of their own, and the command line as a process: what the books say after.

Nodes are silent, fail, answer twice and in any order. Only those that are silent by their script may count as silent:
the time limit is long for a busy machine, and is waited for once.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deploykit.names import NodeName
from tests.brokers import rabbitmq as rabbitmq_module
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.measured import Measured
from tests.support.simfleet.desk import Desk
from tests.support.simfleet.model import draw_faults
from tests.support.simfleet.process import FIRST

pytestmark = pytest.mark.rabbitmq

NODES = 200
#: Seconds for a node and phase: enough for a busy machine, and for silent nodes to be asked a second time.
TIMEOUT = 25
#: MiB that the coordinator may hold.
MOST_MEMORY = 100
OLD, NEW, NEWER = str(FIRST.commit), "ab" * 20, "cd" * 20
TO_NEW = ("--ref", "refs/tags/v1", "--commit", NEW)
TO_NEWER = ("--ref", "refs/tags/v2", "--commit", NEWER)
LISTED = ("--nodes", "nodes.txt")

Books = dict[NodeName, dict[str, Any]]


@pytest.fixture(scope="module")
def broker() -> Iterator[RabbitMQ]:
    """A broker of this module's own: hundreds of connections are no good neighbours."""
    rabbitmq_module.check_installed()
    with RabbitMQ() as started:
        yield started


@pytest.fixture
def desk(tmp_path: Path, broker: RabbitMQ) -> Desk:
    return Desk(tmp_path, broker)


def those(books: Books, key: str, value: object = True) -> set[NodeName]:
    """The nodes of which a book says this."""
    return {node for node, book in books.items() if book[key] == value}


def phases(books: Books, nodes: set[NodeName]) -> Counter[tuple[str, ...]]:
    """What these nodes did, in order, and how many of them did just that."""
    return Counter(tuple(act["phase"] for act in books[node]["acted"]) for node in nodes)


def named_at_the_end(done: Measured) -> dict[str, set[str]]:
    """The nodes that the last lines name, by what went wrong with them."""
    named: dict[str, set[str]] = {}
    for state, node in re.findall(r"^  (failed|silent|refused) +(sim\d+) ", done.stderr, re.MULTILINE):
        named.setdefault(state, set()).add(node)
    return named


def test_two_phases_with_silent_failing_and_repeating_nodes(desk: Desk) -> None:
    faults = draw_faults(NODES, silent=0.05, failing=0.02, slowest=0.1, seed=5)
    with desk.fleet(faults) as fleet:
        done = desk.run(
            *("deploy", "shop", *TO_NEW, *LISTED, "--timeout", str(TIMEOUT)),
            *("--first", "1", "--batch", "10%", "--quorum", "95%", "--max-failures", "2%"),
        )
        books = fleet.books()
    assert done.returncode == 1, done.stderr
    silent, failing = those(books, "silent"), those(books, "failing")
    assert (len(silent), len(failing)) == (10, 4)
    well = set(fleet.nodes) - silent - failing

    assert those(books, "live", NEW) == well
    assert those(books, "live", OLD) == silent | failing
    assert those(books, "previous", OLD) == well
    assert those(books, "prepared", None) == well | silent
    assert phases(books, well | failing) == {("prepare", "activate"): len(well | failing)}
    assert phases(books, silent) == {(): len(silent)}

    assert named_at_the_end(done) == {"failed": failing, "silent": silent}
    assert re.search(r"\b4 failed, 10 silent, 186 active\b", done.stderr), done.stderr

    stored = desk.rollout()
    assert stored.end is not None
    assert stored.end.exit_code == 1
    states = {node: status.state for node, status in stored.model.nodes.items()}
    assert states == dict.fromkeys(well, "active") | dict.fromkeys(failing, "failed") | dict.fromkeys(silent, "silent")
    assert done.memory < MOST_MEMORY


def test_half_of_them_by_a_selector_then_all_then_each_back_to_its_own(desk: Desk) -> None:
    faults = draw_faults(NODES, silent=0.0, failing=0.0, slowest=0.1, seed=6)
    with desk.fleet(faults) as fleet:
        half = set(fleet.nodes[: NODES // 2])
        everybody = set(fleet.nodes)

        first = desk.run("deploy", "shop", *TO_NEW, *LISTED, "-S", f"env=live and number<={NODES // 2}")
        assert first.returncode == 0, first.stderr
        assert those(fleet.books(), "live", NEW) == half

        second = desk.run("deploy", "shop", *TO_NEWER, *LISTED, "--expect", str(NODES))
        assert second.returncode == 0, second.stderr
        assert those(fleet.books(), "live", NEWER) == everybody

        back = desk.run("rollback", "shop", *LISTED)
        assert back.returncode == 0, back.stderr
        books = fleet.books()
    assert those(books, "live", NEW) == half
    assert those(books, "live", OLD) == everybody - half
    both, once = ("prepare", "activate", "prepare", "activate", "rollback"), ("prepare", "activate", "rollback")
    assert phases(books, half) == {both: len(half)}
    assert phases(books, everybody - half) == {once: len(everybody - half)}
    assert all(status.state == "active" for status in desk.rollout().model.nodes.values())
    assert max(each.memory for each in (first, second, back)) < MOST_MEMORY
