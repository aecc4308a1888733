"""apt and dpkg as a package manager. Nothing is ever installed, removed or configured.

Rules:

* One source is read: the file is apt's only list of sources for that run (`Dir::Etc::sourcelist`, no `sourceparts`).
  `APT::Get::List-Cleanup=0` keeps the lists of all others: without it apt deletes them.
* `APT::Update::Error-Mode=any`: a source that cannot be reached is a failure, not a warning.
* apt does not wait for the lock of the lists, whatever is set. `locked` is returned, the caller tries again.
* The operator's own apt.conf counts (proxies, time-outs, hooks after an update). Variables of our environment do not.
* Names are behind `--`: none can be an option. apt takes a name that it does not know for a regular expression: what is
  asked for is made to match nothing else, and of the answers only those with the very name count.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

import attrs

from deploykit.daemons.packages.aptoutput import (
    DPKG_FORMAT,
    apt_pattern,
    apt_reason,
    judge_update,
    parse_architecture,
    parse_candidates,
    parse_installed,
)
from deploykit.daemons.packages.ports import PackageVersions, SourceRead
from deploykit.daemons.packages.program import ProgramResult, lines_of, missing_program, run_program, shown
from deploykit.errors import PackageError
from deploykit.settings.packages import PackageSourceSettings

_T = TypeVar("_T")

#: Names in one call of a program: far below the kernel's limit for arguments.
_NAMES: Final = 1000


class AptManager:
    """apt and dpkg of this machine.

    Args:
        environment: variables for all programs, besides `PATH` and `LC_ALL=C`, or in their place. `APT_CONFIG` and
            `DPKG_ADMINDIR` name another root than this machine's: tests and images need that.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._native = ""

    def problem(self) -> str:
        """Return which program is not there; empty when all are. Starts nothing."""
        gone = missing_program(("apt-get", "apt-cache", "dpkg", "dpkg-query"), self._environment)
        return f"{gone} is not installed" if gone else ""

    def architecture(self) -> str:
        """Return the architecture of this machine's own packages, `amd64`; dpkg is asked once.

        Raises:
            PackageError: dpkg cannot be asked.
        """
        if not self._native:
            self._native = parse_architecture(self._run(["dpkg", "--print-architecture"]).output)
        return self._native

    def installed(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return those of `names` that are installed here (also held ones), with their versions; one process.

        Raises:
            PackageError: dpkg-query cannot be asked, or the answer is not understood.
        """
        asked = list(dict.fromkeys(names))
        found: dict[str, PackageVersions] = {}
        for some in _batches(asked):
            result = self._run(["dpkg-query", "-W", "-f", DPKG_FORMAT, "--", *some], fine=(0, 1))  # 1: one is unknown
            found.update(parse_installed(result.output, self.architecture()))
        return {name: found[name] for name in asked if name in found}

    def read_source(self, name: str, source: PackageSourceSettings, *, deadline: float) -> SourceRead:
        """Run `apt-get update` for one file, and no other; lists of other sources stay as they are.

        Args:
            name: of the source in the settings.
            source: its file.
            deadline: seconds; apt is killed then, with all it started.
        """
        if source.file is None:
            return SourceRead(outcome="missing", detail=f"packages.sources.{name}.file is not set")
        if (absent := _absent(source.file)) is not None:
            return absent
        options = (
            f"Dir::Etc::sourcelist={source.file}",
            "Dir::Etc::sourceparts=/dev/null",
            "APT::Get::List-Cleanup=0",
            "APT::Update::Error-Mode=any",
            "quiet=1",  # the lines that show what was read come at no other level
        )
        words = ["apt-get", "update", *(word for option in options for word in ("-o", option))]
        try:
            result = run_program(words, seconds=deadline, environment=self._environment)
        except PackageError as error:
            return SourceRead(outcome="failed", detail=shown(error.problem))
        return judge_update(result, str(source.file))

    def versions(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return what is installed of each of `names`, and what apt would install now; two processes.

        Raises:
            PackageError: dpkg-query or apt-cache cannot be asked, or the answer is not understood.
        """
        here = self.installed(names)
        asked = {name: here.get(name, PackageVersions()) for name in names}
        candidates: dict[str, str] = {}
        for some in _batches([(name, self._foreign(found)) for name, found in asked.items()]):
            patterns = [apt_pattern(name, architecture) for name, architecture in some]
            output = self._run(["apt-cache", "policy", "--", *patterns]).output
            candidates |= parse_candidates(output, some)
        return {name: attrs.evolve(found, candidate=candidates[name]) for name, found in asked.items()}

    def _foreign(self, found: PackageVersions) -> str:
        """Return the architecture that apt has to be asked for; empty for the machine's own."""
        return "" if found.architecture in ("", "all", self.architecture()) else found.architecture

    def _run(self, words: Sequence[str], *, fine: Sequence[int] = (0,)) -> ProgramResult:
        """Ask a program; what it prints is whole.

        Raises:
            PackageError: it cannot be started, fails, takes too long, or prints too much.
        """
        result = run_program(words, environment=self._environment, enough=True)
        if result.code not in fine or not result.whole:
            lines = lines_of(result.errors)
            why = apt_reason(lines) or shown(next(iter(lines), ""))
            raise PackageError(f"{words[0]} {result.how}{': ' * bool(why)}{why}", "run it by hand, as root")
        return result


def _batches(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Yield parts that fit on one command line."""
    for at in range(0, len(items), _NAMES):
        yield items[at : at + _NAMES]


def _absent(file: Path) -> SourceRead | None:
    """Return why a file of sources cannot be read, None if it can be: apt exits 0 for one that is not there."""
    try:
        mode = file.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return SourceRead(outcome="missing", detail=shown(f"there is no {file}"))
    except OSError as error:
        return SourceRead(outcome="failed", detail=shown(f"cannot read {file}: {error.strerror}"))
    if not stat.S_ISREG(mode):
        return SourceRead(outcome="missing", detail=shown(f"{file} is not a file"))
    return None


__all__ = ["AptManager"]
