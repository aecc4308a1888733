"""What a node reports about packages that were announced. Pure: what was read and is held go in, messages come out.

Rules:

* One report a package and burst: it answers the announcement that came last, and keeps its correlation id.
* A report's id follows from node, announcement and outcome: readers recognize one that is made twice after a crash.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import attrs

from deploykit.daemons.packages.packagenames import AnnouncedPackage
from deploykit.daemons.packages.ports import PackageVersions, SourceRead
from deploykit.messages import PackageReported, one_line
from deploykit.names import NodeName

#: The namespace of report ids.
_REPORTS: Final = uuid.UUID("5f0d4c41-6d5e-4b1d-9f0a-3a5f6f1f5b0e")
_DETAIL: Final = 1000


@attrs.frozen(kw_only=True, slots=True)
class PackageReportMaker:
    """Makes one node's reports."""

    node: NodeName

    def reports(
        self,
        settled: Iterable[tuple[AnnouncedPackage, Mapping[str, SourceRead]]],
        versions: Mapping[str, PackageVersions],
        problem: str = "",
    ) -> tuple[PackageReported, ...]:
        """Return the reports about announcements whose sources were read.

        Args:
            settled: each with how its sources' last reads ended, in the order in which they came.
            versions: what this machine holds of each package now.
            problem: why versions are not known; empty where they are.
        """
        last = {package.target: (package, ends) for package, ends in settled}
        return tuple(
            self._report(package, ends, versions.get(package.name, PackageVersions()), problem)
            for package, ends in last.values()
        )

    def _report(
        self, package: AnnouncedPackage, ends: Mapping[str, SourceRead], held: PackageVersions, problem: str
    ) -> PackageReported:
        wrong = [f"{source}: {read.detail or read.outcome}" for source, read in ends.items() if read.outcome != "read"]
        wrong += [problem] if problem else []
        outcome: Literal["refreshed", "failed"] = "failed" if wrong else "refreshed"
        return PackageReported(
            id=str(uuid.uuid5(_REPORTS, f"{self.node}/{package.request}/{outcome}")),
            source=f"packages/{self.node}",
            correlation_id=package.correlation_id or package.request,
            node=self.node,
            name=package.name,
            outcome=outcome,
            request=package.request,
            architecture=package.architecture,
            distribution=package.distribution,
            installed=held.installed,
            candidate=held.candidate,
            sources=tuple(source for source, read in ends.items() if read.outcome == "read"),
            detail=one_line("; ".join(wrong), _DETAIL),
        )


__all__ = ["PackageReportMaker"]
