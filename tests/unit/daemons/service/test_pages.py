"""What the pages say of a process: what its main thread found, and that it looks no more."""

from __future__ import annotations

import pytest

from deploykit.bus import Bus
from deploykit.bus.events import BusState
from deploykit.daemons.service.group import ServiceGroup
from deploykit.daemons.service.metrics import Metrics
from deploykit.daemons.service.pages import MOST_SILENCE, Pages
from deploykit.daemons.service.service import Service
from deploykit.names import NodeName
from deploykit.settings import BusSettings, ServiceSettings, Settings

BUS = Bus(BusSettings(address="stomp://127.0.0.1:1"))
BUS.stop(0)


class ServiceOfTest(Service):
    """A service that does nothing, and says of itself what a test wants."""

    def __init__(self, name: str = "test") -> None:
        super().__init__(name, BUS.settings, bus=BUS)
        self.at_work = True
        self.found: tuple[str, ...] = ()
        self.harmless = False
        self.hanging = ""
        self.asked = 0

    def _start(self) -> None:
        pass

    @property
    def working(self) -> bool:
        return self.at_work

    @property
    def problems(self) -> tuple[str, ...]:
        return self.found

    @property
    def blocking(self) -> tuple[str, ...]:
        return () if self.harmless else super().blocking

    def stuck(self, now: float) -> str:
        self.asked += 1
        return self.hanging


@pytest.fixture
def connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Bus, "state", BusState.CONNECTED)


def test_ready_needs_connection_work_and_no_problem(connected: None, monkeypatch: pytest.MonkeyPatch) -> None:
    service = ServiceOfTest()
    group, pages = ServiceGroup([service]), Pages("agent", Metrics())

    def found() -> tuple[list[str], list[str]]:
        pages.look(group)
        return [*pages.stuck()], [*pages.problems()]

    assert [*pages.problems()] == ["starting"]
    assert found() == ([], [])
    service.at_work = False
    assert found() == ([], ["connected, and not at work yet"])
    service.found = ("no key is trusted", "and more")
    assert found() == ([], ["no key is trusted", "and more"])
    service.harmless = True
    service.at_work = True
    assert found() == ([], [])
    assert [*pages.notes()] == ["no key is trusted", "and more"]
    monkeypatch.setattr(Bus, "state", BusState.WAITING)
    assert found() == ([], ["waiting for a broker"])
    pages.wait_for("ending: waits for 1 deploy")
    assert ([*pages.stuck()], [*pages.problems()]) == ([], ["ending: waits for 1 deploy"])


def test_of_several_services_each_line_names_its_own(connected: None) -> None:
    first, second = ServiceOfTest("agent on web1"), ServiceOfTest("jenkins")
    second.found = ("server ci: wrong token",)
    pages = Pages("run", Metrics())
    pages.look(ServiceGroup([first, second]))
    assert [*pages.problems()] == ["jenkins: server ci: wrong token"]
    assert [*pages.notes()] == []
    second.harmless = True
    pages.look(ServiceGroup([first, second]))
    assert ([*pages.problems()], [*pages.notes()]) == ([], ["jenkins: server ci: wrong token"])


def test_a_service_that_does_not_go_on_is_not_alive(connected: None) -> None:
    now = [100.0]
    service = ServiceOfTest()
    group, pages = ServiceGroup([service]), Pages("agent", Metrics(), clock=lambda: now[0])
    service.hanging = "the bus's own thread has not answered for 21 s"
    for _ in range(5):
        pages.look(group)
        now[0] += 0.1
    assert service.asked == 1, "the question is not asked each time"
    assert [*pages.stuck()] == ["test: the bus's own thread has not answered for 21 s"]
    assert [*pages.problems()] == [*pages.stuck()]
    service.hanging = ""
    now[0] += 1
    pages.look(group)
    assert [*pages.stuck()] == []


def test_a_main_thread_that_looks_no_more_is_not_alive(connected: None) -> None:
    now = [100.0]
    pages = Pages("agent", Metrics(), clock=lambda: now[0])
    pages.look(ServiceGroup([ServiceOfTest()]))
    now[0] += MOST_SILENCE
    assert [*pages.stuck()] == []
    now[0] += 1
    assert [*pages.stuck()] == ["the main thread has not looked at its services for 61 s"]


def test_a_command_that_is_no_daemon_takes_no_address() -> None:
    """Or `deploykit watch` would take the agent's."""
    settings = Settings(node=NodeName("web1"), service=ServiceSettings(listen="127.0.0.1:0"))
    with Pages("", Metrics()) as none, Pages("agent", Metrics()) as some:
        with none.opening(settings), some.opening(settings):
            assert some.server.address is None
        assert none.server.address is None
        assert some.server.address is not None
