"""Services that run together: who starts, who ends, and who is named where one fails."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from deploykit.bus import Bus
from deploykit.daemons.service import lifecycle
from deploykit.daemons.service.group import ServiceGroup
from deploykit.daemons.service.registry import SERVICES, check_names, make_group
from deploykit.daemons.service.service import Service
from deploykit.errors import DeploykitError, LockBusy, ServiceFailed, SettingsError, UsageError
from deploykit.names import NodeName, RepoName, SiteName
from deploykit.settings import AccessSettings, AccessSiteSettings, BusSettings, OutboxSettings, Settings
from deploykit.settings.buildservers import BuildServerSettings
from deploykit.settings.jenkins import JenkinsSettings, JobSettings
from deploykit.settings.notify import ChannelSettings, NotifySettings
from deploykit.settings.packages import PackageSourceSettings, PackagesSettings
from deploykit.settings.webhook import WebhookSettings
from tests.support.manager import FakeManager
from tests.support.wait import wait_until
from tests.support.webhooks import source_of

NOWHERE = BusSettings(address="stomp://127.0.0.1:9", backoff_max=0.2)
SETTINGS = Settings(node=NodeName("web1"), broker=NOWHERE)


class Stub(Service):
    """A service that a test controls, and that notes what happens to it."""

    def __init__(
        self,
        name: str,
        log: list[str],
        *,
        bus: Bus | None = None,
        start: Callable[[], None] = lambda: None,
        end: Callable[[], None] = lambda: None,
        run: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name, NOWHERE, bus=bus)
        self.log, self.begin, self.finish = log, start, end
        self.done = False
        self.work = ""
        self.no_progress = ""
        self.looks = 0
        self.threads.add(name, run)

    def _start(self) -> None:
        self.begin()
        self.link.start()
        self.threads.start()
        self.log.append(f"{self.name} started")

    def _end(self) -> None:
        self.finish()
        super()._end()
        self.log.append(f"{self.name} ended")

    @property
    def working(self) -> bool:
        """Whether it works."""
        return True

    @property
    def busy(self) -> str:
        """What its end waits for."""
        return self.work

    @property
    def finished(self) -> bool:
        """Whether it is done."""
        return self.done

    def stuck(self, now: float) -> str:
        """What does not go on."""
        self.looks += 1
        return self.no_progress


def serve(*services: Service, on_ready: Callable[[str], None] = lambda _: None) -> None:
    lifecycle.serve(lambda: SETTINGS, lambda _: ServiceGroup(services), on_ready=on_ready, set_up=lambda _: None)


def fail(error: Exception) -> Callable[[], None]:
    def action() -> None:
        raise error

    return action


def test_one_that_cannot_start_is_named_and_those_before_it_are_ended() -> None:
    log: list[str] = []
    with pytest.raises(LockBusy, match=r"^b: another one is here \(stop it\)$"):
        serve(Stub("a", log), Stub("b", log, start=fail(LockBusy("another one is here", "stop it"))), Stub("c", log))
    assert log == ["a started", "a ended"]


def test_alone_it_is_not_named_its_error_says_enough() -> None:
    with pytest.raises(LockBusy, match=r"^another one is here$"):
        serve(Stub("a", [], start=fail(LockBusy("another one is here"))))


def test_an_error_that_is_not_ours_is_named_too() -> None:
    with pytest.raises(ServiceFailed, match=r"^b: PermissionError: .*/var/x"):
        serve(Stub("a", []), Stub("b", [], start=fail(PermissionError(13, "Permission denied", "/var/x"))))


def test_one_whose_thread_fails_ends_all_and_is_named() -> None:
    log: list[str] = []
    with pytest.raises(ServiceFailed, match=r"^b: the thread b has failed: ValueError: unheard of$"):
        serve(Stub("a", log), Stub("b", log, run=fail(ValueError("unheard of"))))
    assert sorted(log) == ["a ended", "a started", "b ended", "b started"]


def test_a_bus_whose_own_thread_fails_ends_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deploykit.bus.supervisor.Supervisor._try_each", fail(ValueError("unheard of")))
    monkeypatch.setattr(threading, "excepthook", lambda _: None)
    with pytest.raises(ServiceFailed, match=r"^a thread of the bus has ended: deploykit-bus$"):
        serve(Stub("a", []))


def test_one_that_has_finished_ends_all() -> None:
    log: list[str] = []
    one = Stub("a", log)
    one.done = True
    serve(one, Stub("b", log))
    assert sorted(log) == ["a ended", "a started", "b ended", "b started"]


def test_services_end_at_the_same_time_and_their_bus_last() -> None:
    log: list[str] = []
    bus = Bus(NOWHERE)
    barrier = threading.Barrier(2, timeout=60)

    def end() -> None:
        barrier.wait()  # would fail if one were ended after the other
        log.append(bus.state.value)

    with ServiceGroup([Stub("a", log, bus=bus, end=end), Stub("b", log, bus=bus, end=end)], bus=bus):
        log.clear()
    assert sorted(log[:2]) != ["closed", "closed"]
    assert "closed" not in log
    assert bus.state.value == "closed"


def test_each_is_ready_once() -> None:
    ready: list[str] = []

    def on_ready(name: str) -> None:
        ready.append(name)
        if len(ready) == 2:
            signal.raise_signal(signal.SIGTERM)

    serve(Stub("a", []), Stub("b", []), on_ready=on_ready)
    assert ready == ["a", "b"]


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeManager:
    made = FakeManager(tmp_path)
    monkeypatch.setenv("NOTIFY_SOCKET", made.address)
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    return made


def in_thread(action: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=action)
    thread.start()
    return thread


def test_the_watchdog_hears_nothing_while_a_service_does_not_go_on(
    manager: FakeManager, caplog: pytest.LogCaptureFixture
) -> None:
    one = Stub("a", [])

    def play() -> None:
        manager.wait("WATCHDOG=1")
        one.no_progress = "it hangs"
        wait_until(lambda: "no ping for the watchdog: a: it hangs" in caplog.text)
        pings = manager.all().count("WATCHDOG=1")
        looks = one.looks
        wait_until(lambda: one.looks >= looks + 3)
        assert manager.all().count("WATCHDOG=1") == pings
        one.no_progress = ""
        manager.wait("WATCHDOG=1", after=len(manager.heard))
        one.done = True

    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            play()
        except BaseException as error:
            failed.append(error)
        finally:
            one.done = True

    thread = in_thread(guarded)
    with manager:
        serve(one)
        thread.join(60)
    if failed:
        raise failed[0]
    assert caplog.text.count("no ping for the watchdog") == 1


def test_the_end_asks_for_time_as_long_as_a_service_is_busy_and_pings_meanwhile(manager: FakeManager) -> None:
    release = threading.Event()

    def end() -> None:
        assert release.wait(60)
        one.work = ""

    def play() -> None:
        manager.wait("EXTEND_TIMEOUT_USEC=")
        release.set()

    one = Stub("a", [], end=end)
    one.work, one.done = "1 deploy", True
    thread = in_thread(play)
    with manager:
        serve(one)
        thread.join(60)
        heard = manager.all()
    stopping = heard.index("STOPPING=1\nSTATUS=ending: waits for 1 deploy")
    assert "EXTEND_TIMEOUT_USEC=30000000" in heard[stopping:]
    assert "WATCHDOG=1" in heard[stopping:]


def test_after_a_reload_that_fails_the_manager_hears_that_it_is_over(manager: FakeManager) -> None:
    one = Stub("a", [])
    loads = iter([SETTINGS])

    def load() -> Settings:
        try:
            return next(loads)
        except StopIteration:
            one.done = True
            raise SettingsError("they are bad") from None

    with manager:
        lifecycle.serve(
            load,
            lambda _: ServiceGroup([one]),
            on_ready=lambda _: signal.raise_signal(signal.SIGHUP),
            set_up=lambda _: None,
        )
        kinds = [text.partition("=")[0] for text in manager.all() if not text.startswith(("WATCHDOG", "STATUS"))]
    assert kinds == ["READY", "RELOADING", "READY", "STOPPING"]


def test_nothing_is_started_after_term_whatever_hup_asked_for_before() -> None:
    log: list[str] = []
    names = iter(["first", "second"])

    def make(_: Settings) -> ServiceGroup:
        return ServiceGroup([Stub(next(names), log, end=lambda: os.kill(os.getpid(), signal.SIGTERM))])

    lifecycle.serve(
        lambda: SETTINGS, make, on_ready=lambda _: signal.raise_signal(signal.SIGHUP), set_up=lambda _: None
    )
    assert log == ["first started", "first ended"]
    gc.collect()  # what was made for HUP holds no socket


# -- the registry ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ((), "no service"),
        (("agnet",), "no service 'agnet' (there are: agent, "),
        (("agent", "agent"), "named twice"),
        (("agent", "relay"), "agent has a relay of its own (leave out relay)"),
    ],
)
def test_names_that_make_no_sense_are_refused(names: tuple[str, ...], says: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_names(names)
    assert says in str(caught.value)


def test_services_start_in_the_order_of_the_registry() -> None:
    assert check_names(("keepalive", "agent")) == ("agent", "keepalive")


def test_every_service_can_be_made_and_shares_the_one_bus(tmp_path: Path) -> None:
    broker = BusSettings(address=NOWHERE.address, keepalive=("/topic/a",))
    (tmp_path / "token").touch(0o600)
    server = BuildServerSettings(url="https://ci.example.org/", user="u", token_file=tmp_path / "token")
    settings = Settings(
        node=NodeName("web1"),
        state=tmp_path / "state",
        broker=broker,
        outbox=OutboxSettings(path=tmp_path / "spool"),
        jenkins=JenkinsSettings(servers={"ci": server}, jobs=(JobSettings(repo=RepoName("shop"), job="shop"),)),
        webhook=WebhookSettings(listen="127.0.0.1:0", sources={"github": source_of("github", tmp_path)}),
        access=AccessSettings(sites={SiteName("shop"): AccessSiteSettings(file=tmp_path / "users")}),
        packages=PackagesSettings(sources={"ours": PackageSourceSettings(file=tmp_path / "ours.sources")}),
        notify=NotifySettings(channels={"ops": ChannelSettings(kind="irc", url="irc://127.0.0.1/#ops")}),
    )
    group = make_group(tuple(SERVICES), settings)
    buses = {id(one.link.bus) for one in group.services}
    assert len(buses) == 1
    assert all(one.link.shared for one in group.services)
    bus = group.services[0].link.bus
    group.discard()
    assert bus.settings.client_id == "deploykit-web1"
    assert bus.settings.keepalive == ()


def test_one_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    settings = Settings(node=NodeName("web1"), broker=NOWHERE, outbox=OutboxSettings(path=tmp_path / "spool"))
    with pytest.raises(DeploykitError, match=r"^keepalive: no destinations"):
        make_group(("relay", "keepalive"), settings)
