"""stomp-git's settings become an agent's repositories: every mode, every form of the brokers."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.names import RepoName
from tests.support.oldsettings import CONNECTOR, KEEPALIVE, RSERVER, STOMP_GIT, accepted, drafted, lost_keys


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


def test_an_entry_that_says_nothing_is_listed() -> None:
    lost = lost_keys(drafted("listen-topic: a.b\nrepo-list:\n  a:\n  b: {repo: /none}\n"))
    assert lost["repo-list.a"] == "says nothing: there is only its name"


def test_two_files_that_say_the_same_are_one(tmp_path: Path) -> None:
    twice = drafted(STOMP_GIT, STOMP_GIT)
    assert accepted(twice, tmp_path) == accepted(drafted(STOMP_GIT), tmp_path)
    assert {lost.key for lost in twice.lost} == {lost.key for lost in drafted(STOMP_GIT).lost}


def test_a_checkout_inside_another_is_listed() -> None:
    outer, inner = "{repo: /x, mode: trusting, target: /srv/a}", "{repo: /y, mode: tags, target: /srv/a/tags}"
    lost = lost_keys(drafted(f"listen-topic: a.b\nrepo-list:\n  a: {outer}\n  b: {inner}\n"))
    assert lost["repo-list.b.target"] == "/srv/a/tags is inside another checkout, or holds one"


def test_an_origin_that_another_file_names_is_not_asked_for() -> None:
    git = "listen-topic: a.b\nrepo-list: {main: {repo: /none, mode: normal}}\n"
    r10k = "sources: {main: {remote: 'git@h:x.git', basedir: /etc/p}}\ncachedir: /c\n"
    for draft in (drafted(git, r10k), drafted(r10k, git)):
        assert "repo-list.main.repo" not in lost_keys(draft)
        assert draft.values["repositories", "main", "url"] == "git@h:x.git"


@pytest.mark.parametrize(
    ("url", "credentials"),
    [
        ("https://S3cret@h/x.git", "https://S3cret:@h\n"),
        ("http://S3cret@h:8080/x.git", "http://S3cret:@h:8080\n"),
        ("https://u:pass/S3cret@h/x.git", None),
        ("https://h/x.git?token=S3cret", None),
        ("u:S3cret@h:x.git", None),
    ],
)
def test_no_secret_of_a_url_is_shown(url: str, credentials: str | None) -> None:
    draft = drafted(f"sources: {{main: {{remote: '{url}', basedir: /etc/p}}}}\ncachedir: /c\n")
    assert "S3cret" not in repr(draft) + repr(draft.lost)
    assert draft.secrets.get(("repositories", "main", "mirror", "credentials_file")) == credentials
    assert ("sources.main.remote" in lost_keys(draft)) is (credentials is None)


@pytest.mark.parametrize("passcode", ["a?S3cret", "a?S3cret=b&S3cret", "S3cret@b?c"])
def test_a_passcode_with_a_question_mark_is_whole_and_not_shown(passcode: str) -> None:
    draft = drafted(f"rserver: 'stomp://u:{passcode}@h:1?randomize=true'\nlisten-topic: a.b\nrepo-list: {{}}\n")
    assert draft.secrets["broker", "passcode_file"] == passcode
    assert "S3cret" not in repr(draft) + repr(draft.lost)


def test_each_token_has_a_file_of_its_own() -> None:
    jobs = "{a: {project: b-c, ticket: one}, a-b: {project: c, ticket: two}}"
    draft = drafted(f"jenkins-url: https://j/\njenkins-projects: {jobs}\n")
    files = [str(draft.values[place]) for place in draft.secrets]
    assert files == ["jenkins-a-b-c.token", "jenkins-a-b-c-2.token"]
    assert [*draft.secrets.values()] == ["one", "two"]


def test_a_job_with_misspelt_keys_alone_is_called_one() -> None:
    lost = lost_keys(drafted("jenkins-url: https://j/\njenkins-projects: {a: {Project: b, token: c}}\n"))
    assert lost["jenkins-projects.a"] == "there is no project in it, so that nothing is built"


def test_the_order_of_brokers_is_kept_whichever_file_names_it() -> None:
    plain = STOMP_GIT.replace(CONNECTOR, RSERVER.partition("stomp-options")[0])
    ordered, random = (f"{KEEPALIVE}".replace("randomize=false", f"randomize={word}") for word in ("false", "true"))
    for files in ((plain, ordered), (ordered, plain)):
        assert "randomize=false" in str(drafted(*files).values["broker", "address"])
    draft = drafted(ordered, random)
    assert "randomize=false" in str(draft.values["broker", "address"])
    assert lost_keys(draft)["stompserver1.randomize"] == "another file says otherwise, and came first"


def test_times_that_make_sense_in_milliseconds_alone_are_taken_so(tmp_path: Path) -> None:
    options = "stomp-options: initialReconnectDelay=10&maxReconnectDelay=30000&timeout=5000\n"
    draft = drafted(f"rserver: stomp://h:1\n{options}listen-topic: a.b\nrepo-list: {{}}\n")
    broker = accepted(draft, tmp_path).broker
    assert (broker.backoff_initial, broker.backoff_max, broker.connect_timeout) == (0.01, 30.0, 5.0)
    assert sum("is taken for milliseconds" in warning for warning in draft.warnings) == 3
