"""What is new in a package repository."""

from __future__ import annotations

from typing import ClassVar

import attrs

from deploykit.messages.base import Message, one_line


@attrs.frozen(kw_only=True, slots=True)
class PackagePublished(Message):
    """A package is in the repository now. The message names it; no node installs from the message.

    Args:
        name, version, architecture: as in the package's control file; `version` with its epoch, where known.
        distribution: the suite it went to; empty where unknown.
        file: the file's name, without a directory.
        detail: what the repository tool printed, cut.
    """

    TYPE: ClassVar[str] = "deploykit.package.published.v1"

    name: str
    version: str
    architecture: str
    distribution: str = ""
    file: str = ""
    detail: str = ""

    @property
    def summary(self) -> str:
        where = f" in {self.distribution}" if self.distribution else ""
        return one_line(f"package {self.name} {self.version} ({self.architecture}) published{where}")
