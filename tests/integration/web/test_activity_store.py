"""The pages of activity over the real projection: what the bus told stands on them, hostile or not."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.web.projection.queries import Queries
from deploykit.web.projection.views import PageRequested
from deploykit.web.viewer import EVERYBODY
from tests.support.served import answer_of, console_app
from tests.support.webworld import NOW, world_queries, world_store

ALL = PageRequested(limit=500)


@pytest.fixture(params=[False, True], ids=["plain", "hostile"])
def queries(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Queries]:
    store = world_store(tmp_path, hostile=request.param)
    try:
        yield world_queries(store)
    finally:
        store.close()


def paths_of(queries: Queries) -> list[str]:
    """Return the address of every page of activity that there is."""
    paths = ["/deploys", "/repositories", "/pushes", "/builds", "/notices", "/audit", "/history"]
    for repo in queries.repositories(EVERYBODY):
        paths += [f"/refs/{repo}", f"/pushes?repo={repo}", f"/builds?repo={repo}"]
    for site in queries.sites(EVERYBODY):
        paths += [f"{path}?site={site.site}" for path in ("/deploys", "/history", "/audit")]
        paths += [f"/sites/{site.site}/diff", f"/sites/{site.site}/diff?to=main"]
    for rollout in queries.rollouts(EVERYBODY, "", ALL).items:
        detail = queries.rollout(EVERYBODY, rollout.rollout, ALL)
        assert detail is not None
        paths.append(f"/deploys/{rollout.rollout}")
        for node in detail.nodes.items:
            log = f"/deploys/{rollout.rollout}/nodes/{node.node}/log"
            paths += [log, f"{log}?from=1", f"{log}.txt"]
    operations = [entry for entry in queries.history(EVERYBODY, "", "", ALL).items if entry.site == "shop"]
    paths += [f"/history/diff?site=shop&from={entry.id}&to=live" for entry in operations]
    return paths


def test_every_page_shows_what_the_bus_told_as_text(queries: Queries) -> None:
    app = console_app(queries, now=NOW)
    paths = paths_of(queries)
    assert len(paths) > 40
    for path in paths:
        answer = answer_of(app, path)
        assert answer.status_code == 200, path
        assert "\x1b" not in answer.text, path
        if not path.endswith(".txt"):
            assert "<script>window" not in answer.text, path
            assert "<img" not in answer.text, path


def test_every_list_can_be_read_to_its_end_page_by_page(queries: Queries) -> None:
    app = console_app(queries, now=NOW)
    for path in ("/deploys", "/pushes", "/audit", "/history", "/builds", "/refs/team/shop"):
        whole = answer_of(app, f"{path}?limit=500").text.count("data-row")
        at, seen = f"{path}?limit=1", 0
        while at:
            assert seen <= whole
            body = answer_of(app, at).text
            seen += body.count("data-row")
            following = re.search(r'href="([^"]*)" rel="next"', body)
            at = html.unescape(following[1]) if following else ""
        assert seen == whole > 1, path
