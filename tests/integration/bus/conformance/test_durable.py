"""Durable subscriptions keep what comes: on every broker, by every version, plain and TLS."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.errors import DialectError
from deploykit.settings import BusSettings
from tests.brokers.certs import Authority
from tests.brokers.server import BrokerServer
from tests.support.bus import Collector, running, text
from tests.support.conformance import VERSIONS, Place, acked
from tests.support.wait import wait_until


def test_a_durable_subscription_keeps_what_comes_while_nobody_is_there(place: Place, unique_name: str) -> None:
    topic, first, second = f"/topic/{unique_name}", Collector(), Collector()
    # ActiveMQ on 1.0 deletes a durable subscription only under a client id of the same name.
    settings = place.bus(client_id=unique_name)
    with running(settings) as bus:
        bus.subscribe(topic, first, durable=unique_name).wait_active(30)
        bus.publish(topic, text("present"))
        first.wait(1)
        wait_until(lambda: bus.counters.acked >= 1)
    with running(place.bus(client_id="")) as bus:
        for number in range(20):
            bus.publish(topic, text(str(number)))
    with running(settings) as bus:
        subscription = bus.subscribe(topic, second, durable=unique_name)
        second.wait(20)
        assert second.bodies == [str(number) for number in range(20)]
        wait_until(lambda: bus.counters.acked >= 20)
        subscription.unsubscribe(forget=True)
        bus.publish(topic, text("to nobody"))
    with running(settings) as bus:
        third = Collector()
        again = bus.subscribe(topic, third, durable=unique_name)
        again.wait_active(30)
        bus.publish(topic, text("fresh"))
        third.wait(1)
        assert third.bodies == ["fresh"]
        again.unsubscribe(forget=True)


@pytest.mark.slow
def test_durable_subscriptions_of_every_version_plain_and_tls_survive_kill_9(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """What was confirmed while nobody was there is there after the broker was killed and came back."""
    with ExitStack() as stack:
        crash: Callable[[], None]
        brokers: list[BrokerServer] = []
        if kind == "embedded":
            authority = Authority(tmp_path / "ca", name="embedded CA")
            identity, ca_file = authority.server(), authority.ca_file
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(identity.cert_file, identity.key_file)
            pair = [
                stack.enter_context(EmbeddedBroker(data=tmp_path / "plain")),
                stack.enter_context(EmbeddedBroker(data=tmp_path / "tls", tls=context)),
            ]
            addresses = [one.address for one in pair]

            def crash() -> None:
                for one in pair:
                    one.kill()
                    one.start()
        else:
            broker: BrokerServer = request.getfixturevalue(f"new_{kind}")().start()
            addresses, ca_file = [broker.address, broker.tls_address], broker.ca_file
            brokers.append(broker)

            def crash() -> None:
                broker.kill9()
                broker.start()

        places = [
            BusSettings(
                address=address,
                tls_ca=ca_file if "ssl" in address else None,
                versions=(version,),
                client_id=f"kept-{version.replace('.', '')}-{'tls' if 'ssl' in address else 'plain'}",
            )
            for address in addresses
            for version in VERSIONS
        ]
        for settings in places:
            with running(settings) as bus:
                bus.subscribe("/topic/kept", Collector(), durable=settings.client_id).wait_active(30)
        for broker in brokers:
            broker.sync_declared()
        for settings in places[:1] if kind != "embedded" else places[::3]:
            with running(attrs.evolve(settings, client_id="")) as bus:
                bus.publish_many(("/topic/kept", text(str(number))) for number in range(20))
        crash()
        for settings in places:
            collector = Collector()
            with running(settings) as bus:
                subscription = bus.subscribe("/topic/kept", collector, durable=settings.client_id)
                collector.wait(20)
                assert collector.bodies == [str(number) for number in range(20)], settings.client_id
                wait_until(partial(acked, bus, 20))
                subscription.unsubscribe(forget=True)


def test_one_durable_subscription_needs_no_client_id(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        subscription = bus.subscribe(f"/topic/{unique_name}", collector, durable=unique_name)
        wait_until(lambda: subscription.active)
        bus.publish(f"/topic/{unique_name}", text("x"))
        collector.wait(1)
        subscription.unsubscribe(forget=True)


def test_two_durable_subscriptions_without_a_client_id_are_refused_where_one_is_needed(
    place: Place, unique_name: str
) -> None:
    with running(place.settings) as bus:
        first = bus.subscribe(f"/topic/{unique_name}", Collector(), durable=f"{unique_name}-1")
        wait_until(lambda: first.active)
        if place.dialect.client_id:
            with pytest.raises(DialectError, match="client_id"):
                bus.subscribe(f"/topic/{unique_name}", Collector(), durable=f"{unique_name}-2")
        else:
            second = bus.subscribe(f"/topic/{unique_name}", Collector(), durable=f"{unique_name}-2")
            assert second.wait_active(30)
            second.unsubscribe(forget=True)
        if place.version != "1.0" or not place.dialect.client_id:
            first.unsubscribe(forget=True)
