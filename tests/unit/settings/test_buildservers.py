"""Settings of a build server: what is refused, each problem with its way out, and no secret in sight."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from deploykit.config.load import parse_settings
from deploykit.settings.buildservers import BuildServerSettings

SECRET = Path("/etc/deploykit/secret")


def made(**more: Any) -> BuildServerSettings:
    return BuildServerSettings(**{"url": "https://ci.example.org/jenkins/", **more})


@pytest.mark.parametrize(
    "settings",
    [
        made(),
        made(user="deploykit", token_file=SECRET),
        made(user="deploykit", password_file=SECRET),
        made(url="http://localhost:8080"),
        made(url="http://127.0.0.1:8080/"),
        made(url="http://[::1]:8080/"),
        made(url="http://ci.example.org/", allow_http=True),
        made(delay=0),
        made(kind="http", url="https://ci.example.org/{job}?ref={REF}", body='{"ref": "{REF}"}', secret_file=SECRET),
        made(kind="http", headers={"Accept": "text/plain"}, headers_file=SECRET, method="GET"),
    ],
)
def test_sound_settings_have_no_problems(settings: BuildServerSettings) -> None:
    assert settings.problems() == ()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"url": "ci.example.org"}, "url: expected https://HOST/PATH"),
        ({"url": "ftp://ci.example.org/"}, "url: expected https://HOST/PATH"),
        ({"url": "https:///jenkins"}, "url: expected https://HOST/PATH"),
        ({"url": "https://h:0/"}, "url: expected https://HOST/PATH"),
        ({"url": "https://[::1/"}, "url: not a URL"),
        ({"url": "https://h:99999999/"}, "url: not a URL"),
        ({"url": "https://me:canary@h/"}, "url: holds a login (use user and token_file)"),
        ({"url": "https://h/a b"}, "url: holds a character that no URL has (percent-encode it)"),
        ({"url": "https://h/\r\nX: y"}, "url: holds a character that no URL has (percent-encode it)"),
        ({"url": "https://h/a/../b"}, "url: its path holds . or .."),
        ({"url": "https://h/?x=1"}, "url: of Jenkins itself, without a query"),
        ({"url": "https://h/{job}"}, 'url: {…} is only for kind = "http"'),
        ({"url": "http://ci.example.org/"}, "url: http:// encrypts nothing"),
        ({"url": "http://127.0.0.1.example.org/"}, "url: http:// encrypts nothing"),
        ({"kind": "http", "url": "https://{HOST}/x"}, "url: {…} may stand in its path and query only"),
        ({"kind": "http", "url": "https://h/x#{REF}"}, "url: {…} may stand in its path and query only"),
        ({"user": "me"}, "user: goes together with token_file"),
        ({"token_file": SECRET}, "user: goes together with token_file"),
        ({"user": "me", "token_file": SECRET, "password_file": SECRET}, "token_file, password_file: give one of them"),
        ({"user": "me:you", "token_file": SECRET}, "user: holds a colon or a control character"),
        ({"timeout": 0.0}, "timeout: expected seconds above 0"),
        ({"connect_timeout": 0.0}, "connect_timeout: expected seconds above 0"),
        ({"delay": -1.0}, "delay: expected seconds from 0"),
        ({"body": "x"}, 'body: only for kind = "http"'),
        ({"headers": {"A": "b"}}, 'headers: only for kind = "http"'),
        ({"secret_file": SECRET}, 'secret_file: only for kind = "http"'),
        ({"kind": "http", "headers": {"A B": "c"}}, "headers: 'A B' is not a header"),
        ({"kind": "http", "headers": {"A": "c\r\nB: d"}}, "headers: 'A' is not a header"),
        ({"kind": "http", "headers": {"Host": "evil"}}, "headers: 'Host' is written by deploykit itself"),
        ({"kind": "http", "signature_header": "A:"}, "signature_header: not the name of a header"),
        ({"kind": "http", "method": "GET", "body": "x"}, "body: a GET has none"),
        ({"kind": "http", "accept": ()}, "accept: expected status codes"),
        ({"kind": "http", "accept": (404,)}, "accept: expected status codes"),
    ],
)
def test_each_problem_is_named(more: dict[str, Any], says: str) -> None:
    problems = made(**more).problems()
    assert any(problem.startswith(says) for problem in problems), problems
    assert "canary" not in " ".join(problems)


def test_what_may_hold_a_secret_is_not_in_repr() -> None:
    settings = made(
        kind="http",
        url="https://h/x?token=canary",
        headers={"Authorization": "Bearer canary"},
        body='{"token": "canary"}',
    )
    assert "canary" not in repr(settings)


def test_the_files_with_secrets_are_named_by_their_settings() -> None:
    assert made(user="me", token_file=SECRET).secret_files() == {"token_file": SECRET}
    assert made().secret_files() == {}


def test_the_placeholders_of_url_and_body_are_known_and_json_braces_are_none() -> None:
    settings = made(kind="http", url="https://h/{job}", body='{"ref": "{REF}", "x": {}, "y": {"z": 1}}')
    assert settings.placeholders() == {"job", "REF"}


def blocks() -> list[str]:
    page = Path(__file__).parents[3] / "docs" / "jenkins.md"
    found = re.findall(r"^```toml\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [block for block in found if "[jenkins.servers." in block]


@pytest.mark.parametrize("block", blocks())
def test_the_examples_of_the_page_are_sound(block: str) -> None:
    settings = parse_settings(block.encode(), environ={})
    assert settings.jenkins.servers
    assert len(blocks()) >= 2
