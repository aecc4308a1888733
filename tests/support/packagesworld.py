"""A node whose packages daemon listens, over any broker; its package manager is a directory that a test writes into."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs

from deploykit.bus import Bus, Delivery
from deploykit.daemons.packages.daemon import PackagesDaemon
from deploykit.daemons.packages.ports import PackageManager, PackageVersions, SourceRead
from deploykit.errors import PackageError
from deploykit.messages import Message, PackagePublished, PackageReported
from deploykit.messages.topics import TopicMap
from deploykit.names import NodeName
from deploykit.settings import BusSettings, OutboxSettings, PackageSourceSettings, PackagesSettings, Settings
from deploykit.trust.keyfiles import generate_key, load_allowed_signers, trust
from deploykit.trust.signature import verify
from deploykit.wire import Frame, encode
from tests.support.wait import wait_until

NODE = NodeName("web1")


class DirectoryManager:
    """A package manager for tests, of any process: what it is to do, and what it did, are files of a directory.

    `installed`: a line `NAME VERSION ARCHITECTURE` each. `outcomes`: how the next reads end, a line each, by the first
    word; nothing left: `read`. `hold`: while it is there, a read does not end. `down`: while it is there, nothing can
    be asked. `reads` and `asked` are written: a line for each read that began, and for each name that was asked for.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        directory.mkdir(exist_ok=True)
        (directory / "installed").touch()

    def problem(self) -> str:
        """Return why it cannot work."""
        return "the manager is down" if (self._directory / "down").exists() else ""

    def architecture(self) -> str:
        """Return this machine's own architecture."""
        self._check()
        return "amd64"

    def installed(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return what stands in the file."""
        self._check()
        with (self._directory / "asked").open("a") as file:
            file.writelines(f"{name}\n" for name in names)
        found = {}
        for line in (self._directory / "installed").read_text().splitlines():
            name, version, architecture = line.split()
            if name in names:
                found[name] = PackageVersions(installed=version, architecture=architecture)
        return found

    def read_source(self, name: str, source: PackageSourceSettings, *, deadline: float) -> SourceRead:
        """Do as the next line says."""
        with (self._directory / "reads").open("a") as file:
            file.write(f"{name}\n")
        wait_until(lambda: not (self._directory / "hold").exists(), "the test to let it go on")
        outcomes = self._directory / "outcomes"
        lines = outcomes.read_text().splitlines() if outcomes.exists() else []
        if not lines:
            return SourceRead(outcome="read")
        outcomes.write_text("".join(f"{line}\n" for line in lines[1:]))
        outcome: Any = lines[0]
        return SourceRead(outcome=outcome, detail=f"it {outcome}, says the test")

    def versions(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return what stands in the file, and a candidate of 9.9."""
        held = self.installed(names)
        return {name: attrs.evolve(held.get(name, PackageVersions()), candidate="9.9") for name in names}

    def _check(self) -> None:
        if self.problem():
            raise PackageError("the manager is down")


def packages_settings(root: Path, address: str, *, topic: str = "t", **changes: Any) -> Settings:
    """Return settings of a node with the source `ours` (bookworm), and a signing key if there is one."""
    packages = PackagesSettings(
        sources=changes.pop(
            "sources", {"ours": PackageSourceSettings(file=root / "ours.sources", distributions=("bookworm",))}
        ),
        listed=("shop-*",),
        gather=changes.pop("gather", 0.05),
        retry=changes.pop("retry", 0.05),
        **changes,
    )
    return Settings(
        node=NODE,
        state=root / "state",
        broker=BusSettings(address=address, backoff_max=0.2),
        outbox=OutboxSettings(path=root / "spool"),
        topics=TopicMap(package=f"/topic/{topic}.package", report=f"/topic/{topic}.report"),
        signing_key=root / "node.key" if (root / "node.key").exists() else None,
        packages=packages,
    )


class PackagesWorld:
    """Settings, a bus that listens to reports, and the directory of the node's package manager.

    Args:
        root: for everything.
        address: of a broker.
        topic: the first part of the topics' names.
        changes: of `[packages]`.
    """

    def __init__(self, root: Path, address: str, *, topic: str = "t", **changes: Any) -> None:
        self.root, self.directory, self.topic = root, root / "manager", topic
        key = generate_key(root / "node.key")
        self._signers = root / "allowed_signers"
        trust(self._signers, str(NODE), key.public_blob)
        (root / "ours.sources").write_text("Types: deb\n")
        self.settings = packages_settings(root, address, topic=topic, **changes)
        self.manager = DirectoryManager(self.directory)
        self.install("hello", "1.0")
        self.bus = Bus(self.settings.broker, client_id="test")
        self._heard: list[PackageReported] = []
        self._changed = threading.Condition()

    def __enter__(self) -> PackagesWorld:
        self.bus.start()
        assert self.bus.subscribe(self.settings.topics.report, self._hear).wait_active(60)
        return self

    def __exit__(self, *_: object) -> None:
        self.bus.stop()

    @contextlib.contextmanager
    def daemon(self, manager: PackageManager | None = None, **more: Any) -> Iterator[PackagesDaemon]:
        """Run the daemon."""
        with PackagesDaemon(self.settings, manager=manager or self.manager, **more) as made:
            assert made.wait_connected(60)
            yield made

    def _hear(self, delivery: Delivery) -> None:
        message = delivery.message
        assert isinstance(message, PackageReported)
        signer = verify(Frame(delivery.headers, delivery.body), load_allowed_signers(self._signers), datetime.now(UTC))
        assert signer.is_principal(str(NODE))
        with self._changed:
            self._heard.append(message)
            self._changed.notify_all()

    # -- the package manager -------------------------------------------------------------------------------------------

    def install(self, name: str, version: str, architecture: str = "amd64") -> None:
        """Let a package be installed."""
        with (self.directory / "installed").open("a") as file:
            file.write(f"{name} {version} {architecture}\n")

    def next_reads(self, *outcomes: str) -> None:
        """Let the next reads end so."""
        (self.directory / "outcomes").write_text("".join(f"{outcome}\n" for outcome in outcomes))

    def hold(self) -> None:
        """Let reads begin and not end."""
        (self.directory / "hold").touch()

    def let_go(self) -> None:
        """Let reads end."""
        (self.directory / "hold").unlink()

    @property
    def reads(self) -> list[str]:
        """The sources whose reads began, in order."""
        return self._lines("reads")

    @property
    def asked(self) -> list[str]:
        """The names that the package manager was asked about."""
        return self._lines("asked")

    def _lines(self, name: str) -> list[str]:
        file = self.directory / name
        return file.read_text().splitlines() if file.exists() else []

    # -- messages ------------------------------------------------------------------------------------------------------

    def announcement(self, name: str = "hello", **changes: Any) -> PackagePublished:
        """Return an announcement as a repository's."""
        message = PackagePublished(
            source="packages/repo", name=name, version="9.9", architecture="amd64", distribution="bookworm"
        )
        return attrs.evolve(message, **changes)

    def announce(self, name: str = "hello", **changes: Any) -> PackagePublished:
        """Send an announcement."""
        message = self.announcement(name, **changes)
        self.send(encode(message))
        return message

    def announce_file(self, file: str, output: str = r'["Exporting indices...\n"]') -> None:
        """Send an announcement as the original does."""
        headers = {"subject": f"Package update: [{''.join(c for c in file if c.isprintable())}]"}
        self.send(Frame(headers, f"package: {file}\n{output}\n".encode("utf-8", "surrogatepass")))

    def send(self, frame: Frame) -> None:
        """Publish anything on the packages' topic."""
        self.bus.publish(self.settings.topics.package, frame)

    # -- reports -------------------------------------------------------------------------------------------------------

    def report_on(self, message: Message) -> PackageReported:
        """Wait for the report on an announcement; the node must have signed it."""
        return self.reported(lambda report: report.request == message.id)

    def reported(self, check: Callable[[PackageReported], bool]) -> PackageReported:
        """Wait for a report."""

        def found() -> PackageReported | None:
            return next((each for each in self._heard if check(each)), None)

        with self._changed:
            assert self._changed.wait_for(lambda: found() is not None, 60), [each.summary for each in self._heard]
            report = found()
        assert report is not None
        return report

    @property
    def reports(self) -> list[PackageReported]:
        """The reports that were heard so far."""
        with self._changed:
            return list(self._heard)


__all__ = ["NODE", "DirectoryManager", "PackagesWorld", "packages_settings"]
