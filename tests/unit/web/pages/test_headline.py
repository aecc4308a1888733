"""The first line of the first page: wrong or right, and never "all is well" where nobody can know."""

from __future__ import annotations

import attrs
import pytest

from deploykit.web.pages.fleet import columns, fleet_rows
from deploykit.web.pages.headline import Headline, headline
from deploykit.web.pages.overview import shown_sites
from deploykit.web.projection.views import NodeSummary, Problem, ProblemKind, ProjectionHealth, SiteOnNode, SiteSummary

_FINE = ProjectionHealth(connected=True)


def of(*kinds: ProblemKind, health: ProjectionHealth = _FINE, sites: int = 2) -> Headline:
    return headline([Problem(kind=kind, text="x") for kind in kinds], health, sites, 3, 12)


def test_a_good_night() -> None:
    assert of() == Headline(tone="ok", title="All is well", text="2 sites, 3 nodes.")


def test_without_a_broker_nothing_is_well() -> None:
    away = attrs.evolve(_FINE, connected=False)
    for kinds in ((), ("lock",), ("site", "node")):
        shown = of(*kinds, health=away)
        assert (shown.tone, shown.icon) == ("bad", "bad")
        assert "hears nothing" in shown.title


def test_while_nodes_are_asked_nothing_is_called_well() -> None:
    asking = attrs.evolve(_FINE, rebuilding=True)
    assert of(health=asking).tone == "run"
    assert "still being asked" in of(health=asking).text
    assert of(health=asking, sites=0).title == "Asking the nodes"


def test_no_site_is_not_all_is_well() -> None:
    assert of(sites=0).tone == "off"
    assert "well" not in of(sites=0).title


def test_while_messages_are_not_believed_nothing_is_called_well() -> None:
    shown = of(health=attrs.evolve(_FINE, distrusted=1))
    assert (shown.tone, shown.title) == ("warn", "Not all messages are believed")


@pytest.mark.parametrize(
    ("kinds", "tone", "title"),
    [
        (("lock",), "hold", "One thing needs a look"),
        (("node", "lock"), "warn", "2 things need a look"),
        (("lock", "rollout", "node"), "bad", "3 things need a look"),
        (("site",) * 12, "bad", "12 or more things need a look"),
    ],
)
def test_the_worst_problem_gives_the_tone(kinds: tuple[ProblemKind, ...], tone: str, title: str) -> None:
    shown = of(*kinds)
    assert (shown.tone, shown.title) == (tone, title)


def _sites(count: int, failed: int = -1) -> tuple[SiteSummary, ...]:
    return tuple(
        SiteSummary(site=f"s{at:03d}", nodes=1, counts={"failed" if at == failed else "current": 1})
        for at in range(count)
    )


def test_a_site_that_failed_is_on_the_first_page_however_many_there_are() -> None:
    shown = shown_sites(_sites(500, failed=499), 10)
    assert len(shown) == 10
    assert shown[-1].site == "s499"
    assert shown_sites(_sites(3), 10) == _sites(3)


def test_columns_are_paged_and_filtered() -> None:
    first, more = columns(_sites(30), "", "")
    assert (len(first), more) == (12, "s011")
    second, more = columns(_sites(30), "", more)
    assert (second[0].site, more) == ("s012", "s023")
    last, more = columns(_sites(30), "", more)
    assert (len(last), more) == (6, "")
    assert [one.site for one in columns(_sites(30), "S02", "")[0]] == [f"s02{at}" for at in range(10)]
    assert columns(_sites(12), "", "")[1] == ""


def test_a_row_has_a_cell_for_each_column() -> None:
    there = SiteOnNode(site="s001", node="n")
    (row,) = fleet_rows([NodeSummary(node="n", sites=(there,))], _sites(3))
    assert row.cells == (None, there, None)
