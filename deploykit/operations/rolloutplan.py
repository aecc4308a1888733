"""Plan a rollout before anything is sent: key, trust, commit, nodes and batches."""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import UsageError
from deploykit.fleet.journalhead import JournalHead
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.plan import Plan, RolloutOptions, Target, make_plan
from deploykit.fleet.rollout import RolloutModel, retry_plan
from deploykit.messages import BuildEvidence, SiteState, utc_now
from deploykit.messages.site import SiteRelease
from deploykit.names import NodeName, RepoName, SiteName, parse_node_name, parse_site_name
from deploykit.operations.builds import evidence_for
from deploykit.operations.deploy import load_report_trust, signing_key, user_name
from deploykit.operations.keychoice import KeyGiven
from deploykit.operations.rolloutstore import read_rollout
from deploykit.operations.siteparts import sources_of, target_asked
from deploykit.settings.node import Settings
from deploykit.trust.check import Trust
from deploykit.trust.mandate import Requirement
from deploykit.trust.signature import BodySigner

_NOBODY: Final[Mapping[NodeName, SiteState]] = {}
#: Characters of a site's name that a rollout's id begins with.
_SHORT_SITE = 40


@attrs.frozen(kw_only=True, slots=True)
class PlannedRollout:
    """A rollout that can be started, what is needed for it, and notes for the person who asked.

    Args:
        settings: of this machine.
        plan: what it will do.
        key: signs the commands.
        trust: judges the reports.
        evidence, without_build: for the build gates of nodes.
        override_lock: why the commands are to be obeyed although the site is locked; empty where they are not.
        mandate: what people signed for this rollout; None where nobody had to.
        retried: the earlier rollout that this one repeats, where that had a mandate; empty for none.
        asks: what the site asks of the mandate, where nodes were asked or whoever proposed it knew; None for nothing.
        notes: lines for the person, e.g. about build results that were left out.
    """

    settings: Settings
    plan: Plan
    key: BodySigner
    trust: Trust
    evidence: tuple[BuildEvidence, ...] = ()
    without_build: bool = False
    override_lock: str = ""
    mandate: HeldMandate | None = None
    retried: str = ""
    asks: Requirement | None = None
    notes: tuple[str, ...] = ()


def plan_deploy(
    settings: Settings,
    site: str,
    ref: str | Mapping[RepoName, str],
    nodes: Sequence[str],
    options: RolloutOptions | None = None,
    *,
    commit: str | Mapping[RepoName, str] | None = None,
    repo: str | None = None,
    live: Mapping[NodeName, SiteState] = _NOBODY,
    key: KeyGiven = None,
    evidence: Sequence[Path] = (),
    without_build: bool = False,
    requested_by: str | None = None,
) -> PlannedRollout:
    """Return the rollout that puts a ref of a site live on nodes. Nothing is sent; the origin may be contacted.

    Args:
        settings: of the machine that asks.
        site: the site's name.
        ref: a tag or branch, short or in full; of a site of several repositories one of each that changes.
        nodes: all of them, in any order.
        options: what the operator chose.
        commit: what the ref must stand for, or each ref of several; looked up at the origin when None, once for all
            nodes.
        repo: where to look it up; found by the site when None.
        live: what the nodes say of the site, for the repositories that `ref` does not name: they stay as they are live.
        key: signs the commands; the settings' key when None.
        evidence: files of build results to send along with those that are known here.
        without_build: ask nodes to deploy although no build succeeded.
        requested_by: who wants it, in words for a person; whoever runs this process when None.

    Raises:
        PolicyRefused: there is no key, no report could be believed, or the ref stands for another commit.
        KeyFileError: a key file cannot be used.
        UsageError: there is no node, an option is wrong, the settings do not show the repository of the site, or nodes
            differ in a repository that is not named.
        RefNotFound: the origin has no such ref.
    """
    signer, trust = signing_key(settings, key), load_report_trust(settings)
    target = target_asked(settings, site, ref, commit=commit, repo=repo, live=live)
    name = parse_site_name(site)
    results, notes = evidence_for(settings, name, sources_of(settings, site, target, repo), evidence)
    plan = make_plan(
        site=name,
        nodes=[parse_node_name(node) for node in nodes],
        target=target,
        options=options or RolloutOptions(),
        rollout=new_rollout_id(name),
        requested_by=user_name() if requested_by is None else requested_by,
    )
    return PlannedRollout(
        settings=settings,
        plan=plan,
        key=signer,
        trust=trust,
        evidence=results,
        without_build=without_build,
        notes=tuple(notes),
    )


def plan_rollback(
    settings: Settings,
    site: str,
    previous: Mapping[NodeName, SiteRelease],
    options: RolloutOptions | None = None,
    *,
    key: KeyGiven = None,
    requested_by: str | None = None,
) -> PlannedRollout:
    """Return the rollout that takes each node back to its own previous release. Nothing is sent.

    Args:
        settings: of the machine that asks.
        site: the site's name.
        previous: what each node had before, as it reports. Nodes without one are not in it: name them to the person.
        options: what the operator chose.
        key, requested_by: as for `plan_deploy`.

    Raises:
        PolicyRefused, KeyFileError: as `plan_deploy`.
        UsageError: no node has a previous release that names its ref and commit, or an option is wrong.
    """
    signer, trust = signing_key(settings, key), load_report_trust(settings)
    name = parse_site_name(site)
    targets = {node: target for node, release in previous.items() if (target := Target.of(release)) is not None}
    if not targets:
        raise UsageError(f"no node has a previous release of {site}", "give --to REF")
    plan = _way_back(name, targets, options or RolloutOptions(), requested_by)
    return PlannedRollout(settings=settings, plan=plan, key=signer, trust=trust)


def plan_rollback_to(
    settings: Settings,
    site: str,
    ref: str | Mapping[RepoName, str],
    nodes: Sequence[str],
    options: RolloutOptions | None = None,
    *,
    commit: str | Mapping[RepoName, str] | None = None,
    repo: str | None = None,
    live: Mapping[NodeName, SiteState] = _NOBODY,
    key: KeyGiven = None,
    requested_by: str | None = None,
) -> PlannedRollout:
    """Return the rollout that takes all nodes back to one release. Nothing is sent; the origin may be contacted.

    Args and errors: as for `plan_deploy`.
    """
    signer, trust = signing_key(settings, key), load_report_trust(settings)
    target = target_asked(settings, site, ref, commit=commit, repo=repo, live=live, option="to")
    targets = dict.fromkeys(map(parse_node_name, nodes), target)
    plan = _way_back(parse_site_name(site), targets, options or RolloutOptions(), requested_by)
    return PlannedRollout(settings=settings, plan=plan, key=signer, trust=trust)


def plan_retry(
    settings: Settings, rollout: str, *, key: KeyGiven = None, evidence: Sequence[Path] = ()
) -> PlannedRollout:
    """Return a new rollout of the nodes of an earlier one that failed, refused or were silent. Nothing is sent.

    Commit and options are those of the earlier rollout: the origin is not asked again. The mandate is not: it was for
    the earlier id.

    Args:
        settings: of the machine that asks.
        rollout: the id of the earlier rollout, or its beginning.
        key: signs the commands; the settings' key when None.
        evidence: files of build results to send along, instead of those of the earlier rollout.

    Raises:
        PolicyRefused, KeyFileError: as `plan_deploy`.
        RolloutError: its journal cannot be read.
        UsageError: it has not ended, no node is left to retry, or a file holds nothing about its commit.
    """
    earlier = read_rollout(settings, rollout)
    return plan_again(settings, earlier.contents.head, earlier.model, key=key, evidence=evidence)


def plan_again(
    settings: Settings,
    head: JournalHead,
    model: RolloutModel,
    *,
    key: KeyGiven = None,
    evidence: Sequence[Path] = (),
    requested_by: str | None = None,
) -> PlannedRollout:
    """Return a new rollout of the nodes of an earlier one that failed, refused or were silent. Nothing is sent.

    Args:
        settings, key, evidence: as for `plan_retry`.
        head, model: what the earlier rollout was to do, and how it ended.
        requested_by: as for `plan_deploy`.

    Raises:
        PolicyRefused, KeyFileError, UsageError: as `plan_retry`.
    """
    signer, trust = signing_key(settings, key), load_report_trust(settings)
    by = user_name() if requested_by is None else requested_by
    plan = retry_plan(head.plan, model, rollout=new_rollout_id(head.plan.site), requested_by=by)
    results, notes = head.evidence, tuple[str, ...]()
    if evidence:
        sources = sources_of(settings, plan.site, plan.targets[plan.nodes[0]])
        results, notes = evidence_for(settings, plan.site, sources, evidence)
    return PlannedRollout(
        settings=settings,
        plan=plan,
        key=signer,
        trust=trust,
        evidence=results,
        without_build=head.without_build,
        retried=head.plan.rollout if head.mandate is not None else "",
        asks=head.asks,
        notes=notes,
    )


def new_rollout_id(site: SiteName, now: datetime | None = None) -> str:
    """Return a new id: a word that can be typed, sorts by time within a site, and is the name of a directory."""
    return f"{site[:_SHORT_SITE]}-{(now or utc_now()):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def _way_back(
    site: SiteName, targets: Mapping[NodeName, Target], options: RolloutOptions, requested_by: str | None
) -> Plan:
    return make_plan(
        site=site,
        nodes=targets,
        target=targets,
        kind="rollback",
        options=options,
        rollout=new_rollout_id(site),
        requested_by=user_name() if requested_by is None else requested_by,
    )
