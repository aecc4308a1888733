"""The line that does from a shell what somebody plans in the browser. Pure.

Every value is one word of a shell: quoted, on one line, and never taken for an option.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Final

from deploykit.fleet.plan import Plan, Target
from deploykit.messages import one_line
from deploykit.names import RefName, short_ref
from deploykit.web.actions.asked import DeployAsked, NodesAsked, RollbackAsked

#: Names that the line lists; more come from a file.
_LISTED: Final = 40
#: Options that are words of their own, by the field of `OptionsAsked`.
_OPTIONS: Final = ("first", "max_failures", "quorum", "pause", "on_failure", "timeout", "order")


def command_of(asked: DeployAsked | RollbackAsked, plan: Plan, *, proposes: bool) -> str:
    """Return the command.

    Args:
        asked: as typed.
        plan: what came of it.
        proposes: people must sign it.
    """
    return shlex.join(_words(asked, plan, proposes=proposes))


def retry_command(rollout: str, *, proposes: bool) -> str:
    """Return the command that retries a rollout."""
    return shlex.join(["deploykit", "rollout", "retry", rollout, *(["--propose"] if proposes else [])])


def _words(asked: DeployAsked | RollbackAsked, plan: Plan, *, proposes: bool) -> Iterator[str]:
    yield from ("deploykit", plan.kind, plan.site)
    target = plan.targets[plan.nodes[0]]
    if isinstance(asked, DeployAsked):
        yield from _version("--ref", target)
    elif asked.to:
        yield from _version("--to", target)
    yield from _chosen(asked.chosen, plan)
    options = asked.options
    if plan.options.first_nodes:
        names = " or ".join(f"node={node}" for node in sorted(plan.options.first_nodes))
        yield f"--first-select={names}"
    if options.batch:
        yield f"--batch={','.join(map(str, plan.options.batch))}"
    for name in _OPTIONS:
        if text := str(getattr(options, name)).strip():
            yield f"--{name.replace('_', '-')}={one_line(text)}"
    if isinstance(asked, DeployAsked) and asked.without_build:
        yield "--without-build"
    if asked.override_lock.strip():
        yield f"--override-lock={one_line(asked.override_lock)}"
    if proposes:
        yield "--propose"
        for name in ("reason", "not_before", "not_after"):
            if text := one_line(str(getattr(asked, name))):
                yield f"--{name.replace('_', '-')}={text}"


def _version(option: str, target: Target) -> Iterator[str]:
    if target.ref is not None:
        yield from (option, _named(target.ref), "--commit", target.commit)
    for part in target.parts:
        yield from (option, f"{part.repo}={_named(part.ref)}", "--commit", f"{part.repo}={part.commit}")


def _named(ref: RefName) -> str:
    """Return a tag by its short name, which goes before a branch of the same name; anything else in full."""
    return short_ref(ref) if ref.startswith("refs/tags/") else ref


def _chosen(chosen: NodesAsked, plan: Plan) -> Iterator[str]:
    if len(plan.nodes) <= _LISTED:
        for node in sorted(plan.nodes):
            yield f"--node={node}"
        return
    if chosen.select.strip():
        yield f"--select={one_line(chosen.select, 5000)}"
    for name in chosen.nodes:
        yield f"--node={one_line(name)}"
    if chosen.everybody and not chosen.select and not chosen.nodes:
        yield "--all"
    if chosen.exactly and not (chosen.select or chosen.nodes or chosen.everybody):
        yield "--nodes=FILE"
    yield f"--expect={len(plan.nodes)}"


__all__ = ["command_of", "retry_command"]
