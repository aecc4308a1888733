"""Which package manager the settings name."""

from __future__ import annotations

from deploykit.daemons.packages.aptmanager import AptManager
from deploykit.daemons.packages.dnfmanager import DnfManager
from deploykit.daemons.packages.ports import PackageManager
from deploykit.settings.packages import PackagesSettings


def manager_of(settings: PackagesSettings) -> PackageManager:
    """Return the package manager of this machine that `packages.tool` names. Nothing is run yet."""
    match settings.tool:
        case "apt":
            return AptManager()
        case "dnf":
            return DnfManager()


__all__ = ["manager_of"]
