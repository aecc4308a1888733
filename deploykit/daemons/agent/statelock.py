"""One agent for each state directory: a lock that ends with its process, however that ends.

It lies in a file of its own, which readers of the state do not touch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Self

from deploykit.system.lock import FileLock

_NAME: Final = "agent.lock"


class StateLock(FileLock):
    """Holds a state directory, which is made when it is missing.

    Raises:
        LockBusy: another agent holds it, of this process or of another one.
        OSError: the directory or the lock cannot be made.
    """

    def __init__(self, state: Path) -> None:
        super().__init__(
            state / _NAME,
            busy=f"another agent works on state directory {state}",
            remedy="stop that one, or give this one a node name, a state and an outbox of its own",
            mode=0o644,
        )

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        return super().__enter__()
