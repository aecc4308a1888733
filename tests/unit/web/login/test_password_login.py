"""A login by password: the form, its session, how it ends, and what the audit has of it."""

from __future__ import annotations

import base64
from pathlib import Path

import attrs
import pytest

from deploykit.settings.web import WebSettings
from deploykit.web.login import attempts
from deploykit.web.login.attempts import REMEMBERED_SECONDS
from deploykit.web.login.headers import SECURITY_HEADERS
from deploykit.web.login.limits import PEER
from tests.support.loginworld import OWN, PASSWORDS, LoginWorld, access, form, login_world, write_passwords


@pytest.fixture
def world(tmp_path: Path) -> LoginWorld:
    return login_world(tmp_path)


def basic(name: str, password: str) -> dict[str, str]:
    return {"authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


def test_a_page_sends_nobody_to_the_login_and_back(world: LoginWorld) -> None:
    sent = world.asker.get("/sites/shop?x=1&y=a%20b")
    assert (sent.status, sent.headers["location"]) == (303, "/login?next=/sites/shop%3Fx%3D1%26y%3Da%2520b")
    shown = world.asker.get(sent.headers["location"])
    assert (shown.status, 'value="/sites/shop?x=1&amp;y=a%20b"' in shown.text) == (200, True)
    logged_in = world.log_in(wanted="/sites/shop?x=1&y=a%20b")
    assert (logged_in.status, logged_in.headers["location"]) == (303, "/sites/shop?x=1&y=a%20b")


def test_a_session_shows_the_pages(world: LoginWorld) -> None:
    assert world.asker.get("/", world.cookie()).text.startswith("ann *=look ")


def test_the_form_works_without_a_script_and_names_no_other_host(world: LoginWorld) -> None:
    text = world.asker.get("/login").text
    assert '<form method="post" action="/login">' in text
    assert "://" not in text.replace("http://www.w3.org/", "")
    assert "Overview</a>" not in text, "no navigation for nobody"


def test_the_cookie_is_for_this_host_alone(tmp_path: Path) -> None:
    (plain,) = login_world(tmp_path).log_in().cookies
    assert plain.startswith("deploykit=")
    assert plain.endswith("; Path=/; HttpOnly; SameSite=Strict")
    secure = login_world(tmp_path, url="https://deploy.example").log_in(host="deploy.example")
    (line,) = secure.cookies
    assert line.startswith("__Host-deploykit=")
    assert line.endswith("; Path=/; HttpOnly; SameSite=Strict; Secure")


def test_the_id_of_a_session_is_nowhere_but_in_the_cookie(world: LoginWorld) -> None:
    id_ = world.cookie()["cookie"].partition("=")[2]
    assert len(id_) >= 43
    held = repr(vars(world.login.sessions)) + repr(world.notes)
    assert id_ not in held


@pytest.mark.parametrize(("name", "password"), [("ann", "wr0ng"), ("eve", "correct horse"), ("ann", "battery")])
def test_a_wrong_login_does_not_show_what_was_wrong(world: LoginWorld, name: str, password: str) -> None:
    refused = world.log_in(name, password)
    assert (refused.status, refused.cookies) == (401, ())
    assert "The name or the password is wrong." in refused.text
    assert password not in refused.text


def test_a_form_that_lacks_something_says_so(world: LoginWorld) -> None:
    assert world.log_in("", "x").status == 422
    assert world.log_in("ann", "").status == 422
    assert world.asker.post("/login", b"%ff=%ff", OWN).status == 422


def test_a_logout_ends_the_session_on_the_server(world: LoginWorld) -> None:
    cookie = world.cookie()
    token = world.token(cookie)
    gone = world.asker.post("/logout", form(csrf=token), {**OWN, **cookie})
    assert (gone.status, gone.headers["location"]) == (303, "/login")
    assert "Max-Age=0" in gone.cookies[0]
    assert world.asker.get("/", cookie).status == 303
    assert [note.action for note in world.notes] == ["login", "logout"]


def test_a_logout_needs_the_token(world: LoginWorld) -> None:
    cookie = world.cookie()
    assert world.asker.post("/logout", b"", {**OWN, **cookie}).status == 403
    assert world.asker.get("/", cookie).status == 200


def test_an_idle_session_ends_and_one_in_use_does_not(world: LoginWorld) -> None:
    cookie = world.cookie()
    for _ in range(3):
        world.clock.now += WebSettings().session_idle - 1
        assert world.asker.get("/", cookie).status == 200
    world.clock.now += WebSettings().session_idle + 1
    assert world.asker.get("/", cookie).status == 303


def test_the_busiest_session_ends_after_a_week(world: LoginWorld) -> None:
    cookie = world.cookie()
    for _ in range(7 * 24):
        world.clock.now += 3600
        assert world.asker.get("/", cookie).status == 200
    world.clock.now += 1
    assert world.asker.get("/", cookie).status == 303


def test_a_new_login_has_a_new_id_and_ends_the_old_one(world: LoginWorld) -> None:
    before = world.cookie()
    after = world.log_in("bob", **before)
    assert world.asker.get("/", before).status == 303
    assert after.cookies[0].partition(";")[0] != before["cookie"]


def test_an_id_that_somebody_planted_becomes_no_session(world: LoginWorld) -> None:
    planted = {"cookie": "deploykit=planted"}
    (line,) = world.log_in(**planted).cookies
    assert "planted" not in line
    assert world.asker.get("/", planted).status == 303


def test_two_cookies_of_our_name_count_as_none(world: LoginWorld) -> None:
    ann, bob = world.cookie("ann")["cookie"], world.cookie("bob")["cookie"]
    assert world.asker.get("/", {"cookie": f"{ann}; {bob}"}).status == 303
    assert world.asker.get("/", [("cookie", ann), ("cookie", bob)]).status == 303


def test_a_session_ends_when_its_name_or_password_leaves_the_file(world: LoginWorld) -> None:
    ann, bob = world.cookie("ann"), world.cookie("bob")
    write_passwords(world.file, ann="another", carol="new")
    world.clock.now += 2
    assert world.asker.get("/", ann).status == 303
    assert world.asker.get("/", bob).status == 303
    assert world.log_in("carol", "new").status == 303


def test_a_bad_file_leaves_the_passwords_as_they_were(world: LoginWorld, caplog: pytest.LogCaptureFixture) -> None:
    cookie = world.cookie()
    world.file.write_text("ann:$2b$04$short\n")
    world.clock.now += 2
    assert world.asker.get("/", cookie).status == 200
    assert "the passwords stay as they were" in caplog.text
    assert "short" not in caplog.text


def test_roles_come_from_the_settings(tmp_path: Path) -> None:
    world = login_world(tmp_path, access=(access("ann", sites=("shop", "blog-*"), role="live"), access("*")))
    assert world.asker.get("/", world.cookie("ann")).text.startswith("ann shop=live,blog-*=live,*=look ")
    assert world.asker.get("/", world.cookie("bob")).text.startswith("bob *=look ")


def test_whom_no_rule_names_is_logged_in_and_sees_nothing(tmp_path: Path) -> None:
    world = login_world(tmp_path, access=(access("ann"),))
    cookie = world.cookie("bob")
    refused = world.asker.get("/", cookie)
    assert (refused.status, "no [[web.access]] names you" in refused.text) == (403, True)
    assert world.asker.get("/api/v1/sites", cookie).json()["status"] == 403
    assert world.asker.get("/login", cookie).status == 200, "somebody else may log in"


def test_a_link_of_another_site_is_asked_for_again_by_our_own_page(world: LoginWorld) -> None:
    answer = world.asker.get("/sites/shop", {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"})
    assert (answer.status, 'http-equiv="refresh"' in answer.text) == (200, True)
    again = world.asker.get("/sites/shop", {"sec-fetch-site": "same-origin", "sec-fetch-mode": "navigate"})
    assert again.status == 303, "no loop"


def test_a_part_of_a_page_that_a_script_asks_for_is_no_redirect(world: LoginWorld) -> None:
    answer = world.asker.get("/", {"sec-fetch-mode": "cors", "sec-fetch-site": "same-origin"})
    assert answer.status == 401
    assert not answer.headers["www-authenticate"].startswith("Basic"), "no window of the browser"


def test_the_login_is_in_the_audit_refusals_first(world: LoginWorld) -> None:
    world.log_in("ann", "wrong")
    world.log_in("s3cret typed as a name", "x")
    world.log_in()
    found = [(note.action, note.decision, note.who, note.where) for note in world.notes]
    assert found == [
        ("login", "refused", "ann", "console"),
        ("login", "refused", "", "console"),
        ("login", "done", "ann", "console"),
    ]
    assert "127.0.0.1" in world.notes[0].detail
    assert "s3cret" not in repr(world.notes)


def test_every_answer_of_the_login_has_the_headers(world: LoginWorld) -> None:
    answers = [world.asker.get("/"), world.asker.get("/login"), world.log_in("ann", "wrong"), world.log_in()]
    for answer in answers:
        assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS
        assert answer.headers["cache-control"] == "no-store"


def test_static_files_need_no_login(world: LoginWorld) -> None:
    page = world.asker.get("/login").text
    path = page.partition('rel="stylesheet" href="')[2].partition('"')[0]
    assert world.asker.get(path).status == 200


# -- the API -----------------------------------------------------------------------------------------------------------


def test_the_api_asks_programs_for_basic(world: LoginWorld) -> None:
    answer = world.asker.get("/api/v1/sites")
    assert (answer.status, answer.headers["content-type"]) == (401, "application/problem+json")
    assert answer.headers["www-authenticate"].startswith("Basic ")


def test_a_program_logs_in_with_each_request(world: LoginWorld) -> None:
    assert world.asker.get("/api/v1/sites", basic("ann", PASSWORDS["ann"])).text.startswith("ann *=look")
    refused = world.asker.get("/api/v1/sites", basic("ann", "wrong"))
    assert (refused.status, refused.headers["www-authenticate"][:5]) == (401, "Basic")
    assert world.asker.get("/", basic("ann", PASSWORDS["ann"])).status == 303, "pages have the form"


def test_a_session_shows_the_api(world: LoginWorld) -> None:
    assert world.asker.get("/api/v1/sites", world.cookie()).status == 200


@pytest.mark.parametrize(
    "value", ["Basic", "Basic ???", "Basic YW5u", "Digest x", "Basic /w==", "Basic " + "YW5u" * 2000]
)
def test_an_authorization_that_cannot_be_read_is_a_problem(world: LoginWorld, value: str) -> None:
    assert world.asker.get("/api/v1/sites", {"authorization": value}).status == 400


def test_two_authorizations_are_refused(world: LoginWorld) -> None:
    pairs = [*basic("ann", PASSWORDS["ann"]).items(), *basic("bob", PASSWORDS["bob"]).items()]
    assert world.asker.get("/api/v1/sites", pairs).status == 400


def test_many_requests_of_a_program_are_no_attempts(world: LoginWorld) -> None:
    for _ in range(40):
        assert world.asker.get("/api/v1/sites", basic("ann", PASSWORDS["ann"])).status == 200
    write_passwords(world.file, ann="another")
    world.clock.now += 2
    assert world.asker.get("/api/v1/sites", basic("ann", PASSWORDS["ann"])).status == 401


# -- limits ------------------------------------------------------------------------------------------------------------


def test_what_a_program_sent_is_compared_again_after_a_minute(world: LoginWorld) -> None:
    right = basic("ann", PASSWORDS["ann"])
    assert world.asker.get("/api/v1/sites", right).status == 200
    world.clock.now += REMEMBERED_SECONDS + 1
    for number in range(PEER.burst):
        world.asker.get("/api/v1/sites", basic(f"nobody{number}", "x"))
    assert world.asker.get("/api/v1/sites", right).status == 429, "it is an attempt again"


def test_of_programs_few_logins_are_remembered(world: LoginWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_MOST_REMEMBERED", 1)
    for name, password in PASSWORDS.items():
        assert world.asker.get("/api/v1/sites", basic(name, password)).status == 200
    assert len(world.login.passwords._remembered) == 1


def test_a_name_is_tried_a_few_times_then_slowly(world: LoginWorld) -> None:
    assert [world.log_in("ann", "wrong").status for _ in range(7)] == [401] * 5 + [429] * 2
    refused = world.log_in()
    assert (refused.status, refused.headers["retry-after"]) == (429, "31"), "even the right password waits"
    world.clock.now += 31
    assert world.log_in().status == 303


def test_addresses_of_one_ipv6_network_share_their_attempts(world: LoginWorld) -> None:
    tried = [
        attrs.evolve(world, asker=attrs.evolve(world.asker, client=(f"2001:db8::{n:x}", 1))).log_in("ann", "x").status
        for n in range(7)
    ]
    assert tried == [401] * 5 + [429] * 2


def test_an_empty_token_fits_nothing() -> None:
    assert attempts.same_text("a", "a")
    assert not attempts.same_text("", "")


def test_the_api_has_the_same_limits(world: LoginWorld) -> None:
    tried = [world.asker.get("/api/v1/sites", basic("ann", f"wrong{n}")).status for n in range(7)]
    assert tried == [401] * 5 + [429] * 2
    assert world.log_in().status == 429


def test_a_peer_that_tries_many_names_is_slowed_down(world: LoginWorld) -> None:
    tried = [world.log_in(f"name{n}", "x").status for n in range(40)]
    assert tried == [401] * 30 + [429] * 10
    assert len([note for note in world.notes if note.decision == "refused"]) == 40


def test_right_logins_are_not_limited(world: LoginWorld) -> None:
    assert {world.log_in().status for _ in range(50)} == {303}


# -- streams -----------------------------------------------------------------------------------------------------------


def test_a_stream_ends_with_its_session(world: LoginWorld) -> None:
    cookie = world.cookie()
    world.clock.now += WebSettings().session_idle - 20
    # The view's stream never ends by itself; it turns the clock by a second with each part.
    answer = world.asker.get("/api/v1/events", cookie)
    assert answer.status == 200
    assert world.asker.get("/", cookie).status == 303
