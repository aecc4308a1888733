"""What each broker does differently: compiled right, refused where it would lose data, and written down as it is."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from deploykit.bus.stomp.compile import (
    SubscriptionSpec,
    compile_destination,
    compile_send,
    compile_subscription,
    durable_end,
    read_destination,
)
from deploykit.bus.stomp.dialect import ACTIVEMQ, ARTEMIS, DIALECTS, EMBEDDED, GENERIC, RABBITMQ, Dialect, recognise
from deploykit.errors import DialectError

DOCS = Path(__file__).parents[3] / "docs"


def intent(destination: str = "/topic/t", **changes: object) -> SubscriptionSpec:
    return SubscriptionSpec(destination=destination, id="s1", **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        ("RabbitMQ/3.10.8", RABBITMQ),
        ("ActiveMQ/5.17.2", ACTIVEMQ),
        ("ActiveMQ-Artemis/2.31.2 ActiveMQ Artemis Messaging Engine", ARTEMIS),
        ("deploykit-embedded/0.1.0", EMBEDDED),
        ("apache-apollo/1.7", GENERIC),
        ("", GENERIC),
        (None, GENERIC),
    ],
)
def test_a_broker_is_told_by_its_server_header(server: str | None, expected: Dialect) -> None:
    assert recognise(server) is expected


def test_slashes_in_names_are_encoded_for_rabbitmq_and_come_back() -> None:
    written = compile_destination(RABBITMQ, "/topic/a/b")
    assert written == "/topic/a%2Fb"
    assert read_destination(RABBITMQ, written) == "/topic/a/b"
    assert compile_destination(RABBITMQ, "/exchange/e/key") == "/exchange/e/key"
    assert compile_destination(ACTIVEMQ, "/topic/a/b") == "/topic/a/b"


@pytest.mark.parametrize(
    ("where", "destination"),
    [
        (RABBITMQ, "plain"),
        (ACTIVEMQ, "plain"),
        (ACTIVEMQ, "/queue/a,b"),
        (ACTIVEMQ, "/queue/a?consumer.prefetchSize=1"),
        (ACTIVEMQ, "/topic/ a"),
        (ACTIVEMQ, "/topic/a "),
        (EMBEDDED, "/temp-queue/x"),
        (RABBITMQ, "/queue/"),
        *[
            (d, bad)
            for d in DIALECTS
            for bad in ("", "/queue/a\nb", "/queue/a\0", "/queue/a\\b", "/queue/" + "x" * 600)
        ],
    ],
)
def test_a_destination_that_would_mean_something_else_is_refused(where: Dialect, destination: str) -> None:
    with pytest.raises(DialectError):
        compile_destination(where, destination)


def test_a_durable_subscription_is_written_in_each_brokers_way() -> None:
    def headers(where: Dialect) -> dict[str, str]:
        return dict(compile_subscription(where, intent(durable="d")).headers)

    assert headers(RABBITMQ)["x-queue-name"] == "d@t"
    assert headers(RABBITMQ)["durable"] == "true"
    assert headers(RABBITMQ)["auto-delete"] == "false"  # its default for topics would delete what was kept
    assert headers(ACTIVEMQ)["activemq.subscriptionName"] == "d"
    assert headers(ARTEMIS)["durable-subscription-name"] == "d"
    with pytest.raises(DialectError, match="durable"):
        headers(GENERIC)


def test_a_durable_subscription_never_shares_rabbitmqs_queue_with_anything_of_the_same_name() -> None:
    """Found by the books: the queue /queue/x and the durable subscription x were one and the same."""
    names = {
        compile_subscription(RABBITMQ, intent(topic, durable="d")).headers["x-queue-name"]
        for topic in ("/topic/a", "/topic/b", "/topic/d", "/exchange/a/b")
    }
    assert len(names) == 4
    assert "d" not in names
    with pytest.raises(DialectError, match="too long"):
        compile_subscription(RABBITMQ, intent("/topic/" + "x" * 250, durable="d" * 20))


@pytest.mark.parametrize("where", DIALECTS, ids=lambda d: d.name)
def test_durable_on_a_queue_adds_nothing_because_a_queue_is(where: Dialect) -> None:
    plain = compile_subscription(where, intent("/queue/q")).headers
    assert compile_subscription(where, intent("/queue/q", durable="d")).headers == plain


@pytest.mark.parametrize("where", DIALECTS, ids=lambda d: d.name)
def test_every_subscription_acknowledges_each_message_by_itself(where: Dialect) -> None:
    """`auto` would lose what a crash interrupts; `client` would acknowledge what other workers have in hand."""
    assert compile_subscription(where, intent()).headers["ack"] == "client-individual"


def test_prefetch_is_asked_for_where_there_is_one() -> None:
    assert compile_subscription(RABBITMQ, intent(prefetch=7)).headers["prefetch-count"] == "7"
    assert compile_subscription(ACTIVEMQ, intent(prefetch=7)).headers["activemq.prefetchSize"] == "7"
    assert not compile_subscription(GENERIC, intent(prefetch=7)).prefetched


def test_ttl_is_relative_or_absolute_and_refused_where_it_would_be_ignored() -> None:
    def send(where: Dialect) -> dict[str, str]:
        return compile_send(where, "/queue/q", persistent=True, ttl=2.5, now=1000.0)

    assert send(RABBITMQ)["expiration"] == "2500"
    assert send(ACTIVEMQ)["expires"] == "1002500"
    assert send(EMBEDDED)["expires"] == "1002500"
    with pytest.raises(DialectError):
        send(GENERIC)


@pytest.mark.parametrize("where", DIALECTS, ids=lambda d: d.name)
def test_messages_are_persistent_unless_told_otherwise(where: Dialect) -> None:
    assert compile_send(where, "/queue/q", persistent=True, ttl=None, now=0)["persistent"] == "true"
    assert "persistent" not in compile_send(where, "/queue/q", persistent=False, ttl=None, now=0)


def test_artemis_gets_the_type_of_a_destination_in_a_header() -> None:
    assert compile_send(ARTEMIS, "/topic/t", persistent=False, ttl=None, now=0) == {
        "destination": "t",
        "destination-type": "MULTICAST",
    }
    assert compile_subscription(ARTEMIS, intent("/queue/q")).headers["subscription-type"] == "ANYCAST"


def test_nack_is_used_only_where_it_gives_the_message_back() -> None:
    for where in DIALECTS:
        for on_failure in ("dead-letter", "drop"):
            compiled = compile_subscription(where, intent(on_failure=on_failure))
            assert compiled.on_failure == {"dead-letter": "dead-letter", "drop": "ack"}[on_failure]
        on_queue = compile_subscription(where, intent("/queue/q", on_failure="requeue")).on_failure
        assert on_queue == ("nack" if where in (RABBITMQ, EMBEDDED) else "republish")


@pytest.mark.parametrize("where", [ACTIVEMQ, ARTEMIS, GENERIC], ids=lambda d: d.name)
def test_requeue_on_a_topic_is_refused_where_it_would_lose_or_multiply(where: Dialect) -> None:
    with pytest.raises(DialectError, match="requeue"):
        compile_subscription(where, intent(on_failure="requeue"))


def test_a_selector_is_refused_where_it_would_be_ignored() -> None:
    assert compile_subscription(ACTIVEMQ, intent(selector="a = 1")).headers["selector"] == "a = 1"
    for where in (RABBITMQ, EMBEDDED, GENERIC):
        with pytest.raises(DialectError, match="selector"):
            compile_subscription(where, intent(selector="a = 1"))
    for text in ("a = 1\nack:auto", "a\0", "a = '\udcff'"):
        with pytest.raises(DialectError, match="selector"):
            compile_subscription(ACTIVEMQ, intent(selector=text))


def test_activemq_on_1_0_cannot_delete_a_durable_subscription_under_another_client_id() -> None:
    with pytest.raises(DialectError):
        durable_end(ACTIVEMQ, intent(durable="d"), version="1.0", client_id="c")
    assert durable_end(ACTIVEMQ, intent(durable="d"), version="1.0", client_id="d")
    assert durable_end(ACTIVEMQ, intent(durable="d"), version="1.2", client_id="c")


def test_the_documentation_shows_the_table_as_it_is() -> None:
    """`python docs/dialecttable.py` prints it."""
    markdown_table = runpy.run_path(str(DOCS / "dialecttable.py"))["markdown_table"]
    assert markdown_table() in (DOCS / "brokers.md").read_text(encoding="utf-8")
