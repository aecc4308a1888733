"""Make a live directory the first release of a site, without an instant in which a reader finds nothing; and undo that.

Rules:

* A directory in use changes its place by one exchange of two names: whoever has it open, or is in it, keeps it; whoever
  opens it by name finds it before and after.
* What is to be done is written down first. Each change is one step that was done or was not, so that a second try, or
  the way back, goes on from what is there.
* No file's content is changed. What differs from the commit stays, and is named.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import PreflightRefused, ReleaseError
from deploykit.release.adoption import Adoption, kind_of, read_adoption
from deploykit.release.adoptsteps import is_moved, links_leading_out, point, say, whole_path
from deploykit.release.build import remove
from deploykit.release.environment import rules_of
from deploykit.release.livefiles import Entries, LiveFiles, compare_with, manifest_of
from deploykit.release.model import Operation, Release, ReleaseVersion
from deploykit.release.requests import Allowances
from deploykit.release.resolve import resolve_commit
from deploykit.release.site import Site, release_name
from deploykit.release.source import TreeSource
from deploykit.release.state import SiteRecord
from deploykit.release.steps import timestamp
from deploykit.system.durable import replace_file, sync_directory
from deploykit.system.exchange import exchange
from deploykit.system.ownership import OthersCanChange, check_owned
from deploykit.trees import list_tree, read_link
from deploykit.trees.copying import copy_across
from deploykit.trees.entries import GITLINK
from deploykit.trees.files import open_directory, remove_tree

_WAY_OUT: Final = "undo it (--undo), or run the same command again to go on"


@attrs.frozen(kw_only=True, slots=True)
class Adopted:
    """What an adoption did, or would do.

    Args:
        adoption: its record.
        files: how the directory compares with the commit; only their count where no commit is known.
    """

    adoption: Adoption
    files: LiveFiles


class Adopter:
    """Adopts one directory for one site.

    Args:
        site: made where it is not there.
        place: the live directory, or a symlink to it.
    """

    def __init__(self, site: Site, place: Path) -> None:
        self._site = site
        self._place = Path(os.path.abspath(place))  # noqa: PTH100 -- resolve() would walk through it
        self._record_file = site.private / "adoption.json"

    # -- adopting ----------------------------------------------------------------------------------------------------

    def preview(self, source: TreeSource | None = None, ref: str = "", commit: str = "") -> Adopted:
        """Return what would be done; nothing is touched.

        Raises:
            DeploykitError: what it would be refused for.
        """
        plan = self._plan(source, ref, commit)
        return self._look(plan, self._entries(plan, source))

    def adopt(
        self, source: TreeSource | None = None, ref: str = "", commit: str = "", *, requested_by: str = ""
    ) -> Adopted:
        """Make the directory the site's first release; go on with an adoption that was cut off.

        Args:
            source, ref, commit: what it is said to be made from.

        Raises:
            DeploykitError: it was refused, and nothing was touched; or a step failed: the text says how to go on.
        """
        plan = self._plan(source, ref, commit)
        entries = self._entries(plan, source)  # now: the source may be the clone itself, whose `.git` moves
        found = self._look(plan, entries)
        self._site.set_up(adopting=True)
        with self._site.locked():
            before = self._recorded()
            if before is None and self._site.exists():
                raise PreflightRefused(f"there is a site at {self._site.path} already", "deploy to it")
            plan = before or plan
            try:
                if before is None:
                    self._save(plan)
                self._carry_out(plan)
                self._finish(attrs.evolve(plan, done=True), entries, requested_by)
            except OSError as error:
                raise ReleaseError(
                    f"the adoption of {self._place} stopped half-way: {error.strerror} ({error.filename})", _WAY_OUT
                ) from error
        return attrs.evolve(found, adoption=attrs.evolve(plan, done=True))

    def _plan(self, source: TreeSource | None, ref: str, commit: str) -> Adoption:
        known = self._recorded()
        if known is not None and Path(known.place) != self._place:
            raise PreflightRefused(f"the site adopted {known.place} before", "undo that first (--undo)")
        if known is not None and not known.done:
            return known
        if self._site.exists():
            raise PreflightRefused(f"there is a site at {self._site.path} already", "deploy to it")
        link = read_link(self._place)
        kind = kind_of(self._place, self._site.path, link=link, is_directory=self._place.is_dir())
        self._check_place(kind)
        found = resolve_commit(source, ref, commit, Allowances()) if source is not None else None
        full, oid = (found.ref or ref, str(found.commit)) if found is not None else ("", "")
        tag = ReleaseVersion(ref=full, commit=oid).tag or "adopted"
        name = Path(link or "").name if kind == "standing" else release_name(1, tag, oid)
        with self._opened() as fd:
            return Adoption(
                kind=kind,
                place=str(self._place),
                release=name.rstrip("-"),
                link=link or "",
                ref=full,
                commit=oid,
                tree=str(found.tree) if found is not None else "",
                rewritten=dict(links_leading_out(fd)) if kind in ("directory", "current") else {},
                shared=self._to_share(kind),
                git=kind != "standing" and (self._place / ".git").exists(),
            )

    def _check_place(self, kind: str) -> None:
        """Refuse a place where others could swap what root moves, and one that cannot be exchanged.

        Raises:
            PreflightRefused: the remedy names the directory.
        """
        if os.geteuid() == 0:
            try:
                check_owned(self._place.parent, frozenset({0}))
            except OthersCanChange as found:
                raise PreflightRefused(
                    f"{self._place} is not safe to move: others can change {found.place}: {found.why}", found.remedy
                ) from None
        above = next(path for path in (self._site.path, *self._site.path.parents) if path.exists())
        if kind in ("directory", "current") and above.stat().st_dev != self._place.stat().st_dev:
            raise PreflightRefused(
                f"{self._place} is on another file system than {above}, where the site is to be",
                "give a --site on the same one: a directory in use is moved by one exchange of names",
            )

    def _to_share(self, kind: str) -> tuple[str, ...]:
        """Return the shared paths that are in the directory and not in `shared/` yet."""
        found = []
        for text in self._site.settings.shared:
            path = text.rstrip("/")
            inside = self._place / path
            if inside.is_symlink() or not inside.exists():
                continue
            if os.path.lexists(self._site.shared_dir / path):
                raise PreflightRefused(
                    f"{inside} and {self._site.shared_dir / path} are both there", "move one of them away"
                )
            if kind != "linked" and inside.stat().st_dev != self._place.stat().st_dev:
                raise PreflightRefused(
                    f"{inside} is on another file system", "mount it at its place in shared/, and link it here"
                )
            found.append(path)
        return tuple(found)

    # -- steps -------------------------------------------------------------------------------------------------------

    def _carry_out(self, plan: Adoption) -> None:
        site = self._site
        release = site.release_path(plan.release)
        if plan.kind == "linked":
            if not is_moved(release):
                self._copy(release)
            point(site.current_link, f"releases/{plan.release}")
            point(self._place, str(site.current_link))
        elif plan.kind != "standing" and not is_moved(release):
            for path, text in plan.rewritten.items():
                say(self._place, path, whole_path(self._place, path, text), site.building)
            self._exchange_with(release, plan)
        for path in plan.shared:
            self._share(release, path)
        if plan.git and os.path.lexists(release / ".git"):
            (release / ".git").rename(self._git_of(plan))
        sync_directory(release)
        sync_directory(site.private)

    def _exchange_with(self, release: Path, plan: Adoption) -> None:
        """Put the directory into `releases/`, and the symlink that was prepared there into its place, in one step."""
        site, text = self._site, f"releases/{plan.release}"
        if plan.kind == "directory":
            point(site.current_link, text)
            text = str(site.current_link)
        point(release, text)
        try:
            exchange(self._place, release)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOSYS):
                raise ReleaseError(
                    f"{self._place} cannot be moved without a gap: its file system cannot exchange two names",
                    f"undo it (--undo); then mv {self._place} away when nobody needs it, and deploy",
                ) from error
            raise
        sync_directory(self._place.parent)
        sync_directory(release.parent)

    def _copy(self, release: Path) -> None:
        """Copy the directory that the symlink leads to; under its name it is whole."""
        target = Path(os.path.realpath(self._place))
        building = self._site.building
        source, there = open_directory(target.parent), open_directory(building)
        try:
            remove_tree(release.name, there)
            copy_across(target.name, source, there, durable=self._site.settings.durable, new=release.name)
            with self._opened(building / release.name) as fd:
                leading = list(links_leading_out(fd))
            for path, text in leading:
                say(building / release.name, path, whole_path(target, path, text), building)
        finally:
            os.close(source)
            os.close(there)
        (building / release.name).rename(release)
        sync_directory(release.parent)

    def _share(self, release: Path, path: str) -> None:
        """Exchange a shared path of the release with a symlink that was prepared in `shared/`."""
        inside, there = release / path, self._site.shared_dir / path
        if inside.is_symlink():
            return
        there.parent.mkdir(parents=True, exist_ok=True)
        point(there, "../" * (path.count("/") + 2) + "shared/" + path)
        exchange(inside, there)
        sync_directory(inside.parent)
        sync_directory(there.parent)

    def _finish(self, plan: Adoption, entries: Entries, requested_by: str) -> None:
        """Write down the release as it is now."""
        site, now = self._site, timestamp(datetime.now(UTC))
        release = site.release_path(plan.release)
        with self._opened(release) as fd:
            manifest = manifest_of(fd, entries, plan.tree)
        manifest.save(site.manifest_file(plan.release), durable=site.settings.durable)
        tag = ReleaseVersion(ref=plan.ref, commit=plan.commit).tag or "adopted"
        made = Release(
            seq=1, name=plan.release, ref=plan.ref, tag=tag, commit=plan.commit, tree=plan.tree, status="good",
            created=now, activated=now, requested_by=requested_by, detail=f"adopted from {plan.place}",
        )  # fmt: skip
        done = Operation(
            number=1, phase="deploy", release=plan.release, ref=plan.ref, commit=plan.commit, requested_by=requested_by,
            started=now, finished=now, outcome="success", detail=made.detail,
        )  # fmt: skip
        site.save(SiteRecord().with_release(made).with_operation(done))
        self._save(plan)

    # -- undoing -----------------------------------------------------------------------------------------------------

    def undo(self) -> Adoption:
        """Put the directory back where it was, also after an adoption that was cut off.

        A reader that has read the symlink and not yet followed it when the directory takes its place again finds that
        it leads to itself (ELOOP), once. Nothing of that kind can happen on the way there.

        Raises:
            DeploykitError: nothing was adopted here, or there were deploys since.
        """
        with self._site.locked():
            plan = self._recorded()
            if plan is None or Path(plan.place) != self._place:
                raise PreflightRefused(f"{self._place} was not adopted by {self._site.path}", "check the paths")
            others = [one.name for one in self._site.state().releases if one.name != plan.release]
            if others:
                raise PreflightRefused(
                    f"there were deploys since: {', '.join(others[:3])}", f"roll back to {plan.release} instead"
                )
            try:
                self._take_back(plan)
            except OSError as error:
                raise ReleaseError(
                    f"it could not be undone: {error.strerror} ({error.filename})", "repair that, and try again"
                ) from error
        return plan

    def _take_back(self, plan: Adoption) -> None:
        site, release = self._site, self._site.release_path(plan.release)
        if plan.git and os.path.lexists(self._git_of(plan)):
            self._git_of(plan).rename(release / ".git")
        for path in plan.shared:
            there = site.shared_dir / path
            if (release / path).is_symlink() and os.path.lexists(there) and not there.is_symlink():
                exchange(release / path, there)
            if there.is_symlink():
                there.unlink()
        if plan.kind in ("directory", "current"):
            if is_moved(release):
                exchange(self._place, release)
            if release.is_symlink():
                release.unlink()
            for path, text in plan.rewritten.items():
                say(self._place, path, text, site.building)
        elif plan.kind == "linked":
            point(self._place, plan.link)
        if plan.kind in ("directory", "linked"):
            site.current_link.unlink(missing_ok=True)
        sync_directory(self._place.parent)
        if plan.kind == "linked":
            remove(site.releases_dir, plan.release)
        for file in (site.state_file, site.manifest_file(plan.release), site.settled_file(plan.release)):
            file.unlink(missing_ok=True)
        self._record_file.unlink()
        sync_directory(site.private)

    # -- helpers -----------------------------------------------------------------------------------------------------

    def _look(self, plan: Adoption, entries: Entries) -> Adopted:
        """Compare the directory, wherever it is by now, with the commit."""
        release = self._site.release_path(plan.release)
        root = release if release.is_dir() and not release.is_symlink() else self._place
        with self._opened(Path(os.path.realpath(root))) as fd:
            found = compare_with(fd, entries)
        if not plan.tree:
            return Adopted(adoption=plan, files=LiveFiles(count=found.count))
        hidden = tuple(f"{path}/" for path in plan.shared)
        missing = tuple(path for path in found.missing if not path.startswith(hidden))
        return Adopted(adoption=plan, files=attrs.evolve(found, missing=missing))

    def _entries(self, plan: Adoption, source: TreeSource | None) -> Entries:
        """Return path -> (mode, id) of the commit's files; empty where none is known."""
        if source is None or not plan.tree:
            return {}
        found = resolve_commit(source, plan.ref or plan.commit, plan.commit, Allowances(moved=True))
        rules = attrs.evolve(rules_of(self._site.settings), symlinks="any")
        entries = list_tree(source.store, found.tree, rules)
        return {os.fsdecode(e.path): (e.mode, e.oid.decode()) for e in entries if e.mode != GITLINK}

    @contextlib.contextmanager
    def _opened(self, root: Path | None = None) -> Iterator[int]:
        fd = open_directory(root if root is not None else Path(os.path.realpath(self._place)))
        try:
            yield fd
        finally:
            os.close(fd)

    def _recorded(self) -> Adoption | None:
        try:
            content = self._record_file.read_bytes()
        except FileNotFoundError:
            return None
        return read_adoption(content, self._record_file)

    def _save(self, plan: Adoption) -> None:
        replace_file(self._record_file, plan.to_bytes(), mode=0o640, durable=self._site.settings.durable)

    def _git_of(self, plan: Adoption) -> Path:
        return self._site.private / f"{plan.release}.git"
