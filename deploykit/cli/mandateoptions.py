"""The options by which `deploy`, `rollback` and `rollout retry` have a rollout approved, and what they do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import attrs
import click

from deploykit.cli.asking import print_notes
from deploykit.cli.moments import MomentType
from deploykit.cli.options import F, print_json

if TYPE_CHECKING:
    from deploykit.operations.rolloutplan import PlannedRollout

_OPTIONS: Final = (
    click.option("--propose", is_flag=True, help="Send nothing: write it down for others to approve."),
    click.option(
        "--approve-with",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        metavar="KEY",
        help="Propose, sign with KEY and start in one go; repeat for several keys.",
    ),
    click.option("--not-before", type=MomentType(), help="With these: commands may be obeyed from then on."),
    click.option("--not-after", type=MomentType(), help="With these: until then.  [default: trust.mandate_max]"),
    click.option("--reason", default="", help="With these: why, for those who approve it."),
    click.option("-y", "--yes", is_flag=True, help="With --approve-with: sign without a question, for scripts."),
)
_NAMES: Final = ("not_before", "not_after", "reason", "yes")


def mandate_options(function: F) -> F:
    """Add the options of a mandate, handed on under their names."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def check_mandate_options(given: Mapping[str, Any]) -> None:
    """Accept options of a mandate that go together.

    Raises:
        UsageError: they do not.
    """
    from deploykit.errors import UsageError

    if given["propose"] and given["approve_with"]:
        raise UsageError("--propose waits for others, --approve-with starts at once", "give one of them")
    named = [f"--{name.replace('_', '-')}" for name in _NAMES if given[name]]
    if named and not (given["propose"] or given["approve_with"]):
        raise UsageError(f"{named[0]} is about a mandate", "add --propose, or --approve-with KEY")
    if given["yes"] and not given["approve_with"]:
        raise UsageError("--yes answers the question of --approve-with", "leave it out")


def with_mandate(planned: PlannedRollout, given: Mapping[str, Any], *, as_json: bool) -> PlannedRollout | None:
    """Return a planned rollout with the mandate that a person gave just now; None where it was only proposed.

    Raises:
        PolicyRefused: the site asks for a mandate, and none of the options gives one; or too few have signed.
        UsageError: the mandate cannot be made.
    """
    from deploykit.messages import utc_now
    from deploykit.operations.propose import mandate_for, propose, require_no_mandate

    if not given["propose"] and not given["approve_with"]:
        require_no_mandate(planned)
        return planned
    if given.get("to") is not None:
        print_notes(["under a mandate a node goes back to its own previous release alone: to another one it refuses"])
    times = {"not_before": given["not_before"], "not_after": given["not_after"]}
    mandate = mandate_for(planned, utc_now(), reason=given["reason"], **times)
    if given["approve_with"]:
        return _signed_now(planned, mandate, given, as_json=as_json)
    proposal = propose(planned, mandate)
    _report(proposal.plan.rollout, mandate, planned, as_json=as_json)
    return None


def _signed_now(planned: PlannedRollout, mandate: Any, given: Mapping[str, Any], *, as_json: bool) -> PlannedRollout:
    from deploykit.cli.confirming import confirmed, print_sheet
    from deploykit.errors import UsageError
    from deploykit.messages import utc_now
    from deploykit.operations.approval import ApprovalDesk
    from deploykit.operations.propose import approved

    if as_json and not given["yes"]:
        raise UsageError("--json asks no question", "add --yes")
    desk = ApprovalDesk.from_settings(planned.settings).asking(planned.asks)
    held = mandate
    sheet = desk.sheet(held, utc_now()) if as_json else print_sheet(desk, held)
    for path in given["approve_with"]:
        key = given["key"].with_path(path)
        signer = confirmed(desk, sheet, key, planned.settings, yes=given["yes"], quiet=as_json)
        held = desk.signed(held, signer)
        sheet = desk.sheet(held, utc_now())
    done = approved(attrs.evolve(planned, notes=()), held)
    print_notes(done.notes)
    return attrs.evolve(done, notes=(*planned.notes, *done.notes))


def _report(rollout: str, mandate: Any, planned: PlannedRollout, *, as_json: bool) -> None:
    from deploykit.messages import utc_now
    from deploykit.operations.approval import ApprovalDesk
    from deploykit.operations.approvaltext import sheet_entry, sheet_lines

    now = utc_now()
    sheet = ApprovalDesk.from_settings(planned.settings).asking(planned.asks).sheet(mandate, now)
    if as_json:
        print_json({**sheet_entry(sheet), "state": "proposed"})
        return
    for line in sheet_lines(sheet, now):
        click.echo(line)
    click.echo("")
    click.echo("proposed; nothing was sent")
    click.echo(f"here:      deploykit approve {rollout} --key KEY")
    click.echo(f"elsewhere: deploykit approve {rollout} --no-sign --output FILE, and there: deploykit approve FILE")
    click.echo(f"then:      deploykit rollout start {rollout}")


__all__ = ["check_mandate_options", "mandate_options", "with_mandate"]
