"""`[web]`: settings that would lock people out, or let others in, are found before the console starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.settings.web import WebAccessSettings, WebSettings

PASSWORDS = Path("/etc/deploykit/console.passwords")


def test_the_defaults_are_sound() -> None:
    assert WebSettings().problems() == ()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (WebSettings(listen="0.0.0.0:8470", url="https://a.example"), "listen: without a login"),
        (WebSettings(listen="0.0.0.0:8470", login="password", password_file=PASSWORDS), "url: needed where other"),
        (WebSettings(login="password"), "password_file: needed"),
        (WebSettings(login="proxy"), "proxies: needed"),
        (WebSettings(login="proxy", proxies=("proxy.example",)), "proxies: expected an address"),
        (WebSettings(url="deploy.example"), "url: expected https://HOST"),
        (WebSettings(banner="two\nlines"), "banner: expected one line"),
        (WebSettings(banner="x" * 301), "banner: expected one line"),
        (WebSettings(url="https://deploy.example/console"), "url: expected https://HOST"),
        (WebSettings(access=(WebAccessSettings(users=()),)), "access[0].users: expected at least one"),
        (WebSettings(session_idle=1), "session_idle"),
    ],
)
def test_what_is_wrong_is_named(settings: WebSettings, says: str) -> None:
    assert any(problem.startswith(says) for problem in settings.problems()), settings.problems()


def test_a_console_for_other_machines_with_all_it_needs() -> None:
    assert (
        WebSettings(
            listen="0.0.0.0:8470", url="https://deploy.example", login="password", password_file=PASSWORDS
        ).problems()
        == ()
    )


def test_days_are_called_days() -> None:
    assert [problem for problem in WebSettings(token_days=0).problems() if "token_days: expected days" in problem]
