"""Single keys from the terminal, read without waiting, while something is drawn there."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from typing import Any, Self


class TerminalKeys:
    """Reads keys that are pressed: no Enter is needed, and nothing is echoed into what is drawn.

    Where standard input is no terminal, or belongs to another program, no key is ever read and nothing is changed.
    Ctrl-C stays a signal.

    Args:
        fd: of the terminal; standard input's where None.
    """

    def __init__(self, fd: int | None = None) -> None:
        self._fd = fd if fd is not None else _standard_input()
        self._before: list[Any] | None = None

    @property
    def usable(self) -> bool:
        """Whether somebody can press a key."""
        return self._before is not None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Take the terminal's input, if it is ours."""
        fd = self._fd
        # A program in the background that changes the terminal is stopped by the kernel.
        if fd is None or not os.isatty(fd) or os.tcgetpgrp(fd) != os.getpgrp():
            return
        with contextlib.suppress(termios.error):
            before = termios.tcgetattr(fd)
            tty.setcbreak(fd, termios.TCSANOW)
            self._before = before

    def stop(self) -> None:
        """Give the terminal back as it was."""
        if self._fd is not None and self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._fd, termios.TCSANOW, self._before)
        self._before = None

    def forget(self) -> None:
        """Drop what was typed before the question."""
        if self._fd is not None and self._before is not None:
            with contextlib.suppress(termios.error):
                termios.tcflush(self._fd, termios.TCIFLUSH)

    def pressed(self) -> str:
        """Return the next key in lower case; empty where none was pressed."""
        if self._fd is None or self._before is None or not select.select([self._fd], [], [], 0)[0]:
            return ""
        try:
            return os.read(self._fd, 1).decode("ascii", "replace").lower()
        except OSError:
            return ""


def _standard_input() -> int | None:
    try:
        return sys.stdin.fileno()
    except (AttributeError, ValueError, OSError):  # closed, or not a file
        return None
