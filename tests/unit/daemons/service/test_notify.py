"""What the service manager hears: only what it asked for, from us alone, and never at the daemon's cost."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from deploykit.daemons.service.notify import EXTEND_EVERY, ServiceManager
from tests.support.manager import FakeManager


def taken(**environ: str) -> ServiceManager:
    return ServiceManager.take(environ)


@pytest.mark.parametrize("abstract", [False, True])
def test_both_kinds_of_address_are_understood(tmp_path: Path, abstract: bool) -> None:
    name = f"{tmp_path.name}-{os.getpid()}" if abstract else ""
    with FakeManager(tmp_path, abstract=name) as manager:
        taken(NOTIFY_SOCKET=manager.address).ready("connected")
        assert manager.all() == ["READY=1\nSTATUS=connected"]


@pytest.mark.parametrize("address", ["", "vsock:1:2", "/nonexistent/notify"])
def test_without_a_manager_nothing_happens(address: str) -> None:
    manager = taken(NOTIFY_SOCKET=address)
    manager.ready("connected")
    manager.reloading()
    manager.stopping("")


def test_a_manager_that_is_gone_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    manager = taken(NOTIFY_SOCKET="/nonexistent/notify")
    with caplog.at_level(logging.WARNING, "deploykit"):
        manager.ready("connected")
        manager.status("away")
    assert caplog.text.count("cannot notify the service manager") == 1


def test_its_variables_leave_the_environment_so_that_no_child_speaks_for_us(tmp_path: Path) -> None:
    environ = {"NOTIFY_SOCKET": str(tmp_path / "none"), "WATCHDOG_USEC": "5000000", "WATCHDOG_PID": "1", "HOME": "/"}
    ServiceManager.take(environ)
    assert environ == {"HOME": "/"}


def test_a_status_is_sent_when_it_changes(tmp_path: Path) -> None:
    with FakeManager(tmp_path) as heard:
        manager = taken(NOTIFY_SOCKET=heard.address)
        manager.ready("one")
        for status in ("one", "one", "two", "two"):
            manager.status(status)
        assert heard.all() == ["READY=1\nSTATUS=one", "STATUS=two"]


def test_the_watchdog_is_pinged_at_half_its_period() -> None:
    manager = taken(WATCHDOG_USEC="10000000", WATCHDOG_PID=str(os.getpid()))
    assert manager.ping_due(100.0)
    manager.ping(100.0)
    assert [manager.ping_due(now) for now in (104.9, 105.0)] == [False, True]


@pytest.mark.parametrize(
    ("period", "pid", "due"),
    [("10000000", "", True), ("10000000", "1", False), ("", "", False), ("0", "", False), ("soon", "", False)],
)
def test_a_watchdog_that_is_another_process_s_or_none_gets_no_ping(period: str, pid: str, due: bool) -> None:
    environ = {"WATCHDOG_USEC": period} | ({"WATCHDOG_PID": pid} if pid else {})
    assert ServiceManager.take(environ).ping_due(1e9) is due


def test_more_time_is_asked_for_now_and_then(tmp_path: Path) -> None:
    with FakeManager(tmp_path) as heard:
        manager = taken(NOTIFY_SOCKET=heard.address)
        for now in (10.0, 10.2, 10.0 + EXTEND_EVERY):
            manager.extend(now)
        assert heard.all() == ["EXTEND_TIMEOUT_USEC=30000000"] * 2


def test_a_reload_carries_the_time_it_began(tmp_path: Path) -> None:
    with FakeManager(tmp_path) as heard:
        taken(NOTIFY_SOCKET=heard.address).reloading()
        (text,) = heard.all()
    first, _, second = text.partition("\n")
    assert first == "RELOADING=1"
    assert second.startswith("MONOTONIC_USEC=")
    assert second.removeprefix("MONOTONIC_USEC=").isdecimal()
