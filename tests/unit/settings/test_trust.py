"""The `[trust]` table: what no browser would ever write is refused, for it would match no signature."""

from __future__ import annotations

import pytest

from deploykit.settings.trust import TrustSettings


@pytest.mark.parametrize(
    "origin",
    [
        *("https://deploy.example.org", "https://a", "https://d.example.org:8443", "https://xn--bcher-kva.example"),
        *("http://localhost", "http://localhost:8000", "https://localhost", "http://app.localhost:8000"),
    ],
)
def test_an_origin_as_browsers_write_it_is_taken(origin: str) -> None:
    assert TrustSettings(origins=(origin,), rp_ids=("localhost",)).problems() == ()


@pytest.mark.parametrize(
    "origin",
    [
        *("https://deploy.example.org/", "https://D.example.org", "https://127.0.0.1", "https://[::1]", "https://"),
        *("http://deploy.example.org", "https://a:443", "https://a:0", "https://a..b", "https://a.", "https://a:80a"),
        *("", "*", "https://*.example.org", "https://a\n", "https://u@a", "https://-a", "null"),
    ],
)
def test_any_other_origin_is_refused(origin: str) -> None:
    (problem,) = TrustSettings(origins=(origin,), rp_ids=("localhost",)).problems()
    assert problem.startswith("origins: expected https://HOST")


@pytest.mark.parametrize("name", ["a", "deploy.example.org", "localhost", "1.example", "3com.com"])
def test_an_rp_id_is_the_name_of_a_host(name: str) -> None:
    assert TrustSettings(origins=("https://a",), rp_ids=(name,)).problems() == ()


@pytest.mark.parametrize("name", ["127.0.0.1", "a.", "A.example", "https://a", "a b", "", "1", "ssh:", "*"])
def test_any_other_rp_id_is_refused(name: str) -> None:
    (problem,) = TrustSettings(origins=("https://a",), rp_ids=(name,)).problems()
    assert problem.startswith("rp_ids: expected the name of a host")


def test_one_list_without_the_other_accepts_no_passkey_and_is_refused() -> None:
    assert TrustSettings(origins=("https://a",)).problems() == (
        "rp_ids: origins is given, but passkeys count only where both are",
    )
    assert TrustSettings(rp_ids=("a",)).problems() == (
        "origins: rp_ids is given, but passkeys count only where both are",
    )
