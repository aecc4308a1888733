"""`[notify]`: what is wrong is found with its path, and no line shows an address that is a secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, get_args

import attrs
import pytest

from deploykit.config import load_settings
from deploykit.config.crosschecks import warnings
from deploykit.names import NodeName
from deploykit.settings import Settings
from deploykit.settings.notify import (
    TEMPLATE_FIELDS,
    ChannelKind,
    ChannelSettings,
    NotifyEvent,
    NotifySettings,
    irc_channel,
    is_loopback,
    template_problems,
)
from deploykit.settings.trust import TrustSettings

SECRET = Path("/etc/deploykit/secret")
RIGHT: dict[str, dict[str, Any]] = {
    "irc": {"url": "ircs://irc.example.org:6697/#ops"},
    "matrix": {"url": "https://matrix.example.org", "room": "!abc:example.org", "secret_file": SECRET},
    "slack": {"secret_file": SECRET},
    "webhook": {"url": "https://hooks.example.org/in?x=1", "secret_file": SECRET},
    "cdevents": {"url": "http://127.0.0.1:8080/events", "secret_file": SECRET},
    "email": {"url": "smtp://mail.example.org:25", "sender": "dk@example.org", "to": ("ops@example.org",)},
}


def problems(kind: str, **changes: Any) -> str:
    return "\n".join(ChannelSettings(kind=kind, **{**RIGHT[kind], **changes}).problems())  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", RIGHT)
def test_a_right_channel_has_no_problems(kind: str) -> None:
    assert problems(kind) == ""


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        ("irc", {"url": "irc://irc.example.org/#ops"}, "url: expected ircs://…: without TLS only this machine"),
        ("irc", {"url": "ircs://irc.example.org/"}, "url: expected ircs://HOST:6697/#channel"),
        ("irc", {"url": "ircs://irc.example.org/#a,b"}, "url: expected ircs://"),
        ("irc", {"url": "ircs://me:pw@irc.example.org/#a"}, "url: expected ircs://"),
        ("irc", {"url": "ircs://irc.example.org/#a\r\nQUIT"}, "url: expected ircs://"),
        ("irc", {"user": "two words"}, "user: expected a nick"),
        ("matrix", {"room": "#ops:example.org"}, "room: expected the room's id"),
        ("matrix", {"url": "http://matrix.example.org"}, "url: expected https://…: without TLS only this machine"),
        ("matrix", {"secret_file": None}, "secret_file: needed"),
        ("slack", {"url": "https://hooks.example.org/T0/B0/x"}, "url: leave it empty"),
        ("slack", {"secret_file": None}, "secret_file: needed"),
        ("webhook", {"url": "https://me:pw@hooks.example.org/"}, "url: expected https://HOST/PATH, without a user"),
        ("webhook", {"url": "https://127.0.0.1.example.org\n/"}, "url: expected https://HOST/PATH"),
        ("cdevents", {"url": "http://127.0.0.1.example.org/"}, "url: expected https://…"),
        ("email", {"url": "https://mail.example.org"}, "url: expected smtp://HOST:25 or smtps://HOST"),
        ("email", {"to": ()}, "sender, to: needed for e-mail"),
        ("email", {"to": ("ops@example.org\r\nBcc: x@y.z",)}, "to: expected an address"),
        ("email", {"sender": "a@b, c@d"}, "sender: expected an address"),
        ("email", {"sender": "a..b@example.org"}, "sender: expected an address"),
        ("email", {"sender": "a.@example.org"}, "sender: expected an address"),
        ("email", {"to": (".a@example.org",)}, "to: expected an address"),
        ("email", {"user": "dk"}, "secret_file: needed: the password of user"),
        ("email", {"digest": 0.0}, "digest: expected seconds above 0"),
        ("irc", {"per_minute": 0}, "per_minute: expected at least 1"),
        ("irc", {"per_minute": 100_000}, "per_minute: expected at most 6000"),
        ("irc", {"events": ()}, "events: expected some of notice"),
        ("irc", {"sites": ("",)}, "sites: expected patterns"),
        ("irc", {"template": "{line} {password}"}, "template: unknown field 'password'; there are line, event"),
        ("irc", {"template": "{line.__class__}"}, "template: unknown field"),
        ("irc", {"template": "{line!r:>9}"}, "template: line: write {line} and nothing more"),
        ("irc", {"template": "{line"}, "template: a brace without its other one"),
        ("irc", {"template": "a\nb"}, "template: expected one line"),
        ("irc", {"template": "{}"}, "template: unknown field ''"),
    ],
)
def test_what_is_wrong_with_a_channel_is_named(kind: str, changes: dict[str, Any], says: str) -> None:
    found = problems(kind, **changes)
    assert any(line.startswith(says) for line in found.splitlines()), found
    assert "me:pw" not in found


def test_problems_carry_the_path_of_their_channel() -> None:
    wrong = attrs.evolve(ChannelSettings(kind="irc", url="ircs://a.example.org/#a"), per_minute=0)
    assert NotifySettings(channels={"ops": wrong}).problems() == (
        "channels.ops.per_minute: expected at least 1, not 0",
    )
    assert NotifySettings(channels={"o p": attrs.evolve(wrong, per_minute=1)}).problems() == (
        "channels.'o p': expected a name of letters, digits, dots, dashes and underscores",
    )
    assert NotifySettings(console="deploy.example.org", keep=0.0).problems() == (
        "keep: expected seconds above 0 and below 1e+09, not 0",
        "console: expected https://HOST",
    )


def test_the_channel_of_an_address() -> None:
    assert irc_channel("ircs://h/##big") == "##big"
    assert irc_channel("ircs://h/&local") == "&local"
    assert irc_channel("ircs://h") == ""
    assert [is_loopback(host) for host in ("127.9.9.9", "::1", "10.0.0.1", "localhost.example.org")] == [
        True,
        True,
        False,
        False,
    ]


def test_a_template_may_hold_braces_of_its_own() -> None:
    assert list(template_problems("{{x}} {line} {site}")) == []


PAGE = (Path(__file__).parents[3] / "docs" / "notify.md").read_text(encoding="utf-8")


def test_the_example_of_the_page_is_right(tmp_path: Path) -> None:
    example = next(iter(re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)))
    file = tmp_path / "deploykit.toml"
    file.write_text(f'node = "hub"\n[broker]\naddress = "stomp://127.0.0.1"\n{example}')
    file.chmod(0o600)
    settings = load_settings(file)
    assert set(settings.notify.channels) == {"ops", "shop", "oncall"}
    assert settings.notify.channels["ops"].events == ("failure", "approval", "lock")


def test_the_page_names_every_field_event_and_kind() -> None:
    for name in (*TEMPLATE_FIELDS, *get_args(NotifyEvent), *get_args(ChannelKind)):
        assert f"`{name}`" in PAGE, name


def test_what_makes_lines_less_useful_is_warned_of() -> None:
    channel = ChannelSettings(kind="irc", url="ircs://irc.example.org/#ops")
    settings = Settings(node=NodeName("hub"), notify=NotifySettings(channels={"ops": channel}))
    assert warnings(settings) == [
        "notify: without trust.allowed_signers nothing is verified, and each line says so",
        "notify.console: not set: a line about an approval carries no link to where it is given",
    ]
    better = NotifySettings(channels={"ops": channel}, console="https://c.example.org")
    trust = TrustSettings(allowed_signers=Path("/etc/deploykit/allowed_signers"))
    assert warnings(attrs.evolve(settings, notify=better, trust=trust)) == []
    assert warnings(Settings(node=NodeName("hub"))) == []
