"""A fleet whose site is made of three repositories, by the commands that people type; it goes back as one."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.composition import composition_id
from deploykit.messages import SitePart
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.settings import NodeSiteSettings, RepositorySettings, Settings, SiteSettings
from tests.support.cli import run
from tests.support.realfleet import RealFleet
from tests.support.submodules import Worked

PLACES = {RepoName("app"): "app", RepoName("data"): "data", RepoName("group/theme"): "web/theme"}
WEB = ("web1", "web2", "web3")
NOT_ON_WEB1 = b'#!/bin/sh\n[ "$DEPLOYKIT_NODE" != web1 ]\n'


class PartsFleet(RealFleet):
    """Real agents, and the settings' file of a desk that knows the repositories, and not the site."""

    def __init__(self, root: Path, address: str) -> None:
        super().__init__(root, address, WEB)
        self.repos = {repo: Worked(root, repo) for repo in PLACES}
        self.commits: dict[tuple[str, str], str] = {}
        self.desk = attrs.evolve(
            self.desk, repositories={repo: RepositorySettings(url=each.url) for repo, each in self.repos.items()}
        )
        self.file = root / "deploykit.toml"
        urls = "".join(f'[repositories."{repo}"]\nurl = "{each.url}"\n' for repo, each in self.repos.items())
        self.file.write_text(f"""
node = "desk"
state = "{root / "desk"}"
signing_key = "{root / "operator.key"}"
broker = {{ address = "{address}" }}
outbox = {{ path = "{root / "spool"}" }}
{urls}
[trust]
allowed_signers = "{root / "allowed_signers"}"
""")
        self.file.chmod(0o600)

    def settings_of(self, node: NodeName) -> Settings:
        made_of = NodeSiteSettings(
            path=self.root / node / "site", parts=PLACES, release=SiteSettings(scripts="app/deploy", grace=0)
        )
        return attrs.evolve(super().settings_of(node), sites={SiteName("shop"): made_of})

    def tag(self, repo: str, tag: str, **more: bytes) -> None:
        """Push a tag of one repository; further files by name, `__` for a slash."""
        files = {name.replace("__", "/"): content for name, content in more.items()}
        self.commits[repo, tag] = self.repos[RepoName(repo)].push({"file": f"{repo} {tag}".encode(), **files}, tag=tag)

    def run_command(self, *words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = run(*words, "--config", str(self.file), cwd=self.root, timeout=300)
        assert done.returncode == code, (done.stdout, done.stderr)
        return done

    def has(self, **tags: str) -> str:
        """The id of these versions of all repositories."""
        names = {"theme": "group/theme"}
        parts = {RepoName(names.get(repo, repo)): RefName(f"refs/tags/{tag}") for repo, tag in tags.items()}
        return composition_id(
            {
                repo: SitePart(repo=repo, ref=ref, commit=ObjectId(self.commits[repo, ref.removeprefix("refs/tags/")]))
                for repo, ref in parts.items()
            }
        )

    def pages(self) -> list[list[str]]:
        """What is live on each node of app, data and theme."""
        current = [self.root / node / "site" / "current" for node in WEB]
        return [[(each / place / "file").read_text().split()[-1] for place in PLACES.values()] for each in current]


@pytest.fixture
def fleet(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[PartsFleet]:
    made = PartsFleet(tmp_path, deploykit_broker.address)
    for repo in PLACES:
        made.tag(repo, "v1")
    with made:
        yield made


def ends(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_site_of_three_repositories_is_deployed_part_by_part_and_goes_back_as_one(fleet: PartsFleet) -> None:
    """One story: agents take seconds to start."""
    nothing = fleet.run_command("deploy", "shop", "--ref", "app=v1", "--all", code=2)
    assert "data is not live on web1, web2, web3" in nothing.stderr
    assert "--ref data=REF --ref group/theme=REF" in nothing.stderr
    everything = [word for repo in PLACES for word in ("--ref", f"{repo}=v1")]
    fleet.run_command("deploy", "shop", *everything, "--all")
    assert fleet.pages() == [["v1", "v1", "v1"]] * 3

    fleet.tag("group/theme", "v2")
    lines = ends(fleet.run_command("deploy", "shop", "--ref", "group/theme=v2", "--all", "--json").stdout)
    assert fleet.pages() == [["v1", "v1", "v2"]] * 3
    plan = next(line for line in lines if line["event"] == "plan")
    assert plan["targets"]["web2"]["commit"] == fleet.has(app="v1", data="v1", theme="v2")
    assert [part["ref"] for part in plan["targets"]["web2"]["parts"]] == [
        "refs/tags/v1",
        "refs/tags/v1",
        "refs/tags/v2",
    ]

    fleet.tag("app", "v3", **{"deploy__post-deploy*": NOT_ON_WEB1})
    failed = fleet.run_command("deploy", "shop", "--ref", "app=v3", "--all", code=1)
    assert fleet.pages() == [["v1", "v1", "v2"]] * 3, "the canary went back, and the others were not touched"
    assert "--ref app=v3 --ref data=v1 --ref group/theme=v2 --retry-failed" in failed.stdout + failed.stderr

    fleet.tag("group/theme", "v4")
    fleet.run_command("deploy", "shop", "--ref", "group/theme=v4", "-I", "web3")
    unequal = fleet.run_command("deploy", "shop", "--ref", "data=v1", "--all", code=2)
    assert f"group/theme is v2 {fleet.commits['group/theme', 'v2'][:12]} on web1, web2; v4" in unequal.stderr
    assert "name what it should be: --ref group/theme=REF" in unequal.stderr
    status = fleet.run_command("status", "--all", code=1).stdout
    assert f"current is v1+v1+v4 {fleet.has(app='v1', data='v1', theme='v4')[:12]}" in status
    assert f"  group/theme v4 {fleet.commits['group/theme', 'v4'][:12]}" in status
    (web2,) = [line for line in status.splitlines() if line.startswith("web2")]
    assert f"group/theme v2 {fleet.commits['group/theme', 'v2'][:12]}" in web2
    assert "outdated" in web2

    fleet.run_command("rollback", "shop", "--all")
    assert fleet.pages() == [["v1", "v1", "v1"], ["v1", "v1", "v1"], ["v1", "v1", "v2"]]
    fleet.run_command("rollback", "shop", "--to", "group/theme=v1", "-I", "web3")
    assert fleet.pages() == [["v1", "v1", "v1"]] * 3
