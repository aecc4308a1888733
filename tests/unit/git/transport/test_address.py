"""Which addresses are allowed, and what is in them. (Refusals are tried in test_mirror_hostile as well.)"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.errors import UsageError
from deploykit.git.transport.address import OriginUrl, parse_origin_url, redacted_url


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://example.net/a/b.git", OriginUrl(scheme="https", host="example.net", path="/a/b.git")),
        (
            "https://me@example.net:8443/x",
            OriginUrl(scheme="https", host="example.net", port=8443, user="me", path="/x"),
        ),
        ("https://[::1]/x", OriginUrl(scheme="https", host="::1", path="/x")),
        (
            "ssh://git@example.net:22/x.git",
            OriginUrl(scheme="ssh", host="example.net", port=22, user="git", path="/x.git"),
        ),
        ("ssh://example.net/~me/x", OriginUrl(scheme="ssh", host="example.net", path="~me/x")),
        ("git@example.net:x.git", OriginUrl(scheme="ssh", host="example.net", user="git", path="x.git")),
        ("example.net:/srv/x.git", OriginUrl(scheme="ssh", host="example.net", path="/srv/x.git")),
        ("git://example.net/x%20y", OriginUrl(scheme="git", host="example.net", path="/x y")),
        ("file:///srv/x%20y.git", OriginUrl(scheme="file", path="/srv/x y.git")),
        ("file://localhost/srv/x", OriginUrl(scheme="file", path="/srv/x")),
        ("/srv/x.git", OriginUrl(scheme="file", path="/srv/x.git")),
        ("./x:y", OriginUrl(scheme="file", path="./x:y")),
        ("relative/path", OriginUrl(scheme="file", path="relative/path")),
    ],
)
def test_addresses_git_knows_are_taken_apart_as_git_does(url: str, address: OriginUrl) -> None:
    assert parse_origin_url(url) == address


def test_http_needs_a_setting() -> None:
    with pytest.raises(UsageError, match="in clear"):
        parse_origin_url("http://example.net/x")
    assert parse_origin_url("http://example.net/x", allow_http=True).scheme == "http"


def test_an_address_is_shown_without_its_user() -> None:
    assert parse_origin_url("https://me@example.net/x").shown == "https://example.net/x"
    assert "secret" not in redacted_url("https://me:secret@example.net/x")
    assert redacted_url("https://me:pass/secret@example.net/x?token=secret#secret") == "https://example.net/x?"
    assert redacted_url("https://me:secret") == "https://"
    assert redacted_url("https://example.net:8443/x") == "https://example.net:8443/x"
    assert redacted_url("https://[::1]:8443/x") == "https://[::1]:8443/x"
    assert redacted_url("https://example.net/me@home.git") == "https://example.net/me@home.git"


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_a_clear_refusal(text: str) -> None:
    try:
        address = parse_origin_url(text)
    except UsageError as error:
        said = str(error)
    else:
        said = ""
        assert not any(c in address.path for c in "\n\0")
        assert not address.host.startswith("-")
        assert not address.user.startswith("-")
    assert said.isprintable()


@given(st.sampled_from(["ssh://", "https://", "git://", "file://"]), st.text(max_size=40))
def test_nothing_in_an_address_can_become_an_option(scheme: str, rest: str) -> None:
    try:
        address = parse_origin_url(scheme + rest)
    except UsageError:
        return
    assert not address.host.startswith("-")
    assert not address.user.startswith("-")
