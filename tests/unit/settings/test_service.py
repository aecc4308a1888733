"""`[service]`: pages only where no other machine reaches them, and never two daemons at one address by one setting."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.config import parse_settings
from deploykit.errors import SettingsError
from deploykit.settings import ServiceSettings
from deploykit.settings.service import PagesAddress


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("", None),
        ("127.0.0.1:9464", PagesAddress(host="127.0.0.1", port=9464)),
        ("127.3.2.1:0", PagesAddress(host="127.3.2.1", port=0)),
        ("localhost:9464", PagesAddress(host="127.0.0.1", port=9464)),
        ("[::1]:9464", PagesAddress(host="::1", port=9464)),
        ("unix:/run/deploykit/agent.sock", PagesAddress(path=Path("/run/deploykit/agent.sock"))),
    ],
)
def test_an_address_of_this_machine_is_taken(text: str, address: PagesAddress | None) -> None:
    settings = parse_settings(f'node = "web1"\n[service]\nlisten = "{text}"\n'.encode()).service
    assert settings.address("agent") == address
    assert address is None or str(address) == text.replace("localhost", "127.0.0.1")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0.0.0.0:9464", "expected a loopback address, not '0.0.0.0'"),
        ("[::]:9464", "expected a loopback address, not '::'"),
        ("[::ffff:10.0.0.1]:9464", "expected a loopback address"),
        ("10.1.2.3:9464", "expected a loopback address"),
        ("node.example.org:9464", "expected a loopback address"),
        ("2130706433:9464", "expected a loopback address"),
        ("127.0.0.1", 'expected "127.0.0.1:PORT"'),
        ("127.0.0.1:70000", 'expected "127.0.0.1:PORT"'),
        ("::1:9464", 'expected "127.0.0.1:PORT"'),
        (":9464", 'expected "127.0.0.1:PORT"'),
        ("127.0.0.1:9464/metrics", 'expected "127.0.0.1:PORT"'),
        ("unix:run/agent.sock", "expected an absolute path after unix:"),
        ("unix:/run/agent/", "expected an absolute path after unix:"),
        ("unix:/" + "x" * 100, "expected a path of at most 100 bytes"),
    ],
)
def test_an_address_that_others_reach_or_that_is_none_is_refused(text: str, found: str) -> None:
    (problem,) = ServiceSettings(listen=text).problems()
    assert problem.startswith(f"listen: {found}")
    with pytest.raises(SettingsError) as refused:
        parse_settings(f'node = "web1"\n[service]\nlisten_of = {{ relay = "{text}" }}\n'.encode())
    (problem,) = refused.value.problems
    assert f"service.listen_of.relay: {found}" in problem


def test_a_daemon_may_have_an_address_of_its_own_or_none() -> None:
    settings = ServiceSettings(listen="127.0.0.1:9464", listen_of={"relay": "127.0.0.1:9465", "jenkins": ""})
    addresses = {name: settings.address(name) for name in ("agent", "relay", "jenkins")}
    assert {name: str(address) for name, address in addresses.items()} == {
        "agent": "127.0.0.1:9464",
        "relay": "127.0.0.1:9465",
        "jenkins": "None",
    }


def test_a_daemon_that_there_is_not_has_no_address() -> None:
    assert ServiceSettings(listen_of={"agnet": "127.0.0.1:9464"}).problems() == (
        "listen_of.agnet: expected one of access, agent, jenkins, keepalive, packages, relay, run, web, webhook",
    )
