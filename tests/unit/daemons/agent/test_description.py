"""What a node says of itself where its own records are damaged."""

from __future__ import annotations

from pathlib import Path

from deploykit.daemons.agent.description import NodeDescriber
from deploykit.daemons.agent.factsources import FactSources
from deploykit.messages import AgentInstance
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.release.model import Operation
from deploykit.release.site import Site
from deploykit.release.state import SiteRecord, save_state
from deploykit.settings import FactsSettings, Settings
from deploykit.settings.site import NodeSiteSettings
from deploykit.wire import encode


def test_a_site_with_numbers_that_are_none_hides_no_other_site(tmp_path: Path) -> None:
    sites = {}
    for name, number in (("blog", 1), ("shop", -1)):
        path = tmp_path / name
        state = Site(path).state_file
        state.parent.mkdir(parents=True)
        operation = Operation(number=number, phase="deploy", release="1-v1", outcome="success")
        save_state(state, SiteRecord(operations=(operation,)))
        sites[SiteName(name)] = NodeSiteSettings(path=path, repo=RepoName("shop"), signatures=2)
    describer = NodeDescriber(
        Settings(node=NodeName("web1"), sites=sites),
        FactSources(FactsSettings(classes_files=())),
        me=lambda: AgentInstance(instance="a", host="h"),
        twins=lambda: (),
    )
    described = describer.unasked()
    assert encode(described).body
    blog, shop = described.sites
    assert (blog.site, blog.problem) == ("blog", "")
    assert blog.last is not None
    assert (shop.site, shop.problem) == ("shop", "its records are damaged")
    assert (blog.signatures, shop.signatures) == (2, 2)
