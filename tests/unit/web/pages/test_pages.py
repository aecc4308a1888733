"""Pages as answers: statuses, headers, what a viewer may see, and every part also when there is nothing in it."""

from __future__ import annotations

import gzip
import re
from html import unescape

import attrs
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from deploykit.settings.web import WebSettings
from deploykit.web.context import ConsoleContext
from deploykit.web.pages.assets import assets
from deploykit.web.projection.views import (
    NodeSummary,
    Paged,
    PageRequested,
    PartView,
    ProjectionHealth,
    SiteOnNode,
    SiteSummary,
)
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.consoleworld import ago, big_world, hostile_world, small_world
from tests.support.fixedqueries import FixedQueries
from tests.support.served import answer_of as get
from tests.support.served import console_app

PAGES = ("/", "/fleet", "/nodes", "/sites/shop", "/nodes/web-1")


def bare_world() -> FixedQueries:
    """Return a site and a node of which nothing but the name is known."""
    return FixedQueries(
        health_now=ProjectionHealth(),
        site_list=(SiteSummary(site="shop"),),
        node_list=(NodeSummary(node="web-1"),),
    )


def half_known() -> FixedQueries:
    """Return a node that reports a site without a release, and nothing else."""
    return attrs.evolve(
        bare_world(), node_list=(NodeSummary(node="web-1", sites=(SiteOnNode(site="shop", node="web-1"),)),)
    )


def links(html: str) -> list[str]:
    return [unescape(link) for link in re.findall(r'(?:href|action|src)="([^"#]*)"', html)]


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("world", [small_world, bare_world, half_known], ids=lambda world: world.__name__)
def test_a_page_is_there_however_little_is_known(world: type[FixedQueries], path: str) -> None:
    answer = get(console_app(world()), path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "no-store"
    assert re.search(r"\bNone\b", re.sub(r"<title>.*?</title>", "", answer.text)) is None


@pytest.mark.parametrize("path", ["/", "/fleet", "/nodes"])
def test_an_empty_projection_says_how_it_is_filled(path: str) -> None:
    answer = get(console_app(FixedQueries()), path)
    assert answer.status_code == 200
    assert 'class="empty"' in answer.text
    assert "agent" in answer.text


@pytest.mark.parametrize(
    "path", ["/nothing", "/sites/nothing", "/nodes/nothing", "/sites/%00", "/nodes/%ED%A0%80", "/static/%2e%2e/x"]
)
def test_what_is_not_there_has_a_page(path: str) -> None:
    answer = get(console_app(small_world()), path)
    assert answer.status_code == 404
    if not path.startswith("/static"):
        assert "There is no" in answer.text


def test_a_wrong_method_has_a_page_that_names_the_right_ones() -> None:
    app = console_app(small_world(), more=(Route("/post-only", lambda request: None, methods=["POST"]),))
    answer = get(app, "/post-only")
    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"


def test_a_mistake_of_ours_has_a_page_without_its_words() -> None:
    def mistaken(request: object) -> None:
        raise RuntimeError("secret words")

    answer = get(console_app(small_world(), more=(Route("/mistake", mistaken),)), "/mistake")
    assert answer.status_code == 500
    assert "The console made a mistake" in answer.text
    assert "secret words" not in answer.text


def test_answers_are_packed_for_who_takes_it() -> None:
    app = console_app(big_world())
    for path in ("/fleet", f"/static/{assets()['console.css'].name}"):
        plain = get(app, path, {"accept-encoding": "identity"})
        packed = get(app, path, {"accept-encoding": "br, gzip"})
        assert "content-encoding" not in plain.headers
        assert packed.headers["content-encoding"] == "gzip"
        assert int(packed.headers["content-length"]) < int(plain.headers["content-length"]) / 2
        assert packed.text == plain.text  # httpx unpacks
        assert "Accept-Encoding" in packed.headers["vary"]
    assert gzip.decompress(assets()["console.css"].packed) == assets()["console.css"].content


def test_static_files_are_kept_by_their_name_with_hash_alone() -> None:
    app = console_app(small_world())
    assert "immutable" in get(app, f"/static/{assets()['console.mjs'].name}").headers["cache-control"]
    assert "immutable" not in get(app, "/static/console.mjs").headers["cache-control"]
    for path in (
        "/static/..%2frender.py",
        "/static/%2e%2e%2f%2e%2e%2fapp.py",
        "/static/",
        "/static/console.css%00.svg",
    ):
        assert get(app, path).status_code == 404, path


def test_a_viewer_sees_no_trace_of_other_sites() -> None:
    some = Viewer(name="ada", grants=(RoleGrant(sites="docs", role="look"),))
    app = console_app(small_world(), viewer=some)
    for path in ("/", "/fleet", "/nodes/web-3", "/nodes"):
        text = get(app, path).text
        assert "docs" in text or path == "/nodes"
        for hidden in ("shop", "billing", "v2.4.1", "grace"):
            assert hidden not in text, (path, hidden)
    assert get(app, "/sites/shop").status_code == 404
    assert get(app, "/find?q=shop").headers["location"] == "/fleet?q=shop"


@pytest.mark.parametrize(
    ("wanted", "target"),
    [
        ("shop", "/sites/shop"),
        ("web-2", "/nodes/web-2"),
        ("shop/frontend", "/refs/shop%2Ffrontend"),
        ("sho", "/fleet?sites=sho"),
        ("web", "/fleet?q=web"),
        ("", "/fleet"),
        ("//evil.example", "/fleet?q=%2F%2Fevil.example"),
        ("a\r\nSet-Cookie: x", "/fleet?q=a%0D%0ASet-Cookie%3A+x"),
    ],
)
def test_find_leads_to_what_is_meant(wanted: str, target: str) -> None:
    from urllib.parse import quote

    answer = get(console_app(small_world()), f"/find?q={quote(wanted)}")
    assert (answer.status_code, answer.headers["location"]) == (303, target)


def test_every_link_stays_below_the_path_where_the_console_is_mounted() -> None:
    app = Starlette(routes=[Mount("/ops/deploy", console_app(small_world()))])
    for path in PAGES:
        answer = get(app, f"/ops/deploy{path}")
        assert answer.status_code == 200
        found = [link for link in links(answer.text) if link]
        assert len(found) > 10
        assert [link for link in found if not link.startswith("/ops/deploy/")] == []
        assert 'aria-current="page"' in answer.text or path not in ("/", "/fleet", "/nodes")
    assert get(app, "/ops/deploy/find?q=shop").headers["location"] == "/ops/deploy/sites/shop"


def test_a_thousand_nodes_are_paged() -> None:
    app = console_app(big_world())
    first = get(app, "/fleet").text
    assert first.count("<tr data-row>") == 50
    assert "node-0049" in first
    assert "node-0050" not in first
    (more,) = {link for link in links(first) if "after=" in link}
    second = get(app, more).text
    assert "node-0050" in second
    assert len(gzip.compress(first.encode())) < 12_000
    kept = get(app, "/fleet?q=node-00&sites=app-1").text
    assert any("q=node-00" in link and "sites=app-1" in link and "after=" in link for link in links(kept))


_QUERIES = (
    "?limit=0", "?limit=99999999", "?limit=x&after=%00", "?after=" + "9" * 600, "?q=%F0%9F", "?theme=x",
    "?sites=%ED%A0%80", "?after_site=" + "z" * 999,
)  # fmt: skip


@pytest.mark.parametrize("query", _QUERIES)
def test_no_query_breaks_a_page(query: str) -> None:
    for path in PAGES:
        assert get(console_app(small_world()), path + query).status_code == 200


def test_a_theme_comes_from_the_cookie_and_nothing_else_does() -> None:
    app = console_app(small_world())
    assert 'data-theme="dark"' in get(app, "/", {"cookie": "theme=dark"}).text
    assert "data-theme" not in get(app, "/", {"cookie": 'theme="><script>'}).text


def test_the_banner_shows_what_cannot_be_relied_on() -> None:
    health = ProjectionHealth(
        connected=False, away_since=ago(minutes=1), reason="<refused>", distrusted=1, distrust="x"
    )
    text = get(console_app(attrs.evolve(small_world(), health_now=health)), "/nodes").text
    assert "No broker since" in text
    assert "&lt;refused&gt;" in text
    assert "1 message not believed" in text
    assert 'role="alert"' not in get(console_app(small_world()), "/nodes").text


def test_a_line_of_the_settings_stands_above_every_page() -> None:
    app = console_app(small_world())
    assert 'id="banner"' not in get(app, "/").text
    settings = attrs.evolve(app.state.console.settings, web=WebSettings(banner="Staging <ask first>"))
    app.state.console = attrs.evolve(app.state.console, settings=settings)
    for path in ("/", "/nodes"):
        assert "Staging &lt;ask first&gt;" in get(app, path).text
    assert "Staging" not in get(console_app(small_world()), "/").text


def test_hostile_text_is_escaped_everywhere() -> None:
    app = console_app(hostile_world())
    for path in ("/", "/fleet", "/nodes"):
        text = get(app, path).text
        assert "&lt;img src=x" in text
        assert "<img" not in text
        assert "\x1b" not in text
        assert "\u202e" not in text


def test_the_fixed_projection_pages_as_the_real_one() -> None:
    page = big_world(7, 1).nodes(EVERYBODY, PageRequested(limit=3, after="6"))
    assert page == Paged(items=page.items, next="", total=7)
    assert [one.node for one in page.items] == ["node-0006"]


def test_a_page_follows_the_events_after_what_it_has_read() -> None:
    app = console_app(bare_world())
    console: ConsoleContext = app.state.console

    def read_then_changed(_viewer: Viewer) -> ProjectionHealth:
        console.events.add("health", ago())
        return ProjectionHealth()

    world = console.queries
    assert isinstance(world, FixedQueries)
    world.health = read_then_changed  # type: ignore[method-assign, assignment]  # the event comes while the page is drawn
    console.events.add("push", ago())
    before = console.events.newest
    assert f'data-event="{before}"' in get(app, "/").text
    assert console.events.newest > before


def test_a_site_of_several_repositories_shows_each_part_and_the_command_that_deploys_it() -> None:
    named = (("app", "v3"), ("theme", "v7"))
    parts = tuple(PartView(repo=repo, ref=f"refs/tags/{tag}", commit=tag[1] * 40) for repo, tag in named)
    version = {"commit": "ab" * 20, "parts": parts}
    world = FixedQueries(
        site_list=(SiteSummary(site="shop", repo="app", **version),),  # type: ignore[arg-type]
        node_list=(
            NodeSummary(node="web-1", sites=(SiteOnNode(site="shop", node="web-1", **version),)),  # type: ignore[arg-type]
        ),
    )
    for path in ("/sites/shop", "/nodes/web-1", "/"):
        text = re.sub(r"<[^>]*>", "", get(console_app(world), path).text)
        assert "v3+v7" in text, path
        if path != "/":
            assert re.search(r"app v3\s+3333", text), path
            assert re.search(r"theme v7\s+7777", text), path
    text = get(console_app(world), "/sites/shop").text
    assert "deploykit deploy shop --ref app=REF --all" in text
    assert not {"/sites/shop/deploy", "/sites/shop/rollback", "/sites/shop/diff"} & set(links(text))
