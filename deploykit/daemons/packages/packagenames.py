"""What a message announces, parsed: only what passes here may reach a package manager's program. Pure.

Rules:

* Names as Debian's policy has them (5.6.7); rpm also has capitals and underscores. Nothing begins with a dash.
* A message that holds anything else is refused whole: no part of it is used, and nothing is corrected.
* Version, architecture and distribution may be missing: the original's messages name a file only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import attrs

from deploykit.errors import InvalidName
from deploykit.messages import PackagePublished
from deploykit.settings.packages import PackageTool

_NAMES: Final[Mapping[PackageTool, Callable[[str], object]]] = {
    "apt": re.compile(r"[a-z0-9][a-z0-9+.-]{1,127}").fullmatch,
    "dnf": re.compile(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,127}").fullmatch,
}
_FIELDS: Final[Mapping[str, Callable[[str], object]]] = {
    "version": re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9.+~:^_-]{0,255})?").fullmatch,
    "architecture": re.compile(r"(?:[a-z0-9][a-z0-9_-]{0,31})?").fullmatch,
    "distribution": re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._/+~-]{0,127})?").fullmatch,
}
_SHOWN: Final = 60


@attrs.frozen(kw_only=True, slots=True)
class AnnouncedPackage:
    """A package that a message announces; each text is safe as an argument of a program, where it is not empty.

    Args:
        name, version, architecture, distribution: as in the message.
        request: the message's id.
        correlation_id: the message's own.
    """

    name: str
    version: str = ""
    architecture: str = ""
    distribution: str = ""
    request: str = ""
    correlation_id: str = ""

    @property
    def target(self) -> tuple[str, str, str]:
        """What a report is about: name, architecture, distribution. Versions of one package share a report."""
        return self.name, self.architecture, self.distribution


def parse_announcement(message: PackagePublished, tool: PackageTool) -> AnnouncedPackage:
    """Return what a message announces.

    Raises:
        InvalidName: a text in it is none that the package manager has.
    """
    if not _NAMES[tool](message.name):
        raise InvalidName(f"package {message.name[:_SHOWN]!a}: not a name that {tool} has")
    for field, fits in _FIELDS.items():
        text: str = getattr(message, field)
        if not fits(text):
            raise InvalidName(f"package {message.name}: {field} {text[:_SHOWN]!a} is not acceptable")
    return AnnouncedPackage(
        name=message.name,
        version=message.version,
        architecture=message.architecture,
        distribution=message.distribution,
        request=message.id,
        correlation_id=message.correlation_id,
    )


__all__ = ["AnnouncedPackage", "parse_announcement"]
