"""The pages of deploys, logs, history, refs and activity, as a client without script sees them."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path
from typing import Final

import attrs
import httpx
import pytest
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from deploykit.errors import ProjectionError
from deploykit.names import parse_node_name
from deploykit.settings import Settings
from deploykit.web.app import make_console
from deploykit.web.context import ConsoleContext
from deploykit.web.live.events import EventRing
from deploykit.web.pages.assets import assets
from deploykit.web.pages.logs import PAGE_LINES
from deploykit.web.pages.routes import error_handlers, routes
from deploykit.web.projection.activityviews import BuildView, RefView
from deploykit.web.projection.queries import Queries
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.activityworld import FAILED_NODE, NEW, OLD, ROLLOUT, activity_world, poisoned_world
from tests.support.consoleworld import NOW, ago
from tests.support.fixedqueries import FixedQueries
from tests.support.served import AsViewer

LOG: Final = f"/deploys/{ROLLOUT}/nodes/{FAILED_NODE}/log"
LONG: Final = f"/deploys/{ROLLOUT}/nodes/web-2/log"
PAGES: Final = (
    "/deploys", "/deploys?site=shop", f"/deploys/{ROLLOUT}", LOG, "/repositories", "/refs/shop%2Ffrontend",
    "/refs/shop/frontend", "/pushes", "/pushes?repo=legacy", "/builds", "/notices", "/audit", "/audit?site=shop",
    "/history", "/history?site=shop", "/history?site=shop&node=web-1", "/sites/shop/diff", "/sites/shop/diff?to=v1",
    "/history/diff?site=shop&from=web-1:11&to=web-1:12", "/history/diff?site=shop&from=web-1:11&to=live",
)  # fmt: skip
OUTSIDER: Final = Viewer(name="eve", grants=(RoleGrant(sites="docs", role="look"),))


@attrs.frozen
class PageClient:
    """Asks an application; an exception in it is raised here."""

    app: ASGIApp

    def get(self, path: str) -> httpx.Response:
        async def ask() -> httpx.Response:
            transport = httpx.ASGITransport(app=self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
                return await client.get(path)

        return asyncio.run(ask())


def client_of(queries: Queries, state: Path = Path("/nonexistent"), viewer: Viewer = EVERYBODY) -> PageClient:
    settings = Settings(node=parse_node_name("ops-1"), state=state)
    context = ConsoleContext(settings=settings, queries=queries, events=EventRing(1), now=lambda: NOW)
    guards = [Middleware(AsViewer, viewer=viewer)]
    return PageClient(make_console(context, routes=routes(), middleware=guards, handlers=error_handlers()))


def text_of(answer: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", answer)).split())


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers(path: str) -> None:
    answer = client_of(activity_world()).get(path)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    assert "<h1>" in answer.text


@pytest.mark.parametrize("path", PAGES)
def test_hostile_text_reaches_a_page_as_text(path: str) -> None:
    body = client_of(poisoned_world()).get(path).text
    assert "<img" not in body
    assert "<script>" not in body
    assert "\u202e" not in body
    assert "\x1b" not in body
    assert "49" not in re.findall(r"7\*7|\b49\b", body)
    if path not in ("/repositories", "/refs/shop%2Ffrontend", "/refs/shop/frontend", "/sites/shop/diff"):
        assert html.escape("<script>canary()</script>", quote=False) in body


@pytest.mark.parametrize("path", ["/deploys", "/pushes", "/builds", "/notices", "/audit", "/history", "/repositories"])
def test_an_empty_list_says_what_will_be_there(path: str) -> None:
    answer = client_of(FixedQueries()).get(path)
    assert answer.status_code == 200
    assert 'class="empty"' in answer.text


HOSTILE_VALUES: Final = (
    "", "0", "-1", "9" * 40, "%00", "%ff%fe", "../../etc/passwd", "<script>", "%0d%0aSet-Cookie:x", "NaN", "live",
    "web-1:", ":", "a" * 3000, "%F0%9F%92%A9", "{{7*7}}", "%ED%A0%80",
)  # fmt: skip


@pytest.mark.parametrize("value", HOSTILE_VALUES)
def test_no_query_makes_a_page_fail(value: str) -> None:
    client = client_of(activity_world(log_lines=2500))
    names = ("site", "node", "repo", "q", "after", "limit", "from", "to", "context", "self", "parts")
    for path in ("/deploys", f"/deploys/{ROLLOUT}", LONG, LONG + ".txt", "/refs/shop/frontend", "/pushes", "/builds",
                 "/notices", "/audit", "/history", "/history/diff", "/sites/shop/diff"):  # fmt: skip
        assert client.get(f"{path}?" + "&".join(f"{name}={value}" for name in names)).status_code in (200, 400, 404)
    for name in names:
        assert client.get(f"/history?limit=1&{name}={value}").status_code == 200, name
    for path in ("/deploys/{}", "/deploys/{}/nodes/{}/log", "/refs/{}", "/sites/{}/diff"):
        assert client.get(path.replace("{}", value or "x")).status_code in (200, 307, 400, 404)


@pytest.mark.parametrize(
    "path",
    [
        f"/deploys/{ROLLOUT}", "/sites/shop/diff?to=v1", "/history/diff?site=shop&from=web-1:11&to=web-1:12",
        "/deploys/nothing", "/refs/nothing", "/history/diff?site=shop&from=web-1:11&to=web-9:1", LOG, LOG + ".txt",
    ],
)  # fmt: skip
def test_what_a_viewer_may_not_see_is_not_there(path: str) -> None:
    answer = client_of(activity_world(), viewer=OUTSIDER).get(path)
    assert answer.status_code == 404
    assert "v2.4" not in answer.text


def test_a_database_that_is_away_is_said() -> None:
    world = attrs.evolve(activity_world(), error=ProjectionError("gone"))
    answer = client_of(world).get("/deploys")
    assert answer.status_code == 503


def test_a_path_cannot_write_lines_of_its_own_into_the_log(caplog: pytest.LogCaptureFixture) -> None:
    away = attrs.evolve(activity_world(), error=ProjectionError("the database is gone"))
    assert client_of(away).get("/sites/x%0aforged%1b[2J").status_code == 503
    (record,) = (each.getMessage() for each in caplog.records if "gone" in each.getMessage())
    assert record.isprintable()
    assert "forged" in record


def test_a_failed_node_shows_the_end_of_its_log_on_the_page_of_the_deploy() -> None:
    body = client_of(activity_world()).get(f"/deploys/{ROLLOUT}").text
    assert "web-1 : the end of its log" in text_of(body)
    assert "check: exit code 7" in body
    assert "items_29" in body
    assert "items_2\n" not in body
    assert f'href="{LOG}"' in body
    assert [name for name in ("fetch", "migrate", "switch", "check") if f'<th scope="col">{name}</th>' in body] == [
        "fetch", "migrate", "switch", "check",
    ]  # fmt: skip
    assert "exit 7" in text_of(body)


def test_a_log_is_shown_without_what_a_terminal_would_do() -> None:
    text = client_of(activity_world()).get(LOG + ".txt").text
    assert text.startswith("== migrate ==\nok   0: checked table items_0\n")
    assert text.endswith("100 %\n<script>alert(1)</script>\ncheck: exit code 7\n")


def test_without_script_a_log_has_pages_that_join() -> None:
    client = client_of(activity_world(log_lines=2500))
    seen: list[str] = []
    path = f"{LONG}?from=1"
    for _ in range(5):
        body = client.get(path).text
        assert "Lines " in text_of(body)
        for numbers, lines in re.findall(r'<pre class="nums"[^>]*>([^<]*)</pre><pre>\n([^<]*)</pre>', body):
            assert [line.split(":")[0] for line in lines.splitlines()] == numbers.split("\n")
            assert len(numbers.split("\n")) <= 500
            seen += numbers.split("\n")
        more = re.search(r'href="([^"]*)" rel="next"', body)
        if more is None:
            break
        path = html.unescape(more[1])
    assert seen == [str(n) for n in range(1, 2501)]
    tail = client.get(LONG).text
    assert "Lines 1 501 to 2 500 of 2 500" in text_of(tail)
    assert f'href="{LONG}?from={2501 - 2 * PAGE_LINES}" rel="prev"' in tail


def test_a_log_is_read_by_ranges_and_says_how_long_it_is() -> None:
    world = attrs.evolve(activity_world(log_lines=12_000), open_logs=True)
    client = client_of(world)
    part = client.get(f"{LONG}.txt?from=11001&limit=500")
    assert part.headers["log-first"] == "11001"
    assert part.headers["log-total"] == "12000"
    assert part.headers["log-open"] == "1"
    assert part.headers["content-type"].startswith("text/plain")
    assert part.text.splitlines()[0].startswith("11001:")
    assert len(part.text.splitlines()) == 500
    assert len(client.get(f"{LONG}.txt?from=1&limit=999999").text.splitlines()) == 5000
    after = client.get(f"{LONG}.txt?from=12001&limit=500")
    assert (after.text, after.headers["log-total"]) == ("", "12000")
    whole = client.get(f"{LONG}.txt").text
    assert [line.split(":")[0] for line in whole.splitlines()] == [str(n) for n in range(1, 12_001)]


def test_a_log_whose_beginning_was_cut_off_says_so() -> None:
    client = client_of(attrs.evolve(activity_world(), lost=1234))
    assert "1 234 lines at the beginning were cut off" in text_of(client.get(LOG).text)
    assert client.get(LOG + ".txt").text.startswith("[1234 lines before these were cut off")


def test_refs_that_not_every_node_holds_are_marked() -> None:
    world = activity_world()
    world.ref_list = (
        RefView(repo="r", ref="refs/heads/main", commit=NEW, holders=3, expected=3),
        RefView(repo="r", ref="refs/tags/v1", commit=OLD, holders=1, expected=3, missing=("web-2", "web-3")),
    )
    rows = client_of(world).get("/refs/r").text.split("<tr data-row>")[1:]
    assert "3 nodes" in text_of(rows[0])
    assert "not on" not in rows[0]
    assert "1 of 3 nodes not on web-2, web-3" in text_of(rows[1])
    assert "state warn" in rows[1]


def test_a_link_to_a_build_leads_only_to_http() -> None:
    world = activity_world()
    world.build_list = tuple(
        BuildView(id=str(at), time=ago(hours=1), repo="r", job="job", state="success", url=url)
        for at, url in enumerate(("https://ci.example.net/1", "javascript:alert(1)", " data:text/html,x", "//evil"))
    )
    assert re.findall(r'href="([^"]*)" rel="noopener', client_of(world).get("/builds").text) == [
        "https://ci.example.net/1"
    ]


def test_a_push_shows_its_commits_and_how_many_more_there_were() -> None:
    text = text_of(client_of(activity_world()).get("/pushes?repo=shop/frontend").text)
    assert "main moved 9c9c9c9c9c by grace through git/origin-1 61 commits" in text
    assert "Change 1 Grace" in text
    assert "the body" not in text
    assert "and 53 before these" in text
    assert "gone deleted" in text


def test_the_history_of_a_site_offers_any_two_operations_and_each_with_the_one_before() -> None:
    body = client_of(activity_world()).get("/history?site=shop").text
    assert re.findall(r'name="from" value="([^"]*)"', body) == re.findall(r'name="to" value="(web[^"]*)"', body)
    assert body.count('type="radio" name="from"') == 6
    link = "/history/diff?site=shop&amp;from=web-1%3A11&amp;to=web-1%3A12"
    assert body.count(f'href="{link}"') == 1
    assert "from=web-1%3A10&amp;to=web-1%3A11" not in body  # the same commit: nothing to see


def test_a_difference_that_cannot_be_made_says_what_to_do(tmp_path: Path) -> None:
    client = client_of(activity_world(), state=tmp_path)
    for path in ("/sites/shop/diff?to=v9", "/history/diff?site=shop&from=web-1:11&to=web-1:12"):
        text = text_of(client.get(path).text)
        assert "No comparison: this machine has no mirror of shop/frontend" in text
        assert '[repositories."shop/frontend"]' in text
    assert client.get("/history/diff?site=shop").status_code == 400


def test_the_key_of_a_query_never_becomes_an_argument() -> None:
    body = client_of(activity_world()).get("/history?limit=1&context=x&parts=y&base=z&self=u").text
    assert "context=x" in body
    assert "self=u" in body


def test_the_script_of_the_log_stays_small_and_writes_text_alone() -> None:
    script = assets()["log.mjs"].content.decode()
    assert script.count("\n") < 120
    assert re.search(r"innerHTML|insertAdjacent|document\.write|eval\(", script) is None
