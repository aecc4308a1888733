"""The pages in a real browser: every width, light and dark, with and without script, live, by keyboard, hostile."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

import attrs
import pytest

from deploykit.errors import ProjectionError
from deploykit.web.api.routes import routes as api_routes
from deploykit.web.context import ConsoleContext
from deploykit.web.live.events import EventRing
from deploykit.web.projection.views import ProjectionHealth
from tests.support.browser import WIDTHS, Tab, chromium, serious_findings, tab
from tests.support.consoleworld import CANARY, NOW, ago, big_world, hostile_world, quiet_world, small_world
from tests.support.fixedqueries import FixedQueries
from tests.support.served import Served, console_app, console_of, serving
from tests.support.wait import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, Route

PAGES = ("/", "/fleet", "/sites/shop", "/nodes", "/nodes/web-1")
COUNT_EVENTS = "window.heard = 0; document.addEventListener('deploykit:event', () => window.heard++)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def console() -> Iterator[Served]:
    with console_of(small_world()) as served:
        yield served


def queries_of(console: Served) -> FixedQueries:
    assert isinstance(console.context.queries, FixedQueries)
    return console.context.queries


@attrs.frozen(kw_only=True)
class Streaming:
    """A console with the real event stream, and a tab that is not at it yet."""

    world: FixedQueries
    events: EventRing
    url: str
    one: Tab

    def opened(self) -> Page:
        """Return the tab's page, at the overview, live."""
        self.one.page.goto(self.url)
        self.one.page.locator("#stream-words", has_text="live").wait_for()
        return self.one.page


@contextmanager
def streaming(browser: Browser) -> Iterator[Streaming]:
    world = small_world()
    app = console_app(world, more=tuple(api_routes()))
    events = app.state.console.events
    with serving(app) as url, tab(browser) as one:
        try:
            yield Streaming(world=world, events=events, url=url, one=one)
        finally:
            events.close()


def overflow(page: Page) -> int:
    return int(page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))


def opened(console: Served, tab: Tab, path: str) -> Page:
    tab.page.goto(console.url + path)
    tab.page.locator("#stream-words", has_text="live").wait_for()
    return tab.page


@pytest.mark.parametrize("path", [*PAGES, "/nodes/nobody"])
def test_a_page_is_right_at_every_width_light_and_dark(browser: Browser, console: Served, path: str) -> None:
    with tab(browser, width=1280) as one:
        page = opened(console, one, path)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            for width in sorted(WIDTHS, reverse=scheme == "light"):  # axe looks at a narrow light and a wide dark one
                page.set_viewport_size({"width": width, "height": WIDTHS[width]})
                assert overflow(page) <= 0, (width, scheme)
            assert serious_findings(page) == []
        assert {urlsplit(url).netloc for url in one.requests} == {urlsplit(console.url).netloc}
        assert [text for text in one.problems if "404" not in text] == []


@pytest.mark.parametrize(
    ("name", "world", "title"),
    [
        ("quiet", quiet_world(), "All is well"),
        ("empty", FixedQueries(), "No site was heard of yet"),
        (
            "away",
            attrs.evolve(
                small_world(),
                health_now=ProjectionHealth(
                    connected=False, away_since=ago(minutes=4), reason="refused", unverified=True, distrusted=2,
                    rebuilding=True, answered=1, dropped=3, distrust="SHA256:" + 43 * "x" + "/" + 200 * "y",
                ),
            ),
            "The console hears nothing",
        ),
    ],
)  # fmt: skip
def test_other_nights(browser: Browser, name: str, world: FixedQueries, title: str) -> None:
    with console_of(world) as served, tab(browser, width=320, scheme="dark") as one:
        page = one.page
        for path in ("/", "/fleet", "/nodes"):
            page.goto(served.url + path)
            assert overflow(page) <= 0
            assert serious_findings(page) == []
        page.goto(served.url + "/")
        assert page.locator("h1").inner_text() == title
        if name == "away":
            alert = page.get_by_role("alert").inner_text()
            assert re.search(r"No broker since 30 Nov 2026, 04:08:00 (CET|GMT\+1) \(2026-11-30 03:08:00 UTC\)", alert)
            assert "refused" in alert
            text = page.locator("#banners").inner_text()
            assert all(words in text for words in ("Unverified", "2 messages not believed", "3 messages lost"))


def test_without_script_everything_can_be_read_and_reached(browser: Browser, console: Served) -> None:
    with tab(browser, width=768, script=False) as one:
        page = one.page
        page.goto(console.url)
        assert "2026-11-30 03:03:00 UTC" in page.locator("#problems").inner_text()
        assert " ago" not in page.locator("body").inner_text()
        assert not page.locator("#theme, #help-open, #stream").first.is_visible()
        page.get_by_role("link", name="shop", exact=True).click()
        page.get_by_label("Filter nodes").fill("web-2")
        page.get_by_role("button", name="Filter").click()
        page.wait_for_url("**q=web-2**")  # and until it is whole
        assert page.locator("tbody tr").count() == 1
        page.get_by_role("link", name="web-2").click()
        page.wait_for_url("**/nodes/web-2")
        assert page.locator("h1").inner_text() == "web-2"
        page.goto(console.url)
        page.get_by_label("Find a site").fill("docs")
        page.get_by_role("button", name="Find").click()
        page.wait_for_url(f"{console.url}/sites/docs")


def test_the_first_view_is_small(browser: Browser) -> None:
    with console_of(big_world()) as served, tab(browser) as one:
        sizes: list[int] = []
        one.page.on("requestfinished", lambda request: sizes.append(request.sizes()["responseBodySize"]))
        opened(served, one, "/")
        assert len(one.requests) <= 5
        assert sum(sizes) <= 40_000
        assert any(size > 3000 for size in sizes)  # they were measured


def test_what_changes_is_seen_without_a_reload(browser: Browser, console: Served) -> None:
    world = queries_of(console)
    kept = world.site_list, world.problem_list
    try:
        with tab(browser) as one:
            page = opened(console, one, "/")
            page.evaluate("window.same = true")
            assert "ok" not in str(page.locator("#verdict").get_attribute("class"))
            world.problem_list = ()
            world.site_list = tuple(attrs.evolve(site, by="someone new") for site in world.site_list)
            console.feed.send("deploy", site="shop")
            page.locator("#verdict.ok h1", has_text="All is well").wait_for()
            assert page.locator("#sites").inner_text().count("someone new") == 4
            assert page.locator("#problems").inner_text() == ""
            assert page.locator("#sites tr.fresh").count() == 4
            assert page.evaluate("window.same")
            assert " ago" in page.locator("#sites").inner_text()
    finally:
        world.site_list, world.problem_list = kept


def test_the_real_stream_reaches_the_page(browser: Browser) -> None:
    with streaming(browser) as live:
        page = live.opened()
        live.world.problem_list = live.world.problem_list[:1]
        live.events.add("lock", NOW, site="billing")
        page.locator("h1", has_text="One thing needs a look").wait_for()
        assert live.one.problems == []


def test_what_happens_before_the_stream_is_open_is_seen_too(browser: Browser) -> None:
    with streaming(browser) as live:

        def change_first(route: Route) -> None:
            live.world.problem_list = live.world.problem_list[1:]
            live.events.add("deploy", NOW, site="shop")
            route.continue_()

        first = live.one.page
        pages: list[Page] = []
        for page in (first, first.context.new_page()):  # the first opens the stream, the second joins it
            left = len(live.world.problem_list) - 1
            # The page is drawn, and its script is not there yet.
            page.route("**/static/console*.mjs", change_first, times=1)
            page.goto(live.url)
            for each in (*pages, page):
                each.locator("#problems li").nth(left).wait_for(state="detached")
                assert each.locator("#problems li").count() == left
            pages.append(page)


def test_what_happens_while_a_page_is_fetched_anew_is_seen_too(browser: Browser) -> None:
    with streaming(browser) as live:
        page = live.opened()

        def change_meanwhile(route: Route) -> None:
            written = route.fetch()  # the server has written it
            live.world.problem_list = live.world.problem_list[:1]
            live.events.add("deploy", NOW, site="shop")
            wait_until(lambda: page.evaluate("window.heard") == 2, "the page hears of it")
            route.fulfill(response=written)

        page.evaluate(COUNT_EVENTS)
        page.route(live.url, change_meanwhile, times=1)
        live.events.add("deploy", NOW, site="shop")
        page.locator("h1", has_text="One thing needs a look").wait_for()


def test_a_page_that_could_not_be_fetched_is_fetched_again(browser: Browser) -> None:
    with streaming(browser) as live:
        page = live.opened()
        page.route(live.url, lambda route: route.fulfill(status=503, body="the database is away"), times=1)
        live.world.problem_list = live.world.problem_list[:1]
        live.events.add("deploy", NOW, site="shop")
        page.locator("h1", has_text="One thing needs a look").wait_for()


def test_a_console_that_is_gone_is_shown_as_long_as_it_is(browser: Browser) -> None:
    app = console_app(small_world(), more=tuple(api_routes()))
    context: ConsoleContext = app.state.console
    with tab(browser) as one:
        with serving(app) as url:
            one.page.goto(url)
            one.page.locator("#stream-words", has_text="live").wait_for()
            context.events.close()
        one.page.locator("#stream.lost", has_text="reconnecting").wait_for()


def test_only_what_concerns_a_page_is_fetched_and_a_flood_is_fetched_once(browser: Browser, console: Served) -> None:
    with tab(browser) as one:
        one.page.clock.install()
        page = opened(console, one, "/sites/shop")
        page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))  # however long all of them are on their way

        def fetched() -> int:
            return one.requests.count(console.url + "/sites/shop")

        page.evaluate(COUNT_EVENTS)
        for _ in range(20):
            console.feed.send("push")
            console.feed.send("deploy", site="docs")
        wait_until(lambda: page.evaluate("window.heard") == 40, "40 events")
        page.clock.fast_forward(1500)
        page.wait_for_timeout(300)  # a fetch that must not come would
        assert fetched() == 1
        for _ in range(300):
            console.feed.send("deploy", site="shop")
        wait_until(lambda: page.evaluate("window.heard") == 340, "340 events")
        assert fetched() == 1
        with page.expect_response(console.url + "/sites/shop"):
            page.clock.fast_forward(1500)
        page.wait_for_timeout(300)
        page.clock.fast_forward(60_000)
        page.wait_for_timeout(300)
        assert fetched() == 2


def test_many_tabs_share_one_stream_and_the_last_one_ends_it(browser: Browser) -> None:
    with console_of(small_world()) as served, tab(browser) as one:
        pages = [opened(served, one, "/")]
        for _ in range(7):  # HTTP/1.1 has six connections to a host: an eighth tab with a stream of its own would hang
            other = pages[0].context.new_page()
            other.goto(served.url + "/nodes")
            other.locator("#stream-words", has_text="live").wait_for()
            pages.append(other)
        assert len(served.feed.readers) == served.feed.ever == 1
        for page in pages:
            page.goto("about:blank")
        wait_until(lambda: not served.feed.readers, "the stream ended")


def test_a_stream_that_ends_comes_back_in_silence(browser: Browser) -> None:
    with console_of(small_world()) as served, tab(browser) as one:
        one.page.clock.install()
        page = opened(served, one, "/")
        page.clock.pause_at(datetime.now(UTC) + timedelta(hours=1))  # it is back before the page would say so
        page.evaluate(
            "window.shown = new Set(); const sign = document.getElementById('stream');"
            "new MutationObserver(() => shown.add(sign.innerText))"
            ".observe(sign, {subtree: true, childList: true, attributes: true})"
        )
        served.feed.cut()
        wait_until(lambda: served.feed.ever == 2, "the stream came back")
        served.feed.send("notice")
        page.wait_for_timeout(300)
        assert page.evaluate("[...shown].filter((words) => words !== 'live')") == []


def test_a_stream_that_is_refused_is_shown_and_the_page_is_right_when_it_is_back(browser: Browser) -> None:
    with console_of(small_world()) as served, tab(browser) as one:
        page = one.page
        page.clock.install()
        opened(served, one, "/nodes")
        served.feed.status = 503
        served.feed.cut()
        page.locator("#stream-words", has_text="reconnecting").wait_for()
        queries_of(served).node_list = ()
        page.clock.fast_forward(3000)  # the page looks whether it is logged out, and is right by that
        page.locator("#nodes", has_text="No node has answered yet").wait_for()


def test_the_keyboard_alone_is_enough(browser: Browser, console: Served) -> None:
    with tab(browser) as one:
        page = opened(console, one, "/nodes")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.name") == "q"
        page.keyboard.type("web-jk")
        assert page.locator("input[name=q]").input_value() == "web-jk"
        page.keyboard.press("Escape")
        for key in "jjjk":
            page.keyboard.press(key)
        assert page.locator(".here a").first.inner_text() == "web-2"
        page.keyboard.press("Enter")
        page.wait_for_url("**/nodes/web-2")
        page.goto(console.url + "/sites/shop")
        page.keyboard.press("d")
        assert page.evaluate("document.activeElement.name") == "to"
        page.keyboard.press("Tab")
        page.keyboard.press("?")
        assert page.locator("#help").is_visible()
        page.get_by_label("Keys are on").uncheck()
        page.keyboard.press("Escape")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.name ?? ''") != "q"
        page.goto(console.url + "/sites/shop")
        page.keyboard.press("l")
        assert page.url.endswith("/sites/shop")  # keys are off on every page
        page.evaluate("localStorage.clear()")
        page.reload()
        page.keyboard.press("l")
        page.wait_for_url("**/deploys/r-7f31/nodes/web-1/log")


def test_focus_and_the_marked_row_survive_a_change(browser: Browser, console: Served) -> None:
    world = queries_of(console)
    kept = world.node_list
    try:
        with tab(browser) as one:
            page = opened(console, one, "/nodes")
            for key in "jj":
                page.keyboard.press(key)
            world.node_list = tuple(attrs.evolve(node, version="9.9.9") for node in kept)
            console.feed.send("node")
            page.locator("td", has_text="9.9.9").first.wait_for()
            assert page.evaluate("document.activeElement.textContent") == "web-2"
            page.keyboard.press("j")
            assert page.evaluate("document.activeElement.textContent") == "web-3"
            page.keyboard.press("/")
            assert page.evaluate("document.activeElement.name") == "q"
    finally:
        world.node_list = kept


def test_a_theme_is_kept_and_the_next_page_begins_with_it(browser: Browser, console: Served) -> None:
    with tab(browser, scheme="light") as one:
        page = opened(console, one, "/")
        light = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.locator("#theme").click()
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert light != dark
        answer = page.goto(console.url + "/nodes")
        assert answer is not None
        assert 'data-theme="dark"' in answer.text()  # from the server: it never flashes
        other = page.context.new_page()
        other.goto(console.url)
        page.locator("#theme").click()
        wait_until(
            lambda: other.evaluate("document.documentElement.dataset.theme") == "light", "the other tab is light, too"
        )
        page.locator("#theme").click()
        page.reload()
        assert page.evaluate("document.documentElement.dataset.theme") is None


@pytest.mark.parametrize("script", [True, False])
def test_hostile_text_is_only_text(browser: Browser, script: bool) -> None:
    with console_of(hostile_world()) as served, tab(browser, script=script) as one:
        page = one.page
        for path in ("/", "/fleet", "/nodes", f"/sites/{quote(CANARY + 'shop', safe='')}",
                     f"/nodes/{quote(CANARY + 'web-1', safe='')}", f"/sites/{quote(CANARY, safe='')}",
                     f"/nodes?q={quote(CANARY)}"):  # fmt: skip
            answer = page.goto(served.url + path)
            assert answer is not None
            assert answer.status in (200, 404)
            if script:
                served.feed.send("deploy")
                assert page.evaluate("window.hit") is None
            html = page.content()
            assert "onerror=" in html.replace("&quot;", '"')  # it is there, as text
            assert page.locator("img, main script, iframe, [onerror]").count() == 0, path
            assert "{{7*7}}" in html
            assert "49" not in page.locator("h1").first.inner_text()
            assert "\u202e" not in html
            assert "\x1b" not in html
        assert [text for text in one.problems if "404" not in text] == []


def test_a_site_with_a_hostile_name_is_reached_by_its_link(browser: Browser) -> None:
    with console_of(hostile_world()) as served, tab(browser) as one:
        one.page.goto(served.url)
        one.page.locator("#sites tbody a").first.click()
        one.page.wait_for_url("**/sites/*")
        assert one.page.locator("h1").inner_text().endswith("billing")


def test_a_database_that_is_away_is_said(browser: Browser) -> None:
    world = attrs.evolve(small_world(), error=ProjectionError("database locked", "free it"))
    with console_of(world) as served, tab(browser) as one:
        answer = one.page.goto(served.url)
        assert answer is not None
        assert answer.status == 503
        assert "does not answer" in one.page.locator("h1").inner_text()
        assert "database locked" not in one.page.content()
        assert serious_findings(one.page) == []


def test_times_are_shown_in_the_zone_of_the_viewer_by_the_clock_of_the_server(
    browser: Browser, console: Served
) -> None:
    assert NOW.year == 2026  # this machine's clock is elsewhere, and "ago" is right all the same
    with tab(browser, zone="America/New_York") as one:
        page = opened(console, one, "/")
        shown = page.locator("#problems time").first
        assert shown.inner_text().replace("\u00a0", " ") == "9 min ago"
        title = shown.get_attribute("title") or ""
        assert title.startswith("29 Nov 2026, 22:03:00")
        assert title.endswith("(2026-11-30 03:03:00 UTC)")
