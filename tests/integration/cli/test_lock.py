"""`lock` and `unlock` against a real agent and stand-ins; `nodes` and `status` show locks, and help who is behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import attrs
import pytest
from click.testing import CliRunner, Result

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus, Delivery
from deploykit.cli import group
from deploykit.cli.lock import _show
from deploykit.errors import DeploykitError, NobodyMatches, UsageError
from deploykit.messages import DeployReported, NodeDescribed, SiteLocked, SiteState, SiteUnlocked, utc_now
from deploykit.messages.statement import SignedStatement
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.operations.locks import LockOutcome
from deploykit.settings import BusSettings, GrantSettings
from deploykit.trust.signature import sign
from deploykit.trust.statements import statement_of
from deploykit.wire import Frame, decode, encode
from tests.support.asking import let_ask
from tests.support.keys import fixed_key
from tests.support.node import Node
from tests.support.responders import OPERATOR, Reply, Responders, asker_settings, described, end_with_the_answers
from tests.support.wait import wait_until

SHOP = SiteName("shop")
GRANTS = """
[[trust.grants]]
principal = "ops"
types = ["site.locked"]
"""


def run(*words: str | Path) -> Result:
    result = CliRunner().invoke(group, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, DeploykitError | SystemExit):
        raise result.exception
    return result


# -- a real agent ----------------------------------------------------------------------------------------------------


@pytest.fixture
def node(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[Node]:
    grants = (GrantSettings(principal="ops@example.org", types=("deploy.requested", "node.queried", "site.locked")),)
    with let_ask(Node(tmp_path / "node", deploykit_broker), None, *grants) as made:
        yield made


@pytest.fixture
def desk(tmp_path: Path, node: Node, deploykit_broker: EmbeddedBroker) -> Path:
    """The settings of who asks the real agent."""
    file = tmp_path / "desk.toml"
    file.touch(mode=0o600)
    file.write_text(f"""
node = "desk"
state = "{tmp_path}/state"
signing_key = "{node.root}/operator.key"
broker = {{ address = "{deploykit_broker.address}" }}
[trust]
allowed_signers = "{node.signers}"
[[trust.grants]]
principal = "ops@example.org"
types = ["site.locked"]
""")
    return file


def test_a_lock_keeps_a_deploy_out_until_it_is_lifted(node: Node, desk: Path, tmp_path: Path) -> None:
    commit = node.origin.push(tag="v1")
    with node.agent() as agent:
        agent.ready()
        asked = ("--config", desk, "--discovery-timeout", "20")
        done = run("lock", "shop", "--reason", "audit", "--until", "2h", "--json", *asked)
        assert done.exit_code == 0, (done.output, done.exception)
        shown = json.loads(done.stdout)
        assert (shown["statement"], shown["holds"], shown["lacks"]) == ("locked", ["web1"], [])
        request = node.request("v1", commit)
        node.send(request)
        report = node.report_on(request)
        assert report.outcome == "refused"
        assert "audit" in report.detail
        nodes = run("nodes", *asked)
        assert "shop is locked by" in nodes.stderr
        assert "audit" in nodes.stderr
        assert "lock     shop locked by" in run("nodes", "--long", *asked).stdout
        strange = tmp_path / "strange.toml"
        strange.touch(mode=0o600)
        strange.write_text(desk.read_text().replace('types = ["site.locked"]', 'types = ["node.queried"]'))
        unsure = run("unlock", "shop", "--config", strange, "--discovery-timeout", "20")
        assert unsure.exit_code == 1, "this machine believes no lock of that key; the node does"
        assert "nothing was lifted" in unsure.stdout
        again = run("unlock", "shop", "--reason", "over", *asked)
        assert again.exit_code == 0, (again.output, again.exception)
        assert again.stdout.startswith("shop unlocked by ")
        assert again.stdout.endswith(": over; 1 of 1 nodes hold it\n")
        assert run("unlock", "shop", *asked).stdout == "shop is not locked\n"
        assert "is locked" not in run("nodes", *asked).stderr


# -- stand-ins -------------------------------------------------------------------------------------------------------


class Heard:
    """The statements that pass on the topic of commands."""

    def __init__(self, address: str) -> None:
        self.frames: list[Frame] = []
        self.came = threading.Event()
        self.then: Callable[[SiteLocked | SiteUnlocked, SignedStatement], object] = lambda message, statement: None
        self._bus = Bus(BusSettings(address=address), client_id="heard")

    def __enter__(self) -> Heard:
        self._bus.start()
        assert self._bus.subscribe(TopicMap().deploy, self._hear).wait_active(60)
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.stop()

    def _hear(self, delivery: Delivery) -> None:
        frame = Frame(delivery.headers, delivery.body)
        message = decode(frame.headers, frame.body)
        assert isinstance(message, SiteLocked | SiteUnlocked)
        self.frames.append(frame)
        self.then(message, statement_of(frame))
        self.came.set()

    @property
    def bodies(self) -> list[bytes]:
        return [frame.body for frame in self.frames]


@pytest.fixture
def fleet(deploykit_broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Reply]]:
    end_with_the_answers(monkeypatch)
    replies: list[Reply] = []
    with Responders(deploykit_broker.address, lambda question: replies):
        yield replies


@pytest.fixture
def heard(deploykit_broker: EmbeddedBroker) -> Iterator[Heard]:
    listening = Heard(deploykit_broker.address)
    with listening:
        yield listening


@pytest.fixture
def config(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Path:
    return asker_settings(tmp_path, deploykit_broker.address, more=GRANTS)


def shop(name: str, statement: SignedStatement | None = None) -> NodeDescribed:
    return described(name, sites=(SiteState(site=SHOP, repo=RepoName("shop"), lock=statement),))


def locked(serial: int, **changes: Any) -> SignedStatement:
    lock = SiteLocked(site=SHOP, serial=serial, holder="ann", reason="freeze", until=utc_now() + timedelta(hours=1))
    return statement_of(sign(encode(attrs.evolve(lock, **changes)), OPERATOR))


def test_a_new_lock_has_a_higher_serial_than_all_that_is_shown(fleet: list[Reply], heard: Heard, config: Path) -> None:
    far = int(utc_now().timestamp()) + 10_000
    fleet[:] = [shop("web1", locked(far)), shop("web2")]

    def hold(message: SiteLocked | SiteUnlocked, statement: SignedStatement) -> None:
        fleet[:] = [shop("web1", statement), shop("web2")]

    heard.then = hold
    done = run("lock", "shop", "--reason", "x", "--config", config, "--json", "--discovery-timeout", "5")
    shown = json.loads(done.stdout)
    assert (done.exit_code, shown["serial"], shown["holds"], shown["lacks"]) == (1, far + 1, ["web1"], ["web2"])
    assert "not on web2" in done.stderr
    message = decode(heard.frames[0].headers, heard.frames[0].body)
    assert isinstance(message, SiteLocked)
    assert message.allow_rollback
    assert timedelta(hours=23) < message.until - utc_now() < timedelta(hours=24)


def test_an_unlock_carries_the_lock_that_it_lifts(fleet: list[Reply], heard: Heard, config: Path) -> None:
    lock = locked(5)
    fleet[:] = [shop("web1", lock)]
    heard.then = lambda message, statement: fleet.__setitem__(0, shop("web1", statement))
    done = run("unlock", "shop", "--config", config)
    assert done.exit_code == 0, (done.output, done.exception)
    message = decode(heard.frames[0].headers, heard.frames[0].body)
    assert isinstance(message, SiteUnlocked)
    assert message.locked == lock
    assert message.serial > 5


def test_what_no_node_has_is_published_and_ends_with_1(fleet: list[Reply], heard: Heard, config: Path) -> None:
    fleet[:] = [described("web1")]
    done = run("lock", "shop", "--reason", "x", "--config", config)
    assert done.exit_code == 1
    assert "no node with site shop answered" in done.stderr
    wait_until(lambda: heard.frames, "the lock")
    refused = run("unlock", "shop", "--config", config).exception
    assert isinstance(refused, NobodyMatches)


def test_a_key_without_the_grant_is_warned_of(
    tmp_path: Path, fleet: list[Reply], heard: Heard, deploykit_broker: EmbeddedBroker
) -> None:
    fleet[:] = [shop("web1")]
    config = asker_settings(tmp_path, deploykit_broker.address)
    done = run("lock", "shop", "--reason", "x", "--config", config, "--discovery-timeout", "1")
    assert done.exit_code == 1
    assert "by this machine's settings it does not count" in done.stderr


@pytest.mark.parametrize("command", [("nodes",), ("status", "--all")])
def test_whoever_looks_at_nodes_helps_those_that_are_behind(
    fleet: list[Reply], heard: Heard, config: Path, command: tuple[str, ...]
) -> None:
    old, new = locked(5), locked(6, reason="still frozen")
    fleet[:] = [shop("web1", old), shop("web2", new), shop("web3")]
    done = run(*command, "--config", config)
    assert "shop is locked by ann" in done.stderr
    assert "still frozen" in done.stderr
    assert "web1, web3 did not know the newest of shop's lock: published again" in done.stderr
    assert heard.came.wait(60)
    assert [statement_of(frame) for frame in heard.frames] == [new]
    shown = json.loads(run(*command, "--json", "--config", config).stdout)["locks"]
    assert [(site["site"], site["behind"]) for site in shown] == [("shop", ["web1", "web3"])]
    assert [(lock["holder"], lock["reason"], lock["serial"]) for lock in shown[0]["in_force"]] == [
        ("ann", "still frozen", 6)
    ]


def test_where_all_know_the_newest_nothing_is_published(fleet: list[Reply], heard: Heard, config: Path) -> None:
    new = locked(6)
    fleet[:] = [shop("web1", new), shop("web2", new)]
    assert "published again" not in run("nodes", "--config", config).stderr
    fleet[:] = [shop("web1", locked(7)), shop("web2", new)]
    run("nodes", "--config", config)
    assert heard.came.wait(60)
    assert len(heard.frames) == 1  # that of the second look alone


def test_a_forged_statement_is_shown_as_one(fleet: list[Reply], heard: Heard, config: Path) -> None:
    stranger = statement_of(
        sign(encode(SiteLocked(site=SHOP, serial=9, until=utc_now() + timedelta(hours=1))), fixed_key(7))
    )
    fleet[:] = [shop("web1", stranger)]
    done = run("nodes", "--config", config)
    assert "web1 shows a statement on site shop that does not count here" in done.stderr
    assert "is locked by" not in done.stderr


# -- what is typed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--reason", " "), "a lock says why"),
        (("--reason", "x", "--until", "31d"), "longer than 30 days"),
        (("--reason", "x", "--since", "2h", "--until", "1h"), "ends before it begins"),
        (("--reason", "x", "--until", "2026-01-01T00:00Z"), "ends before it begins"),
    ],
)
def test_what_makes_no_lock_is_a_usage_error(
    fleet: list[Reply], config: Path, words: tuple[str, ...], says: str
) -> None:
    refused = run("lock", "shop", *words, "--config", config).exception
    assert isinstance(refused, UsageError)
    assert says in str(refused)


@pytest.mark.parametrize("command", ["lock", "unlock"])
def test_help_has_an_example(command: str) -> None:
    assert f"deploykit {command} shop" in run(command, "--help").output


def test_an_override_says_why_before_anything_is_asked(fleet: list[Reply], config: Path) -> None:
    for words in (("deploy", "shop", "--ref", "v1", "-I", "web1"), ("rollback", "shop", "-I", "web1")):
        refused = run(*words, "--override-lock", " ", "--config", config).exception
        assert isinstance(refused, UsageError)
        assert "--override-lock says why" in str(refused)


def test_an_override_goes_with_the_command_and_stands_in_the_report(
    tmp_path: Path, node: Node, desk: Path, deploykit_broker: EmbeddedBroker
) -> None:
    commit = node.origin.push(tag="v1")
    with node.agent() as agent:
        agent.ready()
        asked = ("--config", desk, "--discovery-timeout", "20")
        assert run("lock", "shop", "--reason", "audit", *asked).exit_code == 0
        target = ("--ref", "refs/tags/v1", "--commit", str(commit), "-I", "web1")
        refused = run("deploy", "shop", *target, "--config", desk)
        assert refused.exit_code == 3, (refused.output, refused.exception)
        # The holder of a lock needs no grant to override it.
        done = run("deploy", "shop", *target, "--override-lock", "the shop is down", "--config", desk)
        assert done.exit_code == 0, (done.output, done.exception)
    report = node.wait(DeployReported, lambda message: message.outcome == "success")
    assert report.overridden == "the shop is down"
    assert report.lock is not None


def test_the_status_of_a_node_shows_its_locks(node: Node, desk: Path) -> None:
    file = node.root / "node.toml"
    file.touch(mode=0o600)
    file.write_text(f"""
node = "web1"
state = "{node.settings.state}"
broker = {{ address = "{node.settings.broker.address}" }}
outbox = {{ path = "{node.settings.outbox.path}" }}
[repositories.shop]
url = "{node.origin.path}"
[sites.shop]
path = "{node.site}"
repo = "shop"
[trust]
allowed_signers = "{node.signers}"
[[trust.grants]]
principal = "ops@example.org"
types = ["site.locked"]
""")
    with node.agent() as agent:
        agent.ready()
        assert run("lock", "shop", "--reason", "audit", "--config", desk, "--discovery-timeout", "20").exit_code == 0
    shown = run("status", "--config", file)
    assert "  lock    shop is locked by" in shown.stdout, (shown.output, shown.exception)
    (site,) = json.loads(run("status", "--json", "--config", file).stdout)["sites"]
    assert len(site["locks"]) == 1
    (node.settings.state / "locks.json").write_text("{")
    broken = run("status", "--config", file)
    assert broken.exit_code == 1
    assert "locks.json is damaged" in broken.stdout


LOCK = SiteLocked(site=SHOP, serial=1, holder="ann", reason="audit", until=utc_now() + timedelta(hours=1))
UNLOCK = SiteUnlocked(site=SHOP, serial=2, holder="ann")


@pytest.mark.parametrize("message", [LOCK, UNLOCK])
@pytest.mark.parametrize("lacks", [(), (NodeName("web1"),)])
def test_what_no_node_holds_is_not_shown_as_done(
    message: SiteLocked | SiteUnlocked, lacks: tuple[NodeName, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert _show("shop", LockOutcome(message=message, lacks=lacks), as_json=False) == 1
    assert capsys.readouterr().out == f"no node holds it: {message.summary}\n"
