"""What RabbitMQ and ActiveMQ say no to, while other things go on: who is told, and who is left alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from deploykit.bus import Bus, Delivery
from deploykit.bus.events import BrokerReportedError, ConnectionLost, PublishFailed, SubscriptionRefused
from deploykit.errors import DialectError, LoginRefused, PublishRefused
from tests.brokers.activemq import ActiveMQ
from tests.brokers.rabbitmq import RabbitMQ
from tests.brokers.server import BrokerServer
from tests.support.bus import Collector, Events, bus_threads, fast, running, text
from tests.support.wait import wait_until

pytestmark = [pytest.mark.slow]


@pytest.fixture
def low(rabbitmq: RabbitMQ, unique_name: str) -> Iterator[str]:
    """The name of a user with the passcode `low-canary`, who may use queues that begin with NAME-free, -full, -good."""
    with rabbitmq.user(unique_name, "low-canary", f"^{unique_name}-(free|full|good).*|amq.default"):
        yield unique_name


@pytest.mark.rabbitmq
@pytest.mark.parametrize("bad", ["/amq/queue/missing", "/exchange/missing/key", "/queue/{}-denied"])
def test_a_subscription_that_rabbitmq_ends_connections_for_costs_the_others_nothing(
    rabbitmq: RabbitMQ, low: str, bad: str
) -> None:
    """It says ERROR, then confirms the very subscription, then closes."""
    events, collector = Events(), Collector()
    with running(fast(f"stomp://{low}:low-canary@127.0.0.1:{rabbitmq.port}"), on_event=events) as bus:
        refused = bus.subscribe(bad.format(low), collector)
        good = [bus.subscribe(f"/queue/{low}-good{number}", collector) for number in range(3)]
        for number in range(300):
            bus.publish(f"/queue/{low}-good{number % 3}", text(str(number)), timeout=60)
        wait_until(lambda: all(one.active for one in good))
        wait_until(lambda: len(set(collector.bodies)) == 300)
        wait_until(lambda: refused.losses >= 3)
        wait_until(lambda: all(one.active for one in good))
        assert not refused.active
        assert refused.problem is not None
    assert events.of(PublishFailed) == []


@pytest.mark.rabbitmq
def test_messages_that_rabbitmq_refuses_by_hanging_up_do_not_hold_up_the_others(rabbitmq: RabbitMQ, low: str) -> None:
    """It may forbid a destination to a user; and it hangs up for each message to a queue that is full and says so."""
    rabbitmq.evaluate(
        f'rabbit_policy:set(<<"/">>, <<"{low}">>, <<"^{low}-full">>, '
        '[{<<"max-length">>, 2}, {<<"overflow">>, <<"reject-publish">>}], 0, <<"queues">>, <<"test">>)'
    )
    with running(fast(f"stomp://{low}:low-canary@127.0.0.1:{rabbitmq.port}")) as bus:
        for _ in range(2):
            bus.publish(f"/queue/{low}-full", text("x"))
        futures = {}
        for n in range(600):
            where = "denied" if n % 150 == 149 else "full" if n % 4 == 1 else "free"
            futures[n, where] = bus.publish_nowait(f"/queue/{low}-{where}", text("x"), timeout=120)
        outcomes = {(n, where): future.exception() for (n, where), future in futures.items()}
        assert [n for (n, where), outcome in outcomes.items() if where == "free" and outcome is not None] == []
        assert [n for (n, where), outcome in outcomes.items() if where != "free" and outcome is None] == []
        assert bus.counters.losses < 30
        bus.publish(f"/queue/{low}-free", text("x"), timeout=30)


@pytest.mark.rabbitmq
def test_what_rabbitmq_answers_with_an_error_that_names_nothing_is_refused_at_once(
    rabbitmq: RabbitMQ, unique_name: str
) -> None:
    queue, events = f"/queue/{unique_name}", Events()
    with running(fast(rabbitmq.address), on_event=events) as bus:
        for header in ({"reply-to": "/foo/x"}, {"x-message-ttl": "soon"}, {"x-max-length": "-1"}):
            with pytest.raises(PublishRefused, match=next(iter(header))):
                bus.publish(queue, text("x", **header))
        with pytest.raises(DialectError):
            bus.publish("/temp-queue/x", text("x"))
        for reply_to in ("/temp-queue/x", "/queue/x", "someone"):
            bus.publish(queue, text("x", **{"reply-to": reply_to}))
    assert events.of(BrokerReportedError) == []


def test_what_a_handler_still_has_when_its_subscription_ends_goes_to_the_next_one(
    real_broker: BrokerServer, unique_name: str
) -> None:
    """RabbitMQ says ERROR to its late acknowledgement, and would keep the message as long as the connection lives."""
    queue, events = f"/queue/{unique_name}", Events()
    begun, go_on = threading.Event(), threading.Event()

    def slow(_: Delivery) -> None:
        begun.set()
        go_on.wait(60)

    with real_broker.connect() as stranger:
        stranger.publish(queue, b"without an id")
    with running(fast(real_broker.address), on_event=events) as bus:
        threads = set(bus_threads())
        one = bus.subscribe(queue, slow)
        assert begun.wait(30)
        one.unsubscribe(timeout=0.05)
        other = bus.subscribe(f"/queue/{unique_name}.other", Collector())
        go_on.set()
        assert other.wait_active(30)
        other.unsubscribe()
        collector = Collector()
        bus.subscribe(queue, collector)
        collector.wait(1)
        bus.subscribe(f"/queue/{unique_name}.third", Collector()).wait_active(30)
        assert events.of(SubscriptionRefused) == []
        wait_until(lambda: len(set(bus_threads()) - threads) == 2, "the slow handler's worker ends")


def refusal(broker: BrokerServer, login: str, passcode: str, **changes: object) -> str:
    """What is said of a login that is refused."""
    address = f"stomp://{login}:{passcode}@127.0.0.1:{broker.port}"
    with Bus(fast(address, **changes)) as bus, pytest.raises(LoginRefused) as caught:
        bus.wait_connected(30)
    assert passcode not in str(caught.value)
    return str(caught.value).removeprefix(f"stomp://127.0.0.1:{broker.port}: it refused the login: ")


@pytest.mark.rabbitmq
def test_rabbitmq_gives_its_own_reasons(rabbitmq: RabbitMQ, low: str) -> None:
    broker = rabbitmq
    look, vhost = "check login, passcode and vhost", "check vhost, and what this login may do in it at the broker"
    denied = "Bad CONNECT: Virtual host '/nope' access denied"
    assert refusal(broker, low, "canary") == f"Bad CONNECT: Access refused for user '{low}' ({look})"
    assert refusal(broker, low, "low-canary", vhost="/nope") == f"{denied} ({vhost})"
    events, queue = Events(), f"/queue/{low}-denied"
    with running(fast(f"stomp://{low}:low-canary@127.0.0.1:{broker.port}"), on_event=events) as bus:
        bus.subscribe(queue, Collector())
        why = f"ACCESS_REFUSED - access to queue '{low}-denied' in vhost '/' refused for user '{low}'"
        assert why in events.wait(SubscriptionRefused)[0].problem
        assert events.wait(ConnectionLost)[0].reason.endswith(f" after an ERROR: {why}")
        wait_until(lambda: any("connections when asked for" in one.problem for one in events.of(SubscriptionRefused)))
        for one in events.of(SubscriptionRefused):
            assert why in one.problem
    with running(fast(f"stomp://{low}:low-canary@127.0.0.1:{broker.port}")) as bus:
        with pytest.raises(PublishRefused, match=why):
            bus.publish(queue, text("x"), timeout=60)
        assert bus.wait_connected(30)


@pytest.mark.activemq
def test_activemq_gives_its_own_reasons(activemq: ActiveMQ, unique_name: str) -> None:
    look = "check login, passcode and vhost"
    assert refusal(activemq, "ada", "canary") == f"User name [ada] or password is invalid ({look})"
    events = Events()
    with running(fast(activemq.address), on_event=events) as bus:
        bus.subscribe(f"/queue/{unique_name}", Collector(), selector="((( =")
        (refused,) = events.wait(SubscriptionRefused)[:1]
        assert "java" not in refused.problem
