"""Broker addresses: what is accepted, what is refused, and that no error, repr or warning shows a credential."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import AddressError
from deploykit.settings import BusSettings
from deploykit.settings.address import Broker, parse_address


def brokers(text: str) -> list[str]:
    return [str(broker) for broker in parse_address(text).brokers]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("stomp://h", ["stomp://h:61613"]),
        ("stomp+ssl://h", ["stomp+ssl://h:61614"]),
        ("STOMP://h:1/", ["stomp://h:1"]),
        ("tcp://h:1", ["stomp://h:1"]),
        ("ssl://h:1", ["stomp+ssl://h:1"]),
        ("stomp://[::1]:1", ["stomp://[::1]:1"]),
        ("stomp://[fe80::1%eth0]", ["stomp://[fe80::1%eth0]:61613"]),
        ("stomp://[fe80::1%25br-lan.7]:1", ["stomp://[fe80::1%br-lan.7]:1"]),
        ("failover:(stomp://a:1,stomp://b:2)", ["stomp://a:1", "stomp://b:2"]),
        ("failover:(stomp://a:1 , stomp://b:2)?randomize=false", ["stomp://a:1", "stomp://b:2"]),
        ("failover:stomp://a:1,stomp://b:2?randomize=true", ["stomp://a:1", "stomp://b:2"]),
        # The original's form.
        ("failover://(stomp://u:p@a:61613,stomp://u:p@b:61613)", ["stomp://a:61613", "stomp://b:61613"]),
        ("failover://(stomp+ssl://u:p@a:61614)?MaxReconnectDelay=30", ["stomp+ssl://a:61614"]),
    ],
)
def test_every_form_is_understood(text: str, expected: list[str]) -> None:
    assert brokers(text) == expected


def test_credentials_are_read_percent_decoded_and_never_shown() -> None:
    address = parse_address("stomp://ad%40:can%3Aary%2F%40@h:1")
    (broker,) = address.brokers
    assert (broker.login, broker.passcode) == ("ad@", "can:ary/@")
    assert "can" not in repr(address) + str(address) + repr(broker) + str(broker)


def test_a_raw_at_sign_in_a_passcode_does_not_move_the_host() -> None:
    (broker,) = parse_address("stomp://u:p@ss@h:1").brokers
    assert (broker.host, broker.passcode) == ("h", "p@ss")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        "h:1",
        "stomp://[zz::1]",
        "stomp://[::1%]",
        "http://h",
        "stomp://",
        "stomp://h:0",
        "stomp://h:65536",
        "stomp://h:x",
        "stomp://h h",
        "stomp://a,stomp://b",
        "failover:",
        "failover:()",
        "failover:(stomp://a,)",
        "failover:(stomp://a",
        "failover:(stomp://a)x",
        "failover:(failover:(stomp://a))",
        "stomp://u%0a:p@h",
        "stomp://u:p%0a@h",
        "stomp://u:p%00@h",
    ],
)
def test_nonsense_is_refused(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


@pytest.mark.parametrize("text", ["failover:(stomp://a,stomp+ssl://b)", "failover:(ssl://a,tcp://b)"])
def test_tls_and_plain_brokers_are_never_mixed(text: str) -> None:
    with pytest.raises(AddressError, match="mixes TLS and plain"):
        parse_address(text)


@pytest.mark.parametrize(
    "text",
    [
        "user:canary@host:61613",
        "stomp:user:canary@host",
        "canary",
        "failover:(stomp://u:canary@h:bad,stomp://u:canary@g)",
        "failover://(u:canary@h)",
        "stomp://u:canary@",
        "stomp://u:canary?x@h:1x",
        "stomp://u:12?canary@h:1",
        "failover:stomp://u:12?canary@h,stomp://g",
        "failover:(stomp://u:12)?x=canary@h",
        "failover:(stomp://u:canary@h",
        "canary://h",
    ][:-1],
)
def test_an_error_never_shows_what_may_be_a_passcode(text: str) -> None:
    with pytest.raises(AddressError) as caught:
        parse_address(text)
    assert "canary" not in str(caught.value) + repr(caught.value)


def test_options_are_read_whatever_their_case_and_in_the_gems_units() -> None:
    address = parse_address(
        "failover://(stomp://h)?INITIALreconnectDelay=250&MaxReconnectDelay=30000&Randomize=TRUE&backOffMultiplier=3"
    )
    assert address.backoff_initial == 0.25
    assert address.backoff_max == 30
    assert address.randomize is True
    assert address.backoff_multiplier == 3
    assert address.warnings == ()


def test_unknown_and_declined_options_are_warned_about_by_name() -> None:
    address = parse_address("failover:(stomp://h)?foo%0abar=1&maxReconnectAttempts=5&useExponentialBackOff=false")
    assert len(address.warnings) == 3
    assert "foo\\nbar" in address.warnings[0]
    assert "maxReconnectAttempts" in address.warnings[1]
    assert all(warning.isprintable() for warning in address.warnings)


def test_the_originals_own_sample_options_are_understood() -> None:
    address = parse_address("failover://(stomp://u:p@h)?initialReconnectDelay=0.01&Timeout=-1&maxReconnectAttempts=0")
    assert address.backoff_initial == 0.01
    assert address.connect_timeout is None
    assert [warning.split()[2] for warning in address.warnings] == ["Timeout"]  # no attempts: as many as it takes


@pytest.mark.parametrize(
    ("option", "field", "seconds"),
    [
        ("MaxReconnectDelay=30", "backoff_max", 30.0),
        ("maxReconnectDelay=30000.0", "backoff_max", 30.0),
        ("timeout=5000", "connect_timeout", 5.0),
        ("maxReconnectDelay=0", "backoff_max", None),
        ("initialReconnectDelay=0", "backoff_initial", None),
        ("initialReconnectDelay=0.0", "backoff_initial", None),
        ("connectTimeout=0", "connect_timeout", None),
        ("connectTimeout=-1", "connect_timeout", None),
    ],
)
def test_a_value_that_makes_sense_in_one_unit_only_is_taken_so_with_a_warning(
    option: str, field: str, seconds: float | None
) -> None:
    address = parse_address(f"failover:(stomp://h)?{option}")
    assert getattr(address, field) == seconds
    (warning,) = address.warnings
    assert option.partition("=")[0] in warning


@pytest.mark.parametrize(
    ("option", "field", "seconds"),
    [
        ("maxReconnectDelay=30.0", "backoff_max", 30.0),
        ("maxReconnectDelay=500", "backoff_max", 0.5),
        ("initialReconnectDelay=10", "backoff_initial", 0.01),
        ("timeout=5", "connect_timeout", 5.0),
    ],
)
def test_a_value_in_its_own_unit_needs_no_warning(option: str, field: str, seconds: float) -> None:
    address = parse_address(f"failover:(stomp://h)?{option}")
    assert getattr(address, field) == seconds
    assert address.warnings == ()


@pytest.mark.parametrize(
    "option",
    [
        "maxReconnectAttempts=0",
        "maxReconnectAttempts=-1",
        "useExponentialBackOff=true",
        "reliable=True",
        "backup=false",
    ],
)
def test_what_the_bus_does_anyway_needs_no_warning(option: str) -> None:
    assert parse_address(f"failover:(stomp://h)?{option}").warnings == ()


@pytest.mark.parametrize(
    "option",
    [
        "initialReconnectDelay=-1",
        "timeout=-2",
        "randomize=perhaps",
        "maxReconnectDelay=-1",
        "backOffMultiplier=0.5",
    ],
)
def test_a_wrong_option_value_is_refused(option: str) -> None:
    with pytest.raises(AddressError):
        parse_address(f"failover:(stomp://h)?{option}")


@given(st.text(max_size=200))
def test_any_text_is_an_address_or_an_address_error(text: str) -> None:
    for candidate in (text, f"stomp://{text}", f"failover:({text})?{text}"):
        with contextlib.suppress(AddressError):
            assert parse_address(candidate).brokers


@given(st.text(alphabet="ab/:@?%&#,()[] é\\", max_size=12), st.text(alphabet="ab/:@?%&#,()[] é\\", max_size=12))
def test_quoted_credentials_come_back_whatever_they_hold(login: str, passcode: str) -> None:
    from urllib.parse import quote

    text = f"failover:(stomp://{quote(login, safe='')}:{quote(passcode, safe='')}@h:1)?randomize=false"
    assert parse_address(text).brokers == (Broker(host="h", port=1, login=login, passcode=passcode),)


@pytest.mark.parametrize(
    "address", ["stomp://u:canary@h", "failover:(stomp://u:canary@h,stomp://v:canary@g)", "x://canary@"]
)
def test_settings_show_an_address_without_its_credentials(address: str) -> None:
    assert "canary" not in repr(BusSettings(address=address, passcode="canary", login="canary"))
