"""Plans and events of rollouts as JSON values, for the journal. Pure.

Rules:

* Both name the version of the format. A newer one is refused: guessing could ask a node for the wrong thing.
* Whatever is read is checked like input from outside: types, names, and that the plan holds together.
* An error names the part that is wrong, and shows nothing longer than 80 characters of it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Final, TypeVar, cast, get_args

from deploykit.errors import DeploykitError, JournalDamaged
from deploykit.fleet.options import Amount, OnFailure, Order, Preparation, RolloutOptions
from deploykit.fleet.plan import Plan, Target
from deploykit.fleet.rolloutevents import (
    AbortAsked,
    CoordinatorCameBack,
    NodeAnswered,
    PauseAsked,
    PromoteAsked,
    ResumeAsked,
    RolloutEvent,
    TimePassed,
)
from deploykit.messages.deploy import DeployOutcome, DeployPhase
from deploykit.messages.rollout import RolloutKind
from deploykit.messages.site import SitePart, parts_entry
from deploykit.names import (
    NodeName,
    parse_node_name,
    parse_object_id,
    parse_ref_name,
    parse_repo_name,
    parse_site_name,
)

#: Version of what `encode_plan` and `encode_event` return.
FORMAT: Final = 1
#: Longest text that is read, in characters: no message carries a longer one.
MAX_TEXT: Final = 1024 * 1024
#: Half of a surrogate pair: JSON can name one, and no message can carry it.
_HALF: Final = re.compile("[\ud800-\udfff]").search

_T = TypeVar("_T")
_KINDS: Final[tuple[RolloutKind, ...]] = get_args(RolloutKind)
_PHASES: Final[tuple[DeployPhase, ...]] = get_args(DeployPhase)
_OUTCOMES: Final[tuple[DeployOutcome, ...]] = get_args(DeployOutcome)
_ORDERS: Final[tuple[Order, ...]] = get_args(Order)
_PREPARES: Final[tuple[Preparation, ...]] = get_args(Preparation)
_ON_FAILURES: Final[tuple[OnFailure, ...]] = get_args(OnFailure)

# -- writing -----------------------------------------------------------------------------------------------------------


def encode_plan(plan: Plan) -> dict[str, object]:
    """Return a plan as a JSON value. Each target stands once, with the nodes that get it."""
    indexes: dict[Target, int] = {}
    for node in plan.nodes:
        indexes.setdefault(plan.targets[node], len(indexes))
    return {
        "format": FORMAT,
        "rollout": plan.rollout,
        "kind": plan.kind,
        "site": plan.site,
        "requested_by": plan.requested_by,
        "correlation_id": plan.correlation_id,
        "options": _encode_options(plan.options),
        "targets": [_encode_target(target) for target in indexes],
        "canary": [[node, indexes[plan.targets[node]]] for node in plan.canary],
        "batches": [[[node, indexes[plan.targets[node]]] for node in batch] for batch in plan.batches],
    }


def _encode_options(options: RolloutOptions) -> dict[str, object]:
    return {
        "first": _text(options.first),
        "first_nodes": sorted(options.first_nodes) if options.first_nodes is not None else None,
        "batch": [str(amount) for amount in options.batch],
        "order": options.order,
        "seed": options.seed,
        "max_failures": str(options.max_failures),
        "pause": options.pause,
        "bake": options.bake,
        "timeout": options.timeout,
        "deadline": options.deadline,
        "prepare": options.prepare,
        "quorum": _text(options.quorum),
        "on_failure": options.on_failure,
    }


def _text(amount: Amount | None) -> str | None:
    return str(amount) if amount is not None else None


def _encode_target(target: Target | None) -> dict[str, object] | None:
    if target is None:
        return None
    if target.parts:
        return {"parts": parts_entry(target.parts), "commit": target.commit}
    return {"ref": target.ref, "commit": target.commit}


def encode_event(event: RolloutEvent) -> dict[str, object]:
    """Return an event as a JSON value."""
    head: dict[str, object] = {"format": FORMAT, "event": _NAMES[type(event)]}
    match event:
        case NodeAnswered():
            return head | {
                "node": event.node,
                "phase": event.phase,
                "outcome": event.outcome,
                "previous": _encode_target(event.previous),
                "live": _encode_target(event.live),
                "detail": event.detail,
            }
        case PauseAsked() | ResumeAsked() | PromoteAsked():
            return head | {"by": event.by}
        case AbortAsked():
            return head | {"by": event.by, "rollback": event.rollback}
        case CoordinatorCameBack():
            return head | {"away": event.away}
        case TimePassed():
            return head


_NAMES: Final[Mapping[type, str]] = {
    NodeAnswered: "node-answered",
    TimePassed: "time-passed",
    PauseAsked: "pause-asked",
    ResumeAsked: "resume-asked",
    PromoteAsked: "promote-asked",
    AbortAsked: "abort-asked",
    CoordinatorCameBack: "coordinator-came-back",
}

# -- reading -----------------------------------------------------------------------------------------------------------


def decode_plan(value: object) -> Plan:
    """Return the plan that `encode_plan` made a JSON value of.

    Raises:
        JournalDamaged: it is no such value, is of a newer version, or does not hold together.
    """
    fields = _Fields(value, "the plan")
    fields.check_format()
    targets = fields.list("targets", _decode_target)
    canary = fields.list("canary", _decode_member)
    batches = fields.list("batches", lambda batch, what: _list(batch, what, _decode_member))
    members = [*canary, *(member for batch in batches for member in batch)]
    for node, index in members:
        if index >= len(targets):
            raise JournalDamaged(f"the plan: node {node} has a target that is not there", _REMEDY)
    plan = Plan(
        rollout=fields.text("rollout", empty=False),
        kind=fields.one_of("kind", _KINDS),
        site=fields.parsed("site", parse_site_name),
        nodes=tuple(node for node, _ in members),
        targets={node: targets[index] for node, index in members},
        canary=tuple(node for node, _ in canary),
        batches=tuple(tuple(node for node, _ in batch) for batch in batches),
        options=_decode_options(fields.get("options")),
        requested_by=fields.text("requested_by"),
        correlation_id=fields.text("correlation_id"),
    )
    problems = plan.problems()
    if problems:
        raise JournalDamaged(f"the plan: {'; '.join(problems)}", _REMEDY)
    return plan


def decode_event(value: object) -> RolloutEvent:
    """Return the event that `encode_event` made a JSON value of.

    Raises:
        JournalDamaged: it is no such value, or of a newer version.
    """
    fields = _Fields(value, "an event")
    fields.check_format()
    kind = fields.get("event")
    decode = _EVENTS.get(kind) if isinstance(kind, str) else None
    if decode is None:
        raise JournalDamaged(f"an event: unknown event {_shown(kind)}", _REMEDY)
    return decode(fields)


def _decode_options(value: object) -> RolloutOptions:
    fields = _Fields(value, "the plan's options")
    pause = fields.get("pause")
    return RolloutOptions(
        first=fields.maybe("first", _decode_amount),
        first_nodes=fields.maybe("first_nodes", _decode_names),
        batch=fields.list("batch", _decode_amount),
        order=fields.one_of("order", _ORDERS),
        seed=fields.maybe("seed", _decode_whole),
        max_failures=_decode_amount(fields.get("max_failures"), "the plan's options: max_failures"),
        pause="ask" if pause == "ask" else fields.number("pause"),
        bake=fields.number("bake"),
        timeout=fields.number("timeout"),
        deadline=fields.maybe("deadline", _decode_number),
        prepare=fields.one_of("prepare", _PREPARES),
        quorum=fields.maybe("quorum", _decode_amount),
        on_failure=fields.one_of("on_failure", _ON_FAILURES),
    )


_REMEDY: Final = "the journal is damaged, or written by another version of deploykit"


class _Fields:
    """The fields of one JSON object, each checked when it is taken."""

    def __init__(self, value: object, what: str) -> None:
        if not isinstance(value, dict):
            raise _wrong(what, "an object", value)
        self._value: Mapping[str, object] = value
        self._what = what

    def check_format(self) -> None:
        found = self.get("format")
        if found is True or not isinstance(found, int):
            raise _wrong(f"{self._what}: format", "a number", found)
        if found != FORMAT:
            raise JournalDamaged(
                f"{self._what}: written in format {_shown(found)}; this version reads {FORMAT}",
                "use the version of deploykit that began the rollout",
            )

    def has(self, name: str) -> bool:
        return name in self._value

    def get(self, name: str) -> object:
        if name not in self._value:
            raise JournalDamaged(f"{self._what}: {name} is missing", _REMEDY)
        return self._value[name]

    def text(self, name: str, *, empty: bool = True) -> str:
        value = self.get(name)
        if not isinstance(value, str) or len(value) > MAX_TEXT or not (value or empty) or _HALF(value):
            raise _wrong(f"{self._what}: {name}", "a text", value)
        return value

    def truth(self, name: str) -> bool:
        value = self.get(name)
        if not isinstance(value, bool):
            raise _wrong(f"{self._what}: {name}", "true or false", value)
        return value

    def number(self, name: str) -> float:
        return _decode_number(self.get(name), f"{self._what}: {name}")

    def one_of(self, name: str, known: Sequence[_T]) -> _T:
        value = self.get(name)
        for one in known:
            if value == one:
                return one
        raise _wrong(f"{self._what}: {name}", f"one of {', '.join(map(str, known))}", value)

    def parsed(self, name: str, parse: Callable[[object], _T]) -> _T:
        return _parsed(self.get(name), f"{self._what}: {name}", parse)

    def maybe(self, name: str, decode: Callable[[object, str], _T]) -> _T | None:
        value = self.get(name)
        return None if value is None else decode(value, f"{self._what}: {name}")

    def list(self, name: str, decode: Callable[[object, str], _T]) -> tuple[_T, ...]:
        return _list(self.get(name), f"{self._what}: {name}", decode)


def _decode_answer(fields: _Fields) -> NodeAnswered:
    return NodeAnswered(
        node=fields.parsed("node", parse_node_name),
        phase=fields.one_of("phase", _PHASES),
        outcome=fields.one_of("outcome", _OUTCOMES),
        previous=fields.maybe("previous", _decode_target),
        live=fields.maybe("live", _decode_target),
        detail=fields.text("detail"),
    )


_EVENTS: Final[Mapping[str, Callable[[_Fields], RolloutEvent]]] = {
    "node-answered": _decode_answer,
    "time-passed": lambda _: TimePassed(),
    "pause-asked": lambda fields: PauseAsked(by=fields.text("by")),
    "resume-asked": lambda fields: ResumeAsked(by=fields.text("by")),
    "promote-asked": lambda fields: PromoteAsked(by=fields.text("by")),
    "abort-asked": lambda fields: AbortAsked(by=fields.text("by"), rollback=fields.truth("rollback")),
    "coordinator-came-back": lambda fields: CoordinatorCameBack(away=fields.number("away")),
}


def _list(value: object, what: str, decode: Callable[[object, str], _T]) -> tuple[_T, ...]:
    if not isinstance(value, list):
        raise _wrong(what, "a list", value)
    return tuple(decode(item, what) for item in cast("Sequence[object]", value))


def _parsed(value: object, what: str, parse: Callable[[object], _T]) -> _T:
    try:
        return parse(value)
    except DeploykitError as error:
        raise JournalDamaged(f"{what}: {error.problem}", _REMEDY) from None


def _decode_number(value: object, what: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -1e12 < value < 1e12:  # NaN is neither
        raise _wrong(what, "a number", value)
    return float(value)


def _decode_whole(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _wrong(what, "a whole number", value)
    return value


def _decode_amount(value: object, what: str) -> Amount:
    return _parsed(value, what, Amount.parse)


def _decode_names(value: object, what: str) -> frozenset[NodeName]:
    return frozenset(_list(value, what, lambda name, where: _parsed(name, where, parse_node_name)))


def _decode_member(value: object, what: str) -> tuple[NodeName, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise _wrong(what, "a node and the number of its target", value)
    index = _decode_whole(value[1], what)
    if index < 0:
        raise _wrong(what, "a node and the number of its target", value)
    return _parsed(value[0], what, parse_node_name), index


def _decode_target(value: object, what: str) -> Target:
    fields = _Fields(value, what)
    commit = fields.parsed("commit", parse_object_id)
    if not fields.has("parts"):
        return Target(ref=fields.parsed("ref", parse_ref_name), commit=commit)
    parts = fields.list("parts", _decode_part)
    return _parsed(parts, what, lambda _: Target(commit=commit, parts=parts))


def _decode_part(value: object, what: str) -> SitePart:
    fields = _Fields(value, f"{what}: a part")
    return SitePart(
        repo=fields.parsed("repo", parse_repo_name),
        ref=fields.parsed("ref", parse_ref_name),
        commit=fields.parsed("commit", parse_object_id),
    )


def _wrong(what: str, expected: str, value: object) -> JournalDamaged:
    return JournalDamaged(f"{what}: expected {expected}, not {_shown(value)}", _REMEDY)


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else f"a list of {len(value)}"
    if isinstance(value, int) and not -(10**20) < value < 10**20:
        return "a very large number"
    shown = ascii(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
