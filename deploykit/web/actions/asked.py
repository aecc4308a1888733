"""What somebody asks the console to do, before it is judged: the fields of a form, or the body of an API call.

Every text is as it was typed. Nothing here is checked: `actions` parses it, and names the field that is wrong.
"""

from __future__ import annotations

from typing import Literal

import attrs


@attrs.frozen(kw_only=True, slots=True)
class NodesAsked:
    """Which nodes are meant. At least one field must be given: nothing never means all.

    Args:
        select: an expression, as for `--select`.
        nodes: names, or patterns as for `--node`.
        everybody: all nodes that have the site.
        exactly: the nodes that were shown; whoever answers beyond them is left out, whoever is missing is named.
    """

    select: str = ""
    nodes: tuple[str, ...] = ()
    everybody: bool = False
    exactly: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class OptionsAsked:
    """How a rollout goes; texts as for the options of `deploykit deploy`, empty for its defaults."""

    first: str = ""
    first_nodes: tuple[str, ...] = ()
    batch: tuple[str, ...] = ()
    max_failures: str = ""
    quorum: str = ""
    pause: str = ""
    on_failure: str = ""
    timeout: str = ""
    order: str = ""


@attrs.frozen(kw_only=True, slots=True)
class DeployAsked:
    """Put a ref of a site live.

    Args:
        ref: a tag or branch, short or in full.
        commit: what it must stand for; empty: what the origin says now.
        reason: for the others.
        without_build, override_lock: as the command line's.
        approval: have people sign it although the site does not ask for that.
        not_before, not_after: of the mandate, RFC 3339; empty: now, and as late as nodes accept.
        plan: `digest` of the plan that was shown; a plan that came out otherwise is not carried out. Empty: any.
    """

    site: str
    ref: str = ""
    commit: str = ""
    chosen: NodesAsked = attrs.field(factory=NodesAsked)
    options: OptionsAsked = attrs.field(factory=OptionsAsked)
    reason: str = ""
    without_build: bool = False
    override_lock: str = ""
    approval: bool = False
    not_before: str = ""
    not_after: str = ""
    plan: str = ""


@attrs.frozen(kw_only=True, slots=True)
class RollbackAsked:
    """Take nodes back: each to its own previous release, or all `to` one. The rest as for `DeployAsked`."""

    site: str
    to: str = ""
    commit: str = ""
    chosen: NodesAsked = attrs.field(factory=NodesAsked)
    options: OptionsAsked = attrs.field(factory=OptionsAsked)
    reason: str = ""
    override_lock: str = ""
    approval: bool = False
    not_before: str = ""
    not_after: str = ""
    plan: str = ""


@attrs.frozen(kw_only=True, slots=True)
class ControlAsked:
    """Ask something of a rollout that runs. `rollback`: of an abort: nodes that have the new release go back."""

    kind: Literal["pause", "resume", "promote", "abort"]
    rollback: bool = False


@attrs.frozen(kw_only=True, slots=True)
class LockAsked:
    """Keep everybody from deploying a site. `until`: RFC 3339, or `2h`, `3d`; empty: a day."""

    site: str
    reason: str = ""
    until: str = ""
    allow_rollback: bool = True


@attrs.frozen(kw_only=True, slots=True)
class GrantAsked:
    """Let a user see a protected site. `until` as for a lock; empty: what the nodes take as usual."""

    site: str
    user: str
    until: str = ""


__all__ = [
    "ControlAsked",
    "DeployAsked",
    "GrantAsked",
    "LockAsked",
    "NodesAsked",
    "OptionsAsked",
    "RollbackAsked",
]
