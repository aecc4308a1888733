"""What an operator chooses about a rollout: how many nodes at a time, what it may cost, when it waits. Pure.

Rules:

* A percentage is of the whole list of nodes: rounded up, and at least 1. Only `0%` is none.
* `problems()` finds everything that is wrong at once, in the words of the command line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final, Literal

import attrs

from deploykit.errors import UsageError
from deploykit.names import NodeName
from deploykit.settings.problems import LONGEST

#: Most nodes that one command names: the longest list of the wire.
MAX_BATCH: Final = 1000
#: Largest number of an `Amount`.
MAX_AMOUNT: Final = 1_000_000

Order = Literal["name", "random"]
Preparation = Literal["all", "batch"]
OnFailure = Literal["stop", "rollback", "continue"]

_AMOUNT = re.compile(r"(?P<number>0|[1-9][0-9]{0,6})(?P<percent>%?)\Z", re.ASCII).match


@attrs.frozen(kw_only=True, slots=True)
class Amount:
    """A number of nodes: fixed, or a percentage of the whole list.

    Args:
        number: of nodes, or of hundredths.
        percent: it is a percentage.
    """

    number: int
    percent: bool = False

    @classmethod
    def parse(cls, text: object) -> Amount:
        """Return the amount that a text stands for.

        >>> Amount.parse("10%").of(25), Amount.parse("3").of(25), Amount.parse("1%").of(5)
        (3, 3, 1)

        Raises:
            UsageError: it is neither a number nor a percentage.
        """
        found = _AMOUNT(text) if isinstance(text, str) else None
        if found is None:
            raise UsageError(f"not a number of nodes: {ascii(text)[:80]}", "expected a number or a percentage: 3, 10%")
        amount = cls(number=int(found["number"]), percent=bool(found["percent"]))
        if amount.number > (100 if amount.percent else MAX_AMOUNT):
            raise UsageError(f"not a number of nodes: {text}", f"expected at most {MAX_AMOUNT}, or 100%")
        return amount

    def of(self, total: int) -> int:
        """Return how many nodes it is of `total`. A percentage is rounded up; a fixed number stays what it is."""
        return -(-total * self.number // 100) if self.percent else self.number

    def __str__(self) -> str:
        return f"{self.number}{'%' if self.percent else ''}"


NONE: Final = Amount(number=0)
TEN_PERCENT: Final = Amount(number=10, percent=True)


@attrs.frozen(kw_only=True, slots=True)
class RolloutOptions:
    """How a rollout proceeds. The defaults are those of the command line.

    Args:
        first: how many canaries; None means 1, or 0 with one node.
        first_nodes: the canaries by name, instead of `first`.
        batch: how many nodes a batch has; the last element repeats. At most 1,000 nodes are taken at a time.
        order: in which order nodes follow: by name (`web2` before `web10`) or at random.
        seed: makes a random order the same again; chosen, and kept in the plan, where it is None.
        max_failures: the rollout stops when more nodes than that have failed, were silent or refused. Canaries may
            never fail.
        pause: seconds between two batches; `ask` waits for `resume` or `promote`.
        bake: seconds between an activation and the batch counting as good.
        timeout: seconds that each node has for each phase.
        deadline: seconds for the whole rollout, pauses not counted; None for no limit.
        prepare: prepare every node before the first is activated, or each batch before its own activation.
        quorum: with `prepare="all"`: how many must be prepared before the first activation. The others are skipped,
            and do not count in `max_failures`. None: `max_failures` decides, and with its default all must be prepared.
        on_failure: what follows when too many failed: stop, take back what was activated, or go on all the same.
    """

    first: Amount | None = None
    first_nodes: frozenset[NodeName] | None = None
    batch: tuple[Amount, ...] = (TEN_PERCENT,)
    order: Order = "name"
    seed: int | None = None
    max_failures: Amount = NONE
    pause: float | Literal["ask"] = 0.0
    bake: float = 0.0
    timeout: float = 300.0
    deadline: float | None = None
    prepare: Preparation = "all"
    quorum: Amount | None = None
    on_failure: OnFailure = "stop"

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when nothing is."""
        return (*self._number_problems(), *self._word_problems(), *self._time_problems())

    def _number_problems(self) -> Iterator[str]:
        if self.first is not None and self.first_nodes is not None:
            yield "first: canaries are given by number and by name: give one of both"
        if self.first_nodes is not None and not self.first_nodes:
            yield "first: no node is named; for a rollout without a canary give 0"
        if not self.batch or len(self.batch) > MAX_BATCH:
            yield f"batch: expected 1 to {MAX_BATCH} sizes"
        if any(not amount.number for amount in self.batch):
            yield "batch: expected at least 1 node"
        if self.quorum is not None and not self.quorum.number:
            yield "quorum: expected at least 1 node"
        if self.quorum is not None and self.prepare != "all":
            yield "quorum: only with prepare=all; with prepare=batch max-failures decides"
        if self.seed is not None and (self.order != "random" or not 0 <= self.seed < 2**63):
            yield "seed: expected 0 to 2**63 - 1, and order=random"

    def _word_problems(self) -> Iterator[str]:
        if self.order not in ("name", "random"):
            yield "order: expected name or random"
        if self.prepare not in ("all", "batch"):
            yield "prepare: expected all or batch"
        if self.on_failure not in ("stop", "rollback", "continue"):
            yield "on-failure: expected stop, rollback or continue"

    def _time_problems(self) -> Iterator[str]:
        if self.pause != "ask" and not 0 <= self.pause < LONGEST:
            yield f"pause: expected seconds from 0 to below {LONGEST:g}, or ask"
        if not 0 <= self.bake < LONGEST:
            yield f"bake: expected seconds from 0 to below {LONGEST:g}"
        if not 0 < self.timeout < LONGEST:
            yield f"timeout: expected seconds above 0 and below {LONGEST:g}"
        if self.deadline is not None and not 0 < self.deadline < LONGEST:
            yield f"deadline: expected seconds above 0 and below {LONGEST:g}"
