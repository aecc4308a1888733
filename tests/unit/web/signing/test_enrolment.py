"""A new passkey that signs: what may be asked for, what is believed of a browser's answer, what operators get."""

from __future__ import annotations

import tomllib

import pytest

from deploykit.config.convert import to_settings
from deploykit.errors import ActionRefused
from deploykit.settings.web import WebSettings
from deploykit.web.signing.enrolment import key_label, key_wanted, read_registration, settings_text
from deploykit.web.signing.places import signing_place


@pytest.mark.parametrize(
    ("settings", "address", "origin", "rp_id"),
    [
        (WebSettings(), "http://localhost:8470", "http://localhost:8470", "localhost"),
        (WebSettings(url="https://Deploy.example.org:443/"), "", "https://deploy.example.org", "deploy.example.org"),
        (
            WebSettings(url="https://deploy.example.org:8443"),
            "http://x",
            "https://deploy.example.org:8443",
            "deploy.example.org",
        ),
        (
            WebSettings(url="https://deploy.example.org", sign_origin="https://sign.example.org"),
            "",
            "https://sign.example.org",
            "sign.example.org",
        ),
    ],
)
def test_a_passkey_belongs_to_the_page_that_signs(settings: WebSettings, address: str, origin: str, rp_id: str) -> None:
    place = signing_place(settings, address)
    assert (place.origin, place.rp_id, place.problem) == (origin, rp_id, "")
    assert place.elsewhere is bool(settings.sign_origin)


@pytest.mark.parametrize("address", ["http://127.0.0.1:8470", "http://[::1]:8470", "http://deploy.example.org", "x"])
def test_where_no_passkey_can_be_the_way_out_is_named(address: str) -> None:
    assert signing_place(WebSettings(), address).problem


def test_a_number_for_an_address_is_answered_with_the_name() -> None:
    assert "open http://localhost:8470" in signing_place(WebSettings(), "http://127.0.0.1:8470").problem


@pytest.mark.parametrize("sites", ["", ",", "shop;", 'a"b', "x" * 101, "shop\u0430", "a/b", ",".join("a" * 50)])
def test_sites_that_are_none_are_refused_at_their_field(sites: str) -> None:
    with pytest.raises(ActionRefused) as caught:
        key_wanted(sites, "ann", "ann" * 20)
    assert list(caught.value.problems) == ["sites"]


@pytest.mark.parametrize("principal", ["a b", 'a"b', "*", "a,b", "!a", "\u0430nn", "x" * 256])
def test_a_principal_that_is_none_is_refused_at_its_field(principal: str) -> None:
    with pytest.raises(ActionRefused) as caught:
        key_wanted("shop", principal, "ann")
    assert list(caught.value.problems) == ["principal"]


def test_blanks_and_commas_part_sites() -> None:
    wanted = key_wanted(" shop , blog* x", "", "ann")
    assert (wanted.sites, wanted.principal) == ("shop,blog*,x", "ann")
    assert wanted.label == "SIGN shop, blog*, x releases (ann)"


def test_a_name_hides_nothing() -> None:
    assert key_label("shop", "a\u202e\n") == "SIGN shop releases (a\\u{202e}\\u{a})"


def test_the_settings_for_operators_can_be_read() -> None:
    place = signing_place(WebSettings(url="https://deploy.example.org"), "")
    text = settings_text("shop,blog*", "ann@example.com", place)
    settings = to_settings(tomllib.loads(f'node = "web1"\n{text}'))
    assert settings.trust.rp_ids == ("deploy.example.org",)
    assert settings.trust.origins == ("https://deploy.example.org",)
    assert settings.trust.verify_required
    (grant,) = settings.trust.grants
    assert (grant.principal, grant.types, grant.sites) == ("ann@example.com", ("rollout.approved",), ("shop", "blog*"))


@pytest.mark.parametrize(
    "registration", ["", "x", "{}", "[]", '{"id":"a","rawId":"a","type":"public-key","response":{}}', "\x00" * 100]
)
def test_what_is_no_registration_is_refused(registration: str) -> None:
    with pytest.raises(ActionRefused, match="does not count"):
        read_registration(registration, "c", signing_place(WebSettings(), "http://localhost"))
