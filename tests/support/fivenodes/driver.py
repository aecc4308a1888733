"""`deploykit`, killed at one write of its journal.

    python -m tests.support.fivenodes.driver FILE WHEN NUMBER WORDS...

WHEN is `before` or `after` that write; NUMBER counts from 1, and 0 kills never. Then FILE gets how many there were.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from deploykit.cli import main
from deploykit.fleet.journal import JournalRecord, RolloutJournal


def drive(file: str, when: str, number: str, *words: str) -> None:
    """Run the command line with these words."""
    append, count = RolloutJournal.append, 0

    def dying(self: RolloutJournal, records: Iterable[JournalRecord], *, durable: bool = True) -> None:
        nonlocal count
        count += 1
        if (when, int(number)) == ("before", count):
            os.kill(os.getpid(), signal.SIGKILL)
        append(self, records, durable=durable)
        if (when, int(number)) == ("after", count):
            os.kill(os.getpid(), signal.SIGKILL)

    RolloutJournal.append = dying  # type: ignore[method-assign]
    sys.argv = ["deploykit", *words]
    try:
        main()
    finally:
        Path(file).write_text(str(count))


if __name__ == "__main__":
    drive(*sys.argv[1:])
