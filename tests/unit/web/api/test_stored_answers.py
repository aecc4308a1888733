"""The API on the real projection: answers fulfil their schema, `next` leads to every row, and no parameter is a 500."""

from __future__ import annotations

import base64
import json
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deploykit.web.api.operations import OPERATIONS
from deploykit.web.projection.store import Store
from deploykit.web.viewer import EVERYBODY, RoleGrant, Viewer
from tests.support.answerschemas import validator
from tests.support.asgi import Asked, Asker
from tests.support.consoleserver import api_alone
from tests.support.webworld import DONE, FAILED, SINGLE, world_queries, world_store

#: A path of each operation, all of them with an answer in this world.
PATHS = {
    "index": ("/",),
    "health": ("/health",),
    "problems": ("/problems",),
    "changes": ("/changes",),
    "sites": ("/sites",),
    "site": ("/sites/shop", "/sites/docs"),
    "site_nodes": ("/sites/shop/nodes",),
    "operation": ("/sites/shop/history/web1:1",),
    "nodes": ("/nodes",),
    "node": ("/nodes/web3",),
    "node_mirrors": ("/nodes/web1/mirrors",),
    "repositories": ("/repositories",),
    "refs": ("/refs/team/shop",),
    "pushes": ("/pushes", "/pushes?repo=team/shop"),
    "builds": ("/builds",),
    "deploys": ("/deploys", "/deploys?site=shop"),
    "deploy": (f"/deploys/{DONE}", f"/deploys/{FAILED}", f"/deploys/{SINGLE}"),
    "log": (f"/deploys/{FAILED}/nodes/web1/log",),
    "history": ("/history", "/history?site=shop&node=web1"),
    "audit": ("/audit", "/audit?site=shop"),
    "notices": ("/notices",),
}
ONLY_DOCS = Viewer(name="dora", grants=(RoleGrant(sites="docs", role="look"),))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = world_store(tmp_path_factory.mktemp("state"), hostile=True)
    yield made
    made.close()


def get(store: Store, path: str, viewer: Viewer = EVERYBODY) -> Asked:
    return Asker(app=api_alone(world_queries(store), viewer=viewer)).get(f"/api/v1{path}")


@pytest.mark.parametrize("name", PATHS)
def test_an_answer_from_the_database_is_as_openapi_describes_it(store: Store, name: str) -> None:
    for path in PATHS[name]:
        answer = get(store, path)
        assert answer.status == 200, answer.text
        validator(name).validate(answer.json())
        assert answer.body.isascii()


def lists() -> list[str]:
    return [
        path
        for name, paths in PATHS.items()
        for path in paths
        if {"after", "limit"} <= {parameter.name for parameter in next(o for o in OPERATIONS if o.name == name).query}
    ]


@pytest.mark.parametrize("path", lists())
def test_following_next_one_by_one_gives_the_rows_of_one_page(store: Store, path: str) -> None:
    def rows(answer: dict[str, Any]) -> Any:
        return answer["nodes"] if "nodes" in answer and "items" in answer["nodes"] else answer

    whole = rows(get(store, path).json())["items"]
    one_by_one: list[Any] = []
    following = path + ("&" if "?" in path else "?") + "limit=1"
    while following:
        found = rows(get(store, following).json())
        one_by_one += found["items"]
        following = (found["next"] or "").removeprefix("/api/v1")
        assert len(one_by_one) <= len(whole)
    assert one_by_one == whole


def test_a_viewer_of_one_site_finds_nothing_of_the_others_in_any_answer(store: Store) -> None:
    for name, paths in PATHS.items():
        for path in paths:
            answer = get(store, path, ONLY_DOCS)
            if answer.status == 200 and name not in ("index", "health"):
                assert "team/shop" not in answer.text, path
                assert '"shop"' not in answer.text, path
    assert get(store, "/sites/docs", ONLY_DOCS).status == 200
    for path in ("/sites/shop", "/sites/shop/nodes", f"/deploys/{FAILED}", "/refs/team/shop", *PATHS["log"]):
        assert get(store, path, ONLY_DOCS).status == 404, path


def cursor(*values: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(values).encode()).decode().rstrip("=")


_values = (
    st.text(max_size=30)
    | st.sampled_from(["-1", "1e9", "'", "%", "\\", "\x00", "[]", "9" * 40])
    | st.lists(st.integers() | st.text(max_size=9) | st.none() | st.floats(allow_nan=False), max_size=4).map(
        lambda values: cursor(*values)
    )
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_parameter_is_a_500_on_the_database(store: Store, data: st.DataObject) -> None:
    operation = data.draw(st.sampled_from([each for each in OPERATIONS if each.query and each.name in PATHS]))
    path = PATHS[operation.name][0].partition("?")[0]
    names = data.draw(st.lists(st.sampled_from([each.name for each in operation.query]), min_size=1, unique=True))
    query = {name: data.draw(_values).encode("utf-8", "surrogatepass") for name in names}
    answer = get(store, f"{path}?{urllib.parse.urlencode(query)}")
    assert answer.status in (200, 404, 422), (query, answer.text)


def test_a_database_that_is_gone_is_a_503(tmp_path: Path) -> None:
    gone = world_store(tmp_path)
    queries = world_queries(gone)
    asker = Asker(app=api_alone(queries))
    assert asker.get("/api/v1/sites").status == 200
    gone.close()
    for file in tmp_path.rglob("console.db*"):
        file.unlink()
    answer = asker.get("/api/v1/sites")
    assert (answer.status, answer.headers["content-type"]) == (503, "application/problem+json"), answer.text
