"""A login by a proxy: whose header counts, and what happens to everybody else's."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from deploykit.web.login.peers import RequestPeer, forwarded_peer, peer_of, proxy_name
from deploykit.web.login.refusals import AccessRefusal
from tests.support.asgi import Asker
from tests.support.loginworld import OWN, LoginWorld, access, form, login_world

HEADER = "x-remote-user"


def world_of(
    tmp_path: Path, *proxies: str, client: tuple[str, int] | None = ("10.0.0.7", 4000), **more: object
) -> Asker:
    return attrs.evolve(login_world(tmp_path, mode="proxy", proxies=proxies, **more).asker, client=client)


def test_the_name_of_a_listed_proxy_counts(tmp_path: Path) -> None:
    asker = world_of(tmp_path, "10.0.0.0/24", access=(access("ann", role="live"),))
    assert asker.get("/", {HEADER: "ann"}).text.startswith("ann *=live ")
    assert asker.get("/api/v1/sites", {"X-REMOTE-USER": "ann"}).status == 200


@pytest.mark.parametrize(
    "client",
    [("10.0.1.7", 4000), ("127.0.0.1", 4000), ("::1", 4000), ("::ffff:10.0.1.7", 1), ("10.0.0.7.evil", 1), None],
)
def test_the_header_of_anybody_else_is_refused(tmp_path: Path, client: tuple[str, int] | None) -> None:
    world = login_world(tmp_path, mode="proxy", proxies=("10.0.0.0/24",))
    asker = attrs.evolve(world.asker, client=client)
    for path in ("/", "/api/v1/sites", "/login"):
        assert asker.get(path, {HEADER: "ann"}).status == 403
    assert world.notes[0].decision == "refused"
    assert "not a listed proxy" in world.notes[0].detail
    forwarded = {HEADER: "ann", "x-forwarded-for": "10.0.0.7", "forwarded": "for=10.0.0.7", "x-real-ip": "10.0.0.7"}
    assert asker.get("/", forwarded).status == 403


def test_a_redirect_behind_tls_stays_there(tmp_path: Path) -> None:
    asker = attrs.evolve(world_of(tmp_path, "10.0.0.7", url="https://deploy.example"), host="deploy.example")
    answer = asker.get("/deploys/", {HEADER: "ann", "x-forwarded-proto": "http"})
    assert answer.headers["location"] == "https://deploy.example/deploys"


def test_an_ipv4_proxy_is_known_on_an_ipv6_socket(tmp_path: Path) -> None:
    assert world_of(tmp_path, "10.0.0.7", client=("::ffff:10.0.0.7", 1)).get("/", {HEADER: "ann"}).status == 200


@pytest.mark.parametrize("values", [("ann", "bob"), ("ann", "ann"), ("", "ann"), ("ann,bob",), ("ann, bob",)])
def test_several_values_are_refused(tmp_path: Path, values: tuple[str, ...]) -> None:
    asker = world_of(tmp_path, "10.0.0.7")
    assert asker.get("/", [(HEADER, value) for value in values]).status == 403


@pytest.mark.parametrize("value", ["a\tb", " ", "a" * 300, "\x7f", "ann\xff", "\xc2\x85"])
def test_a_value_that_is_no_name_is_refused(tmp_path: Path, value: str) -> None:
    assert world_of(tmp_path, "10.0.0.7").get("/", {HEADER: value}).status == 403


def test_a_name_in_utf8_is_read(tmp_path: Path) -> None:
    raw = "jörg".encode().decode("latin-1")
    asker = world_of(tmp_path, "10.0.0.7", access=(access("jörg"),))
    assert asker.get("/", {HEADER: raw}).status == 200


def test_a_proxy_without_a_name_logs_nobody_in(tmp_path: Path) -> None:
    asker = world_of(tmp_path, "10.0.0.7")
    for headers in ({}, {HEADER: ""}):
        refused = asker.get("/", headers)
        assert (refused.status, "did not send X-Remote-User" in refused.text) == (403, True)


def test_only_the_header_of_the_settings_counts(tmp_path: Path) -> None:
    asker = world_of(tmp_path, "10.0.0.7", proxy_header="X-Team-User")
    assert asker.get("/", {"x-team-user": "ann"}).status == 200
    for other in (HEADER, "x_team_user", "remote-user", "x-team-user2"):
        assert asker.get("/", {other: "ann"}).status == 403


def test_a_unix_socket_counts_only_where_the_console_listens_on_one(tmp_path: Path) -> None:
    on_socket = world_of(tmp_path, "unix", client=None, listen="unix:/run/deploykit/web.sock")
    assert on_socket.get("/", {HEADER: "ann"}).status == 200
    # A TCP peer that has gone has no address any more: it is no UNIX peer by that.
    assert world_of(tmp_path, "unix", client=None).get("/", {HEADER: "ann"}).status == 403
    assert world_of(tmp_path, "10.0.0.7", client=None, listen="unix:/run/x").get("/", {HEADER: "ann"}).status == 403


def test_a_form_through_the_proxy_needs_the_token_of_its_name(tmp_path: Path) -> None:
    world = login_world(tmp_path, mode="proxy", proxies=("10.0.0.7",))
    world = attrs.evolve(world, asker=attrs.evolve(world.asker, client=("10.0.0.7", 1)))
    ann, bob = {HEADER: "ann"}, {HEADER: "bob"}
    assert world.asker.post("/change", form(csrf=world.token(ann)), {**OWN, **ann}).status == 200
    assert world.asker.post("/change", form(csrf=world.token(bob)), {**OWN, **ann}).status == 403
    assert world.asker.post("/change", form(), ann).status == 403


def test_a_password_does_not_count(tmp_path: Path) -> None:
    asker = world_of(tmp_path, "10.0.0.7")
    assert asker.get("/api/v1/sites", {"authorization": "Basic YW5uOmNvcnJlY3QgaG9yc2U="}).status == 403
    assert asker.post("/login", form(name="ann", password="correct horse"), OWN).cookies == ()


def test_limits_count_the_peers_of_a_listed_proxy(tmp_path: Path) -> None:
    world: LoginWorld = login_world(tmp_path, proxies=("127.0.0.1",))
    for number in range(7):
        world.log_in("ann", "wrong", **{"x-forwarded-for": f"spoofed{number}, 192.0.2.1"})
    assert world.log_in(**{"x-forwarded-for": "192.0.2.1"}).status == 429
    assert world.log_in(**{"x-forwarded-for": "192.0.2.2"}).status == 303


def test_limits_believe_nobody_else(tmp_path: Path) -> None:
    world = login_world(tmp_path)
    tried = [world.log_in("ann", "wrong", **{"x-forwarded-for": f"192.0.2.{n}"}).status for n in range(7)]
    assert tried[-1] == 429


def test_peers_in_one_ipv6_network_count_as_one() -> None:
    one, other = (
        peer_of(("2001:db8::1", 1), on_unix_socket=False),
        peer_of(("2001:db8::2:0:0:9", 1), on_unix_socket=False),
    )
    assert one.group == peer_of(("2001:db8::ffff%eth0", 1), on_unix_socket=False).group
    assert one.group == other.group == "2001:db8::/64"
    assert forwarded_peer(one, ["nonsense"], ["2001:db8::/32"]) == one


@given(value=st.text(alphabet=st.characters(max_codepoint=255), max_size=300), address=st.ip_addresses())
def test_no_header_is_an_error(value: str, address: object) -> None:
    peer = peer_of((str(address), 1), on_unix_socket=False)
    assert isinstance(proxy_name([value], RequestPeer(), header="H", proxies=["10.0.0.0/8"]), AccessRefusal)
    name = proxy_name([value], peer, header="H", proxies=["0.0.0.0/0", "::/0"])
    assert isinstance(name, AccessRefusal) or name == "" or name.isprintable()


def test_forms_behind_a_proxy_outlast_a_restart_from_the_second_page_on(tmp_path: Path) -> None:
    ann = {"x-remote-user": "ann"}

    def console() -> LoginWorld:
        return login_world(tmp_path, mode="proxy", proxies=("127.0.0.1",), access=(access("*", role="live"),))

    first = console()
    begun = first.asker.get("/", ann)
    (line,) = begun.cookies
    assert "HttpOnly; SameSite=Lax" in line
    cookie = {"cookie": line.partition(";")[0]}
    early = begun.text.partition("token=")[2].strip()
    page = first.asker.get("/", {**ann, **cookie})
    assert page.cookies == ()
    token = page.text.partition("token=")[2].strip()
    assert token != early
    for good in (early, token):
        assert first.asker.post("/change", form(csrf=good), {**OWN, **ann, **cookie}).status == 200
    other = console()
    assert other.asker.post("/change", form(csrf=token), {**OWN, **ann, **cookie}).status == 200
    assert other.asker.post("/change", form(csrf=early), {**OWN, **ann, **cookie}).status == 403
    bob = {"x-remote-user": "bob"}
    assert other.asker.post("/change", form(csrf=token), {**OWN, **bob, **cookie}).status == 403, "each has their own"
    for chosen in ("x", "A" * 42, "A" * 43 + "; deploykit-form=" + "B" * 43):
        answer = other.asker.get("/", {**ann, "cookie": f"deploykit-form={chosen}"})
        assert answer.cookies != ()
