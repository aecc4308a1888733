"""Whether a reply fits the request that is waited for. Pure; who may speak for a node is `policy`'s."""

from __future__ import annotations

import hmac
from typing import TypeAlias

from deploykit.errors import PolicyRefused
from deploykit.messages import DeployReported, DeployRequested, NodeDescribed, NodeQueried
from deploykit.messages.site import name_of, named, version_of
from deploykit.trust.freshness import called

Request: TypeAlias = DeployRequested | NodeQueried
Reply: TypeAlias = DeployReported | NodeDescribed


def check_fits(reply: Reply, request: Request) -> None:
    """Accept a reply to this very request, of a node that was asked, and with what was asked for.

    Raises:
        PolicyRefused: it does not fit.
    """
    if not _same(reply.request or "", request.id):
        raise PolicyRefused(f"{called(reply)} answers another request than {request.id}")
    if request.audience is not None and reply.node not in request.audience:
        raise PolicyRefused(f"{reply.node} was not asked and answers all the same")
    match request, reply:
        case DeployRequested(), DeployReported():
            _check_outcome(reply, request)
        case NodeQueried(), NodeDescribed():
            pass
        case _:
            raise PolicyRefused(f"{called(reply)} is no answer to a {type(request).__name__}")


def _check_outcome(reply: DeployReported, request: DeployRequested) -> None:
    if (reply.site, reply.phase) != (request.site, request.phase):
        raise PolicyRefused(
            f"{reply.node} reports {reply.phase} of {reply.site}, asked was {request.phase} of {request.site}"
        )
    if reply.outcome == "success" and reply.phase != "discard" and reply.achieved != version_of(request):
        ref, commit, parts = reply.achieved
        kind = "ref" if commit == request.commit else "commit"
        raise PolicyRefused(
            f"{reply.node} reports success with another {kind} than asked for: "
            f"{named(ref, commit, parts=parts) or 'none'}, not {name_of(request)}"
        )


def _same(left: str, right: str) -> bool:
    """Return whether two ids are equal, in a time that shows nothing about how much of a guess is right."""
    return hmac.compare_digest(left.encode("utf-8", "surrogatepass"), right.encode("utf-8", "surrogatepass"))


__all__ = ["Reply", "Request", "check_fits"]
