"""Names of consoles, and who of them is gone."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.errors import LedgerError
from deploykit.web.hosting.owners import ConsoleOwner

_HOLDER = """
import sys
from pathlib import Path
from deploykit.web.hosting.owners import ConsoleOwner
print(ConsoleOwner(Path(sys.argv[1])).name, flush=True)
sys.stdin.read()
"""


def test_one_that_lives_is_not_gone_and_one_that_was_killed_is(tmp_path: Path) -> None:
    mine = ConsoleOwner(tmp_path / "consoles")
    argv = [sys.executable, "-c", _HOLDER, str(tmp_path / "consoles")]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        name = other.stdout.readline().strip()
        assert mine.gone() == frozenset()
        other.send_signal(signal.SIGKILL)
        other.wait(60)
        assert mine.gone() == {name}
        mine.forget(frozenset({name}))
        assert mine.gone() == frozenset()
    mine.close()


def test_names_are_never_the_same_and_a_closed_one_leaves_nothing(tmp_path: Path) -> None:
    one, two = ConsoleOwner(tmp_path), ConsoleOwner(tmp_path)
    assert one.name != two.name
    assert two.gone() == frozenset()
    one.close()
    one.close()
    assert two.gone() == frozenset()
    two.close()
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_cannot_be_used_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match="cannot use"):
        ConsoleOwner(tmp_path / "file" / "consoles")
