"""Parameters of a request, each checked: an unknown, repeated or wrong one is a 422 that names it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import attrs

from deploykit.web.api.problems import SHOWN, ParameterProblem, RequestRefused
from deploykit.web.live.events import TOPICS

#: Characters of one value.
MAX_TEXT: Final = 500


@attrs.frozen(kw_only=True, slots=True)
class Parameter:
    """A parameter in the query of a URL.

    Args:
        description: for people who read OpenAPI.
        example: a value; shows how it looks.
        least, most: of a number; `least` is None where it is a text.
        default: counts where it is not given.
        required: it must be given.
        choices: it lists some of these, with commas between.
    """

    name: str
    description: str
    example: str = ""
    least: int | None = None
    most: int = 0
    default: int | None = None
    required: bool = False
    choices: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class GivenParameters:
    """The parameters of one request, checked."""

    values: dict[str, str]

    def text(self, name: str) -> str:
        """Return a text; empty where it was not given."""
        return self.values.get(name, "")

    def number(self, name: str, default: int) -> int:
        """Return a number."""
        return int(self.values[name]) if name in self.values else default

    def listed(self, name: str) -> frozenset[str]:
        """Return the words of a list; empty where it was not given."""
        return frozenset(filter(None, self.text(name).split(",")))


def check_parameters(given: Iterable[tuple[str, str]], known: Iterable[Parameter]) -> GivenParameters:
    """Return the parameters of a request.

    Raises:
        RequestRefused: some are wrong; the text and `parameters` name each.
    """
    by_name = {parameter.name: parameter for parameter in known}
    values: dict[str, str] = {}
    wrong: list[ParameterProblem] = []

    def add(name: str, detail: str) -> None:
        wrong.append(ParameterProblem(parameter=name[:SHOWN], detail=detail))

    for name, value in given:
        parameter = by_name.get(name)
        if parameter is None:
            add(name, f"unknown; there are {', '.join(by_name) or 'none'}")
        elif name in values:
            add(name, "given twice")
        elif problem := value_problem(parameter, value):
            add(name, problem)
        else:
            values[name] = value
        if len(wrong) >= 10:
            break
    for parameter in by_name.values():
        if parameter.required and not values.get(parameter.name) and not wrong:
            add(parameter.name, "needed")
    if wrong:
        text = "; ".join(f"{each.parameter!a}: {each.detail}" for each in wrong)
        raise RequestRefused(422, f"parameters are wrong: {text}", parameters=tuple(wrong))
    return GivenParameters(values=values)


def value_problem(parameter: Parameter, value: str) -> str:
    """Return what is wrong with a value; empty when all is well."""
    checks: tuple[Callable[[], str], ...] = (
        lambda: "" if value_is_text(value) else f"too long, or holds a control character (at most {MAX_TEXT})",
        lambda: _number_problem(parameter, value) if parameter.least is not None else "",
        lambda: _choice_problem(parameter, value) if parameter.choices else "",
    )
    return next((problem for check in checks if (problem := check())), "")


def value_is_text(value: str) -> bool:
    """Return whether a value from a URL can name anything: printable, not too long."""
    return len(value) <= MAX_TEXT and (value.isprintable() or not value)


def _number_problem(parameter: Parameter, value: str) -> str:
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 18):
        return "not a whole number"
    least = parameter.least or 0
    if not least <= int(value) <= parameter.most:
        return f"expected {least} to {parameter.most}"
    return ""


def _choice_problem(parameter: Parameter, value: str) -> str:
    unknown = sorted(set(filter(None, value.split(","))) - set(parameter.choices))
    return f"unknown {unknown[0][:SHOWN]!a}; there are {', '.join(parameter.choices)}" if unknown else ""


EVENT_PARAMETERS = (
    Parameter(
        name="topics", description="Only these kinds, with commas between.", example="deploy,log", choices=TOPICS
    ),
    Parameter(name="site", description="Only events of this site, and those of the console's health."),
    Parameter(
        name="after",
        description="Number of the last event that the reader has; `Last-Event-ID` counts before it.",
        least=0,
        most=10**15,
    ),
)

__all__ = ["EVENT_PARAMETERS", "MAX_TEXT", "GivenParameters", "Parameter", "check_parameters", "value_is_text"]
