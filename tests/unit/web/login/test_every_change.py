"""Every path of the console that changes something, as the application has them: none takes another site's request."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

import attrs
import pytest
from starlette.routing import BaseRoute, Mount, Route, Router

from deploykit.names import parse_node_name
from deploykit.settings import Settings
from deploykit.web.actions.auditing import ActionAudit
from deploykit.web.app import make_console
from deploykit.web.assembly import console_routes
from deploykit.web.context import ConsoleContext
from deploykit.web.live.events import EventRing
from deploykit.web.login.apitokens import TokenAsked
from deploykit.web.login.middleware import login_middleware, needs_no_login
from deploykit.web.pages.routes import error_handlers
from deploykit.web.signing.desk import SigningDesk
from tests.support.actingworld import WAITING, busy_actions, busy_world
from tests.support.asgi import Asked, Asker
from tests.support.fixedactions import FixedActions
from tests.support.loginworld import OWN, LoginWorld, access, form, login_world

_SAFE: Final = {"GET", "HEAD", "OPTIONS"}
#: What stands for the parameters of paths: things that exist.
_NAMED: Final = {"site": "docs", "rollout": WAITING, "id": WAITING, "code": "x" * 43, "user": "carol"}


def changes() -> Iterator[tuple[str, str]]:
    """Yield method and path of everything that changes something. A route of an unknown kind is an error."""
    for path, route in found_in(console_routes()):
        # A view without methods takes all of them.
        for method in sorted((route.methods or {"POST", "PUT", "PATCH", "DELETE"}) - _SAFE):
            yield method, re.sub(r"{(\w+)(?::\w+)?}", lambda found: _NAMED.get(found[1], "x"), path)


def found_in(routes: Sequence[BaseRoute], below: str = "") -> Iterator[tuple[str, Route]]:
    """Yield every route with its whole path."""
    for route in routes:
        if isinstance(route, Mount):
            router = getattr(route.app, "_app", route.app)  # the API's is inside what makes its errors problems
            assert isinstance(router, Router), f"{route!r}: say here how its paths are found"
            yield from found_in(router.routes, below + route.path)
        else:
            assert isinstance(route, Route), f"{route!r}: say here how its paths are found"
            yield below + route.path, route


CHANGES: Final = tuple(changes())
#: Steps of a login: nobody has a token before them.
STEPS: Final = tuple(each for each in CHANGES if needs_no_login(each[1]))
AFTER: Final = tuple(each for each in CHANGES if not needs_no_login(each[1]))


@attrs.frozen(kw_only=True)
class Whole:
    """The whole console, its login, and what it was asked to do."""

    console: LoginWorld
    asker: Asker
    acts: FixedActions

    def send(self, change: tuple[str, str], headers: Mapping[str, str], **fields: str) -> Asked:
        """Return the answer to a change."""
        kind = {"content-type": "application/x-www-form-urlencoded"}
        return self.asker.ask(*change, {**kind, **headers}, [form(**fields)])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path: Path = tmp_path_factory.mktemp("console")
    world = login_world(path, access=(access("ann", "bob", role="admin"),), passkeys=True, url="http://localhost:8470")
    acts, settings = busy_actions(), world.login.settings
    desk = SigningDesk(settings, world.ledger.passkeys, world.ledger.once, ActionAudit(world.notes.append))
    context = ConsoleContext(
        settings=Settings(node=parse_node_name("ops-1"), web=settings),
        queries=busy_world(),
        events=EventRing(1),
        actions=acts.console,
        signing=desk,
    )
    app = make_console(
        context, routes=console_routes(), middleware=login_middleware(world.login), handlers=error_handlers()
    )
    return Whole(console=world, asker=Asker(app=app), acts=acts)


def session(whole: Whole, name: str = "ann") -> tuple[dict[str, str], str]:
    """Log in, and return the cookie and the token of the forms."""
    whole.console.clock.now += 1000  # so that every refusal of one test is written
    cookie = whole.console.cookie(name)
    return cookie, whole.console.token(cookie)


def test_the_paths_are_found() -> None:
    assert {("POST", "/logout"), ("POST", "/sites/docs/deploy"), ("POST", "/account/signing/remove")} < set(AFTER)
    assert {("PUT", "/api/v1/sites/docs/lock"), ("POST", "/api/v1/relay")} < set(AFTER)
    assert ("POST", "/login/passkey") in STEPS
    assert len(AFTER) >= 25


FOREIGN: Final = (
    {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
    {"sec-fetch-site": "same-site", "origin": "http://localhost:8470"},
    {"sec-fetch-site": "none"},
    {"origin": "null"},
    {"origin": "http://localhost:8471"},
    {"origin": "https://localhost:8470"},
)


@pytest.mark.parametrize("change", CHANGES, ids=" ".join)
def test_another_site_changes_nothing_even_with_the_token(whole: Whole, change: tuple[str, str]) -> None:
    cookie, token = session(whole)
    whole.acts.asked.clear()
    whole.acts.access.asked.clear()
    for headers in FOREIGN:
        answer = whole.send(change, {**headers, **cookie, "x-csrf-token": token}, csrf=token)
        assert answer.status == 403
        assert "another page" in whole.console.notes[-1].detail, "refused by the middleware, and noted"
    assert (whole.acts.asked, whole.acts.access.asked) == ([], [])
    assert whole.asker.get("/account", cookie).status == 200, "they are logged in still"


@pytest.mark.parametrize("change", AFTER, ids=" ".join)
def test_without_the_token_of_this_session_nothing_is_changed(whole: Whole, change: tuple[str, str]) -> None:
    cookie, token = session(whole)
    _, of_bob = session(whole, "bob")
    whole.acts.asked.clear()
    whole.acts.access.asked.clear()
    for headers in (OWN, {"origin": "http://localhost:8470"}, {}):
        for given in ("", of_bob, token[:-1], token.upper(), f"{token} ", cookie["cookie"].partition("=")[2]):
            answer = whole.send(change, {**headers, **cookie}, csrf=given)
            assert answer.status == 403
            assert "without the token of its login" in whole.console.notes[-1].detail
        assert whole.send(change, {**headers, **cookie, "x-csrf-token": of_bob}, csrf=token).status == 403
    assert (whole.acts.asked, whole.acts.access.asked) == ([], [])
    assert whole.send(change, OWN).status == 401, "nobody changes nothing"


@pytest.mark.parametrize("change", AFTER, ids=" ".join)
def test_our_own_page_gets_as_far_as_the_view(whole: Whole, change: tuple[str, str]) -> None:
    """Else the tests above could not fail."""
    cookie, token = session(whole)
    before = len(whole.console.notes)
    answer = whole.send(change, {**OWN, **cookie}, csrf=token)
    assert answer.status not in (401, 405)
    assert not any("without the token" in note.detail for note in whole.console.notes[before:])


def test_an_api_token_is_no_way_round(whole: Whole) -> None:
    """A browser adds none by itself; where a page of another site has one, it has all that it needs elsewhere."""
    asked = TokenAsked(label="ci", role="admin", sites=("*",), seconds=86400)
    text, _ = whole.console.login.tokens.make(asked, "ann")
    shown = {"authorization": f"Bearer {text}"}
    for change in AFTER:
        for headers in FOREIGN:
            assert whole.send(change, {**headers, **shown}).status == 403
        if not change[1].startswith("/api/"):
            assert whole.send(change, shown).status == 401, "no page takes it"


def test_nothing_in_a_stolen_ledger_lets_anybody_in(whole: Whole, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value of every column, as a cookie, a token of a form, an API token, an invitation, a challenge."""
    cookie, _ = session(whole)
    ledger = whole.console.ledger
    code = ledger.once.put("invite", "ann", 3600)
    step = ledger.once.put("passkey-login", "", 300)
    ledger.once.put("oidc", '{"binding": "x", "next": "/"}', 300)
    text, _ = whole.console.login.tokens.make(TokenAsked(label="ci", role="admin", sites=("*",), seconds=86400), "ann")
    found = stolen(whole.console.file.parent / "ledger.db")
    assert len(found) > 20
    assert not {code, step, text, cookie["cookie"].partition("=")[2]} & found
    name = cookie["cookie"].partition("=")[0]
    monkeypatch.setattr(whole.console.login.steps, "attempt", lambda _: 0.0)  # a thief has many addresses
    for value in found:
        for shown in ({"cookie": f"{name}={value}"}, {"authorization": f"Bearer {value}"}):
            assert whole.asker.get("/api/v1/sites", shown).status in (401, 429)
        for prefixed in (value, f"dk_{value[:43]}"):
            assert whole.asker.get("/api/v1/sites", {"authorization": f"Bearer {prefixed}"}).status in (401, 429)
        assert whole.send(("POST", "/logout"), {**OWN, **cookie}, csrf=value).status == 403
        assert whole.asker.get(f"/invite/{value}").status == 404
        for purpose in ("invite", "passkey-login", "passkey-add", "oidc", "enrol"):
            assert ledger.once.look(value, purpose) is None


def stolen(file: Path) -> set[str]:
    """Return every value in every table of a ledger that can stand in a header."""
    with sqlite3.connect(file) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        rows = [row for table in tables for row in connection.execute(f"SELECT * FROM {table}")]
    connection.close()
    values = {value.hex() if isinstance(value, bytes) else str(value) for row in rows for value in row}
    return {value for value in values if re.fullmatch(r"[A-Za-z0-9_.=-]{1,300}", value)}
