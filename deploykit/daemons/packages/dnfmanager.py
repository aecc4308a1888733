"""dnf and rpm as a package manager. Nothing is ever installed, removed or configured.

Written by the manuals of dnf 4 and dnf 5 and tried against a stub: no machine with dnf was at hand. It shows that the
port is one; try it on a machine of yours before you rely on it.

Rules:

* One repository is read: all others are switched off for that run (`--disablerepo=* --enablerepo=NAME`). The cached
  metadata of the others stay.
* `skip_if_unavailable=0` for it: where the operator's files say otherwise, dnf exits 0 for a repository that is gone.
* `exit_on_lock=1`: dnf 4 exits with 200 when another one holds its lock, instead of waiting for it.
* Versions are asked for from the cache alone (`--cacheonly`): only `read_source` reads anything anew.
* Versions are `EPOCH:VERSION-RELEASE`, without an epoch of 0.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from deploykit.daemons.packages.ports import PackageVersions, SourceRead
from deploykit.daemons.packages.program import ProgramResult, lines_of, missing_program, run_program, shown
from deploykit.errors import PackageError
from deploykit.settings.packages import PackageSourceSettings

_RPM_FORMAT: Final = "%{EPOCHNUM}|%{NAME}|%{VERSION}-%{RELEASE}|%{ARCH}\n"
_DNF_FORMAT: Final = "%{epoch}|%{name}|%{version}-%{release}|%{arch}\n"
_LINE: Final = re.compile(
    r"(?P<epoch>[0-9]{1,10})\|(?P<name>[^|\s]+)\|(?P<version>[0-9A-Za-z][0-9A-Za-z._+~^-]{0,254})\|(?P<arch>[a-z0-9_]+)"
).fullmatch
_ARCHITECTURE: Final = re.compile(r"[a-z0-9_]+").fullmatch
_NOT_INSTALLED: Final = re.compile(r"package \S+ is not installed").fullmatch
#: dnf 4's exit code for "a problem with acquiring or releasing of locks".
_LOCK_CODE: Final = 200
#: dnf 4 and dnf 5, for a repository that no file names.
_UNKNOWN: Final = re.compile(r"Unknown repo: |No matching repositories for ")
#: Names in one call of rpm. Its exit code is how many are not installed: what went wrong is on its standard error.
_NAMES: Final = 200


class DnfManager:
    """dnf and rpm of this machine.

    Args:
        environment: variables for all programs, besides `PATH` and `LC_ALL=C`, or in their place.
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        self._environment = dict(environment or {})
        self._native = ""

    def problem(self) -> str:
        """Return which program is not there; empty when all are. Starts nothing."""
        gone = missing_program(("dnf", "rpm"), self._environment)
        return f"{gone} is not installed" if gone else ""

    def architecture(self) -> str:
        """Return the architecture of this machine's own packages, `x86_64`; rpm is asked once.

        Raises:
            PackageError: rpm cannot be asked.
        """
        if not self._native:
            result = self._run(["rpm", "--eval", "%{_arch}"])
            if result.code != 0:
                raise _failed("rpm", result)
            self._native = _architecture(result.output.strip())
        return self._native

    def installed(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return those of `names` that are installed here, with their versions; one process.

        Raises:
            PackageError: rpm cannot be asked, or the answer is not understood.
        """
        asked = list(dict.fromkeys(names))
        found: dict[str, PackageVersions] = {}
        for some in _batches(asked):
            result = self._run(["rpm", "-q", "--qf", _RPM_FORMAT, "--", *some])
            lines = [line for line in lines_of(result.output) if not _NOT_INSTALLED(line)]
            if "error:" in result.errors:
                raise _failed("rpm", result)
            found.update(_by_name(_parse("rpm", lines), self.architecture()))
        return {name: found[name] for name in asked if name in found}

    def read_source(self, name: str, source: PackageSourceSettings, *, deadline: float) -> SourceRead:
        """Run `dnf makecache --refresh` for one repository, and no other.

        Args:
            name: the repository's id.
            source: not needed.
            deadline: seconds; dnf is killed then, with all it started.
        """
        options = ("exit_on_lock=1", "strict=1", f"{name}.skip_if_unavailable=0")
        words = ["dnf", "-q", "--disablerepo=*", f"--enablerepo={name}", *(f"--setopt={option}" for option in options)]
        try:
            result = run_program([*words, "makecache", "--refresh"], seconds=deadline, environment=self._environment)
        except PackageError as error:
            return SourceRead(outcome="failed", detail=shown(error.problem))
        if result.code == 0:
            return SourceRead(outcome="read")
        if result.code is None:
            return SourceRead(outcome="failed", detail="dnf was killed at its deadline")
        why = _reason(result) or f"dnf {result.how}"
        if result.code == _LOCK_CODE:
            return SourceRead(outcome="locked", detail=why)
        return SourceRead(outcome="missing" if _UNKNOWN.search(result.errors) else "failed", detail=why)

    def versions(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return what is installed of each of `names`, and what is newest in the repositories as they were read last.

        The newest may be older than what is installed.

        Raises:
            PackageError: rpm or dnf cannot be asked, or the answer is not understood.
        """
        here = self.installed(names)
        asked = {name: here.get(name, PackageVersions()) for name in names}
        newest: dict[str, dict[str, str]] = {}
        for some in _batches(list(asked)):
            options = ("--cacheonly", "repoquery", "--available", "--latest-limit=1", "--qf", _DNF_FORMAT)
            result = self._run(["dnf", "-q", *options, *some])
            if result.code != 0:
                raise _failed("dnf", result)
            for name, version, architecture in _parse("dnf", lines_of(result.output)):
                newest.setdefault(name, {})[architecture] = version
        return {
            name: attrs.evolve(found, candidate=self._candidate(found, newest.get(name, {})))
            for name, found in asked.items()
        }

    def _candidate(self, found: PackageVersions, newest: Mapping[str, str]) -> str:
        """Return the version for what is installed, else for this machine; empty for none."""
        order = (found.architecture, self.architecture(), "noarch", *newest)
        return next((newest[architecture] for architecture in order if architecture in newest), "")

    def _run(self, words: Sequence[str]) -> ProgramResult:
        """Ask a program; what it prints is whole. Its exit code is the caller's to judge."""
        result = run_program(words, environment=self._environment, enough=True)
        if result.code is None or result.code < 0 or not result.whole:
            raise _failed(words[0], result)
        return result


def _architecture(text: str) -> str:
    if not _ARCHITECTURE(text):
        raise _not_understood("rpm", text)
    return text


def _parse(program: str, lines: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (name, version, architecture) of each line; dnf 4 puts an empty line behind each.

    Raises:
        PackageError: a line is none of the format.
    """
    copies = []
    for line in lines:
        if not line:
            continue
        if (match := _LINE(line)) is None:
            raise _not_understood(program, line)
        epoch = int(match["epoch"])
        version = f"{epoch}:{match['version']}" if epoch else match["version"]
        copies.append((match["name"], version, match["arch"]))
    return copies


def _batches(names: Sequence[str]) -> Iterator[Sequence[str]]:
    for at in range(0, len(names), _NAMES):
        yield names[at : at + _NAMES]


def _by_name(copies: Sequence[tuple[str, str, str]], own: str) -> Mapping[str, PackageVersions]:
    """Return packages by name, this machine's architecture first. Of several versions (kernels) the last one counts."""
    found: dict[str, dict[str, str]] = {}
    for name, version, architecture in copies:
        found.setdefault(name, {})[architecture] = version
    native = (own, "noarch")
    made = {}
    for name, versions in found.items():
        first, *others = sorted(versions, key=lambda architecture: (architecture not in native, architecture))
        made[name] = PackageVersions(installed=versions[first], architecture=first, others=tuple(others))
    return made


def _reason(result: ProgramResult) -> str:
    return shown("; ".join(" ".join(line.split()) for line in lines_of(result.errors)[-4:] if line.strip()))


def _not_understood(program: str, line: str) -> PackageError:
    return PackageError(f"{program} printed what is not understood: {shown(line, 100)!a}", "run it by hand, as root")


def _failed(program: str, result: ProgramResult) -> PackageError:
    why = _reason(result)
    return PackageError(f"{program} {result.how}{': ' * bool(why)}{why}", "run it by hand, as root")


__all__ = ["DnfManager"]
