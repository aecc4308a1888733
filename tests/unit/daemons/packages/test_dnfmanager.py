"""dnf and rpm by their argument lists, against a stub: no machine with dnf was at hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.daemons.packages.aptmanager import AptManager
from deploykit.daemons.packages.dnfmanager import DnfManager
from deploykit.daemons.packages.managers import manager_of
from deploykit.daemons.packages.ports import PackageVersions
from deploykit.errors import PackageError
from deploykit.settings.packages import PackageSourceSettings, PackagesSettings
from tests.support.dnfstub import DnfStub


@pytest.fixture
def stub(tmp_path: Path) -> DnfStub:
    return DnfStub(tmp_path)


@pytest.fixture
def manager(stub: DnfStub) -> DnfManager:
    return DnfManager(stub.environment)


def test_the_settings_name_the_package_manager() -> None:
    assert isinstance(manager_of(PackagesSettings()), AptManager)
    assert isinstance(manager_of(PackagesSettings(tool="dnf")), DnfManager)


def test_the_words(stub: DnfStub, manager: DnfManager) -> None:
    stub.publish("one", "hello", "1.0-1")
    manager.read_source("one", PackageSourceSettings(), deadline=60)
    manager.versions(["hello", "other"])
    makecache, installed, arch, candidates = stub.calls()
    assert makecache == [
        *("dnf", "-q", "--disablerepo=*", "--enablerepo=one"),
        *("--setopt=exit_on_lock=1", "--setopt=strict=1", "--setopt=one.skip_if_unavailable=0"),
        *("makecache", "--refresh"),
    ]
    assert installed[:3] == ["rpm", "-q", "--qf"]
    assert installed[4:] == ["--", "hello", "other"]
    assert arch == ["rpm", "--eval", "%{_arch}"]
    assert candidates[:6] == ["dnf", "-q", "--cacheonly", "repoquery", "--available", "--latest-limit=1"]
    assert candidates[8:] == ["hello", "other"]


def test_architectures(stub: DnfStub, manager: DnfManager) -> None:
    """The candidate is one of what is installed, else of this machine, else of any."""
    for arch in ("i686", "x86_64", "aarch64"):
        stub.publish("one", "lib", "3.0-1" if arch == "x86_64" else "2.0-1", arch)
    stub.publish("one", "foreign", "5.0-1", "aarch64")
    manager.read_source("one", PackageSourceSettings(), deadline=60)
    assert manager.versions(["lib", "foreign"]) == {
        "lib": PackageVersions(candidate="3.0-1"),
        "foreign": PackageVersions(candidate="5.0-1"),
    }
    stub.install("lib", "1.0-1", "i686")
    assert manager.versions(["lib"]) == {
        "lib": PackageVersions(installed="1.0-1", candidate="2.0-1", architecture="i686")
    }
    stub.install("lib", "1.0-1", "x86_64")
    assert manager.versions(["lib"])["lib"] == PackageVersions(
        installed="1.0-1", candidate="3.0-1", architecture="x86_64", others=("i686",)
    )


def test_several_versions_of_one_package(stub: DnfStub, manager: DnfManager) -> None:
    """Kernels are installed beside each other; rpm lists the newest last."""
    stub.install("kernel", "5.14.0-1.el9", "x86_64")
    stub.install("kernel", "5.14.0-2.el9~rc1^git", "x86_64")
    assert manager.installed(["kernel"])["kernel"].installed == "5.14.0-2.el9~rc1^git"


@pytest.mark.parametrize(
    ("code", "errors", "outcome", "detail"),
    [
        (1, "Error: Unknown repo: 'one'", "missing", "Error: Unknown repo: 'one'"),
        (2, 'No matching repositories for "one"', "missing", "No matching repositories for"),  # dnf 5
        (1, "Error: http://u:secret@h/repodata\\n  timed out", "failed", "Error: http://***@h/repodata; timed out"),
        (3, "", "failed", "dnf ended with 3"),
        (200, "", "locked", "dnf ended with 200"),
    ],
)
def test_how_dnf_ends(stub: DnfStub, manager: DnfManager, code: int, errors: str, outcome: str, detail: str) -> None:
    stub.replace("dnf", f"#!/bin/sh\nprintf '{errors.replace(chr(39), chr(34))}\\n' >&2\nexit {code}\n")
    read = manager.read_source("one", PackageSourceSettings(), deadline=60)
    assert read.outcome == outcome
    assert read.detail.startswith(detail.replace("'", '"'))


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("rpm", "echo '0|hello|1.0-1'"),
        ("rpm", "echo '(none)|hello|1.0-1|noarch'"),
        ("rpm", "echo '0|hello|1.0 1|noarch'"),
        ("rpm", "echo 'error: cannot open Packages database' >&2; exit 1"),
        ("rpm", "kill -9 $$"),
        ("dnf", "echo 'Last metadata expiration check: 1 day ago'"),
        ("dnf", "echo 'Error: Cache-only enabled but no cache' >&2; exit 1"),
    ],
)
def test_an_answer_that_is_none_is_no_version(stub: DnfStub, manager: DnfManager, program: str, text: str) -> None:
    stub.publish("one", "hello", "1.0-1")
    manager.architecture()
    stub.replace(program, f"#!/bin/sh\n{text}\n")
    with pytest.raises(PackageError, match=f"^{program} "):
        manager.versions(["hello"])


def test_an_architecture_that_is_none(stub: DnfStub, manager: DnfManager) -> None:
    stub.replace("rpm", "#!/bin/sh\necho '%{_arch}'\n")
    with pytest.raises(PackageError, match="rpm printed what is not understood"):
        manager.architecture()
