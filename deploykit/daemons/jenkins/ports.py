"""What the build daemon needs of a build server, as a Protocol, and the values that pass through it.

Rules:

* `start` asks once. It never raises for what the server does: every answer, and every silence, is a `BuildAnswer`.
* `retry` says whether asking again can help. Where `kind` is `unanswered` the build may have been queued: call `find`
  before `start`. After any other kind nothing was queued, or the answer says what was.
* Times are seconds for the whole call. Nothing blocks longer.
* A URL in an answer is for people. Nothing fetches it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol

import attrs

BuildAnswerKind = Literal["queued", "joined", "scanned", "refused", "missing", "busy", "unreachable", "unanswered"]
QueueStateKind = Literal["waiting", "started", "cancelled", "gone", "hidden", "unreachable"]


@attrs.frozen(kw_only=True, slots=True)
class BuildOrder:
    """What to start.

    Args:
        server: name of the build server, as in `[jenkins.servers.NAME]`.
        job: folders and job, `team/shop-tests`; a multibranch branch is one part, `team/shop/feature%2Flogin`.
        parameters: name -> value, all that are sent. `correlation_id` is not added: it stands in a parameter.
        correlation_id: looked for by `find`, in `DEPLOYKIT_CORRELATION_ID`.
        token_file: the job's own token, in one line, mode 0600 or 0640; None where the job has none.
        since: for `find`: when it was last asked for, in seconds since 1970; 0: look at what is shown, however young.
    """

    server: str
    job: str
    parameters: Mapping[str, str] = attrs.field(factory=dict)
    correlation_id: str
    token_file: Path | None = None
    since: float = 0.0


@attrs.frozen(kw_only=True, slots=True)
class BuildAnswer:
    """What the server did with an order, or where it was found.

    Args:
        kind: `queued` a new item is in the queue, or the build runs already; `joined` an equal item was queued before
            and serves both; `scanned` a multibranch project looks for branches; `refused` not without a change of the
            settings or of the server; `missing` no such job, or it is hidden from us; `busy` the server takes nothing
            now; `unreachable` nothing was sent, or a file that the server's settings name cannot be used; `unanswered`
            it was sent and no usable answer came.
        queue_item: number for `follow`, where the server named one.
        number: of the build, where it is known already; else None.
        url: of the build, the queue item or the job, for people.
        detail: what happened, in one line, with the job's name and without a secret.
        remedy: what to change, and where; empty where nothing is wrong.
        retry: whether the same order can succeed later without anybody changing anything.
        retry_after: seconds that the server asked to wait; None where it did not.
    """

    kind: BuildAnswerKind
    queue_item: int | None = None
    number: int | None = None
    url: str = ""
    detail: str
    remedy: str = ""
    retry: bool = False
    retry_after: float | None = None

    @property
    def accepted(self) -> bool:
        """Whether the server took the order."""
        return self.kind in ("queued", "joined", "scanned")


@attrs.frozen(kw_only=True, slots=True)
class QueueState:
    """Where a queued item is.

    Args:
        kind: `waiting`; `started` has number and url; `cancelled`; `gone` the server has forgotten the item, or it is
            another order's; `hidden` we may not look, or the server has no queue; `unreachable` ask again later.
        number: of the build that was started.
        url: of the build, for people.
        why: what it waits for, in the server's words; or why the state cannot be seen.
    """

    kind: QueueStateKind
    number: int | None = None
    url: str = ""
    why: str = ""


class BuildServer(Protocol):
    """One build server. Its methods may be called from several threads."""

    def start(self, order: BuildOrder, *, deadline: float) -> BuildAnswer:
        """Ask for a build, once, and return what the server answered within `deadline` seconds."""

    def find(self, order: BuildOrder, *, deadline: float) -> BuildAnswer | None:
        """Look for an order in the server's queue and among the job's last builds; return None where it is not there.

        A request that is still on its way is not seen. Wait some seconds after a lost answer before the last look.

        Raises:
            MayNotLook: looking shows nothing: no permission, the job has no such parameter, or the server shows no
                build as old as the order. Do not look again.
            BuildServerError: the server does not answer now. Look again later.
        """

    def follow(self, queue_item: int, *, order: BuildOrder, deadline: float) -> QueueState:
        """Return where a queue item is. An item that is not `order`'s (the server named a wrong one) counts as gone."""


__all__ = ["BuildAnswer", "BuildAnswerKind", "BuildOrder", "BuildServer", "QueueState", "QueueStateKind"]
