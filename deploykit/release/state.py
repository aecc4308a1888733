"""The record of a site's releases: one small file, replaced whole.

`.deploykit/state.json` holds the releases and the last operations; what each step printed is beside it in
`.deploykit/history/NUMBER.json`. Both name their format version. A file of another version is refused.
"""

from __future__ import annotations

import json
import os
from collections.abc import Container, Mapping
from pathlib import Path
from typing import Any, Final, get_args

import attrs

from deploykit.errors import InvalidName, ReleaseError
from deploykit.names import parse_object_id, parse_ref_name, parse_repo_name
from deploykit.release.model import Operation, Release, ReleasePart, Status, StepRecord
from deploykit.system.boottime import BootTime
from deploykit.system.durable import replace_file

FORMAT: Final = 1
_KEPT_OPERATIONS: Final = 200
_KEPT_RELEASES: Final = 200


@attrs.frozen(kw_only=True, slots=True)
class SiteRecord:
    """Releases in order of their number, operations in order of theirs."""

    releases: tuple[Release, ...] = ()
    operations: tuple[Operation, ...] = ()
    next_seq: int = 1
    next_operation: int = 1

    def get(self, name: str) -> Release | None:
        """Return the release of that directory name."""
        return next((r for r in self.releases if r.name == name), None)

    def find(self, text: str) -> Release | None:
        """Return the newest release that a text means: its name, number, tag, or the start of its commit."""
        for release in reversed(self.releases):
            if text in (release.name, str(release.seq), release.tag, release.ref):
                return release
        if len(text) >= 7:
            return next((r for r in reversed(self.releases) if r.commit.startswith(text)), None)
        return None

    def of(self, ref: str, commit: str) -> tuple[Release, ...]:
        """Return the releases made from exactly that ref and commit, oldest first."""
        return tuple(r for r in self.releases if (r.ref, r.commit) == (ref, commit))

    def prepared(self, ref: str, commit: str) -> Release | None:
        """Return the newest prepared release on disk of exactly that ref and commit, if any."""
        return next((r for r in reversed(self.of(ref, commit)) if r.present and r.status == "prepared"), None)

    def without_twins(self, live: str) -> SiteRecord:
        """Return it without other releases of the live one's version: a rollback to them changes nothing."""
        here = self.get(live)
        if here is None:
            return self
        kept = (r for r in self.releases if r is here or r.version != here.version)
        return attrs.evolve(self, releases=tuple(kept))

    def waiting(self, text: str = "") -> Release | None:
        """Return the newest prepared release on disk that a text means, as for `find`; of all when it is empty."""
        prepared = tuple(r for r in self.releases if r.present and r.status == "prepared")
        if not text:
            return prepared[-1] if prepared else None
        return attrs.evolve(self, releases=prepared).find(text)

    def on_disk(self, names: Container[str]) -> SiteRecord:
        """Return the state as the disk has it: a release without its directory is not present, whatever was written.

        Args:
            names: the directories that are there.
        """
        if all(r.name in names for r in self.releases if r.present):
            return self
        seen = (r if r.name in names else attrs.evolve(r, present=False, spare=False) for r in self.releases)
        return attrs.evolve(self, releases=tuple(seen))

    def answered(self, request: str) -> Operation | None:
        """Return the last operation carried out for that request, if any."""
        if not request:
            return None
        return next((o for o in reversed(self.operations) if o.request == request), None)

    def with_release(self, release: Release) -> SiteRecord:
        """Add a release, or replace the one of that number."""
        others = [r for r in self.releases if r.seq != release.seq]
        ordered = sorted([*others, release], key=lambda r: r.seq)
        return attrs.evolve(self, releases=tuple(ordered), next_seq=max(self.next_seq, release.seq + 1))

    def with_operation(self, operation: Operation) -> SiteRecord:
        """Add an operation, or replace the one of that number."""
        others = [o for o in self.operations if o.number != operation.number]
        ordered = sorted([*others, operation], key=lambda o: o.number)
        return attrs.evolve(
            self, operations=tuple(ordered), next_operation=max(self.next_operation, operation.number + 1)
        )

    def with_departures(self, live: str, now: BootTime, tried: str) -> SiteRecord:
        """Note which releases are live no longer, and that the live one is.

        Args:
            tried: a release that may have been live for a short while.
        """

        def noted(release: Release) -> Release:
            if release.name == live:
                return attrs.evolve(release, left=0.0, left_boot="") if release.left_boot else release
            if not release.present or not (release.activated or release.name == tried):
                return release
            # A time in the future was taken by another container's clock: it counts from now.
            ahead = release.left_boot == now.boot and release.left > now.seconds
            if release.left_boot and not ahead:
                return release
            return attrs.evolve(release, left=now.seconds, left_boot=now.boot)

        return attrs.evolve(self, releases=tuple(map(noted, self.releases)))

    def trimmed(self) -> SiteRecord:
        """Forget operations beyond the last 200, and releases gone from disk beyond the last 200."""
        surplus = max(0, len(self.releases) - _KEPT_RELEASES)
        gone = {r.seq for r in [r for r in self.releases if not r.present][:surplus]}
        return attrs.evolve(
            self,
            operations=self.operations[-_KEPT_OPERATIONS:],
            releases=tuple(r for r in self.releases if r.seq not in gone),
        )


def load_state(path: Path) -> SiteRecord:
    """Read a state file; one that is not there is an empty site.

    Raises:
        ReleaseError: damaged, or of another format version.
    """
    try:
        raw = _content(path)
    except FileNotFoundError:
        return SiteRecord()
    except OSError as error:
        raise ReleaseError(
            f"cannot read {path}: {error.strerror}", "correct the owner or mode of .deploykit"
        ) from error
    data = _parse(raw, path)
    try:
        return SiteRecord(
            releases=tuple(_release(r) for r in data["releases"]),
            operations=tuple(Operation(**o) for o in data["operations"]),
            next_seq=data["next_seq"],
            next_operation=data["next_operation"],
        )
    except (KeyError, TypeError) as error:
        raise ReleaseError(f"{path} is damaged: {error}", _WAY_OUT) from error


def save_state(path: Path, state: SiteRecord, *, durable: bool = True) -> None:
    """Write the state whole or not at all."""
    _write(path, {"format": FORMAT, **attrs.asdict(state.trimmed())}, durable)


def read_parts(data: Mapping[str, Any]) -> tuple[ReleasePart, ...]:
    """Return the parts in the record of a release; none where it is of one repository.

    Raises:
        KeyError, TypeError: they are damaged.
    """

    def part(entry: Mapping[str, Any]) -> ReleasePart:
        try:
            return ReleasePart(
                repo=parse_repo_name(entry["repo"]),
                path=str(entry["path"]),
                ref=parse_ref_name(entry["ref"]),
                commit=parse_object_id(entry["commit"]),
            )
        except InvalidName as error:
            raise TypeError(error.problem) from None

    return tuple(map(part, data.get("parts", ())))


def load_steps(path: Path) -> tuple[StepRecord, ...]:
    """Read what the steps of one operation printed; empty where it is gone."""
    try:
        raw = _content(path)
    except OSError:
        return ()
    try:
        return tuple(StepRecord(**s) for s in _parse(raw, path)["steps"])
    except (KeyError, TypeError) as error:
        raise ReleaseError(f"{path} is damaged: {error}", "remove it; only the output of old steps is lost") from error


def save_steps(path: Path, operation: Operation, steps: tuple[StepRecord, ...], *, durable: bool = True) -> None:
    """Write one operation's record: who, what, and each step with its output."""
    content = {"format": FORMAT, "operation": attrs.asdict(operation), "steps": [attrs.asdict(s) for s in steps]}
    _write(path, content, durable)


def _release(data: dict[str, Any]) -> Release:
    release = Release(**data | {"parts": read_parts(data)})
    if release.status not in get_args(Status):
        raise TypeError(f"unknown status {release.status!r}")
    return release


def _write(path: Path, content: dict[str, Any], durable: bool) -> None:
    raw = json.dumps(content, separators=(",", ":")).encode() + b"\n"
    replace_file(path, raw, mode=0o640, durable=durable)


def _content(path: Path) -> bytes:
    """Return a file's bytes. A pipe that a site's owner puts in its place is empty: nothing waits for it."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        return file.read()


def _parse(raw: bytes, path: Path) -> dict[str, Any]:
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{path} is damaged: {error}", _WAY_OUT) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        found = data.get("format") if isinstance(data, dict) else None
        raise ReleaseError(
            f"{path} has format {found!r}, known is {FORMAT}", "use the deploykit version that wrote it, or a newer one"
        )
    return data


_WAY_OUT: Final = "restore it from a backup, or move .deploykit away: current stays live, the next deploy starts anew"
