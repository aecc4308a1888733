"""A fleet that is half the original's: programs of both kinds on a real broker, on topics of the test's own.

fleet = MixedFleet(tmp_path, rabbitmq)
origin = fleet.origin("shop")               a bare repository, with a clone to push from
fleet.old_hook(origin) / fleet.new_hook(origin)
with fleet.relay(): ...                     sends what our hooks and daemons queue
with OldUpdater(fleet.old, ...) as updater: ...
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from pathlib import Path

import attrs

from deploykit.daemons.relay import RelayService
from deploykit.hooking import installer
from deploykit.messages.topics import PRESETS, TopicMap
from deploykit.names import NodeName
from deploykit.settings import BusSettings, OutboxSettings, Settings
from tests.brokers.server import BrokerServer
from tests.support.node import Origin
from tests.support.originals.hookprogram import install
from tests.support.originals.publishers import OldBus


class MixedFleet:
    """See above.

    Args:
        root: of everything.
        broker: runs.
    """

    def __init__(self, root: Path, broker: BrokerServer) -> None:
        self.root = root
        own = f"t{secrets.token_hex(6)}"
        self.old = OldBus(broker.address, own)
        self.topics = renamed(PRESETS["future"], own)
        self.settings = Settings(
            node=NodeName(f"new-{own}"),
            state=root / "state",
            broker=BusSettings(address=broker.address, backoff_max=0.2),
            topics=self.topics,
            outbox=OutboxSettings(path=root / "spool"),
            reconcile_every=3600.0,
            fetch_spread=0.0,
            legacy=True,
        )

    def origin(self, name: str = "shop") -> Origin:
        """Make a repository with a commit on `main`, from before any hook."""
        made = Origin(self.root / "git" / name)
        made.push()
        return made

    def old_hook(self, origin: Origin, repo: str = "shop") -> None:
        """Install the original's hook."""
        install(self.old, "git", repo, origin.path)

    def new_hook(self, origin: Origin, repo: str = "shop", more: str = "") -> None:
        """Install ours, which writes the original's form; it tells `repo`."""
        self.hook_settings(origin.path, repo, more)
        installer.install(origin.path)

    def hook_settings(self, directory: Path, repo: str = "", more: str = "") -> Path:
        """Write the settings of a hook of ours in `legacy`."""
        file = directory / "deploykit.toml"
        notices = ", ".join(f'{kind} = "{topic}"' for kind, topic in self.topics.notices.items())
        names = [field.name for field in attrs.fields(TopicMap) if field.name != "notices"]
        lines = [
            f'spool = "{self.root / "spool"}"\nrelay = ""\nlegacy = true',
            f'repo = "{repo}"' if repo else "",
            more,
            "[topics]",
            *(f'{name} = "{getattr(self.topics, name)}"' for name in names),
            f"notices = {{ {notices} }}",
        ]
        file.write_text("\n".join(lines) + "\n")
        return file

    @contextlib.contextmanager
    def relay(self) -> Iterator[None]:
        """Send what is queued."""
        with RelayService(self.settings) as relay:
            assert relay.wait_connected(60)
            yield


def renamed(topics: TopicMap, prefix: str) -> TopicMap:
    """Return the original's topics with another first word, as its other owners had them."""

    def of(name: str) -> str:
        return name.replace("/topic/future.", f"/topic/{prefix}.")

    names = [field.name for field in attrs.fields(TopicMap) if field.name != "notices"]
    notices = {kind: of(topic) for kind, topic in topics.notices.items()}
    return attrs.evolve(topics, notices=notices, **{name: of(getattr(topics, name)) for name in names})


__all__ = ["MixedFleet", "renamed"]
