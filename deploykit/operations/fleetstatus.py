"""How far the fleet is from what each site should be."""

from __future__ import annotations

from collections.abc import Callable

import attrs

from deploykit.bus import Bus
from deploykit.errors import NobodyMatches, UsageError
from deploykit.fleet.drift import FleetReleases, SiteDrift, WantedRelease
from deploykit.fleet.lockwatch import shown_lock
from deploykit.fleet.selection import Selection
from deploykit.git.transport.lookup import resolve_at_origin
from deploykit.messages import NodeDescribed, utc_now
from deploykit.names import RepoName, SiteName
from deploykit.operations.deploy import load_report_trust
from deploykit.operations.nodes import DISCOVERY_TIMEOUT, FoundNodes, find_nodes, shortened
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner


@attrs.frozen(kw_only=True, slots=True)
class FleetStatus:
    """The sites of the chosen nodes, compared.

    Args:
        sites: each with its nodes; silent nodes stand there where one site was asked for, as they may have it.
        found: who answered.
        notes: a line for each thing that a person should know.
    """

    sites: tuple[SiteDrift, ...]
    found: FoundNodes
    notes: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        """0 where every node was heard and is current on every site, and no name has two agents; else 1."""
        current = all(each.drift == "current" for site in self.sites for each in site.nodes)
        return 0 if current and not self.found.exit_code and not self.found.twins else 1


def fleet_status(
    settings: Settings,
    bus: Bus,
    selection: Selection,
    *,
    site: SiteName | None = None,
    ref: str | None = None,
    timeout: float = DISCOVERY_TIMEOUT,
    key: BodySigner | None = None,
    trust: Trust | None = None,
    on_node: Callable[[NodeDescribed], object] | None = None,
) -> FleetStatus:
    """Ask nodes what is live, and compare it with what counts as current.

    Args:
        settings: of the machine that asks.
        bus: connected.
        selection: which nodes to look at.
        site: look at this site alone.
        ref: what is current: a tag or branch, as the origin has it where the settings name the repository, else as the
            nodes have it. None: the newest release that is live on any of the nodes.
        timeout, key, trust, on_node: as for `find_nodes`.

    Raises:
        NobodyMatches: none of the nodes has a site, or this site.
        UsageError: a ref was given, and several sites have it or no node knows it.
        RefNotFound: the origin has no such ref.
        OriginError: the origin cannot be reached.
        ConnectError: the connection is or was lost.
    """
    judge = trust or load_report_trust(settings)
    found = find_nodes(
        settings,
        bus,
        selection,
        details=("sites", "drift", "refs"),
        site=None if selection.needs_discovery else site,
        timeout=timeout,
        key=key,
        trust=judge,
        on_node=on_node,
    )
    now = utc_now()
    releases = FleetReleases((*found.nodes, *found.strangers))
    sites = releases.sites if site is None else (site,) if site in releases.sites else ()
    if not sites:
        heard = f"{found.answered} answered" + (f", silent: {shortened(found.silent)}" if found.silent else "")
        raise NobodyMatches(f"no node has {f'site {site}' if site else 'a site'} ({heard})", *found.notes[:1])
    if ref is not None and len(sites) > 1:
        raise UsageError(f"which site should be at {ref}?", f"give --site, one of {shortened(sites)}")
    notes = list(found.notes)
    if site is not None and (without := releases.nodes_without(site)):
        notes.append(f"without site {site}: {shortened(without)}")
    return FleetStatus(
        sites=tuple(
            releases.drift(
                each,
                _asked_for(settings, releases, each, ref) if ref is not None else releases.newest_live(each),
                silent=found.silent if len(sites) == 1 else (),
                unexpected=found.unexpected,
                locked=lambda state: shown_lock(state, judge, now),
            )
            for each in sites
        ),
        found=found,
        notes=tuple(notes),
    )


def _asked_for(settings: Settings, releases: FleetReleases, site: SiteName, ref: str) -> WantedRelease:
    if releases.repositories(site):
        raise UsageError(f"site {site} is made of several repositories, of which {ref} is one ref", "leave --ref out")
    repo = _repository_of(settings, site)
    if repo is not None:
        origin = settings.repositories[repo]
        full, commit = resolve_at_origin(origin.url, ref, origin.mirror)
        return WantedRelease(ref=full, commit=commit, reason="asked for, as the origin has it now")
    known = releases.named_ref(site, ref)
    if known is None:
        raise UsageError(f"no node holds {ref} for site {site}", "name the repository of the site in the settings")
    return known


def _repository_of(settings: Settings, site: SiteName) -> RepoName | None:
    """Return the repository of a site, where the settings have both."""
    chosen = settings.sites.get(site)
    return chosen.repo if chosen is not None and chosen.repo in settings.repositories else None


__all__ = ["FleetStatus", "fleet_status"]
