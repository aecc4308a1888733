"""Which announced packages matter, and which sources are read for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.daemons.packages.packagenames import AnnouncedPackage
from deploykit.daemons.packages.packagerules import is_listed, matters, sources_for
from deploykit.daemons.packages.ports import PackageVersions
from deploykit.settings.packages import PackageSourceSettings, PackagesSettings


def settings(*listed: str, **sources: tuple[str, ...]) -> PackagesSettings:
    return PackagesSettings(
        listed=listed,
        sources={
            name: PackageSourceSettings(file=Path(f"/etc/apt/sources.list.d/{name}.sources"), distributions=patterns)
            for name, patterns in sources.items()
        },
    )


def held(*architectures: str) -> PackageVersions:
    first, *others = architectures
    return PackageVersions(installed="1", architecture=first, others=tuple(others))


@pytest.mark.parametrize(
    ("announced", "installed", "counts"),
    [
        ("amd64", ["amd64"], True),
        ("amd64", ["amd64", "i386"], True),
        ("i386", ["amd64", "i386"], True),
        ("i386", ["i386"], True),
        ("i386", ["amd64"], False),
        ("amd64", ["i386"], False),
        ("arm64", ["amd64"], False),
        ("all", ["amd64"], True),
        ("all", ["i386"], True),
        ("noarch", ["noarch"], True),
        ("", ["amd64"], True),
        ("amd64", ["all"], True),  # built for each architecture from now on
        ("i386", ["all"], False),
        ("source", ["amd64"], False),
        ("amd64", [], False),
        ("all", [], False),
        ("", [], False),
    ],
)
def test_an_installed_package_counts_in_its_architectures(announced: str, installed: list[str], counts: bool) -> None:
    package = AnnouncedPackage(name="hello", architecture=announced)
    found = held(*installed) if installed else None
    assert matters(package, found, settings(shop=()), "amd64") is counts


@pytest.mark.parametrize(("announced", "counts"), [("amd64", True), ("all", True), ("", True), ("i386", False)])
def test_a_listed_package_counts_in_this_machines_architecture(announced: str, counts: bool) -> None:
    package = AnnouncedPackage(name="nginx-extras", architecture=announced)
    assert matters(package, None, settings("nginx*", shop=()), "amd64") is counts
    assert not matters(package, None, settings("apache*", shop=()), "amd64")


def test_a_foreign_listed_package_counts_where_it_is_installed() -> None:
    package = AnnouncedPackage(name="wine32", architecture="i386")
    assert matters(package, held("i386"), settings("wine*", shop=()), "amd64")


@pytest.mark.parametrize(
    ("pattern", "name", "listed"),
    [
        ("hello", "hello", True),
        ("hello", "hello-x", False),
        ("hello", "xhello", False),
        ("hello*", "hello-x", True),
        ("lib?", "libc", True),
        ("lib?", "libc6", False),
        ("*", "anything", True),
    ],
)
def test_a_pattern_fits_the_whole_name(pattern: str, name: str, listed: bool) -> None:
    assert is_listed(name, settings("x", pattern)) is listed


def test_sources_are_those_whose_patterns_name_the_distribution() -> None:
    chosen = settings(ours=("bookworm", "bookworm-*"), other=("trixie",), each=())
    assert sources_for("bookworm", chosen) == ("ours", "each")
    assert sources_for("bookworm-backports", chosen) == ("ours", "each")
    assert sources_for("bookworm/updates", chosen) == ("each",)
    assert sources_for("Bookworm", chosen) == ("each",)
    assert sources_for("trixie", chosen) == ("other", "each")
    assert sources_for("", chosen) == ("ours", "other", "each")
    assert sources_for("sid", settings(ours=("bookworm",))) == ()
