"""From what somebody typed into the options of a rollout to options. Pure; every problem names its field."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar, cast

from deploykit.errors import ActionRefused, DeploykitError
from deploykit.fleet.options import Amount, OnFailure, Order, RolloutOptions
from deploykit.messages.rollout import RolloutKind
from deploykit.names import NodeName, parse_node_name
from deploykit.settings.problems import LONGEST
from deploykit.web.actions.asked import OptionsAsked

T = TypeVar("T")
_DEFAULTS: Final = RolloutOptions()
#: Most sizes of batches that a form gives.
_MOST: Final = 1000


def parse_options(asked: OptionsAsked, kind: RolloutKind) -> RolloutOptions:
    """Return the options of a rollout.

    Args:
        asked: as typed.
        kind: a rollback has neither a quorum nor a way back.

    Raises:
        ActionRefused: 422, with a problem for each field that is wrong.
    """
    problems: dict[str, str] = {}

    def read(field: str, parse: Callable[[str], T], otherwise: T) -> T:
        text = str(getattr(asked, field)).strip()
        if not text:
            return otherwise
        try:
            return parse(text)
        except DeploykitError as error:
            problems[field] = str(error)
        except ValueError as error:
            problems[field] = str(error)
        return otherwise

    first: Amount | None = read("first", Amount.parse, None)
    batch = _batches(asked.batch, problems)
    options = {
        "max_failures": read("max_failures", Amount.parse, _DEFAULTS.max_failures),
        "quorum": read("quorum", Amount.parse, None),
        "pause": read("pause", _pause, _DEFAULTS.pause),
        "timeout": read("timeout", _seconds, _DEFAULTS.timeout),
        "on_failure": read("on_failure", _one_of("stop", "rollback", "continue"), "stop"),
        "order": read("order", _one_of("name", "random"), "name"),
    }
    first_nodes = _canaries(asked.first_nodes, problems)
    if first is not None and first_nodes is not None:
        problems["first"] = "canaries are given by number and by name: give one of both"
    if kind == "rollback":
        if options["quorum"] is not None:
            problems["quorum"] = "it counts nodes that are prepared, and a rollback prepares nothing: leave it out"
        if options["on_failure"] == "rollback":
            problems["on_failure"] = "a rollback is not taken back: choose stop or continue"
    if problems:
        raise _refused(problems)
    made = RolloutOptions(
        first=first,
        first_nodes=first_nodes,
        batch=batch,
        max_failures=cast("Amount", options["max_failures"]),
        quorum=cast("Amount | None", options["quorum"]),
        pause=cast("float", options["pause"]),
        timeout=cast("float", options["timeout"]),
        on_failure=cast("OnFailure", options["on_failure"]),
        order=cast("Order", options["order"]),
    )
    for line in made.problems():
        name, _, why = line.partition(": ")
        problems.setdefault(name.replace("-", "_"), why or line)
    if problems:
        raise _refused(problems)
    return made


def _refused(problems: dict[str, str]) -> ActionRefused:
    return ActionRefused(
        "; ".join(f"{name}: {text}" for name, text in problems.items()), "nothing was done", status=422, **problems
    )


def _batches(texts: tuple[str, ...], problems: dict[str, str]) -> tuple[Amount, ...]:
    sizes = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    if not sizes:
        return _DEFAULTS.batch
    if len(sizes) > _MOST:
        problems["batch"] = f"expected at most {_MOST} sizes"
        return _DEFAULTS.batch
    try:
        amounts = tuple(map(Amount.parse, sizes))
    except DeploykitError as error:
        problems["batch"] = str(error)
        return _DEFAULTS.batch
    if not all(amount.number for amount in amounts):
        problems["batch"] = "a batch has at least 1 node"
    return amounts


def _canaries(names: tuple[str, ...], problems: dict[str, str]) -> frozenset[NodeName] | None:
    texts = [name.strip() for name in names if name.strip()]
    if not texts:
        return None
    try:
        return frozenset(map(parse_node_name, texts))
    except DeploykitError as error:
        problems["first_nodes"] = str(error)
        return None


def _seconds(text: str) -> float:
    try:
        value = float(text.removesuffix("s").strip())
    except ValueError:
        raise ValueError(f"{text[:40]!a} is no number of seconds") from None
    if not 1 <= value < LONGEST:
        raise ValueError(f"expected seconds from 1 to below {LONGEST:g}")
    return value


def _pause(text: str) -> float:
    if text == "ask":
        return cast("float", "ask")
    try:
        value = float(text.removesuffix("s").strip())
    except ValueError:
        raise ValueError(f"{text[:40]!a} is neither a number of seconds nor `ask`") from None
    if not 0 <= value < LONGEST:
        raise ValueError(f"expected seconds from 0 to below {LONGEST:g}, or ask")
    return value


def _one_of(*words: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"expected {', '.join(words[:-1])} or {words[-1]}, not {text[:40]!a}")
        return text

    return parse


__all__ = ["parse_options"]
