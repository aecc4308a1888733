"""The broker's own reason: what is shown of an ERROR, by what each broker says."""

from __future__ import annotations

import pytest

from deploykit.bus.stomp.frames import Received
from deploykit.bus.stomp.reason import LONGEST, reason_of


def shown(body: bytes, *secrets: str, **headers: str) -> str:
    return reason_of(Received("ERROR", headers, body), secrets)


@pytest.mark.parametrize(
    ("message", "body", "reason"),
    [
        # RabbitMQ 3.10
        ("Bad CONNECT", b"Access refused for user 'deploy'\n", "Bad CONNECT: Access refused for user 'deploy'"),
        ("Bad CONNECT", b"Virtual host '/nope' access denied", "Bad CONNECT: Virtual host '/nope' access denied"),
        ("not_found", b"NOT_FOUND - no queue 'x' in vhost '/'", "NOT_FOUND - no queue 'x' in vhost '/'"),
        (
            "Unknown destination",
            b"'/foo/bar' is not a valid destination.\nValid destination types are: /temp-queue.\n",
            "Unknown destination: '/foo/bar' is not a valid destination",
        ),
        # ActiveMQ 5.17
        (
            "User name [deploy] or password is invalid.",
            b"User name [deploy] or password is invalid.",
            "User name [deploy] or password is invalid",
        ),
        (
            "Broker: b - Client: me already connected from tcp://127.0.0.1:60288",
            b"javax.jms.InvalidClientIDException: Broker: b - Client: me already connected from tcp://127.0.0.1:60288\n"
            b"\tat org.apache.activemq.broker.region.RegionBroker.addConnection(RegionBroker.java:265)\n",
            "Broker: b - Client: me already connected from tcp://127.0.0.1:60288",
        ),
        # the embedded broker, and what others may say
        ("access refused", b"login or passcode is wrong", "access refused: login or passcode is wrong"),
        ("malformed frame received", b"The message:\n-----\nSEND\n\nits body\n-----", "malformed frame received"),
        ("", b"\r\n\r\nno room left\r\nmore", "no room left"),
        ("no room.", b"", "no room"),
        ("is it open?", b"", "is it open?"),
        ("", b"", "no reason given"),
        (" ... ", b"\x00\x01", "no reason given"),
    ],
)
def test_the_reason_is_the_kind_and_what_the_body_adds(message: str, body: bytes, reason: str) -> None:
    assert shown(body, message=message) == reason


def test_a_secret_is_shown_in_neither_half_nor_in_part() -> None:
    said = shown(b"for can\\ary and can\\\\ary of " + b"y" * 185 + b"can\\ary", "can\\ary", message="no can\\ary!")
    assert "can" not in said
    assert said.count("***") >= 3


def test_a_reason_is_one_printable_line_of_bounded_length() -> None:
    said = shown(b"\x1b[2J\xff\xe2\x80\xae" + b"b" * 100_000 + b"\nmore", message="a\u202e\r\n" + "a" * 1000)
    assert said.isprintable()
    assert len(said) <= LONGEST
    assert set("ab") <= set(said)


def test_no_secret_is_not_a_secret_that_stands_everywhere() -> None:
    assert shown(b"why", "", message="no") == "no: why"
