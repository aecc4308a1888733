"""Half-old fleets that keep mirrors: the original's hooks and our agent, our hooks and the original's updater."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import attrs
import pytest

from deploykit.names import RepoName
from deploykit.outbox import Outbox
from deploykit.settings import CheckoutSettings, RepositorySettings, Settings
from deploykit.settings.webhook import WebhookSettings
from deploykit.web.receiver.app import outbox_publisher
from tests.brokers.server import BrokerServer
from tests.support.forges import ForgedChange
from tests.support.mixedfleet import MixedFleet
from tests.support.node import NodeAgent, Origin, git
from tests.support.oldsettings import accepted, drafted
from tests.support.originals.publishers import ZEROS, OriginalCrash, git_post_receive, keepalive, webhook
from tests.support.originals.readers import OldEventbot
from tests.support.originals.updater import OldRepository, OldUpdater, clone
from tests.support.wait import wait_until
from tests.support.webhooks import OURS, ReceiverWorld

#: Mode -> where a file of the three refs below is, from the target.
SHOWN = {
    "trusting": {"master": ""},
    "branch": {"topic": ""},
    "puppetmaster": {"master": "/master", "topic": "/topic"},
    "atomic": {"master": "_master", "topic": "_topic"},
    "tags": {"v1": "/v1"},
}


@pytest.fixture
def fleet(tmp_path: Path, real_broker: BrokerServer) -> MixedFleet:
    return MixedFleet(tmp_path, real_broker)


def begun(fleet: MixedFleet, name: str = "shop") -> Origin:
    """A repository with a commit on `master` and on `topic`, from before any hook."""
    origin = fleet.origin(name)
    git("symbolic-ref", "HEAD", "refs/heads/master", cwd=origin.path)
    for branch in ("master", "topic"):
        committed(origin, branch, "old")
    return origin


#: A message that tries to be more than that.
HOSTILE = "repo: evil\n\nJSON: {}\nrefname: refs/heads/evil\nfür ☂"


def committed(origin: Origin, branch: str, text: str, tag: str = "", message: str = HOSTILE) -> str:
    """Push a commit, and a tag on it."""
    git("checkout", "--quiet", "-B", branch, cwd=origin.work)
    (origin.work / "index.html").write_text(text)
    git("add", "--all", cwd=origin.work)
    git("commit", "--quiet", "--allow-empty", "--message", message, cwd=origin.work)
    names = [f"{branch}:refs/heads/{branch}"]
    if tag:
        git("tag", tag, cwd=origin.work)
        names.append(tag)
    git("push", "--quiet", "origin", *names, cwd=origin.work)
    return git("rev-parse", "HEAD", cwd=origin.work)


def shown(root: Path) -> dict[str, str]:
    """What stands in each directory, by mode and ref."""
    found = {}
    for mode, refs in SHOWN.items():
        for ref, where in refs.items():
            file = Path(f"{root / mode}{where}") / "index.html"
            found[f"{mode} {ref}"] = file.read_text() if file.exists() else ""
    return found


def all_show(root: Path, **texts: str) -> None:
    """Wait until each ref of these has its text in every mode that shows it."""

    def wrong() -> dict[str, str]:
        return {key: text for key, text in shown(root).items() if text != texts.get(key.split(" ")[1], text)}

    wait_until(lambda: not wrong(), f"{texts} in {root}", 60)


def holds(file: Path, text: str) -> None:
    """Wait until a file holds a text."""
    wait_until(lambda: file.exists() and file.read_text() == text, f"{text} in {file}")


@contextmanager
def our_agent(settings: Settings) -> Iterator[NodeAgent]:
    """Run our agent, until what it does of itself is over."""
    with NodeAgent(settings) as agent:
        agent.ready(*settings.repositories)
        yield agent


def in_all_modes(fleet: MixedFleet, origin: Origin) -> Settings:
    """Settings of an agent that keeps a repository in the original's six modes."""
    target = fleet.root / "ours"
    checkouts = [CheckoutSettings(mode="normal", target=target / "normal")]
    for mode in SHOWN:
        branch = "topic" if mode == "branch" else ""
        checkouts.append(CheckoutSettings(mode=mode, target=target / mode, branch=branch))  # type: ignore[arg-type]
    repository = RepositorySettings(url=str(origin.path), checkouts=tuple(checkouts))
    return attrs.evolve(fleet.settings, repositories={RepoName("shop"): repository})


def old_updaters(fleet: MixedFleet, origin: Origin, *modes: str, repo: str = "shop") -> list[OldUpdater]:
    """The original's updater once for each mode, with the clone that it needs."""
    made = []
    (fleet.root / "clones").mkdir(exist_ok=True)
    for mode in modes:
        old = OldRepository(
            clone=clone(origin.path, fleet.root / "clones" / mode),
            mode=mode,
            target=fleet.root / "theirs" / mode,
            branch="topic" if mode == "branch" else "",
        )
        made.append(OldUpdater(fleet.old, {repo: old}))
    return made


def test_the_originals_git_hook_moves_our_agent_in_all_six_modes(fleet: MixedFleet) -> None:
    origin = begun(fleet)
    fleet.old_hook(origin)
    with our_agent(in_all_modes(fleet, origin)):
        keepalive(fleet.old, fleet.topics.source)
        all_show(fleet.root / "ours", master="old", topic="old")
        committed(origin, "master", "new")
        head = committed(origin, "topic", "work", tag="v1")
        all_show(fleet.root / "ours", master="new", topic="work", v1="work")
    mirror = fleet.settings.state / "mirrors" / "shop.git"
    assert git("rev-parse", "refs/tags/v1", cwd=mirror) == head
    # Of a deletion the original's hook tells nobody; what is gone is found by our comparison with the origin. [seen]
    with pytest.raises(OriginalCrash):
        git_post_receive(fleet.old, "shop", origin.path, f"{head} {ZEROS} refs/heads/topic\n")
    git("push", "--quiet", "origin", ":topic", cwd=origin.work)
    with our_agent(in_all_modes(fleet, origin)):
        wait_until(lambda: not (fleet.root / "ours/puppetmaster/topic").exists(), "the comparison at the start")


@pytest.mark.rabbitmq
def test_converted_settings_of_the_updater_keep_what_it_kept(tmp_path: Path, rabbitmq: BrokerServer) -> None:
    """Each mode, from real clones: the origins are read from them, and the original's hook moves what comes out."""
    fleet = MixedFleet(tmp_path, rabbitmq)
    origin = begun(fleet)
    modes, clones = ("normal", *SHOWN, "dangerous"), tmp_path / "clones"
    clones.mkdir()
    lines = [
        f"listen-topic: {fleet.old.prefix}.git.commits\nreport-topic: {fleet.old.prefix}.events.stompgit\nrepo-list:"
    ]
    for mode in modes:
        target = "" if mode in ("normal", "dangerous") else f", target: {tmp_path}/ours/{mode}"
        more = ", branch: topic" if mode == "branch" else ""
        lines.append(f"  {mode}: {{repo: {clone(origin.path, clones / mode)}, mode: {mode}{target}{more}}}")
    made = accepted(drafted("\n".join(lines) + "\n"), tmp_path)
    (clones / "dangerous").rename(clones / "before")  # as the converter and `config check` say
    topics = attrs.evolve(fleet.topics, source=made.topics.source, notices=made.topics.notices)
    settings = attrs.evolve(fleet.settings, repositories=made.repositories, topics=topics, legacy=made.legacy)
    with our_agent(settings), OldEventbot(fleet.old) as bot:
        all_show(tmp_path / "ours", master="old", topic="old")
        head = committed(origin, "topic", "work", tag="v1")
        pushed = {"topic": head, "master": committed(origin, "master", "new")}
        refs = {**{f"refs/heads/{name}": commit for name, commit in pushed.items()}, "refs/tags/v1": head}
        for mode in modes:
            git_post_receive(
                fleet.old, mode, origin.path, "".join(f"{ZEROS} {new} {ref}\n" for ref, new in refs.items())
            )
        all_show(tmp_path / "ours", master="new", topic="work", v1="work")
        holds(clones / "dangerous/index.html", "new")
        mirror = fleet.settings.state / "mirrors/normal.git"
        wait_until(lambda: git("rev-parse", "refs/heads/topic", cwd=mirror) == head, "the mirror alone")
        wait_until(lambda: any(name == "stompgit" for name, _ in bot.lines), "a line for people")


def test_our_hook_moves_the_originals_updater_in_all_six_modes(fleet: MixedFleet) -> None:
    origin = begun(fleet)
    fleet.new_hook(origin, more="legacy_deletes = true")
    with ExitStack() as stack:
        stack.enter_context(fleet.relay())
        bot = stack.enter_context(OldEventbot(fleet.old))
        updaters = [stack.enter_context(each) for each in old_updaters(fleet, origin, "normal", "dangerous", *SHOWN)]
        committed(origin, "master", "new")
        head = committed(origin, "topic", "work", tag="v1")
        all_show(fleet.root / "theirs", master="new", topic="work", v1="work")
        wait_until(lambda: all(len(updater.heard) == 3 for updater in updaters), "three refs")
        assert all(updater.died is None for updater in updaters)
        normal, dangerous = (fleet.root / "clones" / mode for mode in ("normal", "dangerous"))
        assert git("rev-parse", "refs/remotes/origin/topic", cwd=normal) == head
        assert (dangerous / "index.html").read_text() == "new"
        git("push", "--quiet", "origin", ":topic", cwd=origin.work)
        wait_until(lambda: not (fleet.root / "theirs/puppetmaster/topic").exists(), "the deletion")
        line = f"[shop] topic moved {head[:12]} by "
        wait_until(lambda: any(text.startswith(line) for _, text in bot.lines), f"{line} in {bot.lines}")
        assert not [text for _, text in bot.lines if text.startswith("{")]


@pytest.mark.rabbitmq
def test_what_ends_the_originals_updater_is_known(tmp_path: Path, rabbitmq: BrokerServer) -> None:
    """A keepalive ends it, and so does the original's own hook: the page on moving says which to replace first."""
    fleet = MixedFleet(tmp_path, rabbitmq)
    origin = begun(fleet)
    with old_updaters(fleet, origin, "normal")[0] as updater:
        keepalive(fleet.old, fleet.topics.source)
        wait_until(lambda: not updater.runs, "its end")
    assert isinstance(updater.died, KeyError)
    head = committed(origin, "topic", "new", message="nothing special")
    with old_updaters(fleet, origin, "trusting")[0] as updater:
        git_post_receive(fleet.old, "shop", origin.path, f"{ZEROS} {head} refs/heads/topic\n")
        wait_until(lambda: not updater.runs, "its end")
    assert isinstance(updater.died, KeyError)


@pytest.mark.rabbitmq
def test_our_webhook_receiver_moves_the_originals_updater(tmp_path: Path, rabbitmq: BrokerServer) -> None:
    fleet = MixedFleet(tmp_path, rabbitmq)
    origin = begun(fleet)
    settings = WebhookSettings(legacy=True)
    publish = outbox_publisher(Outbox(fleet.settings.outbox.path), settings, fleet.topics)
    updater = old_updaters(fleet, origin, "puppetmaster", repo=str(OURS))[0]
    with ReceiverWorld(tmp_path, publish=publish, legacy=True) as receiver, fleet.relay(), updater:
        before = git("rev-parse", "topic", cwd=origin.path)
        for forge in ("gitlab", "github"):
            after = committed(origin, "topic", forge)
            assert receiver.push(forge, changes=[ForgedChange("refs/heads/topic", before, after)]).status == 202
            holds(fleet.root / "theirs/puppetmaster/topic/index.html", forge)
            before = after
        assert updater.died is None


@pytest.mark.rabbitmq
def test_the_originals_webhook_sender_moves_our_agent(tmp_path: Path, rabbitmq: BrokerServer) -> None:
    fleet = MixedFleet(tmp_path, rabbitmq)
    origin = begun(fleet)
    named = {"widget": "git@h:group/widget.git", "group/widget": "http://h/group/widget.git"}
    repositories = {}
    for number, name in enumerate(named):
        topic = CheckoutSettings(mode="branch", branch="topic", target=tmp_path / f"topic{number}")
        repositories[RepoName(name)] = RepositorySettings(url=str(origin.path), checkouts=(topic,))
    with our_agent(attrs.evolve(fleet.settings, repositories=repositories)):
        before = git("rev-parse", "topic", cwd=origin.path)
        payload = {"ref": "refs/heads/topic", "before": before, "after": committed(origin, "topic", "new")}
        with pytest.raises(OriginalCrash):  # what GitLab sends has commits [seen]
            webhook(fleet.old, {**payload, "commits": [], "repository": {"url": "git@h:group/widget.git"}})
        for number, url in enumerate(named.values()):
            webhook(fleet.old, {**payload, "repository": {"url": url}})
            holds(tmp_path / f"topic{number}" / "index.html", "new")
