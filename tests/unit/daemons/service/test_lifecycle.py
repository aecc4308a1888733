"""Daemons: what systemd is told, and how often one has to ask a daemon to end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.daemons.service import lifecycle
from tests.support.wait import wait_until


def test_the_handlers_of_before_come_back() -> None:
    before = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)]
    with lifecycle.signals() as stop:
        signal.raise_signal(signal.SIGHUP)
        assert not stop.is_set()
    assert [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)] == before


def test_hup_asks_to_reload_and_term_to_end() -> None:
    asked: list[int] = []
    with lifecycle.signals(on_reload=lambda: asked.append(1)) as stop:
        signal.raise_signal(signal.SIGHUP)
        wait_until(lambda: asked == [1])
        assert not stop.is_set()
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(60)


def test_signals_that_come_while_a_signal_is_handled_hold_up_nothing() -> None:
    """Each handler may interrupt the one before, wherever that is: none may wait for what the other holds."""
    script = (
        "import os, signal, sys, threading, time\n"
        "from deploykit.daemons.service import lifecycle\n"
        "asked = threading.Event()\n"
        "def main():\n"
        "    with lifecycle.signals(on_reload=asked.set) as stop:\n"
        "        print('up', flush=True)\n"
        "        while not stop.wait(0.0001):\n"
        "            asked.clear()\n"
        "sys.setswitchinterval(1e-6)\n"
        "main()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        for _ in range(20_000):
            process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        try:
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_one_wish_to_end_that_comes_twice_is_one_and_a_second_wish_ends_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """timeout(1) sends its signal to the process and to the process group."""
    now = [100.0]
    monkeypatch.setattr("deploykit.daemons.service.lifecycle.time.monotonic", lambda: now[0])
    with lifecycle.signals() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(60)
        now[0] += 2
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)


def test_a_daemon_that_waits_ends_on_the_second_signal(tmp_path: Path) -> None:
    code = (
        "import threading\nfrom deploykit.daemons.service import lifecycle\n"
        "with lifecycle.signals() as stop:\n    print('up', flush=True)\n    stop.wait()\n"
        "    print('ending', flush=True)\n    threading.Event().wait()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "ending\n"
        for _ in range(600):
            process.send_signal(signal.SIGINT)
            try:
                process.wait(0.1)
            except subprocess.TimeoutExpired:
                continue
            break
        assert process.returncode == -signal.SIGINT  # how Python ends on KeyboardInterrupt
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def test_a_mistake_of_ours_in_reading_the_settings_again_leaves_the_old_ones() -> None:
    said: list[str] = []

    def broken() -> int:
        raise ValueError("unheard of")

    assert lifecycle.try_reload(broken, said.append) is None
    assert said == ["settings not reloaded, the old ones stay: ValueError: unheard of"]
