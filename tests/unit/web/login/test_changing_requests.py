"""Requests that change something: only from our own pages, with the token of their login, small and soon."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from starlette.datastructures import Headers
from starlette.types import Message

from deploykit.web.login.forms import MOST_API_BODY, MOST_BODY, length_problem, read_body
from deploykit.web.login.refusals import AccessRefusal
from tests.support.loginworld import OWN, PASSWORDS, LoginWorld, form, login_world
from tests.unit.web.login.test_password_login import basic

HOST = "localhost:8470"


@pytest.fixture
def world(tmp_path: Path) -> LoginWorld:
    return login_world(tmp_path)


def test_our_own_page_with_the_token_may_change(world: LoginWorld) -> None:
    cookie = world.cookie()
    body = form(csrf=world.token(cookie), x="1")
    answer = world.asker.post("/change", body, {**OWN, **cookie})
    assert (answer.status, answer.body) == (200, body), "the view reads the whole body"
    by_script = world.asker.ask("POST", "/change", {**OWN, **cookie, "x-csrf-token": world.token(cookie)}, [b"a", b"b"])
    assert (by_script.status, by_script.text) == (200, "ab")


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site", "origin": f"http://{HOST}"},
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": f"http://{HOST}.evil.example"},
        {"origin": "http://localhost:9999"},
        {"origin": f"ftp://{HOST}"},
        {"origin": ""},
    ],
)
def test_another_page_may_not_even_with_the_token(world: LoginWorld, headers: dict[str, str]) -> None:
    cookie = world.cookie()
    refused = world.asker.post("/change", form(csrf=world.token(cookie)), {**headers, **cookie})
    assert refused.status == 403
    assert world.notes[-1].decision == "refused"
    assert world.asker.post("/login", form(name="ann", password=PASSWORDS["ann"]), headers).status == 403


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": f"http://{HOST}"}])
def test_either_header_shows_our_own_page(world: LoginWorld, headers: dict[str, str]) -> None:
    cookie = world.cookie()
    assert world.asker.post("/change", form(csrf=world.token(cookie)), {**headers, **cookie}).status == 200


def test_the_token_is_that_of_this_session(world: LoginWorld) -> None:
    ann, bob = world.cookie("ann"), world.cookie("bob")
    for token in (world.token(bob), "", world.token(ann)[:-1], "ü"):
        assert world.asker.post("/change", form(csrf=token), {**OWN, **ann}).status == 403
    twice = form(csrf=world.token(ann)) + b"&csrf=x"
    assert world.asker.post("/change", twice, {**OWN, **ann}).status == 403


def test_a_form_as_text_has_no_token(world: LoginWorld) -> None:
    cookie = world.cookie()
    body = form(csrf=world.token(cookie))
    for kind in ("text/plain", "multipart/form-data; boundary=x", ""):
        answer = world.asker.ask("POST", "/change", {**OWN, **cookie, "content-type": kind}, [body])
        assert answer.status == 403


def test_a_cookie_without_the_headers_of_a_browser_needs_the_token(world: LoginWorld) -> None:
    assert world.asker.post("/change", b"", world.cookie()).status == 403


def test_a_program_with_its_password_needs_no_token(world: LoginWorld) -> None:
    login = basic("ann", PASSWORDS["ann"])
    assert world.asker.post("/api/v1/change", b"x", login).status == 200
    assert world.asker.post("/api/v1/change", b"x", {**login, "origin": "https://evil.example"}).status == 403


def test_without_a_login_other_pages_may_not_and_programs_may(tmp_path: Path) -> None:
    world = login_world(tmp_path, mode="none")
    assert world.asker.post("/change", b"x").status == 200
    assert world.asker.post("/change", b"x", {"origin": "https://evil.example"}).status == 403
    assert world.asker.post("/change", b"x", OWN).status == 403, "our pages have the token"
    token = world.token({})
    assert world.asker.post("/change", form(csrf=token), OWN).status == 200
    assert world.asker.get("/login").headers["location"] == "/"


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST", "FROBNICATE"])
def test_every_method_but_those_that_read_is_judged(world: LoginWorld, method: str) -> None:
    assert world.asker.ask(method, "/", {"sec-fetch-site": "cross-site"}).status == 403
    assert world.asker.ask(method, "/", OWN).status == 401


@pytest.mark.parametrize("path", ["/sites/%00", "/static/%00", "/?q=%00", "/login?next=%00", "/invite/%00"])
def test_an_address_with_a_nul_is_refused_before_a_database_is_asked(world: LoginWorld, path: str) -> None:
    assert world.asker.get(path, world.cookie()).status == 400


@pytest.mark.parametrize("fields", [{"id": "a\0"}, {"a\0": "x"}])
def test_a_form_with_a_nul_is_refused_before_a_database_is_asked(world: LoginWorld, fields: dict[str, str]) -> None:
    cookie = world.cookie()
    body = form(csrf=world.token(cookie), **fields)
    assert world.asker.post("/account/tokens/revoke", body, {**OWN, **cookie}).status == 400
    assert world.asker.post("/login", form(name="ann", **fields), OWN).status == 400


# -- bodies ------------------------------------------------------------------------------------------------------------


def test_a_large_body_is_refused_whatever_its_length_says(world: LoginWorld) -> None:
    large = b"x" * (MOST_BODY + 1)
    assert world.asker.post("/login", large, OWN).status == 413
    pieces = [b"x" * 1000] * 100
    assert world.asker.ask("POST", "/login", OWN, pieces).status == 413
    assert world.asker.ask("POST", "/login", {**OWN, "content-length": "5"}, pieces).status == 413
    for length in ("-1", "1e9", "9" * 30, "²"):
        assert world.asker.ask("POST", "/login", {**OWN, "content-length": length}, [b""]).status == 413


def test_a_long_list_of_nodes_is_for_the_api_and_for_whoever_is_logged_in(world: LoginWorld) -> None:
    long, longer = str(MOST_BODY + 1), str(MOST_API_BODY + 1)
    named = basic("ann", PASSWORDS["ann"])
    body = [b"x" * (MOST_BODY + 1)]
    assert world.asker.ask("POST", "/api/v1/none", {"content-length": long}, body).status == 401
    assert world.asker.ask("POST", "/api/v1/none", {**named, "content-length": long}, body).status == 404
    assert world.asker.ask("POST", "/api/v1/none", {**named, "content-length": longer}).status == 413
    assert world.asker.ask("POST", "/api/v1/none", named, [b"x" * (1 << 19)] * 3).status == 413


def test_a_packed_body_is_refused(world: LoginWorld) -> None:
    assert world.asker.post("/login", b"x", {**OWN, "content-encoding": "gzip"}).status == 415


def test_a_body_that_does_not_come_is_given_up() -> None:
    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")

    refused = asyncio.run(read_body(receive, seconds=0.02))
    assert isinstance(refused, AccessRefusal)
    assert refused.status == 408


def test_a_form_of_many_fields_is_no_form(world: LoginWorld) -> None:
    right = form(name="ann", password=PASSWORDS["ann"])
    assert world.asker.post("/login", b"&".join([right, *(b"a%d=1" % n for n in range(60))]), OWN).status == 422
    assert world.asker.post("/login", right, OWN).status == 303


@pytest.mark.parametrize("more", [{"name": "bob"}, {"password": "x"}, {"name": "ann"}])
def test_a_field_that_stands_twice_counts_as_none(world: LoginWorld, more: dict[str, str]) -> None:
    body = form(name="ann", password=PASSWORDS["ann"]) + b"&" + form(**more)
    assert world.asker.post("/login", body, OWN).status == 422


@pytest.mark.parametrize("body", [b"name=ann&password=%ff", b"name=ann&password=\xff"])
def test_a_form_that_is_no_utf8_is_no_form(world: LoginWorld, body: bytes) -> None:
    assert world.asker.post("/login", body, OWN).status == 422


def test_a_body_that_says_that_it_is_large_is_refused_unread() -> None:
    for length, status in ((str(MOST_BODY), None), (str(MOST_BODY + 1), 413), ("9" * 17, 413)):
        refused = length_problem(Headers({"content-length": length}))
        assert (refused.status if refused is not None else None) == status
