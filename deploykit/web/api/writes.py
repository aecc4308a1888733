"""The table of what the API does. Each is one call of `ConsoleActions`, which judges who may and what it means."""

from __future__ import annotations

from typing import Final, cast
from urllib.parse import quote, urlencode

import attrs

from deploykit.trust.keyformat import MalformedBlob, decode_base64
from deploykit.web.actions.asked import ControlAsked, DeployAsked, GrantAsked, LockAsked, RollbackAsked
from deploykit.web.actions.shown import AccessGranted, ActionOutcome, PlanShown
from deploykit.web.api.parameters import Parameter
from deploykit.web.api.posted import RelayAsked, RetryAsked, SignatureAsked
from deploykit.web.api.problems import ParameterProblem, RequestRefused
from deploykit.web.api.writeoperation import WriteCall, WriteOperation

_SITE: Final = frozenset({"site"})
_PLANNED: Final = {"deploy": DeployAsked, "rollback": RollbackAsked}


def _asked(call: WriteCall) -> DeployAsked | RollbackAsked:
    return cast("DeployAsked | RollbackAsked", call.body)


def _plan(call: WriteCall) -> object:
    return call.actions.rollouts.plan(call.viewer, _asked(call))


def _begin(call: WriteCall) -> object:
    return call.actions.rollouts.begin(call.viewer, _asked(call))


def _control(call: WriteCall) -> object:
    return call.actions.rollouts.control(call.viewer, call.path["deploy"], call.asked(ControlAsked))


def _retry(call: WriteCall) -> object:
    asked = call.asked(RetryAsked)
    return call.actions.rollouts.retry(
        call.viewer, call.path["deploy"], asked.plan, approval=asked.approval, reason=asked.reason
    )


def _sign(call: WriteCall) -> object:
    return call.actions.rollouts.sign(call.viewer, call.path["deploy"], call.asked(SignatureAsked).signature)


def _withdraw(call: WriteCall) -> object:
    return call.actions.rollouts.withdraw(call.viewer, call.path["deploy"])


def _lock(call: WriteCall) -> object:
    return call.actions.locks.lock(call.viewer, call.asked(LockAsked))


def _unlock(call: WriteCall) -> object:
    return call.actions.locks.unlock(call.viewer, call.path["site"], call.query.text("reason"))


def _grant(call: WriteCall) -> object:
    return call.actions.access.grant(call.viewer, call.asked(GrantAsked))


def _extend(call: WriteCall) -> object:
    return call.actions.access.extend(call.viewer, call.asked(GrantAsked))


def _revoke(call: WriteCall) -> object:
    return call.actions.access.revoke(call.viewer, call.query.text("site"), call.query.text("user"))


def _relay(call: WriteCall) -> object:
    asked = call.asked(RelayAsked)
    try:
        body = decode_base64(asked.body)
    except MalformedBlob:
        wrong = ParameterProblem(parameter="body", detail="not base64")
        raise RequestRefused(422, "fields are wrong: 'body': not base64", parameters=(wrong,)) from None
    return call.actions.relay.relay(call.viewer, body, asked.signature)


# -- where to look then ------------------------------------------------------------------------------------------------


def _of_rollout(_call: WriteCall, answer: object) -> str:
    """Return the path of the rollout in an outcome: while it waits for people, that of its proposal."""
    outcome = cast(ActionOutcome, answer)
    if not outcome.rollout:
        return _of_site(_call, answer)
    where = f"/deploys/{quote(outcome.rollout, safe='')}"
    return f"{where}/proposal" if outcome.state == "proposed" else where


def _of_site(call: WriteCall, answer: object) -> str:
    site = cast(ActionOutcome, answer).site or call.path.get("site", "")
    return f"/sites/{quote(site, safe='')}" if site else ""


def _of_access(call: WriteCall, answer: object) -> str:
    if isinstance(answer, AccessGranted):
        site = answer.row.site
    else:
        site = cast(ActionOutcome, answer).site or call.query.text("site")
    return f"/access?{urlencode({'site': site})}"


def _of_withdrawn(_call: WriteCall, _answer: object) -> str:
    return "/proposals"


def _without_password(answer: object) -> object:
    """Return a grant as an Idempotency-Key keeps it: whoever reads the ledger finds no password."""
    return attrs.evolve(cast(AccessGranted, answer), password="")  # the password was shown once


WRITES: Final[tuple[WriteOperation, ...]] = (
    WriteOperation(
        name="plan",
        method="POST",
        path="/sites/{site}/plans",
        summary="What a deploy or a rollback would do; nothing is sent but questions",
        bodies=_PLANNED,
        from_path=_SITE,
        act=_plan,
        answer=PlanShown,
        status=200,
        repeatable=True,
    ),
    WriteOperation(
        name="begin_deploy",
        method="POST",
        path="/sites/{site}/deploys",
        summary="Put a ref live, or propose it where people must sign",
        bodies={"": DeployAsked},
        from_path=_SITE,
        act=_begin,
        location=_of_rollout,
    ),
    WriteOperation(
        name="begin_rollback",
        method="POST",
        path="/sites/{site}/rollbacks",
        summary="Take nodes back, or propose it where people must sign",
        bodies={"": RollbackAsked},
        from_path=_SITE,
        act=_begin,
        location=_of_rollout,
    ),
    WriteOperation(
        name="control",
        method="POST",
        path="/deploys/{deploy}/control",
        summary="Pause, resume, promote or abort a rollout",
        bodies={"": ControlAsked},
        act=_control,
        location=_of_rollout,
    ),
    WriteOperation(
        name="retry",
        method="POST",
        path="/deploys/{deploy}/retry",
        summary="Roll out again to what failed, refused or was silent",
        bodies={"": RetryAsked},
        act=_retry,
        location=_of_rollout,
    ),
    WriteOperation(
        name="sign",
        method="POST",
        path="/deploys/{deploy}/signatures",
        summary="Add a signature to a proposal; it begins once enough people have signed",
        bodies={"": SignatureAsked},
        act=_sign,
        location=_of_rollout,
    ),
    WriteOperation(
        name="withdraw",
        method="POST",
        path="/deploys/{deploy}/withdraw",
        summary="Remove a proposal",
        act=_withdraw,
        location=_of_withdrawn,
    ),
    WriteOperation(
        name="lock",
        method="PUT",
        path="/sites/{site}/lock",
        summary="Keep everybody from deploying a site",
        bodies={"": LockAsked},
        from_path=_SITE,
        act=_lock,
        location=_of_site,
    ),
    WriteOperation(
        name="unlock",
        method="DELETE",
        path="/sites/{site}/lock",
        summary="Lift the lock of a site",
        query=(Parameter(name="reason", description="Why, for those who look later."),),
        act=_unlock,
        location=_of_site,
    ),
    WriteOperation(
        name="grant_access",
        method="POST",
        path="/access",
        summary="Let a user see a protected site; the answer has the password, for this one time",
        bodies={"": GrantAsked},
        act=_grant,
        answer=AccessGranted,
        location=_of_access,
        kept=_without_password,
    ),
    WriteOperation(
        name="extend_access",
        method="POST",
        path="/access/extend",
        summary="Move the end of an access; the password stays",
        bodies={"": GrantAsked},
        act=_extend,
        location=_of_access,
    ),
    WriteOperation(
        name="revoke_access",
        method="DELETE",
        path="/access",
        summary="End an access",
        query=(
            Parameter(name="site", description="The site.", required=True),
            Parameter(name="user", description="The user.", required=True),
        ),
        act=_revoke,
        location=_of_access,
    ),
    WriteOperation(
        name="relay",
        method="POST",
        path="/relay",
        summary="Publish a lock, an unlock, an access grant or revocation that was signed elsewhere, unchanged",
        bodies={"": RelayAsked},
        act=_relay,
        location=_of_site,
    ),
)

__all__ = ["WRITES"]
