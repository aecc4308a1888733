"""The mandate that a console proposes: read from its bytes, and compared with what was asked for. Pure.

A console that was taken over may propose another thing than what a person asked for and was shown. Here it is refused
before anybody is asked to sign; what is shown to that person is decoded from the bytes all the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from deploykit.errors import MessageError, PolicyRefused
from deploykit.fleet.mandates import HeldMandate
from deploykit.fleet.view import some_names
from deploykit.messages import RolloutApproved
from deploykit.messages.base import one_line
from deploykit.names import short_ref
from deploykit.operations.mandatefiles import mandate_frame, require_canonical
from deploykit.trust.keyformat import MalformedBlob, decode_base64
from deploykit.trust.signature import HEADER
from deploykit.web.actions.asked import DeployAsked, RollbackAsked
from deploykit.web.actions.shown import PlanShown, ProposalShown


def mandate_of(proposal: ProposalShown, rollout: str) -> HeldMandate:
    """Return the mandate in a proposal; its signatures are the console's to keep, and are not in it.

    Args:
        rollout: which was asked for.

    Raises:
        PolicyRefused: its bytes are no mandate, not those that we would write, or of another rollout.
    """
    try:
        held = HeldMandate.of_frame(mandate_frame(decode_base64(proposal.body)))
    except (MalformedBlob, MessageError) as error:
        raise PolicyRefused(
            f"the console's proposal {rollout} holds no mandate: {error}", "nothing was signed"
        ) from None
    require_canonical(held)
    if held.message.rollout != rollout:
        raise PolicyRefused(
            f"asked for the mandate of rollout {one_line(rollout)}, the console gave that of {held.message.rollout}",
            "nothing was signed; look at the console",
        )
    return held


def require_as_asked(held: HeldMandate, asked: DeployAsked | RollbackAsked, plan: PlanShown) -> None:
    """Accept a mandate that allows nothing beyond what was asked for and shown.

    Raises:
        PolicyRefused: it allows more, or another thing; the text says what.
    """
    _refuse(tuple(_differences(held.message, asked, plan)))


def require_as_shown(held: HeldMandate, plan: PlanShown) -> None:
    """Accept a mandate of a retry that allows nothing beyond the plan that was shown; errors as of `require_as_asked`.

    Whether it leaves out builds or overrides a lock is as in the rollout that it repeats: the plan does not say so, the
    text that is signed does.
    """
    mandate = held.message
    _refuse((*_not_shown(mandate, plan.site, plan), *_another_target(mandate, plan)))


def _refuse(found: Sequence[str]) -> None:
    if found:
        raise PolicyRefused(
            f"the console proposes another thing than what was asked for: {'; '.join(found)}",
            "nothing was signed; look at the console",
        )


def _differences(mandate: RolloutApproved, asked: DeployAsked | RollbackAsked, plan: PlanShown) -> Iterator[str]:
    yield from _not_shown(mandate, asked.site, plan)
    wanted = asked.ref if isinstance(asked, DeployAsked) else asked.to
    if wanted or isinstance(asked, DeployAsked):
        if mandate.ref is None or wanted not in (mandate.ref, short_ref(mandate.ref)):
            yield f"ref {mandate.ref or 'none'}, not {one_line(wanted)}"
        if asked.commit and mandate.commit != asked.commit:
            yield f"commit {mandate.commit}, not {one_line(asked.commit)}"
        if plan.commit and mandate.commit != plan.commit:
            yield f"commit {mandate.commit}, not {one_line(plan.commit)} as the plan showed"
    elif mandate.phases:
        yield f"{', '.join(mandate.phases)} of {mandate.ref or 'something'}, where nodes were to go back"
    if mandate.without_build and not (isinstance(asked, DeployAsked) and asked.without_build):
        yield "without a build"
    if mandate.override_lock and mandate.override_lock != asked.override_lock:
        yield f"in spite of a lock, for the reason {mandate.override_lock}"


def _not_shown(mandate: RolloutApproved, site: str, plan: PlanShown) -> Iterator[str]:
    if mandate.site != site:
        yield f"site {mandate.site}, not {site}"
    shown = {each.node for each in plan.nodes}
    more = [node for node in mandate.nodes if node not in shown]
    if more:
        yield f"on {some_names(more, 5)}, which the plan did not show"


def _another_target(mandate: RolloutApproved, plan: PlanShown) -> Iterator[str]:
    if not plan.ref and not plan.commit:
        if mandate.phases:
            yield f"{', '.join(mandate.phases)} of {mandate.ref or 'something'}, where nodes were to go back"
        return
    if plan.ref and mandate.ref != plan.ref:
        yield f"ref {mandate.ref or 'none'}, not {one_line(plan.ref)}"
    if plan.commit and mandate.commit != plan.commit:
        yield f"commit {mandate.commit or 'none'}, not {one_line(plan.commit)} as the plan showed"


def signature_value(held: HeldMandate) -> str:
    """Return the value of the signature header of a mandate that was signed here."""
    return str(held.frame.headers[HEADER])


__all__ = ["mandate_of", "require_as_asked", "require_as_shown", "signature_value"]
