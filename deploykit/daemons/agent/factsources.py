"""All that one node knows of itself: files, facter and classes, read when they have changed.

Rules:

* Nothing here raises: a source that cannot be used is a problem, and the others count meanwhile.
* A file that cannot be parsed counts as it was read before, for it may be half written. One that is gone is gone.
* A question never starts facter. `refresh` does, at most every `FACTER_EVERY` seconds, and a failure waits as long.
* Problems name files and are for this node's log. `cut` goes to others: it says how many, and names no file.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Generic, TypeVar

import attrs

from deploykit.daemons.agent.facter import run_facter
from deploykit.errors import FactsError
from deploykit.fleet.factreading import read_classes, read_facts
from deploykit.fleet.factrules import choose_facts
from deploykit.settings.facts import MAX_CLASSES, FactsSettings

T = TypeVar("T")

#: Seconds for which facter's answer counts.
FACTER_EVERY: Final = 300.0


@attrs.frozen(kw_only=True, slots=True)
class KnownFacts:
    """What a node sends of itself.

    Args:
        facts, classes: as they are sent.
        cut: what is missing from them, for the readers of a description.
        problems: why, for people at this node.
    """

    facts: Mapping[str, object] = attrs.field(factory=dict)
    classes: tuple[str, ...] = ()
    cut: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


class FactSources:
    """Reads the sources of one node. Use it from any thread.

    Args:
        settings: the `[facts]` table.
        facter: runs facter.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        settings: FactsSettings,
        *,
        facter: Callable[[], Mapping[str, object]] = run_facter,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._facter = facter
        self._clock = clock
        self._lock = threading.Lock()
        self._files = [_CachedFile(path, read_facts) for path in settings.files]
        self._classes = {path: _CachedFile(path, read_classes) for path in settings.classes_files}
        self._due = float("-inf") if settings.facter else float("inf")
        self._found: Mapping[str, object] | None = None
        self._facter_problem = ""

    def refresh(self) -> None:
        """Run facter if its last answer is too old. Takes as long as facter does."""
        if self._clock() < self._due:
            return
        try:
            found, problem = self._facter(), ""
        except FactsError as error:
            found, problem = None, str(error)
        with self._lock:
            self._due = self._clock() + FACTER_EVERY
            self._found = self._found if found is None else found  # older facts are better than none
            self._facter_problem = problem

    def read(self) -> KnownFacts:
        """Return what is known now: files that have changed are read again, facter is not run."""
        with self._lock:
            found: dict[str, object] = {}
            cut, problems = [], []
            if self._settings.facter:
                found.update(self._found or {})
                if self._facter_problem or self._found is None:
                    cut.append("facts: facter gave none" if self._facter_problem else "facts: facter still runs")
                problems += [self._facter_problem] if self._facter_problem else []
            broken = 0
            for file in self._files:
                value, problem = file.read()
                found.update(value or {})
                problems += [problem] if problem else []
                broken += bool(problem)
            if broken:
                cut.append(f"facts: {broken} of {len(self._files)} files cannot be read")
            classes, more, problem = self._read_classes()
            problems += [problem] if problem else []
        chosen = choose_facts(self._settings.own, found, self._settings.allow)
        return KnownFacts(facts=chosen.facts, classes=classes, cut=(*cut, *more, *chosen.cut), problems=tuple(problems))

    def _read_classes(self) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        """Return the classes, what to say in `cut`, and the problem."""
        file = next((file for path, file in self._classes.items() if _is_there(path)), None)
        if file is None:
            return (), (), ""
        value, problem = file.read()
        classes = value or ()
        if problem:
            return classes[:MAX_CLASSES], ("classes: the list cannot be read",), problem
        if len(classes) > MAX_CLASSES:
            return classes[:MAX_CLASSES], (f"classes left out: more than {MAX_CLASSES}",), ""
        return classes, (), ""


def _is_there(path: Path) -> bool:
    """Return whether a file is there; of one that cannot be looked at, True: reading it tells why."""
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


class _CachedFile(Generic[T]):
    """One file, and what it held when it was last looked at."""

    def __init__(self, path: Path, parse: Callable[[Path], T]) -> None:
        self._path = path
        self._parse = parse
        self._seen: tuple[int, ...] = ()
        self._value: T | None = None
        self._problem = ""

    def read(self) -> tuple[T | None, str]:
        """Return the file's value and its problem; of a file that cannot be parsed, the value it had before."""
        try:
            found = self._path.stat()
        except (OSError, ValueError) as error:
            self._seen, self._value = (), None
            return None, f"{self._path}: {getattr(error, 'strerror', None) or error}"
        seen = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev)
        if seen != self._seen:
            try:
                self._value, self._problem = self._parse(self._path), ""
            except FactsError as error:
                self._problem = str(error)
            # A change within the same tick of the clock shows in no time stamp: look again until it is older.
            recent = time.time_ns() - max(found.st_mtime_ns, found.st_ctime_ns) < 2_000_000_000
            self._seen = () if recent else seen
        return self._value, self._problem
