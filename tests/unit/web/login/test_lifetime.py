"""What outlasts a request: streams, reloads of the settings, floods of logins and refusals."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Message

from deploykit.errors import ProjectionError, SettingsError
from deploykit.settings.web import WebSettings
from deploykit.system.passwordfile import PasswordTable
from deploykit.web.login.attempts import MOST_WAITING
from deploykit.web.login.auditnotes import NOTES
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.identity import RequestIdentity
from deploykit.web.login.lasting import CHECK_EVERY, MOST_STREAMS, AnswerEnded, LastingAnswer
from deploykit.web.login.middleware import login_middleware
from deploykit.web.login.rights import viewer_for
from tests.support.asgi import Asked, Asker
from tests.support.loginworld import OWN, PASSWORDS, Clock, access, form, login_world, write_passwords

# -- streams -----------------------------------------------------------------------------------------------------------


def test_an_answer_that_lasts_is_ended_when_its_login_does_not_hold() -> None:
    sent, holds, clock = list[Message](), [True], Clock()

    async def keep(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        async def goes_on() -> bool:
            return holds[0]

        answer = LastingAnswer(keep, goes_on, clock=clock)
        part = {"type": "http.response.body", "body": b"x", "more_body": True}
        await answer.send({"type": "http.response.start", "status": 200, "headers": []})
        await answer.send(part)
        holds[0] = False
        await answer.send(part)
        clock.now += CHECK_EVERY
        for _ in range(2):
            with pytest.raises(AnswerEnded):
                await answer.send(part)

    asyncio.run(run())
    assert [message.get("more_body") for message in sent] == [None, True, True, False]


def test_an_answer_of_a_known_length_is_sent_whole() -> None:
    sent, clock = list[Message](), Clock()

    async def keep(message: Message) -> None:
        sent.append(message)

    async def run() -> None:
        async def goes_on() -> bool:
            return False

        answer = LastingAnswer(keep, goes_on, clock=clock)
        await answer.send({"type": "http.response.start", "status": 200, "headers": [(b"Content-Length", b"2")]})
        clock.now += CHECK_EVERY
        for more in (True, False):
            await answer.send({"type": "http.response.body", "body": b"x", "more_body": more})

    asyncio.run(run())
    assert len(sent) == 3


def test_a_login_has_so_many_streams_and_no_more() -> None:
    may_end = asyncio.Event()

    async def stream(request: Request) -> Response:
        async def parts() -> AsyncIterator[bytes]:
            yield b": \n\n"
            await may_end.wait()

        return StreamingResponse(parts(), media_type="text/event-stream")

    settings = WebSettings(login="proxy", proxies=("127.0.0.1",))
    app = Starlette(routes=[Route("/api/v1/events", stream)], middleware=list(login_middleware(ConsoleLogin(settings))))
    asker = Asker(app=app)

    async def run() -> tuple[Asked, Asked, list[Asked]]:
        ann, bob = {"x-remote-user": "ann"}, {"x-remote-user": "bob"}
        tasks = [asyncio.create_task(asker.ask_soon("GET", "/api/v1/events", ann)) for _ in range(MOST_STREAMS)]
        await asyncio.sleep(0)  # each of them runs until it waits
        others = asyncio.create_task(asker.ask_soon("GET", "/api/v1/events", bob))
        refused = await asker.ask_soon("GET", "/api/v1/events", ann)
        may_end.set()
        return refused, await others, await asyncio.gather(*tasks)

    refused, other, opened = asyncio.run(run())
    assert (refused.status, refused.headers["retry-after"]) == (429, "10")
    assert {other.status, *(one.status for one in opened)} == {200}
    assert asker.get("/api/v1/events", {"x-remote-user": "ann"}).status == 200, "ended streams do not count"


# -- settings that change ----------------------------------------------------------------------------------------------


def test_sessions_outlast_a_reload_and_have_the_new_rights(tmp_path: Path) -> None:
    world = login_world(tmp_path)
    cookie = world.cookie()
    world.login.reload(attrs.evolve(world.login.settings, access=(access("ann", sites=("shop",), role="live"),)))
    assert world.asker.get("/", cookie).text.startswith("ann shop=live ")
    world.login.reload(attrs.evolve(world.login.settings, access=(access("bob"),)))
    assert world.asker.get("/", cookie).status == 403


def test_a_stream_ends_when_its_rights_are_others(tmp_path: Path) -> None:
    world = login_world(tmp_path)
    id_ = asyncio.run(world.login.begin_session("ann", None, login="password"))
    held = RequestIdentity(viewer=viewer_for("ann", ()), session=world.login.sessions.find(id_))
    assert asyncio.run(world.login.goes_on(held))
    world.login.reload(attrs.evolve(world.login.settings, access=(access("ann", sites=("shop",)),)))
    assert not asyncio.run(world.login.goes_on(held))


def test_a_session_counts_for_no_other_kind_of_login(tmp_path: Path) -> None:
    world = login_world(tmp_path)
    cookie = world.cookie()
    password = world.login.settings
    world.login.reload(attrs.evolve(password, login="proxy", proxies=("10.0.0.1",)))
    assert world.asker.get("/", cookie).status == 403
    world.login.reload(attrs.evolve(password, login="passkey"))
    assert world.asker.get("/", cookie).status == 303
    world.login.reload(password)
    assert world.asker.get("/", cookie).status == 303, "it ended when it was shown where it did not count"


def test_settings_that_cannot_be_used_change_nothing(tmp_path: Path) -> None:
    world = login_world(tmp_path)
    cookie = world.cookie()
    wrong = attrs.evolve(world.login.settings, password_file=tmp_path / "absent", url="https://other.example")
    with pytest.raises(SettingsError, match="cannot read"):
        world.login.reload(wrong)
    assert world.asker.get("/", cookie).status == 200


# -- floods ------------------------------------------------------------------------------------------------------------


def test_few_passwords_wait_for_their_comparison(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = login_world(tmp_path)
    body = form(name="ann", password=PASSWORDS["ann"])
    headers = {**OWN, "content-type": "application/x-www-form-urlencoded"}
    check, all_asked, found = PasswordTable.check, threading.Event(), list[int]()

    def hold(table: PasswordTable, name: str, password: str) -> bool:
        in_time = all_asked.wait(60)
        all_asked.set()
        assert in_time, "more were let in than may wait"
        return check(table, name, password)

    async def ask(number: int) -> None:
        asker = attrs.evolve(world.asker, client=(f"192.0.2.{number}", 1))
        found.append((await asker.ask_soon("POST", "/login", headers, [body])).status)
        if found.count(503) == 2 * MOST_WAITING:
            all_asked.set()

    async def run() -> None:
        await asyncio.gather(*(ask(number) for number in range(3 * MOST_WAITING)))

    monkeypatch.setattr(PasswordTable, "check", hold)
    asyncio.run(run())
    assert sorted(found) == [303] * MOST_WAITING + [503] * (2 * MOST_WAITING)
    assert world.log_in().status == 303, "afterwards all is well"


def test_a_flood_of_refusals_does_not_fill_the_audit(tmp_path: Path) -> None:
    world = login_world(tmp_path)
    for _ in range(NOTES.burst + 50):
        assert world.asker.post("/change", b"", {"origin": "https://evil.example"}).status == 403
    assert len(world.notes) == NOTES.burst
    world.clock.now += NOTES.seconds
    world.asker.post("/change", b"", {"origin": "https://evil.example"})
    assert world.notes[-1].detail.endswith("(and 50 more refusals)")
    world.clock.now += NOTES.seconds
    world.asker.post("/change", b"", {"origin": "https://evil.example"})
    assert "more refusals" not in world.notes[-1].detail, "each is counted once"


def test_an_audit_that_fails_locks_nobody_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise ProjectionError("the database is away", "repair it")

    write_passwords(tmp_path / "passwords", **PASSWORDS)
    settings = WebSettings(login="password", password_file=tmp_path / "passwords")
    world = login_world(tmp_path)
    app = Starlette(
        routes=world.asker.app.routes,  # type: ignore[attr-defined]  # of Starlette
        middleware=list(login_middleware(ConsoleLogin(settings, fail, ledger=world.ledger))),
    )
    broken = attrs.evolve(world, asker=Asker(app=app))
    assert broken.log_in("ann", "wrong").status == 401
    assert broken.log_in().status == 303
    assert "the audit does not have this: the database is away" in caplog.text
