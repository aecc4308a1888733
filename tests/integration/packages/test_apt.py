"""Real apt and dpkg in a root of their own, with repositories made by reprepro: one source is read, nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.packages.aptmanager import AptManager
from deploykit.daemons.packages.ports import PackageVersions
from deploykit.errors import PackageError
from deploykit.settings.packages import PackageSourceSettings
from tests.support.debpackages import (
    AptRoot,
    DebianRepository,
    RepositorySite,
    export_key,
    make_key,
    serving,
    stop_agent,
)
from tests.support.processes import wait_gone
from tests.support.stubhttp import Fault, FaultKind
from tests.support.wait import wait_until

#: Seconds that no test takes.
_LONG = 120.0


@pytest.fixture
def apt(tmp_path: Path) -> AptRoot:
    return AptRoot(tmp_path / "root")


@pytest.fixture
def manager(apt: AptRoot) -> AptManager:
    return AptManager(apt.environment)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository that no test changes: hello 1.0."""
    repository = DebianRepository(tmp_path_factory.mktemp("shelf") / "repo")
    repository.include("hello", "1.0")
    return repository.base


@attrs.frozen(kw_only=True)
class _Key:
    """A key of gpg: its directory, its fingerprint, and the file of its public half."""

    keys: Path
    fingerprint: str
    public: Path

    def repository(self, base: Path) -> DebianRepository:
        return DebianRepository(base, sign_with=self.fingerprint, keys=self.keys)


@contextlib.contextmanager
def _key(directory: Path) -> Iterator[_Key]:
    keys, public = directory / "keys", directory / "public.gpg"
    fingerprint = make_key(keys)
    export_key(keys, public)
    yield _Key(keys=keys, fingerprint=fingerprint, public=public)
    stop_agent(keys)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Key]:
    with _key(tmp_path_factory.mktemp("key")) as key:
        yield key


@pytest.fixture(scope="module")
def signed(tmp_path_factory: pytest.TempPathFactory, key: _Key) -> Path:
    """A signed repository that no test changes: hello 1.0."""
    repository = key.repository(tmp_path_factory.mktemp("signed") / "repo")
    repository.include("hello", "1.0")
    return repository.base


@pytest.fixture(scope="module")
def site(signed: Path) -> Iterator[tuple[RepositorySite, str]]:
    """The signed repository over http."""
    site = RepositorySite(signed)
    with serving(site) as address:
        yield site, address


@attrs.frozen(kw_only=True)
class _Served:
    """The signed repository over http; what is to go wrong; the options of its source."""

    site: RepositorySite
    address: str
    options: str


@pytest.fixture
def served(site: tuple[RepositorySite, str], key: _Key) -> Iterator[_Served]:
    yield _Served(site=site[0], address=site[1], options=f"signed-by={key.public}")
    site[0].fault = None
    site[0].seen.clear()


def _read(manager: AptManager, source: PackageSourceSettings, outcome: str = "read", *, deadline: float = _LONG) -> str:
    """Read a source; return the detail, which is one line."""
    read = manager.read_source("x", source, deadline=deadline)
    assert (read.outcome, read.detail.splitlines()) == (outcome, [read.detail] if read.detail else [])
    return read.detail


def _candidate(manager: AptManager, name: str = "hello") -> str:
    return manager.versions([name])[name].candidate


# -- one source, and no other ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["x.sources", "x.list"])
@pytest.mark.parametrize("scheme", ["file", "http"])
def test_a_new_version_is_a_candidate_once_its_source_was_read(
    apt: AptRoot, manager: AptManager, tmp_path: Path, kind: str, scheme: str
) -> None:
    """Nothing is installed by that, and nothing fetched but lists."""
    repository = DebianRepository(tmp_path / "repo")
    site = RepositorySite(repository.base)
    with serving(site) as address:
        options = "Trusted=yes" if kind == "x.sources" else "trusted=yes"
        where = f"file:{repository.base}" if scheme == "file" else f"http://{address}"
        source = apt.source(kind, where, options)
        before = "1:2.0~rc1-1"
        repository.include("hello", before)
        apt.install("hello", "2.0")
        status = apt.status.read_bytes()
        assert manager.versions(["hello"]) == {
            "hello": PackageVersions(installed="2.0", candidate="2.0", architecture="all")
        }
        _read(manager, source)
        assert _candidate(manager) == before
        repository.include("hello", "1:2.0-1")
        assert _candidate(manager) == before
        _read(manager, source)
        assert manager.versions(["hello"]) == {
            "hello": PackageVersions(installed="2.0", candidate="1:2.0-1", architecture="all")
        }
    assert apt.status.read_bytes() == status
    assert [file for file in (apt.root / "var/cache/apt/archives").rglob("*") if file.is_file()] == []


def test_one_of_two_sources_is_gone(apt: AptRoot, manager: AptManager, tmp_path: Path, shelf: Path) -> None:
    """Each is read alone. What was known of the one that is gone stays, byte by byte, and so do its candidates."""
    gone = DebianRepository(tmp_path / "gone")
    gone.include("other", "1.0")
    here_source = apt.source("here.list", f"file:{shelf}")
    gone_source = apt.source("gone.list", f"file:{gone.base}")
    _read(manager, here_source)
    assert (_candidate(manager, "hello"), _candidate(manager, "other")) == ("1.0", "")
    lists = apt.list_bytes()
    _read(manager, gone_source)
    both = apt.list_bytes()
    assert lists.items() < both.items()
    gone.base.rename(tmp_path / "away")
    assert "File not found" in _read(manager, gone_source, "failed")
    assert apt.list_bytes() == both
    _read(manager, here_source)
    assert apt.list_bytes() == both
    assert (_candidate(manager, "hello"), _candidate(manager, "other")) == ("1.0", "1.0")
    (tmp_path / "away").rename(gone.base)
    gone.include("other", "1.1")
    _read(manager, here_source)
    assert _candidate(manager, "other") == "1.0", "the other source is not read along"
    _read(manager, gone_source)
    assert _candidate(manager, "other") == "1.1"


def test_a_source_that_is_nowhere_is_a_failure(apt: AptRoot, manager: AptManager) -> None:
    """apt alone exits 0 and warns."""
    detail = _read(manager, apt.source("x.list", "http://user:secret@127.0.0.1:1"), "failed")
    assert "Connection refused" in detail
    assert "secret" not in detail


# -- what apt exits 0 for, having read nothing -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("e.list", ""),
        ("e.sources", ""),
        ("c.list", "# deb file:/srv/repo stable main\n"),
        ("c.sources", "# nothing\n"),
        ("d.sources", "Enabled: no\nTypes: deb\nURIs: file:/srv/repo\nSuites: stable\nComponents: main\n"),
    ],
)
def test_a_file_without_a_source_is_missing(apt: AptRoot, manager: AptManager, name: str, text: str) -> None:
    file = apt.sources / name
    file.write_text(text)
    detail = _read(manager, PackageSourceSettings(file=file), "missing")
    assert detail == f"{file} holds no source that is switched on"


def test_a_file_that_is_not_there_is_missing(apt: AptRoot, manager: AptManager) -> None:
    file = apt.sources / "none.sources"
    assert _read(manager, PackageSourceSettings(file=file), "missing") == f"there is no {file}"
    assert _read(manager, PackageSourceSettings(file=file / "below.list"), "missing")
    assert _read(manager, PackageSourceSettings(), "missing") == "packages.sources.x.file is not set"
    file.mkdir()
    assert _read(manager, PackageSourceSettings(file=file), "missing") == f"{file} is not a file"
    os.mkfifo(apt.sources / "pipe.list")  # apt would wait for a writer
    assert _read(manager, PackageSourceSettings(file=apt.sources / "pipe.list"), "missing")


@pytest.mark.parametrize(
    ("name", "reason"), [("g.list", "Malformed line 1 in source list"), ("g.sources", "Unable to parse package file")]
)
def test_a_file_that_apt_does_not_understand(apt: AptRoot, manager: AptManager, name: str, reason: str) -> None:
    file = apt.sources / name
    file.write_text("garbage\n")
    assert _read(manager, PackageSourceSettings(file=file), "failed").startswith(reason)
    with pytest.raises(PackageError, match=rf"apt-cache ended with 100: {reason}"):
        manager.versions(["hello"])


def test_a_file_with_an_awkward_name_is_that_file(apt: AptRoot, manager: AptManager, shelf: Path) -> None:
    """Threat 7: no shell sees it."""
    source = apt.source("a b;$(touch pwned)'\"&.list", f"file:{shelf}")
    _read(manager, source)
    assert not list(apt.root.rglob("pwned"))


# -- the lock ----------------------------------------------------------------------------------------------------------


def test_a_lock_that_another_process_holds(apt: AptRoot, manager: AptManager, shelf: Path) -> None:
    source = apt.source("x.list", f"file:{shelf}")
    _read(manager, source)
    lists = apt.list_bytes()
    with apt.locked() as holder:
        detail = _read(manager, source, "locked")
        assert detail.startswith("Could not get lock ")
        assert f"It is held by process {holder}" in detail
        assert apt.list_bytes() == lists
    _read(manager, source)


# -- sources over http that go wrong -----------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class _Wrong:
    kind: FaultKind = "status"
    path: str = "Release"
    status: int = 200
    body: bytes = b""
    reason: str = ""


_WRONG = {
    "401": _Wrong(status=401, reason="401"),
    "403": _Wrong(status=403, reason="403"),
    "404": _Wrong(status=404, reason="no longer has a Release file"),
    "500": _Wrong(status=500, reason="500"),
    "no http": _Wrong(kind="garbage", reason="Connection failed"),
    "a page for logging in": _Wrong(body=b"<html>Log in</html>", reason="Release"),
    "cut off at once": _Wrong(kind="close", reason="Connection failed"),
    "cut off in the middle": _Wrong(kind="middle", reason="Release"),
    "other packages than announced": _Wrong(path="/binary-", body=b"x", reason="Failed to fetch"),
    "no packages": _Wrong(path="/binary-", status=404, reason="Failed to fetch"),
}


@pytest.mark.parametrize("name", _WRONG)
def test_an_answer_that_is_none(apt: AptRoot, manager: AptManager, served: _Served, name: str) -> None:
    """apt's own reason is shown, what was known before is still there, and the next good answer is taken."""
    site = served.site
    wrong = _WRONG[name]
    source = apt.source("x.list", f"http://user:secret@{served.address}", served.options)
    _read(manager, source)
    lists = apt.list_bytes()
    if wrong.path != "Release":
        for file in apt.lists.glob("*Packages"):  # apt asks again only for what it does not have already
            file.unlink()
            lists.pop(file.name)
    site.fault = Fault(kind=wrong.kind, path=wrong.path, status=wrong.status, body=wrong.body)
    detail = _read(manager, source, "failed")
    assert wrong.reason in detail
    assert "secret" not in detail
    assert lists.items() <= apt.list_bytes().items()
    assert _candidate(manager) == ("1.0" if wrong.path == "Release" else "")
    site.fault = None
    _read(manager, source)
    assert _candidate(manager) == "1.0"


@pytest.mark.parametrize("kind", ["never", "drip"])
def test_a_source_that_never_ends_is_ended(apt: AptRoot, manager: AptManager, served: _Served, kind: FaultKind) -> None:
    """apt's own time-out counts from byte to byte. Killed with all its methods, it leaves the lists as they were."""
    site = served.site
    source = apt.source("x.list", f"http://{served.address}", served.options)
    _read(manager, source)
    lists = apt.list_bytes()
    site.fault = Fault(kind=kind)
    assert _read(manager, source, "failed", deadline=0.8) == "apt-get was killed at its deadline"
    for pid in apt.processes():
        wait_gone(pid)
    assert apt.list_bytes() == lists
    assert _candidate(manager) == "1.0"
    site.fault = None
    _read(manager, source)


def test_login_data_in_an_address_reach_the_server_and_no_report(
    apt: AptRoot, manager: AptManager, served: _Served
) -> None:
    site = served.site
    _read(manager, apt.source("x.list", f"http://user:secret@{served.address}", served.options))
    assert site.seen[0].headers["authorization"] == "Basic dXNlcjpzZWNyZXQ="


def test_the_proxy_of_the_operator_counts_and_none_of_our_environment(
    apt: AptRoot, manager: AptManager, served: _Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = served.site
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1/")
    monkeypatch.setenv("APT_CONFIG", "/nonexistent")
    source = apt.source("x.list", f"http://{served.address}", served.options)
    _read(manager, source)
    assert site.seen[0].path.startswith("/dists/")
    site.seen.clear()
    apt.configure(f'Acquire::http::Proxy "http://{served.address}/";\n')
    _read(manager, apt.source("x.list", "http://repository.invalid", served.options))
    assert site.seen[0].path.startswith("http://repository.invalid/dists/")


def test_options_of_the_operator_do_not_undo_ours(apt: AptRoot, manager: AptManager, shelf: Path) -> None:
    """`quiet`, `List-Cleanup` and a warning instead of an error may stand in an apt.conf."""
    other = apt.source("other.list", f"file:{shelf}")
    _read(manager, other)
    apt.configure(
        'quiet "2";\nAPT::Get::List-Cleanup "1";\nAPT::Update::Error-Mode "persistent-failure";\n'
        f'Dir::Etc::sourceparts "{apt.sources}";\n'
    )
    lists = apt.list_bytes()
    _read(manager, apt.source("gone.list", "http://127.0.0.1:1"), "failed")
    assert apt.list_bytes() == lists
    _read(manager, other)


# -- signatures --------------------------------------------------------------------------------------------------------


def test_a_repository_whose_key_is_missing(apt: AptRoot, manager: AptManager, key: _Key, tmp_path: Path) -> None:
    """A key that is missing later is a failure too: apt alone would warn, use the old lists and exit 0."""
    repository = key.repository(tmp_path / "repo")
    repository.include("hello", "1.0")
    ring = tmp_path / "ring.gpg"
    source = apt.source("x.list", f"file:{repository.base}", f"signed-by={ring}")
    with _key(tmp_path) as stranger:
        shutil.copy(stranger.public, ring)
    assert f"NO_PUBKEY {key.fingerprint[-16:]}" in _read(manager, source, "failed")
    assert _candidate(manager) == ""
    shutil.copy(key.public, ring)
    _read(manager, source)
    assert _candidate(manager) == "1.0"
    lists = apt.list_bytes()
    repository.include("hello", "1.1")
    shutil.copy(stranger.public, ring)
    assert f"NO_PUBKEY {key.fingerprint[-16:]}" in _read(manager, source, "failed")
    assert apt.list_bytes() == lists
    assert _candidate(manager) == "1.0"


def test_a_signature_that_does_not_fit(
    apt: AptRoot, manager: AptManager, key: _Key, signed: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(signed, copy)
    source = apt.source("x.list", f"file:{copy}", f"signed-by={key.public}")
    release = copy / "dists/stable/InRelease"
    release.write_text(release.read_text().replace("for tests", "for us all"))
    assert "BADSIG" in _read(manager, source, "failed")
    assert _candidate(manager) == ""


# -- what is installed -------------------------------------------------------------------------------------------------


def test_what_is_installed(apt: AptRoot, manager: AptManager) -> None:
    apt.install("hello", "1:1.0~rc1-1")
    apt.install("held", "2.0", status="hold ok installed", arch="amd64")
    apt.install("unpacked", "3.0", status="install ok unpacked", arch="amd64")
    apt.install("removed", "4.0", status="deinstall ok config-files", arch="amd64")
    apt.install("both", "5.0", arch="i386")
    apt.install("both", "5.0", arch="amd64")
    apt.install("foreign", "6.0", arch="i386")
    names = ["hello", "held", "unpacked", "removed", "both", "foreign", "hell", "unknown", "libstdc++6", "hello"]
    assert manager.installed(names) == {
        "hello": PackageVersions(installed="1:1.0~rc1-1", architecture="all"),
        "held": PackageVersions(installed="2.0", architecture="amd64"),
        "unpacked": PackageVersions(installed="3.0", architecture="amd64"),
        "both": PackageVersions(installed="5.0", architecture="amd64", others=("i386",)),
        "foreign": PackageVersions(installed="6.0", architecture="i386"),
    }
    assert manager.installed([]) == {}
    assert manager.installed(["unknown"]) == {}


def test_many_names_are_one_process(apt: AptRoot, tmp_path: Path) -> None:
    """A burst of messages names many packages."""
    apt.install("p0700", "1.0")
    calls = tmp_path / "calls"
    wrapper = tmp_path / "bin" / "dpkg-query"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\necho x >> {calls}\nexec /usr/bin/dpkg-query "$@"\n')
    wrapper.chmod(0o755)
    manager = AptManager({**apt.environment, "PATH": f"{wrapper.parent}:/usr/bin:/bin"})
    assert list(manager.installed([f"p{number:04}" for number in range(1000)])) == ["p0700"]
    assert calls.read_text() == "x\n"


def test_versions_of_a_foreign_architecture_are_its_own(apt: AptRoot, manager: AptManager, tmp_path: Path) -> None:
    repository = DebianRepository(tmp_path / "repo")
    repository.include("hello", "2.0", arch="amd64")
    repository.include("hello", "3.0", arch="i386")
    repository.include("lib++1.5", "1.5", arch="amd64")
    apt.install("hello", "1.0", arch="i386")
    _read(manager, apt.source("x.list", f"file:{repository.base}"))
    assert manager.versions(["hello", "lib++1.5", "lib++1", "hell."]) == {
        "hello": PackageVersions(installed="1.0", candidate="3.0", architecture="i386"),
        "lib++1.5": PackageVersions(candidate="1.5"),
        "lib++1": PackageVersions(),
        "hell.": PackageVersions(),
    }


def test_a_broken_status_is_an_error_of_the_package_manager(apt: AptRoot, manager: AptManager) -> None:
    apt.status.write_text("Package: hello\nno field\n")
    with pytest.raises(PackageError, match="dpkg-query ended with 2"):
        manager.installed(["hello"])


def test_programs_that_are_not_there(apt: AptRoot, shelf: Path) -> None:
    manager = AptManager({"PATH": "/nonexistent"})
    assert manager.problem() == "apt-get is not installed"
    with pytest.raises(PackageError, match="cannot run dpkg-query: No such file"):
        manager.installed(["hello"])
    detail = _read(manager, apt.source("x.list", f"file:{shelf}"), "failed")
    assert detail.startswith("cannot run apt-get: No such file")
    assert AptManager(apt.environment).problem() == ""
    assert (
        AptManager(apt.environment).architecture()
        == subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    )


def test_a_hook_of_the_operator_runs_and_what_it_leaves_behind_does_not_stay(
    apt: AptRoot, manager: AptManager, shelf: Path, tmp_path: Path
) -> None:
    """A hook after an update that starts something in the background holds apt's output open."""
    pid = tmp_path / "pid"
    apt.configure(f"APT::Update::Post-Invoke {{ \"sh -c 'echo $$ > {pid}; exec sleep 600' &\"; }};\n")
    _read(manager, apt.source("x.list", f"file:{shelf}"))
    if pid.exists() and (number := pid.read_text().strip()):  # it may have been ended before it came so far
        wait_gone(int(number))
    wait_until(lambda: not apt.processes(), "the end of all that apt started")
