"""A console without a login: who may reach it, and the headers of every answer."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from deploykit.settings.web import WebSettings
from deploykit.web.login.console import ConsoleLogin
from deploykit.web.login.headers import SECURITY_HEADERS
from deploykit.web.login.hosts import HostRule
from deploykit.web.login.middleware import login_middleware
from deploykit.web.login.refusals import wrong_host
from deploykit.web.requests import viewer_of
from tests.support.asgi import Asker


def show(request: Request) -> Response:
    return PlainTextResponse(viewer_of(request).name)


def fail(request: Request) -> Response:
    raise RuntimeError("secret of the inside")


def cached(request: Request) -> Response:
    return PlainTextResponse(
        "x", headers={"Cache-Control": "public, max-age=9", "X-Frame-Options": "ALLOW", "ETag": '"a"'}
    )


def tagged(request: Request) -> Response:
    return PlainTextResponse("x", headers={"ETag": '"a"'})


def client(settings: WebSettings | None = None) -> Asker:
    routes = [Route("/", show), Route("/fail", fail), Route("/cached", cached), Route("/tagged", tagged)]
    routes += [Route("/hook/a", show, methods=["POST"]), Route("/api/v1/x", show)]
    app = Starlette(
        routes=routes,
        middleware=list(login_middleware(ConsoleLogin(settings or WebSettings()), open_paths={"/hook/a"})),
    )
    return Asker(app=app)


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8470", "127.0.0.1:1", "127.8.9.1", "[::1]:8470", "demo.localhost", "LOCALHOST."]
)
def test_names_of_the_loopback_are_served(host: str) -> None:
    answer = client().get("/", headers={"Host": host})
    assert (answer.status, answer.text) == (200, "local")


@pytest.mark.parametrize(
    "host",
    ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "", "localhost@evil", "a:b:c"],
)
def test_another_host_is_refused_as_dns_rebinding_would_come(host: str) -> None:
    answer = client().get("/", headers={"Host": host})
    assert answer.status == 421
    assert "[web] url" in answer.text


@pytest.mark.parametrize("url", ["http://localhost:8479", "https://deploy.example.org", "http://[::1]:8470"])
def test_the_right_address_is_named_with_its_port(url: str) -> None:
    assert f"Open {url}/" in wrong_host(HostRule.of(url)).detail


def test_with_a_url_only_its_host_and_port_count() -> None:
    asked = client(WebSettings(url="https://deploy.example"))
    assert asked.get("/", headers={"Host": "deploy.example"}).status == 200
    assert asked.get("/", headers={"Host": "Deploy.Example:443"}).status == 200
    for host in ("deploy.example:80", "localhost", "other.example"):
        assert asked.get("/", headers={"Host": host}).status == 421
    assert client(WebSettings(url="http://a.example:8470")).get("/", headers={"Host": "a.example:8470"}).status == 200


def test_a_refusal_of_the_api_is_a_problem() -> None:
    answer = client().get("/api/v1/x", headers={"Host": "evil.example"})
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == 421


def test_a_webhook_comes_by_any_name_and_without_a_login() -> None:
    answer = client().post("/hook/a", b"{}", {"Host": "hooks.example", "Origin": "https://evil.example"})
    assert (answer.status, answer.text) == (200, "")


@pytest.mark.parametrize("path", ["/", "/absent", "/fail", "/cached", "/tagged", "/api/v1/x"])
@pytest.mark.parametrize("host", ["localhost", "evil.example"])
def test_every_answer_has_the_headers(path: str, host: str) -> None:
    answer = client().get(path, headers={"Host": host})
    assert {name: answer.headers.get(name) for name in SECURITY_HEADERS} == SECURITY_HEADERS


def test_nothing_is_cached_unless_the_answer_says_so() -> None:
    asked = client()
    assert asked.get("/").headers["cache-control"] == "no-store"
    assert asked.get("/tagged").headers["cache-control"] == "private, no-cache"
    assert asked.get("/cached").headers["cache-control"] == "public, max-age=9"


def test_an_error_is_answered_without_its_text_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    answer = client().get("/fail")
    assert answer.status == 500
    assert "secret" not in answer.text
    assert "secret of the inside" in caplog.text


def test_the_page_for_errors_is_the_applications() -> None:
    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("ours", 500)

    app = Starlette(
        routes=[Route("/fail", fail)],
        middleware=list(login_middleware(ConsoleLogin(WebSettings()))),
        exception_handlers={Exception: handler},
    )
    answer = Asker(app=app).get("/fail")
    assert (answer.status, answer.text) == (500, "ours")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_page_for_errors_that_fails_is_answered_by_one_line(caplog: pytest.LogCaptureFixture) -> None:
    def handler(request: Request, error: Exception) -> Response:
        raise RuntimeError("secret of the page")

    app = Starlette(
        routes=[Route("/fail", fail)],
        middleware=list(login_middleware(ConsoleLogin(WebSettings()))),
        exception_handlers={Exception: handler},
    )
    answer = Asker(app=app).get("/fail")
    assert (answer.status, answer.text) == (500, "The console failed. Its log says why.\n")
    assert "secret of the page" in caplog.text


def test_the_headers_forbid_frames_foreign_scripts_and_guesses_of_types() -> None:
    policy = dict(part.strip().split(" ", 1) for part in SECURITY_HEADERS["content-security-policy"].split(";"))
    assert policy.pop("default-src") == policy.pop("frame-ancestors") == policy.pop("base-uri") == "'none'"
    assert set(policy.values()) == {"'self'"}
    assert SECURITY_HEADERS["x-frame-options"] == "DENY"
    assert SECURITY_HEADERS["x-content-type-options"] == "nosniff"
    for name in ("referrer-policy", "cross-origin-opener-policy", "cross-origin-resource-policy"):
        assert SECURITY_HEADERS[name] == "same-origin"
