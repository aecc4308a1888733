"""Pages and API of a rollout that the ledger has, and the bus has not told of yet."""

from __future__ import annotations

import pytest
from starlette.applications import Starlette

from deploykit.web.api.routes import routes
from deploykit.web.projection.rolloutviews import RolloutDetail, RolloutNode, RolloutOverview
from deploykit.web.projection.views import Paged
from deploykit.web.viewer import RoleGrant, Viewer
from tests.support.actingworld import ADA, busy_actions, busy_world
from tests.support.consoleworld import NOW
from tests.support.served import answer_of as get
from tests.support.served import console_app

NARROW = Viewer(name="nell", grants=(RoleGrant(sites="docs", role="admin"),))
NEW = "r-new"
DETAIL = RolloutDetail(
    summary=RolloutOverview(
        rollout=NEW, site="shop", ref="refs/tags/v2.4.1", state="canary", counts={"asked": 1, "pending": 1}, began=NOW
    ),
    nodes=Paged(items=(RolloutNode(node="web-1", state="began"), RolloutNode(node="web-2")), total=2),
)


def app_of(viewer: Viewer = ADA) -> Starlette:
    acts = busy_actions()
    acts.unheard[NEW] = DETAIL
    return console_app(busy_world(), viewer=viewer, actions=acts.console, more=tuple(routes()))


def test_its_page_shows_plan_nodes_and_buttons() -> None:
    page = get(app_of(), f"/deploys/{NEW}")
    assert page.status_code == 200
    for text in ("v2.4.1", "web-1", "web-2", 'id="do-abort"', 'id="do-pause"'):
        assert text in page.text


def test_its_api_answers_with_the_same() -> None:
    answer = get(app_of(), f"/api/v1/deploys/{NEW}")
    assert answer.status_code == 200
    assert answer.json()["summary"]["state"] == "canary"
    assert [node["node"] for node in answer.json()["nodes"]["items"]] == ["web-1", "web-2"]


@pytest.mark.parametrize("path", ["/deploys/{}/nodes/web-2/log", "/deploys/{}/nodes/web-2/log.txt"])
def test_the_log_of_a_node_of_its_plan_is_empty_and_open(path: str) -> None:
    assert get(app_of(), path.format(NEW)).status_code == 200
    text = get(app_of(), f"/deploys/{NEW}/nodes/web-2/log.txt?limit=5")
    assert (text.text, text.headers["Log-Total"], text.headers["Log-Open"]) == ("", "0", "1")
    assert get(app_of(), f"/api/v1/deploys/{NEW}/nodes/web-2/log").json()["open"] is True
    assert get(app_of(), path.format(NEW).replace("web-2", "web")).status_code == 404


def test_the_page_of_its_approval_leads_to_it() -> None:
    answer = get(app_of(), f"/deploys/{NEW}/approve")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/deploys/{NEW}")


def test_it_can_be_ended_at_once() -> None:
    assert get(app_of(), f"/deploys/{NEW}/control?kind=abort").status_code == 200


@pytest.mark.parametrize("path", ["/deploys/{}", "/api/v1/deploys/{}", "/deploys/{}/nodes/web-2/log"])
def test_who_may_not_see_its_site_gets_404(path: str) -> None:
    assert get(app_of(NARROW), path.format(NEW)).status_code == 404
