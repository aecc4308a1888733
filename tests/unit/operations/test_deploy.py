"""What stands behind a deploy command: the commit a name means at the origin, and whose key signs."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.errors import InvalidName, PolicyRefused, RefNotFound, UsageError
from deploykit.names import NodeName, ObjectId, RefName, RepoName, SiteName
from deploykit.operations import deploy
from deploykit.settings import NodeSiteSettings, RepositorySettings, Settings, TrustSettings
from tests.support.node import Origin, git


@pytest.fixture
def origin(tmp_path: Path) -> Origin:
    return Origin(tmp_path)


def knowing(origin: Origin, *names: str, sites: tuple[tuple[str, str], ...] = ()) -> Settings:
    return Settings(
        node=NodeName("hub"),
        repositories={
            RepoName(name): RepositorySettings(url=str(origin.path if name == "shop" else origin.path.parent / name))
            for name in names
        },
        sites={SiteName(s): NodeSiteSettings(path=Path("/srv") / s, repo=RepoName(r)) for s, r in sites},
    )


def test_an_annotated_tag_stands_for_the_commit_it_names(origin: Origin) -> None:
    commit = origin.push()
    git("tag", "--annotate", "--message", "one", "v1", cwd=origin.work)
    git("push", "--quiet", "origin", "v1", cwd=origin.work)
    assert git("rev-parse", "v1", cwd=origin.work) != commit
    assert deploy.resolve_ref(knowing(origin, "shop"), "shop", "v1", commit=None, repo=None) == (
        RefName("refs/tags/v1"),
        commit,
    )


@pytest.mark.parametrize("name", ["main", "refs/heads/main"])
def test_a_branch_stands_for_its_tip(origin: Origin, name: str) -> None:
    commit = origin.push()
    found = deploy.resolve_ref(knowing(origin, "shop"), "shop", name, commit=None, repo=None)
    assert found == (RefName("refs/heads/main"), commit)


@pytest.mark.parametrize("name", ["v9", "refs/tags/v9", "-x", "--upload-pack=x"])
def test_a_name_the_origin_does_not_have_is_named(origin: Origin, name: str) -> None:
    origin.push()
    with pytest.raises((RefNotFound, InvalidName)) as caught:
        deploy.resolve_ref(knowing(origin, "shop"), "shop", name, commit=None, repo=None)
    assert name in str(caught.value)


def test_threat_16_a_commit_that_the_name_no_longer_stands_for_is_refused(origin: Origin) -> None:
    decided = origin.push(tag="v1")
    origin.push(tag="v1")
    with pytest.raises(PolicyRefused, match=decided):
        deploy.resolve_ref(knowing(origin, "shop"), "shop", "v1", commit=decided, repo=None)


def test_a_full_ref_and_a_commit_need_no_origin(origin: Origin) -> None:
    commit = "ab" * 20
    found = deploy.resolve_ref(knowing(origin), "shop", "refs/tags/v1", commit=commit, repo=None)
    assert found == (RefName("refs/tags/v1"), ObjectId(commit))


def test_with_several_repositories_the_site_or_the_asker_says_which(origin: Origin) -> None:
    commit = origin.push(tag="v1")
    several = knowing(origin, "shop", "blog", sites=(("www", "shop"),))
    assert deploy.resolve_ref(several, "www", "v1", commit=None, repo=None)[1] == commit
    assert deploy.resolve_ref(several, "elsewhere", "v1", commit=None, repo="shop")[1] == commit
    with pytest.raises(UsageError, match="--repo"):
        deploy.resolve_ref(several, "elsewhere", "v1", commit=None, repo=None)
    with pytest.raises(UsageError, match="known: shop, blog"):
        deploy.resolve_ref(several, "www", "v1", commit=None, repo="nope")


def test_no_key_means_no_command_and_no_signers_no_belief(origin: Origin) -> None:
    settings = knowing(origin)
    with pytest.raises(PolicyRefused, match="unsigned"):
        deploy.signing_key(settings, None)
    with pytest.raises(PolicyRefused, match="allowed_signers"):
        deploy.load_report_trust(attrs.evolve(settings, trust=TrustSettings()))
