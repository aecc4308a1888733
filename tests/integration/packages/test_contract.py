"""What every package manager does, by the port: real apt in a root of its own, and dnf as a stub."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import pytest

from deploykit.daemons.packages.aptmanager import AptManager
from deploykit.daemons.packages.dnfmanager import DnfManager
from deploykit.daemons.packages.ports import PackageManager, PackageVersions
from deploykit.errors import PackageError
from deploykit.settings.packages import PackageSourceSettings
from tests.support.debpackages import AptRoot, DebianRepository, RepositorySite, serving
from tests.support.dnfstub import DnfStub
from tests.support.processes import wait_gone
from tests.support.stubhttp import Fault
from tests.support.wait import wait_until


class Machine(Protocol):
    """A machine with two repositories, `one` and `two`."""

    native: str

    def manager(self, **environment: str) -> PackageManager: ...

    def source(self, name: str) -> PackageSourceSettings: ...

    def publish(self, repo: str, name: str, version: str) -> None: ...

    def install(self, name: str, version: str) -> None: ...

    def locked(self) -> AbstractContextManager[object]: ...

    def gone(self, repo: str) -> None: ...

    def slow(self, repo: str) -> None: ...

    def processes(self) -> list[int]: ...

    def confuse(self, text: str) -> PackageManager: ...


class AptMachine:
    """Real apt; the repositories come over http."""

    native = "amd64"

    def __init__(self, root: Path, stack: contextlib.ExitStack) -> None:
        self._root = root
        self._apt = AptRoot(root / "apt")
        self._repositories = {name: DebianRepository(root / name) for name in ("one", "two")}
        self._sites = {name: RepositorySite(repository.base) for name, repository in self._repositories.items()}
        self._addresses = {name: stack.enter_context(serving(site)) for name, site in self._sites.items()}
        for repository in self._repositories.values():
            repository.export()
        self.processes = self._apt.processes
        self.locked = self._apt.locked

    def manager(self, **environment: str) -> PackageManager:
        return AptManager({**self._apt.environment, **environment})

    def source(self, name: str) -> PackageSourceSettings:
        if name not in self._addresses:
            return PackageSourceSettings(file=self._apt.sources / f"{name}.list")
        return self._apt.source(f"{name}.list", f"http://user:secret@{self._addresses[name]}")

    def publish(self, repo: str, name: str, version: str) -> None:
        self._repositories[repo].include(name, version)

    def install(self, name: str, version: str) -> None:
        self._apt.install(name, version)

    def gone(self, repo: str) -> None:
        self._sites[repo].fault = Fault(kind="status", status=403)

    def slow(self, repo: str) -> None:
        self._sites[repo].fault = Fault(kind="drip")

    def confuse(self, text: str) -> PackageManager:
        (self._root / "bin").mkdir()
        program = self._root / "bin" / "dpkg-query"
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)
        return self.manager(PATH=f"{program.parent}:/usr/bin:/bin")


class DnfMachine:
    """The stub of dnf."""

    native = "x86_64"

    def __init__(self, root: Path, _: contextlib.ExitStack) -> None:
        self._stub = DnfStub(root)
        for name in ("one", "two"):
            self._stub.publish(name, "filler", "1.0-1")
        self.locked = self._stub.locked

    def manager(self, **environment: str) -> PackageManager:
        return DnfManager({**self._stub.environment, **environment})

    def source(self, name: str) -> PackageSourceSettings:
        return PackageSourceSettings()

    def publish(self, repo: str, name: str, version: str) -> None:
        self._stub.publish(repo, name, version)

    def install(self, name: str, version: str) -> None:
        self._stub.install(name, version)

    def gone(self, repo: str) -> None:
        self._stub.mark(repo, "gone")

    def slow(self, repo: str) -> None:
        self._stub.mark(repo, "slow")

    def processes(self) -> list[int]:
        mark = str(self._stub.root / "bin" / "dnf").encode()
        found = []
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):  # it ended, or is another's
                if entry.name.isdigit() and mark in (entry / "cmdline").read_bytes().split(b"\0"):
                    found.append(int(entry.name))
        return found

    def confuse(self, text: str) -> PackageManager:
        self._stub.replace("rpm", f"#!/bin/sh\n{text}\n")
        return self.manager()


@pytest.fixture(params=[AptMachine, DnfMachine], ids=["apt", "dnf"])
def machine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Machine]:
    with contextlib.ExitStack() as stack:
        yield request.param(tmp_path, stack)


def _read(machine: Machine, name: str, outcome: str = "read", *, deadline: float = 120) -> None:
    read = machine.manager().read_source(name, machine.source(name), deadline=deadline)
    assert read.outcome == outcome, read.detail
    assert "\n" not in read.detail
    assert "secret" not in read.detail
    assert bool(read.detail) == (outcome != "read")


def _candidate(machine: Machine, name: str = "hello") -> str:
    return machine.manager().versions([name])[name].candidate


def test_it_works_here_and_has_an_architecture(machine: Machine) -> None:
    assert machine.manager().problem() == ""
    assert machine.manager().architecture() == machine.native


def test_what_is_installed_and_what_is_not(machine: Machine) -> None:
    machine.install("hello", "1:2.0~rc1-1")
    machine.install("other", "3.0-1")
    found = machine.manager().installed(["unknown", "other", "hello", "hell", "hello"])
    assert list(found) == ["other", "hello"]
    assert (found["hello"].installed, found["other"].installed) == ("1:2.0~rc1-1", "3.0-1")
    assert found["hello"].architecture in ("all", "noarch")
    assert machine.manager().installed([]) == {}


def test_versions_of_each_name(machine: Machine) -> None:
    machine.publish("one", "fresh", "2:1.0-1")
    _read(machine, "one")
    found = machine.manager().versions(["fresh", "unknown", "fres."])
    assert found == {
        "fresh": PackageVersions(candidate="2:1.0-1"),
        "unknown": PackageVersions(),
        "fres.": PackageVersions(),
    }
    assert machine.manager().versions([]) == {}


def test_one_source_is_read_and_no_other(machine: Machine) -> None:
    for repo, name in (("one", "hello"), ("two", "other")):
        machine.publish(repo, name, "1.0-1")
        _read(machine, repo)
        machine.publish(repo, name, "1:0.5-1")
    assert (_candidate(machine, "hello"), _candidate(machine, "other")) == ("1.0-1", "1.0-1")
    _read(machine, "two")
    assert (_candidate(machine, "hello"), _candidate(machine, "other")) == ("1.0-1", "1:0.5-1")


def test_a_source_that_is_gone_fails_and_what_was_known_stays(machine: Machine) -> None:
    machine.publish("one", "hello", "1.0-1")
    _read(machine, "one")
    machine.gone("one")
    _read(machine, "one", "failed")
    assert _candidate(machine) == "1.0-1"
    _read(machine, "two")
    assert _candidate(machine) == "1.0-1"


def test_a_source_that_is_not_here_is_missing(machine: Machine) -> None:
    _read(machine, "three", "missing")


def test_a_lock_is_reported_at_once_and_no_failure(machine: Machine) -> None:
    machine.publish("one", "hello", "1.0-1")
    with machine.locked():
        _read(machine, "one", "locked")
    _read(machine, "one")
    assert _candidate(machine) == "1.0-1"


def test_a_program_that_does_not_end_is_ended_with_all_it_started(machine: Machine) -> None:
    machine.publish("one", "hello", "1.0-1")
    _read(machine, "one")
    machine.slow("one")
    _read(machine, "one", "failed", deadline=0.8)
    for pid in machine.processes():
        wait_gone(pid)
    wait_until(lambda: not machine.processes(), "the end of all it started")
    assert _candidate(machine) == "1.0-1"
    _read(machine, "two")


def test_programs_that_are_not_here(machine: Machine) -> None:
    manager = machine.manager(PATH="/nonexistent")
    assert manager.problem().endswith(" is not installed")
    for ask in (manager.installed, manager.versions):
        with pytest.raises(PackageError, match="cannot run "):
            ask(["hello"])
    read = manager.read_source("one", machine.source("one"), deadline=60)
    assert (read.outcome, read.detail.startswith("cannot run ")) == ("failed", True)


@pytest.mark.parametrize("text", ["echo nonsense", "echo 'error: broken' >&2; exit 2", "kill -9 $$", "yes"])
def test_an_answer_that_is_none_is_an_error(machine: Machine, text: str) -> None:
    with pytest.raises(PackageError) as raised:
        machine.confuse(text).installed(["hello"])
    assert len(raised.value.problem) < 500
