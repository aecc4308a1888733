"""Asking nodes over real connections: what they signed about this very question, and when the wait for it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator

import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.errors import ConnectError
from deploykit.fleet import discovery
from deploykit.fleet.discovery import discover
from deploykit.fleet.inventory import MAX_REASONS, Inventory
from deploykit.messages import AgentInstance, NodeDescribed, NodeQueried
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.settings import BusSettings
from tests.brokers.server import BrokerServer
from tests.support.responders import (
    OPERATOR,
    STRANGER,
    Reply,
    Responders,
    described,
    end_with_the_answers,
    trust_of_asker,
)
from tests.support.wait import wait_until

HELD_BACK = discovery.HELD_BACK
WEB1, WEB2, WEB3 = NodeName("web1"), NodeName("web2"), NodeName("web3")


@pytest.fixture(autouse=True)
def _nobody_holds_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stand-ins answer at once."""
    monkeypatch.setattr(discovery, "HELD_BACK", 0.0)


@pytest.fixture
def all_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what is not about the end of the wait."""
    end_with_the_answers(monkeypatch)


@pytest.fixture
def bus(deploykit_broker: EmbeddedBroker) -> Iterator[Bus]:
    with Bus(BusSettings(address=deploykit_broker.address, backoff_max=0.2)) as made:
        assert made.wait_connected(60)
        yield made


def ask(bus: Bus, **options: object) -> Inventory:
    query = NodeQueried(source="operator/test")
    return discover(bus, TopicMap(), OPERATOR, trust_of_asker(), query, **options)  # type: ignore[arg-type]


def answered(bus: Bus, broker: EmbeddedBroker | BrokerServer, *replies: Reply, **options: object) -> Inventory:
    with Responders(broker.address, lambda question: replies) as nodes:
        found = ask(bus, **options)
        assert len(nodes.asked) == 1
    return found


def test_nodes_are_found_without_a_list(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    heard: list[NodeName] = []
    began = time.monotonic()
    found = answered(
        bus,
        deploykit_broker,
        described("web2"),
        described("web1"),
        on_node=lambda node: heard.append(node.node),
        timeout=60.0,
        quiet=3.0,  # the second answer comes at once, but on a busy machine
    )
    assert time.monotonic() - began < 50  # silence ends it, not the time limit
    assert list(found.nodes) == [WEB1, WEB2]
    assert heard == [WEB2, WEB1]
    assert (found.silent, found.unexpected, found.doubts, found.twins) == ((), (), {}, {})


def test_a_list_ends_it_when_all_have_answered(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    began = time.monotonic()
    found = answered(
        bus,
        deploykit_broker,
        described("web3"),
        described("web1"),
        described("web2"),
        expected=frozenset({WEB1, WEB2}),
        timeout=60.0,
        quiet=60.0,
    )
    assert time.monotonic() - began < 30
    assert found.silent == ()
    assert found.unexpected == (WEB3,)


def test_silent_and_unexpected_nodes_are_named(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    found = answered(bus, deploykit_broker, described("web3"), expected=frozenset({WEB1}), timeout=3.0)
    assert found.silent == (WEB1,)
    assert found.unexpected == (WEB3,)


def test_a_node_that_holds_its_answer_back_for_a_second_is_found(
    bus: Bus, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Silence does not end the wait before the held-back answers are in; for those there is a minute here."""
    assert HELD_BACK == 1.0, "what agents do"
    monkeypatch.setattr(discovery, "HELD_BACK", 60.0)

    class Found(Exception):
        pass

    def held_back(question: NodeQueried) -> Iterable[Reply]:
        yield described("web1")
        assert not threading.Event().wait(1.0)
        yield described("web2")

    def on_node(node: NodeDescribed) -> None:
        if node.node == WEB2:
            raise Found

    with Responders(deploykit_broker.address, held_back), pytest.raises(Found):
        ask(bus, on_node=on_node, timeout=60.0)


def test_a_late_first_answer_is_waited_for(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    """A window of 2 s, as others have it, finds nobody where the first answer takes longer."""

    def late(question: NodeQueried) -> Iterable[Reply]:
        assert not threading.Event().wait(2.5)
        return [described("web1")]

    with Responders(deploykit_broker.address, late):
        assert list(ask(bus, timeout=60.0).nodes) == [WEB1]


@pytest.mark.usefixtures("all_answers")
def test_the_question_carries_its_end(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    with Responders(deploykit_broker.address, lambda question: [described("web1")]) as nodes:
        ask(bus)
        (question,) = nodes.asked
    assert question.expires is not None
    assert 0 < (question.expires - question.time).total_seconds() <= 60


@pytest.mark.usefixtures("all_answers")
@pytest.mark.parametrize(
    ("reply", "says"),
    [
        ((described("web1"), None), "not signed"),
        ((described("web1"), STRANGER), "not among the allowed signers"),
        ((described("web1"), OPERATOR), "may not report for node"),
        (described("web1", answers="0" * 64), "another copy"),
        (described("web1", classes=("x" * 1000,) * 300), "longer than"),
    ],
)
def test_threat_6_an_answer_that_is_not_believed_is_a_doubt_and_no_silence(
    bus: Bus, deploykit_broker: EmbeddedBroker, reply: Reply, says: str
) -> None:
    found = answered(bus, deploykit_broker, reply, described("web2"), expected=frozenset({WEB1, WEB2}))
    assert list(found.nodes) == [WEB2]
    assert found.silent == (WEB1,)
    ((node, (doubt,)),) = found.doubts.items()
    assert node == WEB1
    assert says in doubt


@pytest.mark.usefixtures("all_answers")
def test_answers_to_others_and_descriptions_unasked_are_passed_over(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    found = answered(
        bus,
        deploykit_broker,
        described("web2", request="another", answers="0" * 64),
        (described("web3", request="another"), None),
        described("web1"),
    )
    assert list(found.nodes) == [WEB1]
    assert found.doubts == {}


@pytest.mark.usefixtures("all_answers")
def test_two_agents_of_one_name_are_shown_as_twins(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    heard: list[NodeDescribed] = []
    found = answered(
        bus,
        deploykit_broker,
        described("web1", instance="a", host="first"),
        described("web1", instance="b", host="copy"),
        described("web2", instance="c", host="web2", twins=(AgentInstance(instance="d", host="clone"),)),
        on_node=heard.append,
    )
    assert len(heard) == 2
    assert {node: [twin.host for twin in twins] for node, twins in found.twins.items()} == {
        WEB1: ["first", "copy"],
        WEB2: ["web2", "clone"],
    }


@pytest.mark.usefixtures("all_answers")
def test_a_flood_of_forged_answers_neither_grows_nor_ends_it(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    flood: list[Reply] = [(described(f"web{n % 5}", version=str(n)), STRANGER if n % 2 else None) for n in range(2000)]
    found = answered(bus, deploykit_broker, *flood, described("web9"))
    assert list(found.nodes) == [NodeName("web9")]
    assert len(found.doubts) == 5
    assert all(len(reasons) <= MAX_REASONS for reasons in found.doubts.values())


def test_a_connection_that_is_lost_is_an_error_in_seconds(bus: Bus, deploykit_broker: EmbeddedBroker) -> None:
    heard = threading.Event()  # nodes answer before the broker has confirmed the question
    with Responders(deploykit_broker.address, lambda question: [described("web1")]):

        def kill() -> None:
            assert heard.wait(60)
            deploykit_broker.kill()

        stopper = threading.Thread(target=kill)
        stopper.start()
        began = time.monotonic()
        with pytest.raises(ConnectError, match="lost while nodes answered"):
            ask(bus, expected=frozenset({WEB1, WEB2}), timeout=60.0, on_node=lambda node: heard.set())
        assert time.monotonic() - began < 40
        stopper.join()


def test_a_bus_that_has_lost_its_connection_is_an_error(
    bus: Bus, deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(discovery, "_AT_MOST", 1.0)
    deploykit_broker.stop()
    wait_until(lambda: not bus.wait_connected(0.0), "the loss of the connection")
    with pytest.raises(ConnectError, match="nobody was asked"):
        ask(bus)


@pytest.mark.usefixtures("all_answers")
def test_nodes_are_found_over_real_brokers(real_broker: BrokerServer) -> None:
    with Bus(BusSettings(address=real_broker.address)) as asking:
        assert asking.wait_connected(60)
        found = answered(
            asking,
            real_broker,
            described("web1"),
            described("web2", version="x" * 20_000),
            (described("web3"), None),
            expected=frozenset({WEB1, WEB2, WEB3}),
        )
    assert list(found.nodes) == [WEB1, WEB2]
    assert found.silent == (WEB3,)
    assert "not signed" in found.doubts[WEB3][0]
