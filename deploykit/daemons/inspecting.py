"""What a node holds, read from its disk alone."""

from __future__ import annotations

from typing import TypedDict

from deploykit.daemons.mirroring import mirror_path
from deploykit.mirror import Mirror
from deploykit.outbox import Outbox
from deploykit.release import Runner, Site
from deploykit.settings import Settings


class Description(TypedDict):
    """What `describe` returns; every list holds one flat mapping an entry."""

    node: str
    mirrors: list[dict[str, object]]
    sites: list[dict[str, object]]
    outbox: list[dict[str, object]]


def describe(settings: Settings) -> Description:
    """Read mirrors, sites and outbox of this node."""
    mirrors: list[dict[str, object]] = []
    for repo, chosen in settings.repositories.items():
        path = mirror_path(settings, repo)
        refs = Mirror.open(path, chosen.url, chosen.mirror).refs if (path / "HEAD").exists() else {}
        mirrors.append({"repo": repo, "refs": len(refs), "path": str(path)})
    sites: list[dict[str, object]] = []
    for name, site in settings.sites.items():
        current = Runner(Site(site.path, site.release), node=settings.node).current()
        sites.append({"site": name, "current": current.name if current else None, "path": str(site.path)})
    path = settings.outbox.path
    waiting = sum(1 for _ in Outbox(path).pending()) if path.exists() else 0
    return {
        "node": settings.node,
        "mirrors": mirrors,
        "sites": sites,
        "outbox": [{"waiting": waiting, "path": str(path)}],
    }
