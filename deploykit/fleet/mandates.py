"""The mandate of a rollout, as its coordinator holds it, and whether a plan lies inside of it. Pure.

Rules:

* A mandate is its body: commands name the SHA-256 of it, and further signatures change nothing of that.
* A mandate is for one rollout id. Batches, splits, a resume and the way back are inside; a retry is another rollout.
* What the coordinator would send is compared before anything is sent. Nodes compare again, command by command.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import attrs

from deploykit.errors import PolicyRefused, RolloutError
from deploykit.fleet.plan import Plan
from deploykit.fleet.view import some_names
from deploykit.messages import DeployPhase, RolloutApproved
from deploykit.messages.base import one_line
from deploykit.messages.site import name_of, version_of
from deploykit.trust.signature import body_digest
from deploykit.wire import Frame, decode


@attrs.frozen(kw_only=True, slots=True)
class HeldMandate:
    """A mandate as it goes out: its message, and the frame that nodes verify.

    Args:
        digest: hex SHA-256 of the body, by which commands name it.
    """

    message: RolloutApproved
    frame: Frame = attrs.field(repr=False)
    digest: str = attrs.field(init=False)

    @digest.default
    def _digest_of_body(self) -> str:
        return body_digest(self.frame.body).hex()

    @classmethod
    def of_frame(cls, frame: Frame) -> HeldMandate:
        """Return the mandate in a frame. Its signatures are not looked at.

        Raises:
            MessageError: no message.
            RolloutError: another message.
        """
        message = decode(frame.headers, frame.body)
        if not isinstance(message, RolloutApproved):
            raise RolloutError(f"a {type(message).__name__} approves no rollout")
        return cls(message=message, frame=frame)


def phases_of(plan: Plan) -> tuple[DeployPhase, ...]:
    """Return the phases that put something live, of those that a plan asks for."""
    if plan.kind == "rollback":
        return ()
    return ("deploy",) if plan.one_phase else ("prepare", "activate")


def objections(
    mandate: RolloutApproved, plan: Plan, *, without_build: bool = False, override_lock: str = ""
) -> tuple[str, ...]:
    """Return what of a plan lies outside of a mandate, a line each; empty where all of it is inside.

    Args:
        mandate: what people signed.
        plan: what the coordinator would do.
        without_build, override_lock: what its commands would carry.
    """
    return tuple(_objections(mandate, plan, without_build=without_build, override_lock=override_lock))


def _objections(mandate: RolloutApproved, plan: Plan, *, without_build: bool, override_lock: str) -> Iterator[str]:
    if mandate.rollout != plan.rollout:
        yield f"it is for rollout {one_line(mandate.rollout)}, not {plan.rollout}"
    if mandate.site != plan.site:
        yield f"it is for site {mandate.site}, not {plan.site}"
    approved = frozenset(mandate.nodes)
    others = [node for node in plan.nodes if node not in approved]
    if others:
        yield f"it does not name {some_names(others, 5)}"
    if plan.kind == "deploy":
        for target in plan.releases:
            if version_of(target) != version_of(mandate):
                yield f"it lets {name_of(mandate) or 'nothing'} go live, not {name_of(target)}"
        missing = [phase for phase in phases_of(plan) if phase not in mandate.phases]
        if missing:
            yield f"it does not allow {', '.join(missing)}"
    if (plan.kind == "rollback" or plan.options.on_failure == "rollback") and not mandate.allow_rollback:
        yield "it does not let nodes go back"
    if without_build and not mandate.without_build:
        yield "it does not allow to go without a build"
    if override_lock and override_lock != mandate.override_lock:
        yield (
            "it does not let the lock be overridden for this reason"
            if mandate.override_lock
            else ("it does not let the lock be overridden")
        )


def require_inside(
    mandate: HeldMandate | None, plan: Plan, *, without_build: bool = False, override_lock: str = ""
) -> None:
    """Accept a plan that lies inside of its mandate, and any plan without one.

    Args: as of `objections`.

    Raises:
        PolicyRefused: a part of it lies outside; the text says which.
    """
    if mandate is None:
        return
    found = objections(mandate.message, plan, without_build=without_build, override_lock=override_lock)
    if found:
        raise PolicyRefused(
            f"the plan of rollout {plan.rollout} lies outside of its mandate: {'; '.join(found)}",
            "nothing was sent; propose it again, and have that approved",
        )


def time_objection(mandate: RolloutApproved, now: datetime) -> str:
    """Return why no command would be obeyed under a mandate at this time; empty where the time is right.

    Args:
        mandate: what people signed.
        now: aware.
    """
    if now > mandate.not_after:
        return f"the mandate of rollout {one_line(mandate.rollout)} ended at {_shown(mandate.not_after)}"
    if now < mandate.not_before:
        return f"the mandate of rollout {one_line(mandate.rollout)} begins at {_shown(mandate.not_before)}"
    return ""


def approval_of(
    plan: Plan,
    *,
    now: datetime,
    not_before: datetime,
    not_after: datetime,
    source: str,
    without_build: bool = False,
    override_lock: str = "",
    reason: str = "",
) -> RolloutApproved:
    """Return the mandate that a plan needs, for people to sign.

    Nodes may go back to their previous release: `--on-failure rollback` and `rollout abort --rollback` need no more.

    Args:
        plan: what the coordinator will do.
        now: aware; when it was proposed.
        not_before, not_after: when commands may be obeyed, aware; whole seconds of them count.
        source: who proposes it, a machine.
        without_build, override_lock: what its commands will carry.
        reason: why, in words for a person.
    """
    target = plan.targets[plan.nodes[0]] if plan.kind == "deploy" else None
    return RolloutApproved(
        source=source,
        time=now.replace(microsecond=0),
        correlation_id=plan.correlation_id or plan.rollout,
        site=plan.site,
        rollout=plan.rollout,
        ref=target.ref if target is not None else None,
        commit=target.commit if target is not None else None,
        parts=target.parts if target is not None else (),
        nodes=plan.nodes,
        phases=phases_of(plan),
        allow_rollback=True,
        not_before=not_before.replace(microsecond=0),
        not_after=not_after.replace(microsecond=0),
        without_build=without_build,
        override_lock=override_lock,
        requested_by=plan.requested_by,
        reason=reason,
    )


def _shown(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC"


__all__ = ["HeldMandate", "approval_of", "objections", "phases_of", "require_inside", "time_objection"]
