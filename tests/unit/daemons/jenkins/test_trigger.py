"""Messages to builds in the queue: ours, the original's, copies of them, and what is no push."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.audit import AuditLog
from deploykit.bus import Ack, Reject, Retry, Verdict
from deploykit.daemons.jenkins.queue import BuildQueue
from deploykit.daemons.jenkins.setup import queue_path
from deploykit.daemons.jenkins.trigger import JenkinsTrigger
from deploykit.errors import AuditError, BuildQueueError, LockBusy, SettingsError
from deploykit.messages import RevisionCommitted
from deploykit.names import RepoName
from deploykit.settings import JenkinsSettings, Settings
from deploykit.testing.fakes import FakeBus
from deploykit.wire import Frame
from deploykit.wire.legacy import legacy_frames
from tests.support.buildorders import NEW, OLD, SHOP, FakeJenkins, jenkins, job, node_settings, push, unreachable

SOURCE = "/topic/deploykit.source"
ZERO = "0" * 40
PLAIN = {"content-type": "text/plain; charset=UTF-8"}

#: The original's message bytes, as its hooks and webhooks write them.
GIT = (
    f"repo: shop\noldrev: {OLD}\nnewrev: {NEW}\nrefname: refs/heads/main\n {NEW}\nAuthor: Ada <ada@example.org>\n"
    "Date: Thu Apr 19 10:00:00 2012 +0100\n\nrepo: other\nrefname: refs/heads/forged\n\n"
)
DELETED = f"repo: shop\noldrev: {OLD}\nnewrev: {ZERO}\nrefname: refs/heads/gone\n"
WEBHOOK = (
    f"repo: shop\noldrev: {OLD}\nnewrev: {NEW}\nrefname: refs/heads/main\n commit {NEW}\n"
    "Author: ada@example.org\nDate: 2012-04-19T10:00:00+01:00\n\tA message\n\n"
    f'JSON: {{"ref": "refs/heads/main", "before": "{OLD}", "after": "{NEW}", "commits": []}}\n'
)
SVN = (
    "repo: shop\nrevname: 42\n Author: ada\nDate: 2012-04-19 10:00:00 +0100 (Thu, 19 Apr 2012)\nProject: {}\n\n"
    "Dirs:\nweb/trunk/src/\nlib/trunk/\n\nrepo: other\n\n"
)


class Place:
    """A trigger on a fake bus, with fake servers."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bus = FakeBus()
        self.servers: dict[str, FakeJenkins] = {}
        self.settings = self.of(jenkins())

    def of(self, found: JenkinsSettings) -> Settings:
        return node_settings(self.root, "stomp://127.0.0.1:1", found)

    def trigger(self, found: JenkinsSettings | None = None) -> JenkinsTrigger:
        settings = self.settings if found is None else self.of(found)
        self.servers = {name: self.servers.get(name, FakeJenkins()) for name in settings.jenkins.servers}
        return JenkinsTrigger(settings, bus=self.bus, servers=self.servers)  # type: ignore[arg-type]

    def say(self, body: str, *, subject: str = "", redelivered: bool = False, sent_id: str = "") -> Verdict:
        """Deliver text as the original's publishers send it."""
        ids = {"deploykit-id": sent_id} if sent_id else {}
        frame = Frame({**PLAIN, "subject": subject, **ids}, body.encode())
        return self.bus.deliver(SOURCE, frame, redelivered=redelivered)[0]

    def queued(self) -> list[str]:
        """Job and subject of every build that ever was in the queue."""
        with BuildQueue(queue_path(self.settings.state)) as queue:
            states: Any = ("waiting", "asked", "answered", "queued", "followed", "done", "refused")
            return [
                f"{b.wanted.order.job} {b.wanted.subject} {b.wanted.project}".rstrip()
                for b in queue.builds(states=states)
            ]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("body", [GIT, WEBHOOK, GIT.replace("\n", "\r\n")])
def test_the_originals_pushes_are_built(place: Place, body: str) -> None:
    with place.trigger():
        assert isinstance(place.say(body, subject=f"[shop] refs/heads/main {NEW}"), Ack)
        assert place.queued() == [f"shop-tests [shop] refs/heads/main {NEW}"]


@pytest.mark.parametrize("body", ["\n", "", DELETED, GIT.replace("repo: shop", "repo: unknown")])
def test_what_is_nothing_to_build_is_acknowledged_and_builds_nothing(place: Place, body: str) -> None:
    with place.trigger():
        assert isinstance(place.say(body), Ack)
        assert place.queued() == []


@pytest.mark.parametrize(("projects", "expected"), [(("web", "lib"), ["lib", "web"]), (("web",), ["web"]), ((), [""])])
def test_the_originals_revisions_are_built_by_project(
    place: Place, projects: tuple[str, ...], expected: list[str]
) -> None:
    """The original: `jenkins-projects: {shop: {web: {project: …}, lib: {project: …}}}`, or one project for all."""
    with place.trigger(jenkins(job(projects=projects))):
        for project in ("web", "lib"):
            assert isinstance(place.say(SVN.format(project), subject="[shop] 42 "), Ack)
        assert sorted(place.queued()) == [f"shop-tests [shop] 42 {name}".rstrip() for name in expected]


def test_one_job_for_each_project_of_a_repository(place: Place) -> None:
    with place.trigger(jenkins(job("web%20tests", projects=("web",)), job("lib-tests", projects=("lib",)))):
        for project in ("web", "lib"):
            place.say(SVN.format(project), subject="[shop] 42 ")
        assert sorted(place.queued()) == ["lib-tests [shop] 42 lib", "web%20tests [shop] 42 web"]


def test_our_own_legacy_frames_of_a_revision_build_each_project_once(place: Place) -> None:
    message = RevisionCommitted(
        repo=SHOP, revision=7, projects=("a", "b", "c"), dirs=("a/trunk/", "b/trunk/", "c/trunk/")
    )
    with place.trigger(jenkins(job(projects=("*",)))):
        frames = legacy_frames(message)
        assert len(frames) == 3
        for number, frame in enumerate(frames):
            place.bus.deliver(SOURCE, Frame({**frame.headers, "deploykit-id": f"r{number}"}, frame.body))
        assert sorted(place.queued()) == [f"shop-tests [shop] 7 {name}" for name in "abc"]


def test_a_copy_of_a_message_starts_nothing_and_the_same_push_made_again_does(place: Place) -> None:
    with place.trigger():
        message = push()
        for _ in range(3):
            place.bus.deliver(SOURCE, message)
        assert len(place.queued()) == 1
        place.bus.deliver(SOURCE, push())  # forced back, and forth again
        assert len(place.queued()) == 2


def test_text_without_an_id_is_known_again_when_the_broker_gives_it_out_again(place: Place) -> None:
    """RabbitMQ gives a message another message-id each time, so nothing but its bytes is the same."""
    with place.trigger():
        place.say(GIT)
        place.say(GIT, redelivered=True)
        assert len(place.queued()) == 1
        place.say(GIT)  # the same push again: A to B, back, and to B again
        assert len(place.queued()) == 2


def test_text_that_our_relay_sent_is_known_by_its_id(place: Place) -> None:
    with place.trigger():
        place.say(GIT, sent_id="r1")
        place.say(GIT, sent_id="r1")
        place.say(GIT, sent_id="r2")
        assert len(place.queued()) == 2


def test_what_is_no_message_becomes_a_dead_letter(place: Place) -> None:
    with place.trigger():
        for body in (
            GIT.replace("repo: shop\n", "repo: shop\nrepo: shop\n"),
            "{}",
            "repo: ../x\nrefname: refs/heads/x\n",
        ):
            assert isinstance(place.say(body), Reject)
        assert place.queued() == []


def test_a_queue_that_is_full_leaves_messages_at_the_broker(place: Place, caplog: pytest.LogCaptureFixture) -> None:
    found = jenkins(most_waiting=2)
    caplog.set_level("ERROR")
    place.servers["ci"] = FakeJenkins(unreachable)
    with place.trigger(found) as trigger:
        assert [type(place.bus.deliver(SOURCE, push())[0]) for _ in range(4)] == [Ack, Ack, Retry, Retry]
        assert len(place.queued()) == 2
        said = "pushes wait at the broker: 2 builds wait, as many as most_waiting allows"
        assert trigger.blocking == trigger.problems == (said,)
    assert [record.message for record in caplog.records if "broker" in record.message] == [said]


def test_a_disk_that_is_full_leaves_the_message_at_the_broker(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> int:
        raise BuildQueueError("disk is full")

    monkeypatch.setattr(BuildQueue, "add", full)
    monkeypatch.setattr(BuildQueue, "hurry", full)
    with place.trigger() as trigger:
        message = push()
        assert isinstance(place.bus.deliver(SOURCE, message)[0], Retry)
        assert list(trigger.blocking) == ["pushes wait at the broker: disk is full"]
        monkeypatch.undo()
        assert isinstance(place.bus.deliver(SOURCE, message, attempt=2)[0], Ack)
        assert not list(trigger.blocking)
        assert len(place.queued()) == 1


def test_builds_of_a_server_that_left_the_settings_are_kept_and_reported(place: Place) -> None:
    place.servers["old"] = FakeJenkins(unreachable)
    with place.trigger(jenkins(servers=("old",))):
        place.bus.deliver(SOURCE, push())
    with place.trigger() as trigger:
        assert trigger.problems == ("old: not in [jenkins.servers], 1 build waits for it",)
        assert trigger.status.endswith("; 1 build waits")
    with place.trigger(jenkins(servers=("old",))):
        place.servers["old"].wait_asked(1)


def test_two_daemons_on_one_queue_are_refused(place: Place) -> None:
    with place.trigger(), pytest.raises(LockBusy, match="another build daemon"), place.trigger():
        pass
    with place.trigger():
        pass


def test_settings_without_a_job_are_refused(place: Place) -> None:
    with pytest.raises(SettingsError, match=r"no \[\[jenkins.jobs\]\]"):
        JenkinsTrigger(attrs.evolve(place.settings, jenkins=JenkinsSettings()), bus=place.bus)  # type: ignore[arg-type]


def test_it_ends_its_own_subscription_only(place: Place) -> None:
    other = place.bus.subscribe(SOURCE, lambda _: None)
    with place.trigger():
        assert len(list(place.bus.subscriptions)) == 2
    assert list(place.bus.subscriptions) == [other]


def test_a_message_that_fails_in_an_unforeseen_way_is_given_up_at_last(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object, **__: object) -> int:
        raise ZeroDivisionError

    with place.trigger():
        monkeypatch.setattr(BuildQueue, "add", bug)
        with pytest.raises(ZeroDivisionError):
            place.bus.deliver(SOURCE, push())
        assert isinstance(place.bus.deliver(SOURCE, push(), attempt=5)[0], Reject)
        assert isinstance(place.bus.deliver(SOURCE, RevisionCommitted(repo=RepoName("other"), revision=1))[0], Ack)


def test_a_secret_that_cannot_be_read_is_known_at_the_start(place: Place, tmp_path: Path) -> None:
    open_to_all = tmp_path / "token"
    open_to_all.write_text("canary")
    open_to_all.chmod(0o644)
    found = jenkins(job(token_file=open_to_all), job("b", token_file=tmp_path / "absent"))
    with pytest.raises(SettingsError) as caught:
        place.trigger(found)
    first, second = caught.value.problems
    assert first.startswith("jenkins.jobs[0].token_file: ")
    assert "0644" in first
    assert second.startswith("jenkins.jobs[1].token_file: cannot read")
    assert "canary" not in str(caught.value)


def test_nothing_is_asked_for_that_is_not_in_the_audit(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = threading.Event()

    def full(*_: object) -> None:
        tried.set()
        raise AuditError("disk is full")

    monkeypatch.setattr(AuditLog, "append", full)
    with place.trigger() as trigger:
        place.bus.deliver(SOURCE, push())
        assert tried.wait(30)
        assert trigger.waiting == 1
    assert place.servers["ci"].asked == []
    monkeypatch.undo()
    with place.trigger():
        place.servers["ci"].wait_asked(1)
