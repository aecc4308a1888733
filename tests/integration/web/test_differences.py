"""The pages of differences over a real mirror: commits and files, both ways, as text."""

from __future__ import annotations

import asyncio
import html
import re
from pathlib import Path

import attrs
import httpx
import pytest
from starlette.middleware import Middleware

from deploykit.daemons.agent.mirrors import mirror_path
from deploykit.names import parse_node_name, parse_repo_name
from deploykit.settings import Settings
from deploykit.web.app import make_console
from deploykit.web.context import ConsoleContext
from deploykit.web.live.events import EventRing
from deploykit.web.pages.routes import error_handlers, routes
from deploykit.web.viewer import EVERYBODY
from tests.support.activityworld import NEW, activity_world
from tests.support.consoleworld import NOW
from tests.support.gitrepo import GitRepo
from tests.support.served import AsViewer


@attrs.frozen
class Place:
    """A console whose machine has a mirror of the shop; its first commit is live, the second is v2.4.1."""

    context: ConsoleContext
    repo: GitRepo
    old: str
    new: str

    def get(self, path: str) -> str:
        async def ask() -> str:
            guards = [Middleware(AsViewer, viewer=EVERYBODY)]
            app = make_console(self.context, routes=routes(), middleware=guards, handlers=error_handlers())
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://localhost") as client:
                answer = await client.get(path)
                assert answer.status_code == 200
                return answer.text

        return asyncio.run(ask())

    def text(self, path: str) -> str:
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.get(path))).split())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    settings = Settings(node=parse_node_name("ops-1"), state=tmp_path)
    path = mirror_path(settings, parse_repo_name("shop/frontend"))
    path.parent.mkdir(parents=True)
    repo = GitRepo(path)
    old = repo.commit({"a.txt": b"1", "gone.txt": b"2", "old/name": b"moved\n"}, tag="v2.4.0")
    tree: dict[str | bytes, bytes | tuple[str, bytes]] = {
        "a.txt": b"2",
        b"<script>x</script>": b"3",
        "new/name": b"moved\n",
    }
    middle = repo.commit(tree)
    new = repo.commit_tree(repo.tree_of(middle), parent=middle, message="<script>canary()</script> & more")
    repo.git("update-ref", "refs/tags/v2.4.1", new)
    repo.git("update-ref", "refs/heads/main", new)
    world = activity_world()
    world.site_list = tuple(attrs.evolve(site, commit=old) if site.site == "shop" else site for site in world.site_list)
    world.history_list = tuple(
        attrs.evolve(entry, commit=new if entry.commit == NEW else old) for entry in world.history_list
    )
    context = ConsoleContext(settings=settings, queries=world, events=EventRing(1), now=lambda: NOW)
    return Place(context, repo, old, new)


def test_a_site_is_compared_with_a_chosen_ref(place: Place) -> None:
    text = place.text("/sites/shop/diff?to=v2.4.1")
    assert "Forward" in text
    assert "2 commits added; 4 files changed" in text
    assert f"{place.new[:10]} <script>canary()</script> & more A Person" in text
    assert "renamed: old/name → new/name" in text
    assert "removed: gone.txt" in text
    body = place.get("/sites/shop/diff?to=v2.4.1")
    assert "<script>canary" not in body
    assert "<script>x" not in body
    back = re.search(r'href="([^"]*)">Other way round', body)
    assert back is not None
    turned = place.text(html.unescape(back[1]))
    assert "Back" in turned
    assert "2 commits left out; 4 files changed" in turned


def test_two_operations_of_the_history_are_compared(place: Place) -> None:
    text = place.text("/history/diff?site=shop&from=web-1:11&to=web-1:12")
    assert "2 commits added" in text
    assert "deploy on web-1 #12" in text
    assert "by" in text.lower()
    same = place.text("/history/diff?site=shop&from=web-1:10&to=web-1:11")
    assert "Both are the same commit" in same


def test_a_ref_that_the_mirror_lacks_says_how_it_gets_there(place: Place) -> None:
    text = place.text("/sites/shop/diff?to=v9")
    assert "No comparison: the mirror of shop/frontend has no ref 'v9'" in text


def test_commits_that_are_left_out_are_listed_beside_those_that_are_added(place: Place) -> None:
    place.repo.commit({"z": b"1"}, branch="side", parent=place.old)
    text = place.text(f"/sites/shop/diff?from={place.new}&to=side")
    assert "have parted" in text
    assert "1 commit added, 2 commits left out" in text
    assert f"they parted at {place.old[:10]}" in text
