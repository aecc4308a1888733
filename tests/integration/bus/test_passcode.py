"""A passcode that is changed in its file counts at the next connect."""

from __future__ import annotations

from pathlib import Path

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.bus.events import Connected, ConnectFailed
from tests.support.bus import Events, fast, text
from tests.support.wait import wait_until


def test_a_changed_passcode_file_counts_at_the_next_connect(tmp_path: Path) -> None:
    file = tmp_path / "passcode"
    file.write_text("canary-1\n")
    file.chmod(0o600)
    events = Events()
    with EmbeddedBroker(users={"ada": "canary-1"}) as broker:
        settings = fast(f"stomp://127.0.0.1:{broker.port}", login="ada", passcode_file=file)
        with Bus(settings, on_event=events) as bus:
            events.wait(Connected)
            broker.replace_users({"ada": "canary-2"})
            file.unlink()
            broker.restart()
            failed = events.wait(ConnectFailed)
            wait_until(lambda: "passcode_file" in str(bus.problem))
            file.write_text("canary-2\n")
            file.chmod(0o600)
            events.wait(Connected, 2)
            bus.publish("/queue/q", text("again"), timeout=30)
    assert not any("canary" in event.problem for event in failed)
