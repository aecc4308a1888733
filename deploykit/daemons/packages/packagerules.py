"""Which announced packages matter here, and which sources are read for them. Pure.

Rules:

* A package matters if it is installed here, in the architecture that was announced, or is listed in the settings.
* `all` (rpm: `noarch`) and an architecture that was not named fit every machine.
* A listed package matters in this machine's own architecture only: in another one it cannot be meant.
* A source is read for the distributions that its patterns name; a source without patterns for all. A message without a
  distribution, as the original's, is about all sources.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Final

from deploykit.daemons.packages.packagenames import AnnouncedPackage
from deploykit.daemons.packages.ports import PackageVersions
from deploykit.settings.packages import PackagesSettings

#: Architectures of what runs on every machine, and the one of a message that names none.
_ANYWHERE: Final = ("", "all", "noarch")


def sources_for(distribution: str, settings: PackagesSettings) -> tuple[str, ...]:
    """Return the names of the sources that may have a package of a distribution, in the settings' order."""
    return tuple(
        name
        for name, source in settings.sources.items()
        if not distribution or not source.distributions or _fits(distribution, source.distributions)
    )


def is_listed(name: str, settings: PackagesSettings) -> bool:
    """Return whether a package counts although it is not installed."""
    return _fits(name, settings.listed)


def matters(package: AnnouncedPackage, held: PackageVersions | None, settings: PackagesSettings, own: str) -> bool:
    """Return whether a package is of interest on this machine.

    Args:
        package: what was announced.
        held: what is installed under its name; None for nothing.
        settings: which packages are listed.
        own: the architecture of this machine's own packages.
    """
    announced = package.architecture
    if is_listed(package.name, settings) and announced in (*_ANYWHERE, own):
        return True
    if held is None:
        return False
    installed = (held.architecture, *held.others)
    if announced in _ANYWHERE or announced in installed:
        return True
    return announced == own and any(each in _ANYWHERE for each in installed)  # it is built for this machine from now on


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


__all__ = ["is_listed", "matters", "sources_for"]
