"""The nodes that `deploy` and `rollback` address, and a plan for those that an earlier rollout did not reach."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import attrs
import click

from deploykit.cli.asking import counting, print_notes
from deploykit.cli.rolloutoptions import any_given, options_again

if TYPE_CHECKING:
    from deploykit.bus import Bus
    from deploykit.fleet.selection import Selection
    from deploykit.names import NodeName
    from deploykit.operations.keychoice import KeyGiven
    from deploykit.operations.rolloutplan import PlannedRollout
    from deploykit.operations.targets import Targets
    from deploykit.settings.node import Settings


def chosen_nodes(
    settings: Settings,
    bus: Bus | None,
    selection: Selection,
    site: str,
    *,
    timeout: float,
    want_previous: bool = False,
    want_live: bool = False,
    key: KeyGiven = None,
) -> Targets:
    """Return the nodes that a selection chooses, and print what a person should know about them.

    Args:
        bus: connected; None where names alone decide.
        timeout: seconds to wait for the first answer, or for all nodes that are named.
        want_previous: find out what each would go back to.
        want_live: find out what is live on each.
        key: signs the question; the settings' key when None.
    """
    from deploykit.names import parse_site_name
    from deploykit.operations.deploy import signing_key
    from deploykit.operations.targets import resolve_targets

    signer = signing_key(settings, key) if bus is not None else None  # a person may be asked: before the display
    with counting() if bus is not None else nullcontext() as heard:
        targets = resolve_targets(
            settings,
            bus,
            selection,
            site=parse_site_name(site),
            want_previous=want_previous,
            want_live=want_live,
            timeout=timeout,
            key=signer,
            on_node=heard,
        )
    notes = list(targets.notes)
    if targets.silent:
        notes.append(f"silent, left out: {', '.join(targets.silent)}")
    if targets.unexpected:
        notes.append(f"not on the list, left out: {', '.join(targets.unexpected)}")
    notes += [f"{node} is left alone: {why}" for node, why in targets.without_previous.items()]
    print_notes(tuple(dict.fromkeys(notes)))
    return targets


def chosen_canaries(
    settings: Settings,
    bus: Bus | None,
    selection: Selection,
    chosen: Targets,
    site: str,
    first_select: str | None,
    *,
    timeout: float,
    key: KeyGiven = None,
) -> frozenset[NodeName] | None:
    """Return the chosen nodes for which `--first-select` holds; None where it was not given.

    Raises:
        UsageError: it is no selector, or no chosen node matches.
    """
    if first_select is None:
        return None
    from deploykit.errors import NobodyMatches, UsageError

    both = attrs.evolve(selection, selects=(*selection.selects, first_select), everybody=False, expect=None)
    try:
        canaries = chosen_nodes(settings, bus, both, site, timeout=timeout, key=key)
    except NobodyMatches:
        canaries = None
    found = frozenset(canaries.nodes).intersection(chosen.nodes) if canaries is not None else frozenset()
    if not found:
        raise UsageError(f"no chosen node matches --first-select {first_select!r}", "nothing was sent")
    return found


def worse_of(targets: Targets) -> int:
    """Return 1 where nodes that were meant are not addressed, else 0."""
    return 1 if targets.silent or targets.without_previous else 0


def plan_again(ctx: click.Context, settings: Settings, rollout: str, given: Mapping[str, Any]) -> PlannedRollout:
    """Return a plan for what failed, refused or was silent in a rollout.

    The options are those of the earlier rollout, but for each that the command gives.

    Raises:
        UsageError: the rollout goes on, or nothing is left.
    """
    from deploykit.fleet.plan import make_plan
    from deploykit.operations.rolloutplan import plan_retry

    planned = plan_retry(settings, rollout, key=given.get("key"), evidence=given.get("evidence") or ())
    plan = planned.plan
    if any_given(ctx):
        plan = make_plan(
            site=plan.site,
            nodes=plan.nodes,
            target=plan.targets,
            kind=plan.kind,
            options=options_again(ctx, given, plan.options),
            rollout=plan.rollout,
            requested_by=plan.requested_by,
            correlation_id=plan.correlation_id,
        )
    return attrs.evolve(planned, plan=plan, without_build=planned.without_build or bool(given.get("without_build")))
