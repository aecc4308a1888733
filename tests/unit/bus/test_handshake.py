"""CONNECT and its answer: what goes out, what is agreed on, what may be shown."""

from __future__ import annotations

import attrs
import pytest

from deploykit.bus.stomp.frames import Received
from deploykit.bus.stomp.handshake import agree, connect_headers, redacted
from deploykit.errors import ClientIdInUse, ConnectError, LoginRefused
from deploykit.settings import BusSettings
from deploykit.settings.address import Broker

BROKER = Broker(host="b", login="ada", passcode="can\\ary")
SETTINGS = BusSettings(address="stomp://b", login="other", passcode="canary-2", versions=("1.2", "1.1"), heartbeat=10)


def connected(**headers: str) -> Received:
    return Received("CONNECTED", {name.replace("_", "-"): value for name, value in headers.items()})


def test_a_brokers_own_login_wins_and_never_goes_with_the_settings_passcode() -> None:
    assert connect_headers(BROKER, SETTINGS, client_id="", escape_login=False)["passcode"] == "can\\ary"
    alone = connect_headers(attrs.evolve(BROKER, passcode=""), SETTINGS, client_id="", escape_login=False)
    assert (alone["login"], "passcode" in alone) == ("ada", False)
    none = connect_headers(Broker(host="b"), SETTINGS, client_id="me", escape_login=False)
    assert (none["login"], none["passcode"], none["client-id"]) == ("other", "canary-2", "me")
    assert connect_headers(BROKER, SETTINGS, client_id="", escape_login=True)["passcode"] == "can\\\\ary"


def test_what_is_empty_is_not_sent() -> None:
    bare = attrs.evolve(SETTINGS, login="", passcode="")
    assert set(connect_headers(Broker(host="b"), bare, client_id="", escape_login=True)) == {
        "accept-version",
        "host",
        "heart-beat",
    }


def test_version_dialect_escapes_and_beats_come_from_the_answer() -> None:
    agreed = agree(connected(version="1.1", server="RabbitMQ/3.10.8", heart_beat="5000,10000"), BROKER, SETTINGS)
    assert (agreed.version, agreed.dialect.name, agreed.server) == ("1.1", "rabbitmq", "RabbitMQ/3.10.8")
    assert agreed.rule.breaks == "\n"
    assert agreed.beats.native_send
    assert agreed.beats.native_expect


@pytest.mark.parametrize("version", ["1.0", "1.3", "2.0", ""])
def test_a_version_that_was_not_offered_is_no_agreement(version: str) -> None:
    with pytest.raises(ConnectError, match="was not offered"):
        agree(connected(version=version), BROKER, SETTINGS)


def test_no_version_is_1_0() -> None:
    assert agree(connected(), BROKER, attrs.evolve(SETTINGS, versions=("1.0",))).version == "1.0"


@pytest.mark.parametrize(
    ("headers", "body", "error"),
    [
        ({"message": "Bad CONNECT"}, b"Access refused for user 'ada'\n", LoginRefused),
        ({"message": "User name [ada] or password is invalid."}, b"java.lang.SecurityException: ...", LoginRefused),
        ({"message": "Bad CONNECT"}, b"Virtual host '/nope' access denied", LoginRefused),
        ({"message": "Broker: x - Client: me already connected from y"}, b"", ClientIdInUse),
        ({"message": "too many connections"}, b"a long trace\nthat mentions a password", ConnectError),
        ({}, b"", ConnectError),
    ],
)
def test_a_refused_login_is_told_from_other_refusals(
    headers: dict[str, str], body: bytes, error: type[ConnectError]
) -> None:
    with pytest.raises(ConnectError) as caught:
        agree(Received("ERROR", headers, body), BROKER, SETTINGS)
    assert type(caught.value) is error


def test_a_refused_login_says_why_in_the_brokers_words_and_what_to_look_at() -> None:
    with pytest.raises(LoginRefused) as caught:
        agree(Received("ERROR", {"message": "Bad CONNECT"}, b"Virtual host '/x' access denied."), BROKER, SETTINGS)
    text = "stomp://b:61613: it refused the login: Bad CONNECT: Virtual host '/x' access denied (check vhost"
    assert str(caught.value).startswith(text)


def test_a_passcode_that_is_an_ordinary_word_is_blotted_out_and_the_refusal_known_all_the_same() -> None:
    broker = attrs.evolve(BROKER, passcode="password")
    with pytest.raises(LoginRefused) as caught:
        agree(Received("ERROR", {"message": "User name [ada] or password is invalid."}), broker, SETTINGS)
    assert "password" not in caught.value.problem


def test_no_passcode_and_no_control_character_is_shown() -> None:
    said = {"message": "no can\\ary, no canary-2,\x1b[2J\u202e no " + "x" * 1000}
    shown = redacted(Received("ERROR", said), BROKER, SETTINGS)
    assert "ary" not in shown
    assert shown.isprintable()
    assert len(shown) <= 300


@pytest.mark.parametrize("passcode", ["can\\ary", "can\\\\ary", "canary-2"])
def test_a_passcode_is_not_shown_in_part_nor_as_the_name_of_the_server(passcode: str) -> None:
    shown = redacted(Received("ERROR", {}, b"x" * 195 + passcode.encode() + b"\nmore"), BROKER, SETTINGS)
    assert "can" not in shown
    assert agree(connected(server=f"Foo/{passcode}", version="1.2"), BROKER, SETTINGS).server == "Foo/***"
