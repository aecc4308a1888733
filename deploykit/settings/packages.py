"""Which package sources of this machine are read anew when a repository has something new. `[packages]`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.settings.problems import below, not_a_time, too_small

PackageTool = Literal["apt", "dnf"]

_SOURCE_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}").fullmatch
_DISTRIBUTION: Final = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9._/*?+~-]{0,127}").fullmatch
_PACKAGE: Final = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9.+_*?-]{0,127}").fullmatch
_SUFFIXES: Final = (".sources", ".list")


@attrs.frozen(kw_only=True, slots=True)
class PackageSourceSettings:
    """One source, `[packages.sources.NAME]`. For dnf NAME is the repository's id, and `file` is not needed.

    Args:
        file: the file in `/etc/apt/sources.list.d` that holds the source, with its suffix (`.sources`, `.list`).
        distributions: patterns of the distributions whose packages are in this source; empty: of all.
    """

    file: Path | None = None
    distributions: tuple[str, ...] = ()

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.file is not None and not self.file.is_absolute():
            yield f"file: expected an absolute path, not {str(self.file)!r}"
        if self.file is not None and self.file.suffix not in _SUFFIXES:
            yield f"file: expected a name that ends with {' or '.join(_SUFFIXES)}: apt reads no other"
        for text in self.distributions:
            if not _DISTRIBUTION(text):
                yield f"distributions: expected a name or a pattern such as bookworm or book*, not {text[:60]!a}"


@attrs.frozen(kw_only=True, slots=True)
class PackagesSettings:
    """When package sources are read anew. Nothing is ever installed.

    Args:
        tool: what reads the sources: `apt`, or `dnf`.
        sources: the sources that may be read anew, by name.
        listed: patterns of packages that count although they are not installed here.
        gather: seconds in which further messages are waited for, so that a burst is one run.
        lock_timeout: seconds for which another program's lock on the package lists is waited for.
        deadline: seconds for one run of the tool; it is ended then.
        retry: a source that could not be read is tried again after a random part of so many seconds, doubled each
            time.
        attempts: how often a source is tried before that is reported as a failure.
    """

    tool: PackageTool = "apt"
    sources: Mapping[str, PackageSourceSettings] = attrs.field(factory=dict)
    listed: tuple[str, ...] = ()
    gather: float = 2.0
    lock_timeout: float = 300.0
    deadline: float = 300.0
    retry: float = 30.0
    attempts: int = 3

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from too_small(self, {"gather": 0, "lock_timeout": 0, "attempts": 1})
        yield from not_a_time(self, ("deadline", "retry"))
        for pattern in self.listed:
            if not _PACKAGE(pattern):
                yield f"listed: expected a package's name or a pattern such as nginx*, not {pattern[:60]!a}"
        for name, source in self.sources.items():
            if not _SOURCE_NAME(name):
                yield f"sources: expected names of letters, digits and ._-, not {name[:60]!a}"
                continue
            yield from below(f"sources.{name}", source.problems())
            if self.tool == "apt" and source.file is None:
                yield f"sources.{name}.file: needed for apt"


__all__ = ["PackageSourceSettings", "PackageTool", "PackagesSettings"]
