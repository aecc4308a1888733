"""Answers of the API as values: fields that we do not know are ignored, for a console may be newer. Pure."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TypeVar, cast

import attrs
from cattrs import Converter
from cattrs.errors import BaseValidationError, StructureHandlerNotFoundError

from deploykit.errors import ActionRefused

T = TypeVar("T")


@attrs.frozen(kw_only=True, slots=True)
class FollowedStep:
    """A step of a node's command, as the console heard it."""

    name: str
    state: str
    phase: str = ""
    seconds: float = 0.0
    exit_code: int | None = None


@attrs.frozen(kw_only=True, slots=True)
class FollowedNode:
    """A node of a rollout, as the console heard it; see the API's `RolloutNode`."""

    node: str
    state: str = ""
    phase: str = ""
    detail: str = ""
    request: str = ""
    steps: tuple[FollowedStep, ...] = ()
    log_lines: int = 0


@attrs.frozen(kw_only=True, slots=True)
class FollowedRollout:
    """A rollout, as its coordinator announced it; see the API's `RolloutOverview`."""

    rollout: str
    site: str
    kind: str = "deploy"
    ref: str = ""
    commit: str = ""
    state: str = ""
    counts: Mapping[str, int] = attrs.field(factory=dict, eq=dict, hash=False)
    failed: tuple[str, ...] = ()
    requested_by: str = ""
    host: str = ""
    detail: str = ""
    began: datetime | None = None
    ended: datetime | None = None


@attrs.frozen(kw_only=True, slots=True)
class NodesPage:
    """A page of the nodes of a rollout."""

    items: tuple[FollowedNode, ...]
    next: str | None = None


@attrs.frozen(kw_only=True, slots=True)
class FollowedDetail:
    """A rollout with a page of its nodes."""

    summary: FollowedRollout
    nodes: NodesPage


def read_answer(cls: type[T], value: object) -> T:
    """Return an answer as a value of a class.

    Raises:
        ActionRefused: it is another thing.
    """
    try:
        return _converter().structure(value, cls)
    except (BaseValidationError, StructureHandlerNotFoundError, TypeError, ValueError, KeyError, AttributeError):
        raise ActionRefused(
            f"the console answers no {cls.__name__}", "is its deploykit much newer or older than this one?"
        ) from None


def items_of(value: object) -> Sequence[object]:
    """Return the items of a page of a list.

    Raises:
        ActionRefused: it is none.
    """
    found = value.get("items") if isinstance(value, dict) else None
    if not isinstance(found, list):
        raise ActionRefused("the console answers no list", "is its deploykit much newer or older than this one?")
    return cast("list[object]", found)


@functools.cache
def _converter() -> Converter:
    converter = Converter(detailed_validation=False)
    converter.register_structure_hook(str, _text)
    converter.register_structure_hook(bool, _boolean)
    converter.register_structure_hook(datetime, _moment)
    return converter


def _text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _boolean(value: object, _: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("no boolean")
    return value


def _moment(value: object, _: object) -> datetime:
    moment = datetime.fromisoformat(_text(value, None))
    if moment.tzinfo is None:
        raise ValueError("no zone")
    return moment


__all__ = ["FollowedDetail", "FollowedNode", "FollowedRollout", "FollowedStep", "NodesPage", "items_of", "read_answer"]
