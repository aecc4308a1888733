"""What is new in a package repository."""

from __future__ import annotations

from typing import ClassVar, Literal

import attrs

from deploykit.messages.base import Identifier, Message, one_line
from deploykit.names import NodeName


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


@attrs.frozen(kw_only=True, slots=True)
class PackageReported(Message):
    """What a node holds of a package, and could install, after it read its sources anew. Signed as that node.

    Args:
        name: of the package.
        outcome: `refreshed`: the sources were read; `failed`: one of them could not be, and `candidate` may be old.
        request: the id of the message that announced the package.
        architecture, distribution: as in that message; empty where it did not say.
        installed: the version that is installed here; empty for none.
        candidate: the version that would be installed now; empty where no source has the package.
        sources: the names of the sources that were read, as in the node's settings.
        detail: why it failed.
    """

    TYPE: ClassVar[str] = "deploykit.package.reported.v1"

    node: NodeName
    name: str
    outcome: Literal["refreshed", "failed"]
    request: Identifier | None = None
    architecture: str = ""
    distribution: str = ""
    installed: str = ""
    candidate: str = ""
    sources: tuple[str, ...] = ()
    detail: str = ""

    @property
    def summary(self) -> str:
        held = f"{self.installed} installed" if self.installed else "not installed"
        could = f", {self.candidate} available" if self.candidate and self.candidate != self.installed else ""
        why = f" (sources not read: {self.detail})" if self.outcome == "failed" else ""
        return one_line(f"package {self.name} on {self.node}: {held}{could}{why}")
