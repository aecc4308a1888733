"""The options that `deploy` and `rollback` share: how many nodes at a time, what it may cost, when it waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from deploykit.cli.options import Seconds

if TYPE_CHECKING:
    from deploykit.fleet.options import Amount, RolloutOptions
    from deploykit.names import NodeName

    _Parameter = click.ParamType[Any]
else:  # not generic before click 8.2
    _Parameter = click.ParamType

F = TypeVar("F", bound=Callable[..., Any])


class AmountType(_Parameter):
    """A number of nodes, or a percentage of all: `3`, `10%`."""

    name = "N|P%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Amount:
        """Return the amount; fail where the text is none."""
        from deploykit.errors import UsageError
        from deploykit.fleet.options import Amount

        if isinstance(value, Amount):
            return value
        try:
            return Amount.parse(str(value).strip())
        except UsageError as error:
            self.fail(str(error), param, ctx)


class BatchType(_Parameter):
    """Sizes of batches, one after the other, the last of them for all that follow: `1,5,20%`."""

    name = "N|P%|1,5,20%"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[Amount, ...]:
        """Return the sizes; fail where one is none, or is 0."""
        if isinstance(value, tuple):
            return value
        sizes = tuple(AmountType().convert(part, param, ctx) for part in str(value).split(","))
        if any(not size.number for size in sizes):
            self.fail(f"{value!r}: a batch has at least 1 node", param, ctx)
        return sizes


class PauseType(_Parameter):
    """Seconds, or `ask`."""

    name = "S|ask"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float | str:
        """Return the seconds, or `ask`; fail for anything else."""
        if value == "ask":
            return "ask"
        try:
            return Seconds().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r} is neither a number of seconds nor `ask`", param, ctx)


#: In the order of the help page.
_OPTIONS: Final = (
    click.option("--first", type=AmountType(), help="Canaries: these come first. [default: 1; 0 with one node]"),
    click.option("--first-select", metavar="SELECTOR", help="The canaries are the chosen nodes that match."),
    click.option(
        "--batch",
        default="10%",
        show_default=True,
        type=BatchType(),
        help="Nodes at a time after the canaries; the last size repeats.",
    ),
    click.option(
        "--order", default="name", show_default=True, type=click.Choice(["name", "random"]), help="Of the nodes."
    ),
    click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Makes the same random order again."),
    click.option(
        "--max-failures",
        default="0",
        show_default=True,
        type=AmountType(),
        help="Stop when more nodes than this fail, refuse or are silent. No canary may.",
    ),
    click.option(
        "--pause",
        default="0",
        show_default=True,
        type=PauseType(),
        help="Seconds between batches; `ask` waits for a person.",
    ),
    click.option(
        "--bake",
        default=0.0,
        show_default=True,
        type=Seconds(),
        help="Seconds after an activation before a batch counts as good.",
    ),
    click.option(
        "--timeout", default=300.0, show_default=True, type=Seconds(1), help="Seconds for each node and phase."
    ),
    click.option("--deadline", type=Seconds(1), help="Seconds for all of it, without pauses.  [default: none]"),
    click.option(
        "--prepare",
        default="all",
        show_default=True,
        type=click.Choice(["all", "batch"]),
        help="Prepare all nodes before the first is activated, or each batch by itself.",
    ),
    click.option(
        "--quorum",
        type=AmountType(),
        help="How many must be prepared before the first is activated.  [default: all but --max-failures]",
    ),
    click.option(
        "--on-failure",
        default="stop",
        show_default=True,
        type=click.Choice(["stop", "rollback", "continue"]),
        help="After too many failures; rollback takes back what was activated.",
    ),
    click.option(
        "--discovery-timeout",
        default=10.0,
        show_default=True,
        type=Seconds(0.1),
        help="Where nodes must be asked: seconds to wait for the first answer, or for all that are named.",
    ),
    click.option(
        "--override-lock",
        metavar="REASON",
        help="Although the site is locked; needs the grant lock.override, and stands in reports and audits.",
    ),
    click.option("--dry-run", is_flag=True, help="Print the plan with its batches; send no command."),
)


#: Their names as arguments, but for those that change no plan.
_NAMES: Final = (
    *("first", "first_select", "batch", "order", "seed", "max_failures", "pause", "bake"),
    *("timeout", "deadline", "prepare", "quorum", "on_failure"),
)


def rollout_options(function: F) -> F:
    """Add the options of a rollout; `options_from` takes them out of the command's arguments again."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


def override_from(values: Mapping[str, Any]) -> str:
    """Return why commands are to be obeyed although the site is locked; empty where they are not.

    Raises:
        UsageError: the option was given without a reason.
    """
    from deploykit.errors import UsageError

    reason = values["override_lock"]
    if reason is not None and not reason.strip():
        raise UsageError("--override-lock says why", "--override-lock REASON")
    return str(reason or "").strip()


def any_given(ctx: click.Context, prefix: str = "") -> bool:
    """Return whether the person gave one of the options of a rollout, or one whose name begins with `prefix`."""
    names = _NAMES if not prefix else {name for name in ctx.params if name.startswith(prefix)}
    default = click.core.ParameterSource.DEFAULT
    return any(ctx.get_parameter_source(name) not in (None, default) for name in names)


def options_again(ctx: click.Context, values: Mapping[str, Any], earlier: RolloutOptions) -> RolloutOptions:
    """Return the options of an earlier rollout, changed by those that the person gave.

    Raises:
        UsageError: options that do not go together.
    """
    import attrs

    wanted = options_from(values)
    default = click.core.ParameterSource.DEFAULT
    given = {name for name in _NAMES if ctx.get_parameter_source(name) not in (None, default)}
    changes = {name: getattr(wanted, name) for name in given - {"first_select"}}
    if "first" in given:
        changes["first_nodes"] = None
    if "order" in given:
        changes["seed"] = wanted.seed
    if "prepare" in given and wanted.prepare != "all":
        changes["quorum"] = None
    return attrs.evolve(earlier, **changes)


def options_from(values: Mapping[str, Any], *, first_nodes: frozenset[NodeName] | None = None) -> RolloutOptions:
    """Return what the operator chose.

    Args:
        values: the command's arguments.
        first_nodes: those that `--first-select` chose.

    Raises:
        UsageError: options that do not go together.
    """
    from deploykit.errors import SelectorError, UsageError
    from deploykit.fleet.options import RolloutOptions
    from deploykit.fleet.selector import Selector

    if values["first_select"] is not None:
        try:
            Selector.parse(values["first_select"])
        except SelectorError as error:
            raise UsageError(f"--first-select: {error}") from None
    if values["first"] is not None and values["first_select"] is not None:
        raise UsageError("--first and --first-select both choose the canaries", "give one of them")
    if values["seed"] is not None and values["order"] != "random":
        raise UsageError("--seed makes a random order", "add --order random")
    if values["quorum"] is not None and values["prepare"] != "all":
        raise UsageError("--quorum counts the nodes that --prepare all has prepared", "leave one of them out")
    options = RolloutOptions(
        first=values["first"],
        first_nodes=first_nodes,
        batch=values["batch"],
        order=values["order"],
        seed=values["seed"],
        max_failures=values["max_failures"],
        pause=values["pause"],
        bake=values["bake"],
        timeout=values["timeout"],
        deadline=values["deadline"],
        prepare=values["prepare"],
        quorum=values["quorum"],
        on_failure=values["on_failure"],
    )
    problems = options.problems()
    if problems:
        raise UsageError(f"not a rollout: {'; '.join(problems)}", problems=problems)
    return options
