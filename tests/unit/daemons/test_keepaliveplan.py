"""Which keepalives share a connection, and with which login it is made."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.daemons.keepaliveplan import logins_of, without_credentials
from deploykit.names import NodeName
from deploykit.settings import BusSettings, KeepaliveDestination, KeepaliveSettings, Settings
from deploykit.settings.address import parse_address

BROKER = BusSettings(
    address="failover:(stomp+ssl://ada:canary@a,stomp+ssl://b:7000)?randomize=false",
    login="ada",
    passcode="canary",
    client_id="web1",
    vhost="/deploy",
    tls_ca=Path("/ca"),
    keepalive=("/topic/a",),
)
BOB = KeepaliveDestination(destination="/queue/b", login="bob", passcode="canary-b")


def settings(broker: BusSettings = BROKER, **destinations: KeepaliveDestination) -> Settings:
    return Settings(node=NodeName("web1"), broker=broker, keepalive=KeepaliveSettings(destinations=destinations))


def test_destinations_with_the_same_login_share_a_connection() -> None:
    other = attrs.evolve(BOB, passcode="", passcode_file=Path("/secret"))
    found = logins_of(
        settings(
            plain=KeepaliveDestination(destination="/topic/p"),
            one=BOB,
            file=other,
            two=attrs.evolve(BOB, destination="/topic/c"),
            file2=attrs.evolve(other, destination="/topic/d"),
        )
    )
    assert [(str(each), each.own) for each in found] == [
        ("/topic/a, plain (/topic/p)", False),
        ("one (/queue/b), two (/topic/c)", True),
        ("file (/queue/b), file2 (/topic/d)", True),
    ]
    assert "canary" not in repr(found) + str(found)


def test_a_login_of_its_own_is_used_at_the_brokers_of_the_settings() -> None:
    shared, own = logins_of(settings(one=BOB))
    assert shared.broker == attrs.evolve(BROKER, keepalive=())
    address = parse_address(own.broker.address)
    assert [str(each) for each in address.brokers] == ["stomp+ssl://a:61614", "stomp+ssl://b:7000"]
    assert {(each.login, each.passcode) for each in address.brokers} == {("", "")}
    assert address.randomize is False
    assert (own.broker.login, own.broker.passcode, own.broker.client_id) == ("bob", "canary-b", "")
    assert (own.broker.vhost, own.broker.tls_ca) == ("/deploy", Path("/ca"))
    assert own.broker.problems() == ()


def test_destinations_of_the_command_line_stand_for_all() -> None:
    (only,) = logins_of(settings(one=BOB), ["/topic/x"])
    assert (str(only), only.own) == ("/topic/x", False)


def test_what_is_not_needed_is_not_there() -> None:
    quiet = attrs.evolve(BROKER, keepalive=())
    assert logins_of(settings(quiet)) == ()
    (own,) = logins_of(settings(quiet, one=BOB))
    assert own.own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stomp://a:1", "stomp://a:1"),
        ("stomp://u:p@a:1?maxReconnectDelay=0.5", "failover:(stomp://a:1)?maxReconnectDelay=0.5"),
        ("stomp://:p@[fe80::1%25eth0]:1", "failover:(stomp://[fe80::1%eth0]:1)"),
        ("failover:stomp://u:p%29%3F@a?timeout=5", "failover:(stomp://a:61613)?timeout=5"),
    ],
)
def test_an_address_loses_its_logins_and_nothing_else(text: str, expected: str) -> None:
    found = without_credentials(parse_address(text), text)
    assert found == expected
    before, after = parse_address(text), parse_address(found)
    bare = [attrs.evolve(each, login="", passcode="") for each in before.brokers]
    assert attrs.evolve(before, brokers=tuple(bare)) == after
