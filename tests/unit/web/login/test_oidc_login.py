"""The login by an OpenID Connect provider: real HTTP, real signatures, and a provider that lies."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import attrs
import httpx
import pytest

from deploykit.settings.oidc import OidcSettings
from deploykit.web.login.apitokens import TokenAsked
from deploykit.web.login.oidc import OidcProvider
from tests.support.badservers import dripping
from tests.support.loginworld import OWN, access, form
from tests.support.oidcprovider import Lie
from tests.support.oidcworld import COOKIE, SESSION, URL, OidcWorld, oidc_world


@pytest.fixture
def world(tmp_path: Path) -> Iterator[OidcWorld]:
    with oidc_world(tmp_path) as made:
        yield made


def problem(world: OidcWorld) -> str:
    """Log in, and return what the page says; nobody may be logged in by it."""
    world.jar.pop(SESSION, None)
    answer = world.log_in()
    assert answer.status in (403, 503)
    assert SESSION not in world.jar
    assert world.console.notes[-1].decision == "refused"
    return answer.text


def test_a_person_logs_in_and_goes_where_they_wanted(world: OidcWorld) -> None:
    answer = world.log_in("/sites/shop?x=1")
    assert answer.status == 200
    assert 'url=/sites/shop?x=1"' in answer.text
    assert world.ask("/").text.startswith("ann *=look ")
    assert (world.console.notes[-1].action, world.console.notes[-1].who) == ("login", "ann")


def test_what_the_provider_is_asked_for(world: OidcWorld) -> None:
    where = urlsplit(world.begin())
    asked = {name: values[0] for name, values in parse_qs(where.query).items()}
    assert asked["redirect_uri"] == f"{URL}/login/oidc/callback"
    assert (asked["response_type"], asked["code_challenge_method"]) == ("code", "S256")
    assert asked["scope"] == "openid profile"
    assert min(len(asked[name]) for name in ("state", "nonce", "code_challenge")) == 43


def test_two_logins_have_other_secrets(world: OidcWorld) -> None:
    first, second = (parse_qs(urlsplit(world.begin()).query) for _ in range(2))
    assert all(first[name] != second[name] for name in ("state", "nonce", "code_challenge"))


LIES: dict[Lie, str] = {
    "nonce": "nonce",
    "no nonce": "nonce",
    "aud": "for another client",
    "two aud": "azp",
    "azp": "azp",
    "iss": "iss",
    "alg none": "does not count",
    "hs256": "does not count",
    "expired": "expired",
    "not yet": "does not count",
    "signature": "does not count",
    "at_hash": "at_hash",
    "no sub": "sub",
    "no token": "no ID token",
    "answer iss": "the answer is not from",
    "no answer iss": "the answer is not from",
    "bad keys": "does not count",
}


@pytest.mark.parametrize(("lie", "says"), LIES.items())
def test_an_answer_that_does_not_count_logs_nobody_in(world: OidcWorld, lie: Lie, says: str) -> None:
    world.provider.lie = lie
    assert says.lower() in problem(world).lower()


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        ("huge", "larger than"),
        ("500", "answers 500"),
        ("no json", "no JSON"),
        ("redirect", "answers 302"),
        ("other issuer", "calls itself"),
        ("plain endpoint", "no https address"),
        ("no pkce", ""),
    ],
)
def test_a_provider_that_cannot_be_used_is_named(world: OidcWorld, lie: Lie, says: str) -> None:
    world.provider.lie = lie
    answer = world.ask("/login/oidc")
    if lie == "no pkce":  # it says nothing of PKCE, and may know it all the same
        assert answer.status == 303
        return
    assert answer.status == 503
    assert "127.0.0.1" in answer.text
    assert says in answer.text
    assert world.provider.count("/token") == 0


def test_a_provider_that_is_away_is_a_clear_page_and_the_console_goes_on(tmp_path: Path) -> None:
    with oidc_world(tmp_path) as world:
        where = world.come_back(world.begin())
        settings = attrs.evolve(world.console.login.settings.oidc, issuer="http://127.0.0.1:1/realms/ops")
        world.console.login.reload(attrs.evolve(world.console.login.settings, oidc=settings))
        for path in (where, "/login/oidc"):
            answer = world.ask(path)
            assert answer.status == 503
            assert "127.0.0.1 cannot be used now" in answer.text
            assert "Connection refused" in answer.text
        assert world.ask("/login").status == 200


def test_a_slow_provider_holds_up_no_page(tmp_path: Path) -> None:
    with oidc_world(tmp_path) as world:
        settings = world.console.login.settings.oidc
        world.console.login.provider = OidcProvider(settings, seconds=0.3)
        world.provider.slow = threading.Event()
        answer = world.ask("/login/oidc")
        assert answer.status == 503
        assert "try again" in answer.text.lower()


@pytest.mark.parametrize("begin", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n"])
def test_an_answer_in_drops_is_given_up_in_its_head_and_in_its_body(tmp_path: Path, begin: bytes) -> None:
    with oidc_world(tmp_path) as world, dripping(begin) as port:
        settings = attrs.evolve(world.console.login.settings.oidc, issuer=f"http://127.0.0.1:{port}")
        world.console.login.provider = OidcProvider(settings, seconds=0.3)
        answer = world.ask("/login/oidc")
        assert answer.status == 503
        assert "takes too long" in answer.text


def test_an_answer_that_is_compressed_is_refused(world: OidcWorld) -> None:
    """A short one could fill our memory before its bytes are counted."""
    world.provider.lie = "compressed"
    answer = world.ask("/login/oidc")
    assert answer.status == 503
    assert "is compressed" in answer.text


def test_keys_that_have_changed_are_asked_for_anew(world: OidcWorld) -> None:
    world.log_in()
    world.provider.rotate()
    assert "does not count" in problem(world), "at once after they were asked for, they are not asked for again"
    world.console.clock.now += 11
    assert world.log_in().status == 200
    assert world.provider.count("/jwks") == 2
    assert world.provider.count("/.well-known/openid-configuration") == 1


def test_unknown_keys_do_not_make_us_ask_without_end(world: OidcWorld) -> None:
    world.log_in()
    world.console.clock.now += 11
    world.provider.lie = "signature"
    for _ in range(5):
        problem(world)
    assert world.provider.count("/jwks") == 2


def test_groups_give_roles_and_names_like_groups_do_not(tmp_path: Path) -> None:
    with oidc_world(tmp_path, groups_claim="groups") as world:
        rules = (access("@ops", role="live"), access("@secret", sites=("blog",), role="admin"))
        world.console.login.reload(attrs.evolve(world.console.login.settings, access=rules))
        world.provider.claims["groups"] = ["ops", 7, "", "x" * 300]
        world.log_in()
        assert world.ask("/").text.startswith("ann *=live ")
        world.jar.clear()
        world.provider.claims |= {"preferred_username": "@secret", "groups": []}
        assert "does not tell your name" in problem(world)


@pytest.mark.parametrize("name", ["", 7, None, " ann", "a\nb", "x" * 300])
def test_a_name_that_is_none_is_refused(world: OidcWorld, name: object) -> None:
    world.provider.claims["preferred_username"] = name
    assert "does not tell your name" in problem(world)


def test_an_address_counts_only_where_it_was_verified(tmp_path: Path) -> None:
    with oidc_world(tmp_path, name_claim="email", scopes=("email",)) as world:
        world.provider.claims["email"] = "ann@example.org"
        assert "not verified" in problem(world)
        world.provider.claims["email_verified"] = True
        assert world.log_in().status == 200
        assert world.ask("/").text.startswith("ann@example.org ")


def test_a_name_that_only_userinfo_tells_is_asked_for(world: OidcWorld) -> None:
    world.provider.claims = {"sub": "u-1"}
    world.provider.more = {"preferred_username": "bob"}
    world.log_in()
    assert world.ask("/").text.startswith("bob ")


def test_userinfo_of_somebody_else_is_refused(world: OidcWorld) -> None:
    world.provider.claims = {"sub": "u-1"}
    world.provider.more = {"preferred_username": "root"}
    world.provider.lie = "other sub"
    assert "somebody else" in problem(world)


@pytest.mark.parametrize("kind", ["public", "in the form"])
def test_other_kinds_of_clients(tmp_path: Path, kind: str) -> None:
    more = {"client_secret_file": None} if kind == "public" else {}
    with oidc_world(tmp_path, **more) as world:
        world.provider.only_post = kind == "in the form"
        if kind == "public":
            world.provider.secret = ""
        assert world.log_in().status == 200


def test_a_wrong_secret_says_what_to_compare(world: OidcWorld) -> None:
    world.provider.secret = "another"
    said = problem(world)
    assert "client_secret_file" in said
    assert "s3cret" not in said


def test_a_person_who_does_not_agree_is_told_in_one_harmless_line(world: OidcWorld) -> None:
    world.provider.denies = True
    said = problem(world)
    assert "access_denied: &lt;b&gt;No way&lt;/b&gt;" in said


# -- attacks -----------------------------------------------------------------------------------------------------------


def test_a_login_that_another_browser_began_is_refused(world: OidcWorld) -> None:
    """Else an attacker logs somebody in as the attacker, and sees what they type."""
    theirs = world.come_back(world.begin())
    mine = dict(world.jar)
    world.jar.clear()
    answer = world.ask(theirs)
    assert answer.status == 403
    assert "not begun in this browser" in answer.text
    world.jar[COOKIE] = "A" * 43
    assert world.ask(theirs).status == 403
    world.jar.clear()
    world.jar.update(mine)
    assert world.ask(theirs).status == 200, "the browser that began it is not disturbed"


def test_a_token_loses_the_groups_that_its_owner_has_no_more(tmp_path: Path) -> None:
    with oidc_world(tmp_path, groups_claim="groups") as world:
        rules = (access("@ops", "@web", role="admin"),)
        world.console.login.reload(attrs.evolve(world.console.login.settings, access=rules))
        asked = TokenAsked(label="ci", role="admin", sites=("*",), seconds=86400)
        text, _ = world.console.login.tokens.make(asked, "ann", ("ops", "web"))

        def status() -> int:
            return world.console.asker.get("/api/v1/sites", {"authorization": f"Bearer {text}"}).status

        for groups, found in ((["ops", "new"], 200), ([], 403), (["ops", "new"], 403)):
            world.provider.claims["groups"] = groups
            world.log_in()
            assert status() == found
        assert world.console.login.tokens.list("ann")[0].groups == ()


def test_an_answer_counts_once(world: OidcWorld) -> None:
    where = world.come_back(world.begin())
    binding = dict(world.jar)
    assert world.ask(where).status == 200
    world.jar.clear()
    world.jar.update(binding)
    answer = world.ask(where)
    assert answer.status == 403
    assert SESSION not in world.jar
    assert world.provider.count("/token") == 1, "the provider is not asked for a second session"


def test_a_login_that_took_too_long_is_refused(world: OidcWorld) -> None:
    where = world.come_back(world.begin())
    world.console.clock.now += 601
    assert "too long" in world.ask(where).text


@pytest.mark.parametrize("query", ["", "?state=x", "?code=x", "?state=a&state=b", "?code=" + "x" * 5000])
def test_an_answer_that_is_none_is_refused(world: OidcWorld, query: str) -> None:
    world.begin()
    assert world.ask(f"/login/oidc/callback{query}").status == 403


@pytest.mark.parametrize(
    "wanted", ["https://evil.example/", "//evil.example", "/\\evil.example", "/login/oidc", "/logout", "%0d%0aX:y"]
)
def test_nobody_is_sent_elsewhere_after_the_login(world: OidcWorld, wanted: str) -> None:
    answer = world.log_in(wanted)
    assert 'url=/"' in answer.text
    assert "evil" not in answer.text


def test_a_path_that_looks_like_markup_stays_a_path(world: OidcWorld) -> None:
    answer = world.log_in("/sites/%22%3E%3Cscript%3E")
    assert "<script>" not in answer.text


def test_a_login_gives_a_new_session_whatever_the_browser_had(world: OidcWorld) -> None:
    world.jar[SESSION] = "chosen-by-an-attacker"
    world.log_in()
    assert world.jar[SESSION] != "chosen-by-an-attacker"
    first = world.jar[SESSION]
    world.log_in()
    assert world.jar[SESSION] != first
    assert world.console.asker.get("/", {"cookie": f"{SESSION}={first}"}).status == 303, "the former one has ended"


def test_the_address_of_the_callback_is_not_taken_from_the_request(world: OidcWorld) -> None:
    answer = world.ask("/login/oidc", **{"x-forwarded-host": "evil.example", "x-forwarded-proto": "http"})
    assert "evil" not in answer.headers["location"]
    assert world.ask("/login/oidc", host="evil.example").status == 421


def test_steps_of_a_login_are_limited(world: OidcWorld) -> None:
    found = [world.ask("/login/oidc").status for _ in range(40)]
    assert found[:30] == [303] * 30
    assert found[-1] == 429


def test_another_provider_ends_the_sessions_of_the_former(world: OidcWorld) -> None:
    world.log_in()
    settings = world.console.login.settings
    world.console.login.reload(attrs.evolve(settings, oidc=attrs.evolve(settings.oidc, client_id="other")))
    assert world.ask("/").status == 303


def test_a_stolen_ledger_finishes_no_login(world: OidcWorld) -> None:
    where = world.come_back(world.begin())
    content = (world.console.file.parent / "ledger.db").read_bytes()
    wal = world.console.file.parent / "ledger.db-wal"
    content += wal.read_bytes() if wal.exists() else b""
    state = parse_qs(urlsplit(where).query)["state"][0]
    code = next(iter(world.provider.codes.values()))
    secrets = [state, code["nonce"], code["code_challenge"], world.jar[COOKIE]]
    assert not [one for one in secrets if one.encode() in content]


# -- pages -------------------------------------------------------------------------------------------------------------


def test_the_login_page_links_to_the_provider_and_has_no_field_for_passwords(world: OidcWorld) -> None:
    page = world.ask("/login?next=/sites/shop")
    assert 'href="/login/oidc?next=/sites/shop"' in page.text or "next=%2Fsites%2Fshop" in page.text
    assert "Log in by 127.0.0.1" in page.text
    assert "password" not in page.text
    assert world.ask("/sites/shop").headers["location"] == "/login?next=/sites/shop"


def test_a_logout_ends_the_session_and_offers_the_providers(world: OidcWorld) -> None:
    world.log_in()
    token = world.ask("/").text.partition("token=")[2].strip()
    cookie = {"cookie": f"{SESSION}={world.jar[SESSION]}"}
    answer = world.console.asker.post("/logout", form(csrf=token), {**OWN, **cookie})
    assert answer.headers["location"] == "/login?out=provider"
    assert world.console.asker.get("/", cookie).status == 303
    page = world.ask("/login?out=provider")
    assert f"{world.provider.issuer}/logout?client_id=deploykit-console" in page.text


def test_programs_are_told_to_show_a_token(world: OidcWorld) -> None:
    answer = world.console.asker.get("/api/v1/sites")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="deploykit"')


def test_settings_without_a_provider_have_no_callback(tmp_path: Path) -> None:
    with oidc_world(tmp_path) as world:
        settings = attrs.evolve(world.console.login.settings, login="password", url="", oidc=OidcSettings())
        world.console.login.reload(settings)
        answer = attrs.evolve(world.console.asker, host="localhost").get("/login/oidc/callback?code=x&state=y")
        assert (answer.status, answer.headers["location"]) == (303, "/login")


def test_the_provider_of_the_tests_is_strict(world: OidcWorld) -> None:
    """Else these tests could not fail."""
    where = world.come_back(world.begin())
    code = parse_qs(urlsplit(where).query)["code"][0]
    fields = {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": f"{URL}/login/oidc/callback",
        "code_verifier": "A" * 43,
    }
    answer = httpx.post(f"{world.provider.issuer}/token", data=fields, trust_env=False, timeout=60)
    assert answer.json()["error_description"] == "PKCE"
