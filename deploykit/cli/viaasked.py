"""What `deploy` and `rollback` ask of a console: their options, as the fields of the API."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from deploykit.cli.viaoptions import is_given, refuse_with_via

if TYPE_CHECKING:
    from deploykit.web.actions.asked import DeployAsked, NodesAsked, OptionsAsked, RollbackAsked

#: A class, and a comparison, that mean in a selector what they mean after `-C` and `-F`.
_CLASS: Final = re.compile(r"[A-Za-z0-9_.*?][A-Za-z0-9_.:*?+@-]*\Z").match
_FACT: Final = re.compile(
    r"[A-Za-z0-9_.][A-Za-z0-9_.:+@-]*(?:=|!=|<|<=|>|>=)[A-Za-z0-9_.*?][A-Za-z0-9_.:*?+@-]*\Z"
).match
_WORDS: Final = frozenset({"and", "or", "not", "in"})
#: What the API does not have, and the way out.
_NOT_THERE: Final = {
    "chosen_exclude": "write it into a selector: --select 'nginx and not env=stage'",
    "first_select": "name the canaries' number: --first N",
    "seed": "leave it out: the console chooses one",
    "bake": "leave it out",
    "deadline": "leave it out",
    "prepare": "leave it out: all nodes are prepared first",
    "discovery_timeout": "leave it out: the console knows its fleet",
    "repo": "leave it out: the console knows the site's repository",
    "evidence": "leave it out: the console has the build results itself",
}

#: What a retry takes over from the rollout that it repeats.
_REPEATED: Final = frozenset(
    {
        *("first", "batch", "order", "max_failures", "pause", "timeout", "quorum", "on_failure"),
        *("override_lock", "without_build", "not_before", "not_after"),
    }
)


def refuse_what_is_not_there(ctx: click.Context) -> None:
    """Accept options that the API has.

    Raises:
        UsageError: another one is given.
    """
    refuse_with_via(ctx, {name: why for name, why in _NOT_THERE.items() if name in ctx.params})


def refuse_beside_retry(ctx: click.Context) -> None:
    """Accept what `deploy --retry-failed` has at a console: the nodes and options are those of the earlier rollout.

    Raises:
        UsageError: another option is given.
    """
    refuse_what_is_not_there(ctx)
    kept = "leave it out: --retry-failed repeats the nodes and options of that rollout"
    refuse_with_via(ctx, {name: kept for name in ctx.params if name.startswith("chosen_") or name in _REPEATED})


def nodes_asked(given: Mapping[str, Any]) -> NodesAsked:
    """Return the nodes that options choose.

    Raises:
        UsageError: they choose nobody, contradict each other, or cannot be said in one selector.
    """
    from deploykit.cli.selecting import selection_from
    from deploykit.errors import UsageError
    from deploykit.web.actions.asked import NodesAsked

    selection = selection_from(given)
    terms = []
    for option, texts, fits in (("-C", selection.classes, _CLASS), ("-F", selection.facts, _FACT)):
        for text in texts:
            if not fits(text) or text.lower() in _WORDS:
                raise UsageError(f"{option} {text[:60]!a} cannot be used through a console", "write it as --select")
            terms.append(text)
    terms += [f"({text})" if len(selection.selects) + len(terms) > 1 else text for text in selection.selects]
    return NodesAsked(
        select=" and ".join(terms),
        nodes=selection.identities,
        everybody=selection.everybody,
        exactly=tuple(selection.listed or ()),
    )


def options_asked(ctx: click.Context, given: Mapping[str, Any]) -> OptionsAsked:
    """Return how the rollout goes: what a person gave; the console has the same defaults.

    Raises:
        UsageError: options that do not go together.
    """
    from deploykit.cli.rolloutoptions import options_from
    from deploykit.web.actions.asked import OptionsAsked

    options_from(given)

    def text(name: str) -> str:
        return str(given[name]) if is_given(ctx, name) and given[name] is not None else ""

    return OptionsAsked(
        first=text("first"),
        batch=tuple(map(str, given["batch"])) if is_given(ctx, "batch") else (),
        max_failures=text("max_failures"),
        quorum=text("quorum"),
        pause=text("pause"),
        on_failure=text("on_failure"),
        timeout=text("timeout"),
        order=text("order"),
    )


def deploy_asked(ctx: click.Context, site: str, ref: str, given: Mapping[str, Any]) -> DeployAsked:
    """Return what `deploy` asks for.

    Raises:
        UsageError: an option cannot be used through a console, or does not go with others.
    """
    from deploykit.cli.rolloutoptions import override_from
    from deploykit.web.actions.asked import DeployAsked

    refuse_what_is_not_there(ctx)
    return DeployAsked(
        site=site,
        ref=ref,
        commit=given["commit"] or "",
        chosen=nodes_asked(given),
        options=options_asked(ctx, given),
        reason=given["reason"],
        without_build=given["without_build"],
        override_lock=override_from(given),
        not_before=_time(given["not_before"]),
        not_after=_time(given["not_after"]),
    )


def rollback_asked(ctx: click.Context, site: str, to: str | None, given: Mapping[str, Any]) -> RollbackAsked:
    """Return what `rollback` asks for; errors as of `deploy_asked`."""
    from deploykit.cli.rolloutoptions import override_from
    from deploykit.web.actions.asked import RollbackAsked

    refuse_what_is_not_there(ctx)
    return RollbackAsked(
        site=site,
        to=to or "",
        commit=given["commit"] or "",
        chosen=nodes_asked(given),
        options=options_asked(ctx, given),
        reason=given["reason"],
        override_lock=override_from(given),
        not_before=_time(given["not_before"]),
        not_after=_time(given["not_after"]),
    )


def _time(moment: datetime | None) -> str:
    return moment.isoformat() if moment is not None else ""


__all__ = ["deploy_asked", "nodes_asked", "options_asked", "refuse_beside_retry", "rollback_asked"]
