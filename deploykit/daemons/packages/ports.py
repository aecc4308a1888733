"""What the packages daemon needs of a package manager, and nothing else: apt and dnf are two of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

import attrs

from deploykit.settings.packages import PackageSourceSettings

#: `read`: the source is fresh. `locked`: another program holds the lists, nothing was done. `failed`: it could not be
#: read; what was known of it before is still there. `missing`: there is no such source on this machine.
ReadOutcome = Literal["read", "locked", "failed", "missing"]


@attrs.frozen(kw_only=True, slots=True)
class SourceRead:
    """What came of reading one source. `detail` is one line, without credentials of the source's address."""

    outcome: ReadOutcome
    detail: str = ""


@attrs.frozen(kw_only=True, slots=True)
class PackageVersions:
    """What this machine holds of a package, and would install; empty texts for none. Versions with their epochs.

    Args:
        installed: version; for several architectures, that of the first.
        candidate: version that would be installed.
        architecture: of what is installed, the machine's own before others; empty if nothing is.
        others: further architectures for which it is installed.
    """

    installed: str = ""
    candidate: str = ""
    architecture: str = ""
    others: tuple[str, ...] = ()


class PackageManager(Protocol):
    """A package manager, by its programs: argument lists, no shell, `LC_ALL=C`, each with a deadline.

    Names are checked by the caller (`packagenames.py`): none begins with a dash, none holds an architecture.
    """

    def problem(self) -> str:
        """Return why it cannot work here at all, a program that is not there; empty when it can. Starts nothing."""
        ...

    def architecture(self) -> str:
        """Return the architecture of this machine's own packages: `amd64` for dpkg, `x86_64` for rpm.

        Raises:
            PackageError: the package manager cannot be asked.
        """
        ...

    def installed(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return those of `names` that are installed here (also held ones), with their versions.

        Raises:
            PackageError: the package manager cannot be asked.
        """
        ...

    def read_source(self, name: str, source: PackageSourceSettings, *, deadline: float) -> SourceRead:
        """Read one source anew, and no other; lists of other sources stay as they are. Installs nothing.

        Args:
            name: of the source in the settings.
            source: where it is.
            deadline: seconds; the program is ended then, with all it started.
        """
        ...

    def versions(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
        """Return what is installed and what could be, of each of `names`, after sources were read.

        Raises:
            PackageError: the package manager cannot be asked.
        """
        ...


__all__ = ["PackageManager", "PackageVersions", "ReadOutcome", "SourceRead"]
