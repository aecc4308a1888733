"""What a deploy does while it runs: for people who watch. Nothing is decided by it."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import Count, Identifier, Message, Seconds, one_line
from deploykit.messages.deploy import DeployPhase
from deploykit.names import NodeName, SiteName

ProgressState = Literal["began", "done", "failed", "skipped", "output"]


@attrs.frozen(kw_only=True, slots=True)
class DeployProgressed(Message):
    """A step of a deploy began or ended, or printed something. Signed by the node; any of them may be lost.

    Args:
        request: the id of the `DeployRequested` that is carried out.
        rollout: of that request.
        number: counts up from 0 within the request; a gap shows that something was left out.
        step: its name, as in the report (`export`, `post-deploy`, …), or `fetch` while the node's mirror is updated.
        seconds, exit_code: of a step that ended.
        output: for `output`: what the step's program printed since the last event, capped.
    """

    TYPE: ClassVar[str] = "deploykit.deploy.progressed.v1"

    node: NodeName
    site: SiteName
    request: Identifier
    rollout: Identifier | None = None
    phase: DeployPhase
    number: Count = 0
    step: str
    state: ProgressState
    seconds: Seconds = 0.0
    exit_code: int | None = None
    output: str = ""

    @property
    def summary(self) -> str:
        what = f": {self.output}" if self.state == "output" else f" {self.state}"
        return one_line(f"{self.node} {self.phase} {self.site} {self.step}{what}")
