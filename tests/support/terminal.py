"""A program on a terminal of its own: what a person would see, the keys they press."""

from __future__ import annotations

import codecs
import fcntl
import os
import pty
import re
import select
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TOKENS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b.|[\r\n\b]|[^\x1b\r\n\b]+", re.DOTALL)


class Screen:
    """Follows the few sequences that a drawing program sends: cursor up, erase line, show and hide the cursor."""

    def __init__(self) -> None:
        self.rows: list[list[str]] = [[]]
        self.cursor_shown = True
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        """Take what the program has written."""
        for token in _TOKENS.findall(text):
            match token:
                case "\r":
                    self._column = 0
                case "\n":
                    self._row += 1
                    while len(self.rows) <= self._row:
                        self.rows.append([])
                case "\x1b[?25l" | "\x1b[?25h":
                    self.cursor_shown = token.endswith("h")
                case _ if token.startswith("\x1b["):
                    self._control(token[2:-1], token[-1])
                case _ if not token.startswith("\x1b"):
                    self._write(token)

    @property
    def text(self) -> str:
        """All of it, the scrollback first."""
        return "\n".join("".join(row).rstrip() for row in self.rows)

    def _control(self, number: str, kind: str) -> None:
        if kind == "A":
            self._row = max(0, self._row - int(number or 1))
        elif kind == "K":
            self.rows[self._row] = [] if number == "2" else self.rows[self._row][: self._column]

    def _write(self, text: str) -> None:
        row = self.rows[self._row]
        row += " " * (self._column - len(row))
        for character in text:
            row[self._column : self._column + 1] = [character]
            self._column += 1


class TerminalProgram:
    """A program that runs on a pseudo terminal.

    Args:
        argv: the program.
        columns, rows: of the window.
        env: its environment; `TERM` is set here.
    """

    def __init__(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, columns: int = 80, rows: int = 24
    ) -> None:
        self.screen = Screen()
        self.raw = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._code: int | None = None
        self.pid, self.fd = pty.fork()
        if self.pid == 0:  # the child
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
                os.chdir(cwd)
                os.execve(argv[0], list(argv), {"TERM": "xterm-256color", "LANG": "C.UTF-8", **env})
            finally:
                os._exit(127)

    def __enter__(self) -> TerminalProgram:
        return self

    def __exit__(self, *_: object) -> None:
        if self._code is None:
            os.kill(self.pid, 9)
            os.waitpid(self.pid, 0)
        os.close(self.fd)

    def press(self, keys: str) -> None:
        """Type; `\\x03` is Ctrl-C."""
        os.write(self.fd, keys.encode())

    def until(self, check: Callable[[str], bool], what: str, timeout: float = 60.0) -> str:
        """Read until the screen shows something; return all of its text."""
        deadline = time.monotonic() + timeout
        while not check(self.screen.text):
            assert time.monotonic() < deadline, f"did not come: {what}\n{self.screen.text}"
            if not self._read(0.1):
                assert check(self.screen.text), f"ended without: {what}\n{self.screen.text}"
        return self.screen.text

    def end(self, timeout: float = 60.0) -> int:
        """Read to the end; return the exit code."""
        deadline = time.monotonic() + timeout
        while self._read(0.1):
            assert time.monotonic() < deadline, f"does not end\n{self.screen.text}"
        if self._code is None:
            self._code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._code

    def _read(self, timeout: float) -> bool:
        """Take what there is; return whether more may come."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return True
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the program has ended
            return False
        text = self._decoder.decode(data)
        self.raw += text
        self.screen.feed(text)
        return bool(data)
