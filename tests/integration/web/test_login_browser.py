"""The login in a real browser: with and without script, from a link of another site, against a form of another site."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import pytest
from starlette.types import Receive, Scope, Send

from deploykit.settings.service import parse_listen_address
from deploykit.web.listener import SharedListener
from deploykit.web.server import WebServer
from tests.support.browser import chromium, serious_findings, tab
from tests.support.loginworld import PASSWORDS, LoginWorld, login_world

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@attrs.frozen(kw_only=True)
class Served:
    """A console with its address at `localhost`, and another site, at `127.0.0.1`, whose page is `page`.

    `said` is what the next requests for pages say in `Sec-Fetch-Site`, whatever the browser does.
    """

    world: LoginWorld
    url: str
    other: str
    page: list[str]
    said: list[str]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    world = login_world(tmp_path)
    page, said = [""], list[str]()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if said and scope["type"] == "http" and not scope["path"].startswith("/static/"):
            others = [pair for pair in scope["headers"] if pair[0] != b"sec-fetch-site"]
            scope["headers"] = [*others, (b"sec-fetch-site", said.pop(0).encode())]
        await world.asker.app(scope, receive, send)

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page[0].encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Write nothing."""

    other = ThreadingHTTPServer(("127.0.0.1", 0), Other)
    thread = threading.Thread(target=other.serve_forever, daemon=True)
    thread.start()
    listener = SharedListener(parse_listen_address("127.0.0.1:0"), setting="[web] listen")
    with WebServer(app, listener) as server:
        try:
            url = server.url.replace("127.0.0.1", "localhost")
            yield Served(world=world, url=url, other=f"http://127.0.0.1:{other.server_port}/", page=page, said=said)
        finally:
            other.shutdown()
            other.server_close()
            thread.join(10)


def log_in(page: Page, url: str, password: str = PASSWORDS["ann"]) -> None:
    page.goto(url)
    page.fill("#name", "ann")
    page.fill("#password", password)
    with page.expect_navigation():
        page.keyboard.press("Enter")


@pytest.mark.parametrize("script", [True, False])
@pytest.mark.parametrize(("width", "scheme"), [(320, "dark"), (1280, "light")])
def test_a_person_logs_in(browser: Browser, served: Served, script: bool, width: int, scheme: str) -> None:
    with tab(browser, width=width, scheme=scheme, script=script) as opened:  # type: ignore[arg-type]  # one of the two
        page = opened.page
        log_in(page, f"{served.url}sites/shop?x=1", "wrong")
        assert "The name or the password is wrong." in page.inner_text("main")
        assert page.input_value("#name") == "ann"
        assert page.input_value("#password") == ""
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth") if script else True
        assert serious_findings(page) == [] if script else True
        # The answer 401 to the wrong password is an error for the browser, nothing else is.
        assert [problem for problem in opened.problems if "401" not in problem] == []
        page.fill("#password", PASSWORDS["ann"])
        page.click("main button")
        page.wait_for_url(f"{served.url}sites/shop?x=1")
        assert page.inner_text("body").startswith("ann *=look ")
        (cookie,) = [one for one in page.context.cookies() if one["name"] == "deploykit"]
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)
        assert {re.sub(r"(?<=\d)/.*", "/", address) for address in opened.requests} == {served.url}


def test_a_link_from_another_site_needs_no_new_login(browser: Browser, served: Served) -> None:
    served.page[0] = f'<a id="go" href="{served.url}sites/shop">look</a>'
    with tab(browser) as opened:
        page = opened.page
        log_in(page, served.url)
        page.goto(served.other)
        page.click("#go")
        page.get_by_text("ann *=look").wait_for()
        assert page.url == f"{served.url}sites/shop"


def test_a_link_with_two_slashes_leads_nowhere_else_where_a_reload_stays_the_other_sites(
    browser: Browser, served: Served
) -> None:
    """Some browsers say of a reload again that another site asked for it, and send no cookie."""
    host = served.other.removeprefix("http://").rstrip("/")
    with tab(browser) as opened:
        page = opened.page
        served.page[0] = f'<a id="go" href="{served.url}/{host}/x">look</a>'
        page.goto(served.other)
        # As such a browser would say it: of the link, of the reload, of the address that our script asks for then.
        served.said.extend(["cross-site", "cross-site", "same-origin"])
        page.click("#go")
        page.wait_for_url(f"{served.url}login**")
        assert served.said == []


def test_a_form_of_another_site_changes_nothing(browser: Browser, served: Served) -> None:
    with tab(browser) as opened:
        page = opened.page
        log_in(page, served.url)
        token = page.inner_text("body").partition("token=")[2].strip()
        # Even one that knows the token.
        served.page[0] = (
            f'<form method="post" action="{served.url}change"><input name="csrf" value="{token}">'
            '<button id="go">go</button></form>'
        )
        page.goto(served.other)
        page.click("#go")
        page.wait_for_url(f"{served.url}change")
        assert "did not come from a page of this console" in page.inner_text("body")
        assert served.world.notes[-1].decision == "refused"


def test_a_script_of_another_site_reads_nothing(browser: Browser, served: Served) -> None:
    with tab(browser) as opened:
        page = opened.page
        log_in(page, served.url)
        served.page[0] = "<p>other</p>"
        page.goto(served.other)
        read = "u => fetch(u, {credentials: 'include'}).then(a => a.text()).catch(e => 'refused')"
        assert page.evaluate(read, served.url) == "refused"
        framed = "u => new Promise(r => {const f = document.createElement('iframe'); f.onload = () => r('loaded');"
        framed += " f.src = u; document.body.append(f)})"
        page.evaluate(framed, served.url)
        assert all("ann" not in (frame.text_content("body") or "") for frame in page.frames[1:])
