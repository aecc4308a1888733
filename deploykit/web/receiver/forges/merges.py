"""One line for people about a merge request or pull request: nothing else comes of them, for the merge is a push."""

from __future__ import annotations

from typing import Final

from deploykit.messages.base import one_line
from deploykit.web.receiver.forges.values import PayloadValue, first_label

#: Why a merge request publishes no message.
WHY: Final = "a merge comes as a push, too"


def merge_line(title: str, state: str, who: str, source: tuple[str, str], target: tuple[str, str]) -> str:
    """Return `Merge request (TITLE) STATE by USER: WHERE:SOURCE -> WHERE:TARGET`, as the original wrote it.

    Args:
        title, state, who: as the forge has them; `unknown` stands for an empty one.
        source, target: each the namespace or repository, and the branch.
    """
    there, here = (":".join(part or "unknown" for part in side) for side in (source, target))
    return one_line(
        f"Merge request ({title or 'unknown'}) {state or 'unknown'} by {who or 'unknown'}: {there} -> {here}"
    )


def pull_request_line(payload: PayloadValue) -> str:
    """Return the line of a `pull_request` event in GitHub's form; empty where it changed no state."""
    action = payload.get("action").label()
    if action not in ("opened", "reopened", "closed"):
        return ""
    request = payload.get("pull_request")
    merged = action == "closed" and request.get("merged").value is True
    head, base = request.get("head"), request.get("base")
    return merge_line(
        request.get("title").label(),
        "merged" if merged else action,
        first_label(payload.at("sender", "login"), request.at("user", "login")),
        (
            first_label(head.at("repo", "full_name"), request.at("head_repo", "full_name")),
            first_label(head.get("ref"), request.get("head_branch")),
        ),
        (
            first_label(base.at("repo", "full_name"), request.at("base_repo", "full_name")),
            first_label(base.get("ref"), request.get("base_branch")),
        ),
    )


__all__ = ["WHY", "merge_line", "pull_request_line"]
