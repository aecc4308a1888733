"""The account page: sessions and passkeys of one's own; and sessions over restarts and several consoles."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest
from starlette.applications import Starlette

from deploykit.errors import LedgerError
from deploykit.web.ledger.passkeys import KeptPasskey
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.middleware import login_middleware
from tests.support.asgi import Asked, Asker
from tests.support.ledgers import ledger_in
from tests.support.loginpasskeys import SoftwareDevice
from tests.support.loginworld import EPOCH, OWN, LoginWorld, access, form, login_world
from tests.support.passkeyworld import PasskeyWorld, options, passkey_world


@pytest.fixture
def world(tmp_path: Path) -> LoginWorld:
    return login_world(tmp_path)


def second_console(world: LoginWorld) -> LoginWorld:
    """Return another console on the same database."""
    ledger = ledger_in(world.file.parent, lambda: EPOCH + world.clock.now)
    login = ConsoleLogin(world.login.settings, ledger=ledger, clock=world.clock)
    routes = world.asker.app.routes  # type: ignore[attr-defined]  # of Starlette
    app = Starlette(routes=routes, middleware=list(login_middleware(login)))
    return attrs.evolve(world, login=login, ledger=ledger, asker=Asker(app=app))


def send(world: LoginWorld, path: str, cookie: dict[str, str], **fields: str) -> Asked:
    return world.asker.post(path, form(csrf=world.token(cookie), **fields), {**OWN, **cookie})


# -- sessions ----------------------------------------------------------------------------------------------------------


def test_a_session_and_its_forms_outlast_a_restart_and_count_at_another_console(world: LoginWorld) -> None:
    cookie = world.cookie()
    token = world.token(cookie)
    other = second_console(world)
    assert other.asker.get("/", cookie).status == 200
    assert other.asker.post("/change", form(csrf=token), {**OWN, **cookie}).status == 200


def test_a_logout_at_one_console_counts_at_the_other(world: LoginWorld) -> None:
    cookie = world.cookie()
    other = second_console(world)
    assert other.asker.get("/", cookie).status == 200
    send(world, "/logout", cookie)
    assert other.asker.get("/", cookie).status == 303


def test_a_person_ends_their_other_sessions(world: LoginWorld) -> None:
    first, second, third = world.cookie(), world.cookie(), world.cookie()
    page = world.asker.get("/account", first)
    assert page.text.count("this browser") == 1
    keys = re.findall(r'name="key" value="([0-9a-f]{64})"', page.text)
    assert len(keys) == 2
    assert send(world, "/account/sessions/end", first, key=keys[0]).status == 303
    assert sorted(world.asker.get("/", each).status for each in (first, second, third)) == [200, 200, 303]
    assert send(world, "/account/sessions/end", first, key="others").status == 303
    assert [world.asker.get("/", each).status for each in (first, second, third)] == [200, 303, 303]


def test_nobody_ends_the_session_of_another(world: LoginWorld) -> None:
    ann, bob = world.cookie("ann"), world.cookie("bob")
    (his,) = world.ledger.sessions.list_of("bob")
    send(world, "/account/sessions/end", ann, key=his.key)
    assert world.asker.get("/", bob).status == 200


def test_a_ledger_that_is_away_lets_nobody_in_and_says_so(world: LoginWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    cookie = world.cookie()

    def away(*_: object, **__: object) -> None:
        raise LedgerError("the database is away")

    monkeypatch.setattr(world.ledger.sessions, "find", away)
    answer = world.asker.get("/", cookie)
    assert (answer.status, answer.headers["retry-after"]) == (503, "5")
    assert "its database is away" in answer.text
    assert world.asker.get("/api/v1/sites", cookie).json()["status"] == 503
    assert world.asker.get("/login").status == 200


def test_the_use_of_a_session_is_not_written_at_each_request(world: LoginWorld) -> None:
    cookie = world.cookie()
    world.asker.get("/", cookie)
    (before,) = world.ledger.sessions.list_of("ann")
    world.clock.now += 30
    world.asker.get("/", cookie)
    assert world.ledger.sessions.list_of("ann") == (before,)
    world.clock.now += 31
    world.asker.get("/", cookie)
    assert world.ledger.sessions.list_of("ann")[0].used > before.used


# -- passkeys ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def beside(tmp_path: Path) -> PasskeyWorld:
    return passkey_world(tmp_path, mode="password")


def add(world: PasskeyWorld, cookie: dict[str, str], device: SoftwareDevice, label: str = "laptop") -> Asked:
    csrf = world.console.token(cookie)
    begun = world.post("/account/passkeys", cookie["cookie"], step="begin", csrf=csrf)
    answer = device.register(options(begun))
    fields = {"id": begun.json()["id"], "label": label, "answer": answer, "csrf": csrf}
    return world.post("/account/passkeys", cookie["cookie"], step="finish", **fields)


def test_who_is_logged_in_adds_a_passkey_and_logs_in_by_it(beside: PasskeyWorld) -> None:
    device = SoftwareDevice()
    cookie = beside.console.cookie("ann")
    assert add(beside, cookie, device).json() == {"next": "/account#passkeys"}
    assert "Name of the passkey laptop" in beside.console.asker.get("/account", cookie).text
    by_passkey = {"cookie": beside.cookie(device)}
    assert beside.console.asker.get("/", by_passkey).text.startswith("ann ")


def test_adding_needs_the_token_of_the_session(beside: PasskeyWorld) -> None:
    cookie = beside.console.cookie("ann")
    assert beside.post("/account/passkeys", cookie["cookie"], step="begin").status == 403
    assert beside.post("/account/passkeys", step="begin").status == 401


def test_a_passkey_is_renamed_and_removed_by_its_owner_alone(beside: PasskeyWorld) -> None:
    ann, bob = beside.console.cookie("ann"), beside.console.cookie("bob")
    add(beside, ann, SoftwareDevice())
    (passkey,) = beside.console.ledger.passkeys.list("ann")
    for path in ("/account/passkeys/rename", "/account/passkeys/remove"):
        found = send(beside.console, path, bob, credential=passkey.credential, label="mine")
        assert found.status == 404
        assert (beside.console.notes[-1].who, beside.console.notes[-1].decision) == ("bob", "refused")
    send(beside.console, "/account/passkeys/rename", ann, credential=passkey.credential, label=" the  phone ")
    assert beside.console.ledger.passkeys.list("ann")[0].label == "the phone"
    wrong = send(beside.console, "/account/passkeys/rename", ann, credential=passkey.credential, label=" ")
    assert (wrong.status, "Give the passkey a name" in wrong.text) == (422, True)
    assert send(beside.console, "/account/passkeys/remove", ann, credential=passkey.credential).status == 303
    assert beside.console.ledger.passkeys.list("ann") == ()


def test_a_key_that_signs_is_not_removed_by_the_page_of_logins(beside: PasskeyWorld) -> None:
    beside.console.ledger.passkeys.add(KeptPasskey(credential="abc", purpose="signing", name="ann", label="SIGN shop"))
    ann = beside.console.cookie("ann")
    assert "SIGN shop" in beside.console.asker.get("/account", ann).text
    assert send(beside.console, "/account/passkeys/remove", ann, credential="abc").status == 404


def test_where_people_log_in_by_passkeys_alone_the_last_one_stays(tmp_path: Path) -> None:
    world = passkey_world(tmp_path)
    cookie = {"cookie": world.cookie(world.known())}
    (passkey,) = world.console.ledger.passkeys.list("ann")
    answer = send(world.console, "/account/passkeys/remove", cookie, credential=passkey.credential)
    assert (answer.status, "your last passkey" in answer.text) == (409, True)
    assert len(world.console.ledger.passkeys.list("ann")) == 1


def test_a_console_that_takes_no_passkeys_adds_none(world: LoginWorld) -> None:
    cookie = world.cookie()
    assert send(world, "/account/passkeys", cookie, step="begin").status == 404
    assert "data-passkey" not in world.asker.get("/account", cookie).text


def test_names_on_the_page_are_texts(tmp_path: Path) -> None:
    world = passkey_world(tmp_path, mode="password", access=(access("ann", sites=("<i>shop",)),))
    cookie = world.console.cookie("ann")
    add(world, cookie, SoftwareDevice(), label='"><script>alert(1)</script>')
    page = world.console.asker.get("/account", cookie).text
    assert "<script>alert" not in page
    assert "<i>shop" not in page
