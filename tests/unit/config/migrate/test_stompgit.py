"""stomp-git's settings become an agent's repositories: every mode, every form of the brokers."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.names import RepoName
from tests.support.oldsettings import CONNECTOR, RSERVER, STOMP_GIT, accepted, drafted, lost_keys


def test_every_mode_is_carried_over(tmp_path: Path) -> None:
    settings = accepted(drafted(STOMP_GIT), tmp_path)
    found = {
        name: [(each.mode, str(each.target), each.branch, each.owner, each.nested) for each in repository.checkouts]
        for name, repository in settings.repositories.items()
    }
    assert found == {
        "plain": [],
        "live": [("trusting", "/data/live", "master", "www-data", False)],
        "one": [("branch", "/data/one", "release", "www-data", False)],
        "puppet": [("puppetmaster", "/etc/puppet/environments", "", "puppet", False)],
        "heads": [("atomic", "/data/heads", "", "www-data", True)],
        "shop": [("tags", "/data/deploy/shop", "", "www-data", True)],
        "old": [("dangerous", "/data/repo/old", "master", "www-data", False)],
    }


@pytest.mark.parametrize("brokers", [CONNECTOR, RSERVER])
def test_the_brokers_and_topics_are_carried_over(brokers: str, tmp_path: Path) -> None:
    draft = drafted(STOMP_GIT.replace(CONNECTOR, brokers))
    settings = accepted(draft, tmp_path)
    assert "failover:(stomp://broker01:61613,stomp://broker02:61613)" in settings.broker.address
    assert settings.broker.login == "gituser"
    assert settings.broker.passcode_file is not None
    assert settings.broker.passcode_file.read_text() == "gitpw"
    assert settings.topics.source == "/topic/future.git.commits"
    assert settings.topics.notices["mirror"] == "/topic/future.events.stompgit"
    assert settings.legacy


def test_what_cannot_be_carried_over_is_named_with_the_reason(tmp_path: Path) -> None:
    draft = drafted(STOMP_GIT + "  b: {mode: brunch, repo: /x, targt: /y}\nlog-fil: /z\n")
    lost = lost_keys(draft)
    accepted(draft, tmp_path)
    assert "expected one of normal" in lost["repo-list.b.mode"]
    assert "did you mean target?" in lost["repo-list.b.targt"]
    assert "did you mean log-file?" in lost["log-fil"]
    assert "[log]" in lost["log-file"]


def test_the_origin_is_read_from_the_clone(tmp_path: Path) -> None:
    clone = tmp_path / "shop"
    (clone / ".git").mkdir(parents=True)
    (clone / ".git" / "config").write_text(
        '[core]\n\tbare = false\n[remote "origin"]\n\turl = git@git.example.org:shop\n'
    )
    draft = drafted(f"listen-topic: t\nreport-topic: r\nrepo-list: {{shop: {{repo: {clone}, mode: normal}}}}")
    assert accepted(draft, tmp_path).repositories[RepoName("shop")].url == "git@git.example.org:shop"
    assert lost_keys(draft) == {}


def test_the_first_version_had_its_repositories_at_the_top(tmp_path: Path) -> None:
    draft = drafted(
        f"{RSERVER}listen-topic: future.git.commits\nreport-topic: future.events.stomp-git\n"
        "puppetenv: /etc/puppet/environments\npuppet-environments: /etc/puppet/puppet-environments\nspog: /data/spog\n"
    )
    settings = accepted(draft, tmp_path)
    assert {name: len(repository.checkouts) for name, repository in settings.repositories.items()} == {
        "puppet-environments": 1,
        "spog": 0,
    }
