"""One suite, three brokers, three protocol versions, plain and TLS: what a bus promises holds on each of them.

What a broker cannot do is taken from the dialect table, never from a list of names here.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery, Reject, Retry
from deploykit.bus.events import Connected, SubscriptionRefused
from deploykit.bus.stomp.dialect import ACTIVEMQ, EMBEDDED, RABBITMQ, Dialect
from deploykit.errors import ConnectError, DialectError, LoginRefused, PublishError, SettingsError
from deploykit.settings import BusSettings
from tests.brokers.certs import Authority
from tests.brokers.server import BrokerServer
from tests.support.bus import Collector, Events, eventually, quiet, running, text

VERSIONS = ("1.0", "1.1", "1.2")
DIALECT_OF: dict[str, Dialect] = {"rabbitmq": RABBITMQ, "activemq": ACTIVEMQ, "embedded": EMBEDDED}


@attrs.frozen
class Place:
    """Where one run of the suite takes place."""

    kind: str
    dialect: Dialect
    settings: BusSettings
    version: str

    def bus(self, **changes: object) -> BusSettings:
        return attrs.evolve(self.settings, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="session")
def embedded_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[EmbeddedBroker, EmbeddedBroker, Path]]:
    """The embedded broker twice: plain, and with TLS."""
    authority = Authority(tmp_path_factory.mktemp("tls"), name="embedded CA")
    identity = authority.server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert_file, identity.key_file)
    users = {"deploy": "s3cret"}
    with EmbeddedBroker(users=users) as plain, EmbeddedBroker(users=users, tls=context) as tls:
        yield plain, tls, authority.ca_file


@pytest.fixture(
    params=[
        pytest.param("embedded"),
        pytest.param("rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("activemq", marks=pytest.mark.activemq),
    ]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["plain", "tls"])
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def addresses(request: pytest.FixtureRequest, kind: str) -> tuple[str, str, Path]:
    """Plain address, TLS address, file of the CA."""
    if kind == "embedded":
        plain, tls, ca_file = request.getfixturevalue("embedded_pair")
        return plain.address, tls.address, ca_file
    broker: BrokerServer = request.getfixturevalue(kind)
    return broker.address, broker.tls_address, broker.ca_file


@pytest.fixture(params=VERSIONS)
def place(
    request: pytest.FixtureRequest, kind: str, transport: str, addresses: tuple[str, str, Path], unique_name: str
) -> Place:
    version = str(request.param)
    settings = BusSettings(
        address=addresses[1] if transport == "tls" else addresses[0],
        tls_ca=addresses[2] if transport == "tls" else None,
        versions=(version,),
        heartbeat=2.0,
        backoff_max=0.5,
        dead_letter=f"/queue/dead-{unique_name}",
    )
    return Place(kind, DIALECT_OF[kind], settings, version)


def acked(bus: Bus, count: int) -> bool:
    """Whether a bus has acknowledged so many messages."""
    return bus.counters.acked >= count


def test_the_version_offered_is_the_version_spoken_and_the_broker_is_recognised(place: Place) -> None:
    events = Events()
    with running(place.settings, on_event=events):
        (connected,) = events.wait(Connected)
    assert connected.version == place.version
    assert connected.dialect == place.dialect.name


def test_a_message_arrives_as_it_was_sent(place: Place, unique_name: str) -> None:
    collector = Collector()
    headers = {
        "subject": "[app] main moved: C:\\conf, 100 % grüße",
        "content-type": "application/cloudevents+json",
        "x": "",
        "deploykit-id": "id-1",
    }
    if place.version != "1.0":
        headers["lines"] = "one\ntwo"
    body = b'{"a": "\x00\n\xc3\xa4\xff"}' + bytes(range(256))
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", collector)
        bus.publish(f"/queue/{unique_name}", attrs.evolve(text(""), headers=headers, body=body))
        (delivery,) = collector.wait(1)
    assert delivery.body == body
    assert delivery.destination == f"/queue/{unique_name}"
    assert delivery.id == "id-1"
    assert {name: delivery.headers.get(name, "") for name in headers} == headers


def test_names_with_a_slash_work_and_come_back_as_they_were(place: Place, unique_name: str) -> None:
    collector = Collector()
    destination = f"/topic/{unique_name}/a.b-c"
    with running(place.settings) as bus:
        bus.subscribe(destination, collector).wait_active(30)
        bus.publish(destination, text("x"))
        assert collector.wait(1)[0].destination == destination


def test_a_topic_reaches_every_subscriber_and_a_queue_one(place: Place, unique_name: str) -> None:
    first, second = Collector(), Collector()
    with running(place.settings) as one, running(place.settings) as two:
        for bus, collector in ((one, first), (two, second)):
            bus.subscribe(f"/topic/{unique_name}", collector).wait_active(30)
            bus.subscribe(f"/queue/{unique_name}", collector).wait_active(30)
        for number in range(10):
            one.publish(f"/topic/{unique_name}", text(f"topic {number}"))
            one.publish(f"/queue/{unique_name}", text(f"queue {number}"))
        eventually(lambda: len(first) + len(second) == 30)
    topic = [f"topic {number}" for number in range(10)]
    for collector in (first, second):
        assert [body for body in collector.bodies if body.startswith("topic")] == topic
    assert sorted(body for c in (first, second) for body in c.bodies if body.startswith("queue")) == sorted(
        f"queue {number}" for number in range(10)
    )


def test_many_in_flight_keep_their_order(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", collector)
        bus.publish_many(((f"/queue/{unique_name}", text(str(n))) for n in range(1000)), timeout=60)
        collector.wait(1000, timeout=60)
    assert collector.bodies == [str(n) for n in range(1000)]


def test_an_unacknowledged_message_is_delivered_again_and_an_acknowledged_one_is_not(
    place: Place, unique_name: str
) -> None:
    def hold(delivery: Delivery) -> Retry | None:
        return Retry(60) if delivery.body == b"hold" else None

    first, second = Collector(hold), Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", first)
        bus.publish(f"/queue/{unique_name}", text("done"))
        bus.publish(f"/queue/{unique_name}", text("hold"))
        first.wait(2)
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", second)
        bus.publish(f"/queue/{unique_name}", text("end"))
        second.wait(2)
    assert sorted(second.bodies) == ["end", "hold"]


def test_a_rejected_message_is_a_dead_letter_with_its_reason(place: Place, unique_name: str) -> None:
    dead = Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", Collector(lambda _: Reject("no good: at all")))
        bus.subscribe(place.settings.dead_letter, dead)
        bus.publish(f"/queue/{unique_name}", text("x", subject="s: 1"))
        (letter,) = dead.wait(1)
    assert letter.body == b"x"
    assert letter.headers["dead-letter-reason"] == "no good: at all"
    assert letter.headers["original-destination"] == f"/queue/{unique_name}"
    assert letter.headers["subject"] == "s: 1"


def test_a_failing_message_is_asked_about_so_often_and_no_more(place: Place, unique_name: str) -> None:
    failing, dead = Collector(lambda _: Retry(0.01)), Collector()
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", failing, max_attempts=3)
        bus.subscribe(place.settings.dead_letter, dead)
        bus.publish(f"/queue/{unique_name}", text("x"))
        dead.wait(1)
        assert [delivery.attempt for delivery in failing.deliveries] == [1, 2, 3]


def test_requeue_gives_the_message_back(place: Place, unique_name: str) -> None:
    refusing = Collector(lambda delivery: Reject("not now") if len(refusing) == 1 else None)
    with running(place.settings) as bus:
        bus.subscribe(f"/queue/{unique_name}", refusing, on_failure="requeue", max_attempts=1)
        bus.publish(f"/queue/{unique_name}", text("x"))
        refusing.wait(2)
        eventually(lambda: bus.counters.acked >= 1)
    assert refusing.bodies == ["x", "x"]


def test_a_durable_subscription_keeps_what_comes_while_nobody_is_there(place: Place, unique_name: str) -> None:
    topic, first, second = f"/topic/{unique_name}", Collector(), Collector()
    # ActiveMQ on 1.0 deletes a durable subscription only under a client id of the same name.
    settings = place.bus(client_id=unique_name)
    with running(settings) as bus:
        bus.subscribe(topic, first, durable=unique_name).wait_active(30)
        bus.publish(topic, text("present"))
        first.wait(1)
        eventually(lambda: bus.counters.acked >= 1)
    with running(place.bus(client_id="")) as bus:
        for number in range(20):
            bus.publish(topic, text(str(number)))
    with running(settings) as bus:
        subscription = bus.subscribe(topic, second, durable=unique_name)
        second.wait(20)
        assert second.bodies == [str(number) for number in range(20)]
        eventually(lambda: bus.counters.acked >= 20)
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
                eventually(partial(acked, bus, 20))
                subscription.unsubscribe(forget=True)


def test_one_durable_subscription_needs_no_client_id(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        subscription = bus.subscribe(f"/topic/{unique_name}", collector, durable=unique_name)
        eventually(lambda: subscription.active)
        bus.publish(f"/topic/{unique_name}", text("x"))
        collector.wait(1)
        subscription.unsubscribe(forget=True)


def test_two_durable_subscriptions_without_a_client_id_are_refused_where_one_is_needed(
    place: Place, unique_name: str
) -> None:
    with running(place.settings) as bus:
        first = bus.subscribe(f"/topic/{unique_name}", Collector(), durable=f"{unique_name}-1")
        eventually(lambda: first.active)
        if place.dialect.client_id:
            with pytest.raises(DialectError, match="client_id"):
                bus.subscribe(f"/topic/{unique_name}", Collector(), durable=f"{unique_name}-2")
        else:
            second = bus.subscribe(f"/topic/{unique_name}", Collector(), durable=f"{unique_name}-2")
            assert second.wait_active(30)
            second.unsubscribe(forget=True)
        if place.version != "1.0" or not place.dialect.client_id:
            first.unsubscribe(forget=True)


def test_subscriptions_that_end_while_messages_pour_in_lose_none_and_stop_nobody(
    place: Place, unique_name: str
) -> None:
    """RabbitMQ keeps what crosses the end of a subscription for the connection, and tells of it by an ERROR."""
    queue, topic = f"/queue/{unique_name}", f"/topic/{unique_name}"
    collector, events, pouring = Collector(), Events(), threading.Event()
    sent = 0

    def pour(bus: Bus) -> None:
        nonlocal sent
        while not pouring.is_set():
            bus.publish_many((to, text(str(sent + n))) for n in range(100) for to in (queue, topic))
            sent += 100

    with running(place.bus(client_id="")) as source:
        thread = threading.Thread(target=pour, args=(source,))
        with running(place.bus(client_id=unique_name), on_event=events) as bus:
            thread.start()
            try:
                for _ in range(3):
                    one = bus.subscribe(queue, collector)
                    two = bus.subscribe(topic, lambda _: None, durable=unique_name)
                    assert one.wait_active(30)
                    assert two.wait_active(30)
                    collector.wait(len(collector) + 1)
                    one.unsubscribe()
                    two.unsubscribe(forget=True)
            finally:
                pouring.set()
                thread.join()
            bus.subscribe(queue, collector)
            eventually(lambda: len(set(collector.bodies)) == sent, timeout=120)
    assert events.of(SubscriptionRefused) == []


def test_prefetch_bounds_what_is_here_and_not_settled(place: Place, unique_name: str) -> None:
    release = threading.Event()

    def hold(_: Delivery) -> None:
        release.wait(60)

    with running(place.settings) as bus:
        bus.publish_many((f"/queue/{unique_name}", text(str(n))) for n in range(50))
        collector = Collector(hold)
        bus.subscribe(f"/queue/{unique_name}", collector, prefetch=5)
        eventually(lambda: bus.counters.received >= 5)
        time.sleep(0.3)
        assert bus.counters.received == 5
        release.set()
        collector.wait(50)


def test_ttl_lets_a_message_go_or_is_refused(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        if place.dialect.ttl is None:
            with pytest.raises(DialectError):
                bus.publish(f"/queue/{unique_name}", text("x"), ttl=0.2)
            return
        bus.publish(f"/queue/{unique_name}", text("short"), ttl=0.2)
        bus.publish(f"/queue/{unique_name}", text("long"), ttl=60)
        time.sleep(0.5)
        bus.subscribe(f"/queue/{unique_name}", collector)
        collector.wait(1)
        time.sleep(0.2)
        assert collector.bodies == ["long"]


def test_a_selector_is_honoured_or_refused(place: Place, unique_name: str) -> None:
    collector = Collector()
    with running(place.settings) as bus:
        if not place.dialect.selectors:
            with pytest.raises(DialectError):
                bus.subscribe(f"/queue/{unique_name}", collector, selector="colour = 'red'")
            return
        bus.subscribe(f"/queue/{unique_name}", collector, selector="colour = 'red'").wait_active(30)
        bus.publish(f"/queue/{unique_name}", text("blue", colour="blue"))
        bus.publish(f"/queue/{unique_name}", text("red", colour="red"))
        collector.wait(1)
        assert collector.bodies == ["red"]


def test_an_idle_connection_lives_and_a_round_trip_leaves_nothing_behind(place: Place) -> None:
    with running(place.bus(heartbeat=1.0)) as bus:
        connection = bus._supervisor.connection
        assert connection is not None
        for number in range(3):
            connection.round_trip(f"test-{number}")
        quiet(bus.counters, 4.5)
        assert bus.counters.errors_received == 0
        assert bus.counters.beats_sent > 3


def test_ending_a_subscription_gives_the_rest_to_the_next_one(place: Place, unique_name: str) -> None:
    started = threading.Event()

    def slow(_: Delivery) -> None:
        started.set()
        time.sleep(0.2)

    first, second = Collector(slow), Collector()
    with running(place.settings) as bus:
        bus.publish_many((f"/queue/{unique_name}", text(str(n))) for n in range(10))
        subscription = bus.subscribe(f"/queue/{unique_name}", first, prefetch=8)
        assert started.wait(30)
        subscription.unsubscribe()
        bus.subscribe(f"/queue/{unique_name}", second)
        eventually(lambda: len(first) + len(second) >= 10)
        time.sleep(0.2)
    assert sorted(first.bodies + second.bodies, key=int) == [str(n) for n in range(10)]


def test_a_wrong_passcode_is_a_refused_login(place: Place) -> None:
    login, _, host = place.settings.address.partition("@")
    address = f"{login.rpartition(':')[0]}:canary@{host}"
    with Bus(place.bus(address=address)) as bus, pytest.raises(LoginRefused) as caught:
        bus.wait_connected(30)
    assert "canary" not in str(caught.value)


def test_a_plain_and_a_tls_port_are_not_confused_in_silence(
    place: Place, addresses: tuple[str, str, Path], transport: str
) -> None:
    plain, tls, ca_file = addresses
    swapped = plain.replace("stomp://", "stomp+ssl://") if transport == "tls" else tls.replace("stomp+ssl", "stomp")
    with Bus(place.bus(address=swapped, tls_ca=ca_file, connect_timeout=2.0)) as bus:
        eventually(lambda: "TLS" in str(bus._supervisor.problem))
        with pytest.raises(PublishError):
            bus.publish("/queue/q", text("x"), timeout=1.0)


def test_a_certificate_of_a_stranger_is_refused(kind: str, addresses: tuple[str, str, Path], tmp_path: Path) -> None:
    stranger = Authority(tmp_path, name="stranger")
    settings = BusSettings(address=addresses[1], tls_ca=stranger.ca_file)
    with Bus(settings) as bus:
        eventually(lambda: isinstance(bus._supervisor.problem, ConnectError))
        assert "certificate is not accepted" in str(bus._supervisor.problem)
    with Bus(attrs.evolve(settings, tls_ca=None)) as bus:
        eventually(lambda: isinstance(bus._supervisor.problem, ConnectError))
    with running(attrs.evolve(settings, tls_ca=None, tls_verify=False)) as bus:
        bus.publish("/queue/q-tls", text("x"))


def test_a_certificate_for_another_name_is_refused(kind: str, addresses: tuple[str, str, Path]) -> None:
    address = addresses[1].replace("127.0.0.1", "127.0.0.2")
    with Bus(BusSettings(address=address, tls_ca=addresses[2], connect_timeout=2.0)) as bus:
        eventually(lambda: isinstance(bus._supervisor.problem, ConnectError))


def test_a_file_that_is_no_certificate_is_said_before_anything_is_dialled(tmp_path: Path) -> None:
    for field in ("tls_ca", "tls_cert"):
        for content in (None, "nonsense"):
            file = tmp_path / f"{field}-{content}.pem"
            if content is not None:
                file.write_text(content)
            with pytest.raises(SettingsError, match=field):
                Bus(BusSettings(address="stomp+ssl://127.0.0.1:1", **{field: file}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        pytest.param("new_rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("new_activemq", marks=pytest.mark.activemq),
    ],
)
@pytest.mark.slow
def test_a_client_certificate_logs_in_without_a_passcode(make: str, request: pytest.FixtureRequest) -> None:
    new: Callable[..., BrokerServer] = request.getfixturevalue(make)
    broker = new(client_certs=True).start()
    identity = broker.client_identity
    assert identity is not None
    settings = BusSettings(
        address=broker.tls_address, tls_ca=broker.ca_file, tls_cert=identity.cert_file, tls_key=identity.key_file
    )
    with running(settings) as bus:
        bus.publish("/queue/q", text("x"))
    with Bus(attrs.evolve(settings, tls_cert=None, tls_key=None)) as bus, pytest.raises(PublishError):
        bus.publish("/queue/q", text("x"), timeout=2)


@pytest.mark.parametrize(
    "make",
    [
        pytest.param("new_rabbitmq", marks=pytest.mark.rabbitmq),
        pytest.param("new_activemq", marks=pytest.mark.activemq),
    ],
)
@pytest.mark.slow
def test_odd_passcodes_log_in(make: str, request: pytest.FixtureRequest) -> None:
    new: Callable[..., BrokerServer] = request.getfixturevalue(make)
    passcodes = ["a\\b", "\\n", "a:b@c/d%e", "ä€", "a\\\\b"]
    users = {f"odd{number}": passcode for number, passcode in enumerate(passcodes)}
    broker = new(more_users=users).start()
    for login, passcode in users.items():
        with running(BusSettings(address=f"stomp://127.0.0.1:{broker.port}", login=login, passcode=passcode)):
            pass
