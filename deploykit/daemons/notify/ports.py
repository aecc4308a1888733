"""What a channel is to the thread that sends, and what becomes of a letter."""

from __future__ import annotations

from typing import Literal, Protocol

import attrs

from deploykit.daemons.notify.letters import NotifyLetter


@attrs.frozen(kw_only=True, slots=True)
class SendOutcome:
    """What became of a letter.

    Args:
        kind: `sent`; `later`: it may not have arrived, send it again; `refused`: this letter will never be taken.
        why: in words for a person, without a secret; empty where it was sent.
        wait: seconds that the other side asks to wait.
    """

    kind: Literal["sent", "later", "refused"]
    why: str = ""
    wait: float = 0.0


SENT = SendOutcome(kind="sent")


class NotifyChannel(Protocol):
    """A way to people or programs. Used by one thread; `wake` may be called from any."""

    def send(self, letter: NotifyLetter) -> SendOutcome:
        """Send a letter, and return what became of it. It ends in bounded time, sooner once the service ends.

        Raises:
            SettingsError: a file that the settings name cannot be used.
        """
        ...

    def fileno(self) -> int:
        """Return the descriptor that is readable when `tend` has something to do; -1 for none."""
        ...

    def tend(self) -> None:
        """Answer what the other side has sent meanwhile, without waiting."""
        ...

    def close(self) -> None:
        """End the connection, if there is one."""
        ...


__all__ = ["SENT", "NotifyChannel", "SendOutcome"]
