"""`deploykit notify` on a real bus, with receivers over real HTTP: what arrives, what does not, what it survives."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import attrs
import pytest
from standardwebhooks.webhooks import Webhook

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.daemons.notify.service import NotifyService
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import SettingsError
from deploykit.messages import Message, RefUpdated, utc_now
from deploykit.messages.topics import topic_of
from deploykit.names import ZERO_ID, NodeName, parse_repo_name
from deploykit.settings import BusSettings, Settings
from deploykit.settings.notify import ChannelSettings, NotifySettings
from deploykit.settings.trust import GrantSettings, TrustSettings
from deploykit.trust.signature import sign
from deploykit.wire import encode
from tests.support.cli import run
from tests.support.daemon import RunningDaemon
from tests.support.hookreceiver import HookReceiver, receiving
from tests.support.keys import fixed_key
from tests.support.newsworld import COMMIT, TAG, notice, proposal, rollout, secret_file
from tests.support.stubhttp import Fault, Reply
from tests.support.wait import wait_until

OPERATOR = fixed_key(1)
KEY = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVERYTHING = ("notice", "failure", "approval", "rollout", "lock", "access", "push", "build")


class World:
    """A broker, receivers, and a bus that publishes."""

    def __init__(self, root: Path, broker: EmbeddedBroker, stack: ExitStack) -> None:
        self.root, self.broker, self._stack = root, broker, stack
        self.bus = stack.enter_context(Bus(BusSettings(address=broker.address)))
        signers = root / "allowed_signers"
        signers.write_text(f"operator {OPERATOR.public_openssh}\n")
        grant = GrantSettings(principal="operator", types=("deploy.requested", "rollout.run"))
        self.trust = TrustSettings(allowed_signers=signers, grants=(grant,))

    def receiver(self, **changes: Any) -> HookReceiver:
        """A receiver that runs."""
        return self._stack.enter_context(receiving(HookReceiver(**changes)))

    def channel(self, kind: str, at: HookReceiver, **changes: Any) -> ChannelSettings:
        """The settings of a channel that posts to a receiver."""
        values: dict[str, Any] = {"url": f"{at.url}/in", "events": EVERYTHING}
        match kind:
            case "slack":
                values |= {
                    "url": "",
                    "secret_file": secret_file(self.root, f"{at.url}/hook/t0ps3cret", f"s{len(at.url)}"),
                }
            case "matrix":
                values |= {"room": "!ops:example.org", "secret_file": secret_file(self.root, "syt_t0ken", "matrix")}
            case _:
                values["secret_file"] = secret_file(self.root, KEY, "key")
        return ChannelSettings(kind=kind, **(values | changes))  # type: ignore[arg-type]  # of the four

    def settings(self, **channels: ChannelSettings) -> Settings:
        """Settings with these channels."""
        return Settings(
            node=NodeName("hub"),
            state=self.root / "state",
            broker=BusSettings(address=self.broker.address),
            trust=self.trust,
            notify=NotifySettings(channels=channels, console="https://deploy.example.org"),
        )

    def send(self, message: Message, *, signed: bool = True) -> None:
        """Publish a message where it belongs."""
        settings = self.settings()
        frame = encode(message)
        self.bus.publish(topic_of(message, settings.topics), sign(frame, OPERATOR) if signed else frame)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path, stack.enter_context(EmbeddedBroker()), stack)


def bodies(of: HookReceiver) -> list[dict[str, Any]]:
    return [json.loads(seen.body) for seen in list(of.seen)]


def fresh(make: Callable[..., Any], **changes: Any) -> Any:
    """A message of now."""
    return attrs.evolve(make(**changes), time=utc_now())


def test_a_failed_rollout_reaches_every_channel_and_a_forged_one_reaches_none(world: World) -> None:
    slack, matrix, hook, events = (world.receiver() for _ in range(4))
    settings = world.settings(
        slack=world.channel("slack", slack),
        matrix=world.channel("matrix", matrix),
        hook=world.channel("webhook", hook),
        events=world.channel("cdevents", events),
    )
    metrics = Metrics()
    with NotifyService(settings, metrics=metrics) as service:
        assert service.wait_connected(30)
        world.send(fresh(rollout, detail="all is well"), signed=False)
        world.send(fresh(rollout, detail="web1: <no> disk"))
        for each in (slack, matrix, hook, events):
            wait_until(lambda each=each: each.seen, "a letter")  # type: ignore[misc]  # mypy cannot infer such a lambda
        wait_until(lambda: not service.waiting, "nothing waits")
    assert all(len(each.seen) == 1 for each in (slack, matrix, hook, events))
    line = "rollout deploy shop v1.2 failed (1 active): web1: {} disk https://deploy.example.org/deploys/r-1"
    assert bodies(slack)[0]["text"] == line.format("&lt;no&gt;")
    assert slack.seen[0].path == "/hook/t0ps3cret"
    assert bodies(matrix)[0]["body"] == line.format("<no>")
    assert matrix.seen[0].method == "PUT"
    assert matrix.seen[0].headers["authorization"] == "Bearer syt_t0ken"
    Webhook(KEY).verify(hook.seen[0].body, dict(hook.seen[0].headers))
    assert bodies(hook)[0]["data"]["reason"] == "web1: <no> disk"
    Webhook(KEY).verify(events.seen[0].body, dict(events.seen[0].headers))
    assert bodies(events)[0]["type"] == "dev.cdevents.pipelinerun.finished.0.3.0"
    assert metrics.series("notify_heard_total")["distrusted",] == 1
    assert metrics.series("notify_sent_total")["slack", "sent"] == 1


def test_an_approval_wanted_links_to_where_it_is_given(world: World) -> None:
    slack = world.receiver()
    with NotifyService(world.settings(ops=world.channel("slack", slack))) as service:
        assert service.wait_connected(30)
        world.send(fresh(proposal, reason="sale"))
        wait_until(lambda: slack.seen, "the letter")
    assert bodies(slack)[0]["text"] == (
        "rollout deploy shop v1.2 waits for approval (0 of 2 signed): sale "
        "https://deploy.example.org/deploys/r-2/approve"
    )


def test_a_channel_that_does_not_answer_holds_up_no_other(world: World) -> None:
    stuck = world.receiver(faults=[Fault(kind="never")] * 10)
    down, good = world.receiver(), world.receiver()
    gone = attrs.evolve(world.channel("webhook", down), url="http://127.0.0.1:1/")
    settings = world.settings(stuck=world.channel("webhook", stuck), down=gone, good=world.channel("webhook", good))
    with NotifyService(settings) as service:
        assert service.wait_connected(30)
        for number in range(5):
            world.send(fresh(proposal, reason=str(number)))
        wait_until(lambda: len(good.seen) == 5, "all letters of the good one")
        wait_until(lambda: service.problems, "the one that is down is a problem")
        assert service.blocking == ()
        assert any(problem.startswith("down: ") for problem in service.problems)
        assert service.waiting >= 10


def test_too_many_requests_are_tried_again_under_the_same_id(world: World) -> None:
    limited = b'{"errcode":"M_LIMIT_EXCEEDED","retry_after_ms":50}'
    matrix = world.receiver(answers=[Reply(status=429, body=limited), Reply(status=502)])
    with NotifyService(world.settings(ops=world.channel("matrix", matrix))) as service:
        assert service.wait_connected(30)
        world.send(fresh(proposal))
        wait_until(lambda: len(matrix.seen) == 3, "three attempts")
        wait_until(lambda: not service.waiting, "it arrived")
    assert len({seen.path for seen in matrix.seen}) == 1


def test_no_redirect_is_followed(world: World) -> None:
    thief = world.receiver()
    hook = world.receiver(answers=[Reply(status=307, headers={"Location": f"{thief.url}/in"})])
    with NotifyService(world.settings(ops=world.channel("webhook", hook))) as service:
        assert service.wait_connected(30)
        world.send(fresh(proposal))
        wait_until(lambda: service.problems, "the redirect is a problem")
        assert "no redirect is followed" in service.problems[0]
        assert service.blocking == service.problems  # no channel works
    assert thief.seen == []


def test_a_flood_of_lines_is_cut_and_the_failure_in_it_is_not(world: World) -> None:
    slack = world.receiver()
    settings = world.settings(ops=world.channel("slack", slack, per_minute=5))
    with NotifyService(settings) as service:
        assert service.wait_connected(30)
        for number in range(200):
            world.send(notice(f"flood {number}"), signed=False)
        world.send(fresh(rollout))
        wait_until(lambda: len(slack.seen) == 5, "five letters")
        wait_until(lambda: service.waiting <= 5, "what was left out")
    texts = [body["text"] for body in bodies(slack)]
    assert len(texts) == 5
    assert all(text.startswith(("flood ", "rollout ")) for text in texts)


def test_a_push_and_its_notice_are_one_line(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # The notice waits for its push longer than a busy machine takes from one to the other.
    monkeypatch.setattr("deploykit.daemons.notify.waiting.PAIR_WAIT", 30.0)
    slack = world.receiver()
    push = RefUpdated(repo=parse_repo_name("shop"), ref=TAG, old=ZERO_ID, new=COMMIT, correlation_id="c-1")
    with NotifyService(world.settings(ops=world.channel("slack", slack))) as service:
        assert service.wait_connected(30)
        world.send(notice(push.summary, correlation_id="c-1"), signed=False)
        world.send(push, signed=False)
        world.send(fresh(proposal))
        wait_until(lambda: len(slack.seen) == 2, "two letters")
        wait_until(lambda: not service.waiting, "no more")
    assert [body["text"].split()[0] for body in bodies(slack)].count("[shop]") == 1


def test_what_waits_outlasts_a_reload_and_nothing_is_sent_twice(world: World) -> None:
    # The next attempt is far off: else it may come before the first service has ended.
    away = Reply(status=503, headers={"Retry-After": "3000"})
    hook, metrics = world.receiver(answers=[away]), Metrics()
    settings = world.settings(ops=world.channel("webhook", hook))
    message = fresh(proposal)
    with NotifyService(settings, metrics=metrics) as service:
        assert service.wait_connected(30)
        world.send(message)
        wait_until(lambda: service.problems, "the first attempt failed")
    assert len(hook.seen) == 1
    with NotifyService(settings, metrics=metrics) as service:
        assert service.wait_connected(30)
        wait_until(lambda: len(hook.seen) == 2, "the new one goes on")
        world.send(message)  # the same bytes once more
        world.send(fresh(proposal, reason="another"))
        wait_until(lambda: len(hook.seen) == 3, "another letter")
        wait_until(lambda: not service.waiting, "no more")
    reasons = [body["data"].get("reason", "") for body in bodies(hook)]
    assert reasons == ["", "", "another"]
    ids = [seen.headers["webhook-id"] for seen in hook.seen]
    assert ids[0] == ids[1] != ids[2]


def test_no_secret_is_logged(world: World, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    matrix = world.receiver(answers=[Reply(status=403, body=b'{"errcode":"M_FORBIDDEN","error":"syt_t0ken"}')])
    slack = world.receiver(usual=lambda seen: Reply(status=500, body=f"{seen.path} t0ps3cret".encode()))
    settings = world.settings(m=world.channel("matrix", matrix), s=world.channel("slack", slack))
    with NotifyService(settings) as service:
        assert service.wait_connected(30)
        world.send(fresh(proposal))
        wait_until(lambda: len(service.problems) == 2, "both fail")
    assert "M_FORBIDDEN" in caplog.text
    for secret in ("syt_t0ken", "t0ps3cret"):
        assert secret not in caplog.text
        assert secret not in repr(settings)


def test_without_channels_or_with_a_bad_secret_it_does_not_start(world: World) -> None:
    with pytest.raises(SettingsError, match=r"notify\.channels: there is none"):
        NotifyService(world.settings())
    hook = world.receiver()
    bad = attrs.evolve(world.channel("webhook", hook), secret_file=world.root / "missing")
    with pytest.raises(SettingsError, match=r"notify\.channels\.ops\.secret_file: cannot read"):
        NotifyService(world.settings(ops=bad))


def test_the_command_runs_tries_and_shows(world: World, tmp_path: Path) -> None:
    hook = world.receiver()
    secret_file(tmp_path, KEY, "key")
    channel = f'[notify.channels.ops]\nkind = "webhook"\nurl = "{hook.url}/in"\nsecret_file = "{tmp_path}/key"\n'
    daemon = RunningDaemon(tmp_path, world.broker.address, "notify")
    daemon.write(world.broker.address, channel)
    config = str(daemon.file)
    tried = run("notify", "test", "ops", "--config", config)
    assert (tried.returncode, tried.stdout) == (0, "sent to ops\n")
    assert bodies(hook)[0]["data"]["line"] == "test of channel webhook by deploykit notify on web1"
    unknown = run("notify", "test", "nix", "--config", config)
    assert (unknown.returncode, unknown.stderr) == (
        2,
        "deploykit: no channel 'nix' in the settings (there are: ops)\n",
    )
    (tmp_path / "message.json").write_bytes(encode(notice("hello")).body)
    (tmp_path / "cut.json").write_text('{"x":')
    silent = run("notify", "render", str(tmp_path / "cut.json"), "--config", config)
    assert "no news for a channel (--all shows why)" in silent.stderr
    shown = run("notify", "render", str(tmp_path / "message.json"), "--json", "--config", config)
    assert json.loads(json.loads(shown.stdout)["sent"]["ops"])["data"]["line"] == "hello"
    with daemon:
        daemon.wait("ready: notify to ops")
        world.send(notice("before"), signed=False)
        wait_until(lambda: len(hook.seen) == 2, "a letter of the daemon")
        daemon.write(world.broker.address, channel + 'events = ["approval"]\n')
        daemon.hup()
        daemon.wait("ready: notify to ops", 2)
        world.send(notice("not wanted any more"), signed=False)
        world.send(fresh(proposal))
        wait_until(lambda: len(hook.seen) == 3, "a letter after HUP")
    assert bodies(hook)[-1]["type"] == "deploykit.approval"
    hook.answers.append(Reply(status=401))
    failed = run("notify", "test", "ops", "--config", config, "--json")
    assert failed.returncode == 1
    assert json.loads(failed.stdout) == {
        "channel": "ops",
        "sent": False,
        "why": "answered 401 (check url, room and secret_file)",
    }
