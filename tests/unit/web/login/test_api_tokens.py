"""API tokens: what they may do, and what nobody gets by them."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import attrs
import pytest
from starlette.datastructures import Headers

from deploykit.settings.web import ROLES
from deploykit.web.login.apitokens import ApiTokens, TokenAsked
from deploykit.web.login.identity import RequestIdentity
from deploykit.web.login.rights import rules_everything, viewer_for
from deploykit.web.viewer import RoleCap, RoleGrant, Viewer
from tests.support.asgi import Asked
from tests.support.loginworld import OWN, LoginWorld, access, form, login_world, write_passwords

RULES = (access("ann", role="admin"), access("bob", sites=("shop", "blog-*"), role="live"))


@pytest.fixture
def world(tmp_path: Path) -> LoginWorld:
    return login_world(tmp_path, access=RULES)


def ask_for(world: LoginWorld, name: str = "bob", **fields: str) -> Asked:
    """Send the form of the account page."""
    cookie = world.cookie(name)
    wanted = {"label": "ci", "role": "stage", "sites": "shop", "days": "7", "csrf": world.token(cookie), **fields}
    return world.asker.post("/account/tokens", form(**wanted), {**OWN, **cookie})


def secret_in(answer: Asked) -> str:
    found = re.search(r'id="secret"[^>]*>(dk_[A-Za-z0-9_-]{43})<', answer.text)
    assert found is not None, answer.text
    return found[1]


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_token_is_shown_once_and_counts_in_the_api(world: LoginWorld) -> None:
    answer = ask_for(world)
    token = secret_in(answer)
    assert answer.headers["cache-control"] == "no-store"
    assert world.asker.get("/api/v1/sites", bearer(token)).text.startswith("bob ")
    assert token not in world.asker.get("/account", world.cookie("bob")).text
    assert token not in repr(world.notes)
    assert any(note.action == "token" and "stage on shop" in note.detail for note in world.notes)


def test_a_token_counts_in_no_page_and_in_no_address(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    assert world.asker.get("/", bearer(token)).status == 303
    assert world.asker.get("/account", bearer(token)).status == 303
    assert world.asker.get(f"/api/v1/sites?access_token={token}&token={token}").status == 401
    assert world.asker.get("/api/v1/sites", {"cookie": f"deploykit={token}"}).status == 401
    body = form(access_token=token)
    assert world.asker.post("/api/v1/change", body, OWN).status == 401


def test_a_program_with_a_token_needs_no_token_of_a_form(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    assert world.asker.post("/api/v1/change", b"{}", bearer(token)).status == 200


def test_a_token_in_a_form_of_another_site_does_nothing(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    headers = {**bearer(token), "sec-fetch-site": "cross-site"}
    assert world.asker.post("/api/v1/change", b"{}", headers).status == 403


@pytest.mark.parametrize(
    "shown", ["", "x", "dk_", "dk_" + "A" * 43, "dk_" + "A" * 42, "DK_" + "A" * 43, "dk_" + "é" * 43, "x" * 5000]
)
def test_a_token_that_never_was_does_not_count(world: LoginWorld, shown: str) -> None:
    answer = world.asker.get("/api/v1/sites", {"authorization": f"Bearer {shown}".encode().decode("latin-1")})
    assert answer.status in (400, 401)
    assert "Bearer" in answer.headers.get("www-authenticate", "Bearer")


def test_the_digest_in_a_stolen_ledger_is_no_token(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    (kept,) = world.ledger.tokens.list("bob")
    content = b"".join(each.read_bytes() for each in world.file.parent.glob("ledger.db*"))
    assert token.encode() not in content
    assert token[3:].encode() not in content
    for shown in (kept.key, f"dk_{kept.key[:43]}", kept.id):
        assert world.asker.get("/api/v1/sites", bearer(shown)).status == 401


def test_trying_many_tokens_is_limited_and_a_right_one_goes_on(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    found = [world.asker.get("/api/v1/sites", bearer("dk_" + "A" * 43)).status for _ in range(40)]
    assert (found[0], found[-1]) == (401, 429)
    assert world.asker.get("/api/v1/sites", bearer(token)).status == 200


def test_two_authorizations_show_nobody(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    pairs = [("authorization", f"Bearer {token}")] * 2
    assert world.asker.get("/api/v1/sites", pairs).status == 400


def test_a_token_ends(world: LoginWorld) -> None:
    token = secret_in(ask_for(world, days="1"))
    world.clock.now += 86_399
    assert world.asker.get("/api/v1/sites", bearer(token)).status == 200
    world.clock.now += 2
    answer = world.asker.get("/api/v1/sites", bearer(token))
    assert (answer.status, "expired" in answer.json()["detail"]) == (401, True)


def test_a_revoked_token_does_not_count(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    (kept,) = world.ledger.tokens.list("bob")
    cookie = world.cookie("bob")
    body = form(id=kept.id, csrf=world.token(cookie))
    assert world.asker.post("/account/tokens/revoke", body, {**OWN, **cookie}).status == 303
    assert world.asker.get("/api/v1/sites", bearer(token)).status == 401


def test_nobody_revokes_the_tokens_of_others_but_an_admin_of_every_site(world: LoginWorld) -> None:
    ask_for(world, "ann")
    ask_for(world, "bob")
    (hers,), (his,) = world.ledger.tokens.list("ann"), world.ledger.tokens.list("bob")
    bob, ann = world.cookie("bob"), world.cookie("ann")
    assert hers.id not in world.asker.get("/account", bob).text
    body = form(id=hers.id, csrf=world.token(bob))
    assert world.asker.post("/account/tokens/revoke", body, {**OWN, **bob}).status == 404
    assert his.id in world.asker.get("/account", ann).text
    body = form(id=his.id, csrf=world.token(ann))
    assert world.asker.post("/account/tokens/revoke", body, {**OWN, **ann}).status == 303
    assert world.ledger.tokens.list("bob") == ()


# -- a role that grants itself more ------------------------------------------------------------------------------------


def test_nobody_makes_a_token_with_more_than_they_have(world: LoginWorld) -> None:
    answer = ask_for(world, role="admin")
    assert answer.status == 403
    assert "You have live yourself" in answer.text
    assert world.ledger.tokens.list() == ()
    assert (world.notes[-1].decision, world.notes[-1].who) == ("refused", "bob")


def test_a_token_for_sites_that_its_owner_has_not_shows_nothing(world: LoginWorld) -> None:
    token = secret_in(ask_for(world, sites="* secret", role="live"))
    assert world.asker.get("/api/v1/sites", bearer(token)).text.startswith("bob shop=live,blog-*=live ")
    viewer = viewer_for("bob", RULES, cap=RoleCap(role="live", sites=("*", "secret")))
    assert viewer.role("secret") is None
    assert not viewer.sees_all


def test_a_token_made_behind_the_console_is_capped_by_its_owner(world: LoginWorld) -> None:
    """Whoever writes into the ledger still gets no more than the name has."""
    asked = TokenAsked(label="x", role="admin", sites=("*",), seconds=60)
    text, _ = ApiTokens(world.ledger.tokens).make(asked, "bob")
    assert world.asker.get("/api/v1/sites", bearer(text)).status == 200
    viewer = viewer_for("bob", RULES, cap=RoleCap(role="admin", sites=("*",)))
    assert [viewer.role(site) for site in ("shop", "blog-1", "secret")] == ["live", "live", None]
    assert not rules_everything(viewer_for("ann", RULES, cap=RoleCap(role="admin", sites=("*",))))


def test_a_request_with_a_token_has_the_role_of_the_token(world: LoginWorld) -> None:
    token = secret_in(ask_for(world, role="look", sites="shop"))
    found = asyncio.run(world.login.identify(("127.0.0.1", 1), Headers(bearer(token)), api=True))
    assert isinstance(found, RequestIdentity)
    assert [found.viewer.role(site) for site in ("shop", "blog-1")] == ["look", None]
    assert asyncio.run(world.login.goes_on(found))
    wider = attrs.evolve(found, viewer=attrs.evolve(found.viewer, cap=None))
    assert not asyncio.run(world.login.goes_on(wider)), "a stream ends when its rights are others"


def test_a_token_loses_what_its_owner_loses(world: LoginWorld) -> None:
    token = secret_in(ask_for(world))
    world.login.reload(attrs.evolve(world.login.settings, access=(access("ann", role="admin"),)))
    assert world.asker.get("/api/v1/sites", bearer(token)).status == 403
    world.login.reload(attrs.evolve(world.login.settings, access=RULES))
    assert world.asker.get("/api/v1/sites", bearer(token)).status == 200
    write_passwords(world.file, ann="correct horse")
    world.login.reload(world.login.settings)
    assert world.asker.get("/api/v1/sites", bearer(token)).status == 401, "bob is gone"


@pytest.mark.parametrize("held", ROLES)
@pytest.mark.parametrize("cap", ROLES)
def test_a_cap_only_takes_away(held: str, cap: str) -> None:
    grants = (RoleGrant(sites="shop-*", role=held),)  # type: ignore[arg-type]  # one of the four
    whole = Viewer(name="x", grants=grants)
    less = attrs.evolve(whole, cap=RoleCap(role=cap, sites=("*-a", "other")))  # type: ignore[arg-type]
    lower = ROLES[min(ROLES.index(held), ROLES.index(cap))]
    assert (whole.role("shop-a"), less.role("shop-a")) == (held, lower)
    assert (less.role("shop-b"), less.role("other")) == (None, None)
    assert less.visible(("shop-a", "shop-b", "other")) == ("shop-a",)
    assert less.may("shop-a", lower)
    assert not less.sees_all


# -- the form ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"label": ""}, "Say what it is for"),
        ({"label": "x" * 101}, "Say what it is for"),
        ({"sites": " , "}, "Give names or patterns"),
        ({"role": "root"}, "Choose one of"),
        ({"days": "0"}, "Give days from 1 to 366"),
        ({"days": "367"}, "Give days from 1 to 366"),
        ({"days": "-1"}, "Give days"),
        ({"days": "\u0661"}, "Give days"),
        ({"days": "1e3"}, "Give days"),
    ],
)
def test_a_wrong_form_is_shown_again_with_what_was_typed(world: LoginWorld, fields: dict[str, str], says: str) -> None:
    answer = ask_for(world, **{"label": "<b>nightly", **fields})
    assert answer.status == 422
    assert says in answer.text
    assert 'aria-invalid="true"' in answer.text
    if "label" not in fields:
        assert 'value="&lt;b&gt;nightly"' in answer.text
    assert world.ledger.tokens.list() == ()


def test_a_form_without_the_token_of_its_session_makes_nothing(world: LoginWorld) -> None:
    assert ask_for(world, csrf="x").status == 403
    assert ask_for(world, csrf=world.token(world.cookie("ann"))).status == 403
    assert world.ledger.tokens.list() == ()


def test_a_console_without_a_login_has_no_tokens(tmp_path: Path) -> None:
    world = login_world(tmp_path, mode="none")
    page = world.asker.get("/account")
    assert (page.status, "has no login" in page.text) == (200, True)
    token = re.search(r"token=(\S+)", world.asker.get("/").text)
    assert token is not None
    body = form(label="ci", role="look", sites="*", days="1", csrf=token[1])
    assert world.asker.post("/account/tokens", body, OWN).status == 404
    assert world.asker.get("/api/v1/sites").text.startswith("local *=admin "), "it stays able to do everything"


def test_behind_a_proxy_people_make_tokens_and_a_foreign_header_still_refuses(tmp_path: Path) -> None:
    world = login_world(tmp_path, mode="proxy", proxies=("127.0.0.1",), access=RULES)
    me = {"x-remote-user": "bob"}
    csrf = re.search(r"token=(\S+)", world.asker.get("/", me).text)
    assert csrf is not None
    body = form(label="ci", role="look", sites="shop", days="1", csrf=csrf[1])
    token = secret_in(world.asker.post("/account/tokens", body, {**OWN, **me}))
    outside = attrs.evolve(world.asker, client=("192.0.2.1", 1))
    assert outside.get("/api/v1/sites", bearer(token)).text.startswith("bob ")
    assert outside.get("/api/v1/sites", {**bearer(token), "x-remote-user": "ann"}).status == 403
    assert world.asker.get("/api/v1/sites", {**bearer(token), "x-remote-user": "ann"}).text.startswith("bob ")
