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
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import PreflightRefused, ReleaseError
from deploykit.release.adoptable import check_place, paths_to_share
from deploykit.release.adoption import Adoption, kind_of
from deploykit.release.adoptsource import entries_of, version_live
from deploykit.release.adoptsteps import (
    is_moved,
    links_leading_out,
    point,
    say,
    share,
    take_back_shared,
    whole_path,
)
from deploykit.release.build import remove
from deploykit.release.model import Operation, Release
from deploykit.release.requests import NO_PARTS, Parts
from deploykit.release.site import Site, release_name
from deploykit.release.source import TreeSource
from deploykit.release.state import SiteRecord
from deploykit.release.steps import timestamp
from deploykit.system.durable import replace_file, sync_directory
from deploykit.system.exchange import IMPOSSIBLE, exchange
from deploykit.trees import read_link
from deploykit.trees.copying import copy_across
from deploykit.trees.files import open_directory, remove_tree
from deploykit.trees.livefiles import Entries, LiveFiles, changed_since, compare_with, listing, manifest_of

_WAY_OUT: Final = "undo it (--undo), or run the same command again to go on"


@attrs.frozen(kw_only=True, slots=True)
class Adopted:
    """What an adoption did, or would do.

    Args:
        adoption: its record.
        files: how the directory compares with the commit; only their count where no commit is known.
        late: what changed in a directory elsewhere while it was copied: paths in it. The copy may not have it.
    """

    adoption: Adoption
    files: LiveFiles
    late: tuple[str, ...] = ()


@attrs.frozen(kw_only=True, slots=True)
class Undone:
    """What the way back did.

    Args:
        adoption: what was undone.
        kept: where the copy of a directory elsewhere is, if something was written into it; else None.
        written: what that was: paths in it.
    """

    adoption: Adoption
    kept: Path | None = None
    written: tuple[str, ...] = ()


class Adopter:
    """Adopts one directory for one site.

    Args:
        site: made where it is not there.
        place: the live directory, or a symlink to it.
    """

    def __init__(self, site: Site, place: Path) -> None:
        self._site = site
        place = Path(os.path.abspath(place))  # noqa: PTH100 -- resolve() would walk through it
        self._place = Path(os.path.realpath(place.parent)) / place.name
        self._is_current = self._place == Path(os.path.realpath(site.path)) / "current"

    @property
    def clone(self) -> Path | None:
        """Where the repository is, if the directory is a clone, also where an adoption moved it by now.

        Where `.git` is a file, of a work tree of another clone, it is the directory itself.
        """
        if (self._place / ".git").is_file():
            return self._place
        plan = self._site.adoption()
        moved = [self._git_of(plan)] if plan is not None and plan.place == str(self._place) else []
        return next((path for path in (self._place / ".git", *moved) if path.is_dir()), None)

    # -- adopting ----------------------------------------------------------------------------------------------------

    def preview(
        self, source: TreeSource | None = None, ref: str = "", commit: str = "", *, parts: Parts = NO_PARTS
    ) -> Adopted:
        """Return what would be done; nothing is touched.

        Raises:
            DeploykitError: what it would be refused for.
        """
        plan = self._plan(source, ref, commit, parts)
        return self._look(plan, entries_of(source, plan, self._site.settings))

    def adopt(
        self,
        source: TreeSource | None = None,
        ref: str = "",
        commit: str = "",
        *,
        parts: Parts = NO_PARTS,
        requested_by: str = "",
    ) -> Adopted:
        """Make the directory the site's first release; go on with an adoption that was cut off.

        Args:
            source, ref, commit, parts: what it is said to be made from, as for a deploy.

        Raises:
            DeploykitError: it was refused, and nothing was touched; or a step failed: the text says how to go on.
        """
        plan = self._plan(source, ref, commit, parts)
        entries = entries_of(source, plan, self._site.settings)  # now: it may be the clone itself, whose `.git` moves
        found = self._look(plan, entries)
        late: tuple[str, ...] = ()
        self._site.set_up(adopting=True)
        with self._site.locked():
            before = self._site.adoption()
            plan = before or plan
            if self._site.exists() and not self._is_recorded(plan, before):
                raise self._is_there()
            try:
                if before is None:
                    self._save(plan)
                if not self._site.exists():
                    late = self._carry_out(plan)
                    self._write_down(plan, entries, requested_by)
                self._save(attrs.evolve(plan, done=True))
            except OSError as error:
                raise ReleaseError(
                    f"the adoption of {self._place} stopped half-way: {error.strerror} ({error.filename})", _WAY_OUT
                ) from error
        return attrs.evolve(found, adoption=attrs.evolve(plan, done=True), late=late)

    def _is_recorded(self, plan: Adoption, before: Adoption | None) -> bool:
        """Return whether all that is missing of an adoption is that it is marked as done."""
        return before is not None and not before.done and self._site.recorded().get(plan.release) is not None

    def _is_there(self) -> PreflightRefused:
        return PreflightRefused(f"there is a site at {self._site.path} already", "deploy to it")

    def _plan(self, source: TreeSource | None, ref: str, commit: str, parts: Parts) -> Adoption:
        known = self._site.adoption()
        if known is not None and Path(known.place) != self._place:
            raise PreflightRefused(f"the site adopted {known.place} before", "undo that first (--undo)")
        if known is not None and not known.done:
            return known
        if self._site.exists():
            raise self._is_there()
        link = read_link(self._place)
        target = Path(os.path.realpath(self._place)) if self._place.is_dir() else None
        kind = kind_of(self._place, Path(os.path.realpath(self._site.path)), link=link, target=target)
        version, tree = version_live(source, ref, commit, parts)
        name = release_name(1, version.tag or "adopted", version.commit).rstrip("-")
        if kind == "standing" and target is not None:
            name = target.name
        check_place(self._site, self._place, kind, name)
        with self._opened() as fd:
            return Adoption(
                kind=kind,
                place=str(self._place),
                release=name,
                link=link or "",
                ref=version.ref,
                commit=version.commit,
                tree=tree,
                parts=version.parts,
                rewritten=dict(links_leading_out(fd)) if kind in ("directory", "current") else {},
                shared=paths_to_share(self._site, self._place, kind),
                git=kind != "standing" and (self._place / ".git").exists(),
            )

    # -- steps -------------------------------------------------------------------------------------------------------

    def _carry_out(self, plan: Adoption) -> tuple[str, ...]:
        """Take all steps but the last; return what changed in a directory elsewhere while it was copied."""
        site = self._site
        late: tuple[str, ...] = ()
        release = site.release_path(plan.release)
        if plan.kind == "linked":
            if not is_moved(release):
                self._copy(release)
            point(site.current_link, f"releases/{plan.release}")
            if not self._is_current:
                point(self._place, str(site.current_link))
            late = self._changed_meanwhile(plan, release)
        elif plan.kind == "standing":
            if site.live_name() != plan.release:  # it leads there by another way than the site's own
                point(site.current_link, f"releases/{plan.release}")
        elif not is_moved(release):
            for path, text in plan.rewritten.items():
                say(self._place, path, text, whole_path(self._place, path, text), site.building)
            self._exchange_with(release, plan)
        for path in plan.shared:
            share(site, release, path)
        if plan.git and os.path.lexists(release / ".git"):
            (release / ".git").rename(self._git_of(plan))
        sync_directory(release)
        sync_directory(site.private)
        return late

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
            if error.errno in IMPOSSIBLE:
                raise ReleaseError(
                    f"{self._place} cannot be moved without a gap, by an exchange of two names: {error.strerror}",
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
                say(building / release.name, path, text, whole_path(target, path, text), building)
        finally:
            os.close(source)
            os.close(there)
        (building / release.name).rename(release)
        sync_directory(release.parent)

    def _changed_meanwhile(self, plan: Adoption, release: Path) -> tuple[str, ...]:
        """Return in what a directory elsewhere and its copy differ by now, without a look into their files."""
        original = Path(os.path.realpath(self._place.parent / plan.link))
        if not original.is_dir():
            return ()
        with self._opened(original) as fd, self._opened(release) as copy:
            now, then = listing(fd), listing(copy)
        moved = tuple(f"{path}/" for path in plan.shared if (release / path).is_symlink())
        found = {*changed_since(then, now), *changed_since(now, then)}
        return tuple(sorted(path for path in found if not f"{path}/".startswith(moved)))

    def _write_down(self, plan: Adoption, entries: Entries, requested_by: str) -> None:
        """Write down the release as it is now."""
        site, now = self._site, timestamp(datetime.now(UTC))
        release = site.release_path(plan.release)
        with self._opened(release) as fd:
            manifest = manifest_of(fd, entries, plan.tree)
        manifest.save(site.manifest_file(plan.release), durable=site.settings.durable)
        tag = plan.version.tag or "adopted"
        made = Release(
            seq=1, name=plan.release, ref=plan.ref, tag=tag, commit=plan.commit, tree=plan.tree, status="good",
            parts=plan.parts,
            created=now, activated=now, requested_by=requested_by, detail=f"adopted from {plan.place}",
        )  # fmt: skip
        done = Operation(
            number=1, phase="deploy", release=plan.release, ref=plan.ref, commit=plan.commit, requested_by=requested_by,
            started=now, finished=now, outcome="success", detail=made.detail,
        )  # fmt: skip
        site.save(SiteRecord().with_release(made).with_operation(done))

    # -- undoing -----------------------------------------------------------------------------------------------------

    def undo(self) -> Undone:
        """Put the directory back where it was, also after an adoption that was cut off.

        A reader that has read the symlink and not yet followed it when the directory takes its place again finds that
        it leads to itself (ELOOP), once. Nothing of that kind can happen on the way there.

        Raises:
            DeploykitError: nothing was adopted here, or there were deploys since.
        """
        nothing = PreflightRefused(f"{self._place} was not adopted by {self._site.path}", "check the paths")
        if self._site.adoption() is None:
            raise nothing
        with self._site.locked():
            plan = self._site.adoption()
            if plan is None or Path(plan.place) != self._place:
                raise nothing
            others = [one.name for one in self._site.state().releases if one.name != plan.release]
            if others:
                raise PreflightRefused(
                    f"there were deploys since: {', '.join(others[:3])}", f"roll back to {plan.release} instead"
                )
            try:
                return self._take_back(plan)
            except OSError as error:
                raise ReleaseError(
                    f"it could not be undone: {error.strerror} ({error.filename})", "repair that, and try again"
                ) from error

    def _take_back(self, plan: Adoption) -> Undone:
        site, release = self._site, self._site.release_path(plan.release)
        self._save(attrs.evolve(plan, done=False))  # from here on no deploy, until the way is gone to one of its ends
        for file in (site.state_file, site.manifest_file(plan.release), site.settled_file(plan.release)):
            file.unlink(missing_ok=True)
        sync_directory(site.private)
        moved = is_moved(release)
        if moved and plan.git and os.path.lexists(self._git_of(plan)):
            self._git_of(plan).rename(release / ".git")
        for path in plan.shared if moved else ():
            take_back_shared(site, release, path)
        if plan.kind in ("directory", "current"):
            if moved:
                exchange(self._place, release)
            if release.is_symlink():
                release.unlink()
            for path, text in plan.rewritten.items():
                say(self._place, path, whole_path(self._place, path, text), text, site.building)
        else:
            point(self._place, plan.link)
        if plan.kind in ("directory", "linked") and not self._is_current and site.current_link.is_symlink():
            site.current_link.unlink()
        sync_directory(self._place.parent)
        done = self._put_away(plan, release) if plan.kind == "linked" else Undone(adoption=plan)
        site.adoption_file.unlink()
        sync_directory(site.private)
        return done

    def _put_away(self, plan: Adoption, copy: Path) -> Undone:
        """Remove the copy of a directory elsewhere; keep it where something was written into it that is only there."""
        if not is_moved(copy):
            return Undone(adoption=plan)
        with self._opened(copy) as fd, self._opened() as original:
            written = changed_since(listing(original), listing(fd))
        if not written:
            remove(copy.parent, copy.name)
            return Undone(adoption=plan)
        kept = next(
            path for n in range(1, 1000) if not (path := self._site.private / f"{copy.name}.undone-{n}").exists()
        )
        copy.rename(kept)
        return Undone(adoption=plan, kept=kept, written=written)

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
        added = tuple(path for path in found.added if path.rstrip("/") not in plan.shared)  # by now a symlink
        return Adopted(adoption=plan, files=attrs.evolve(found, missing=missing, added=added))

    @contextlib.contextmanager
    def _opened(self, root: Path | None = None) -> Iterator[int]:
        fd = open_directory(root if root is not None else Path(os.path.realpath(self._place)))
        try:
            yield fd
        finally:
            os.close(fd)

    def _save(self, plan: Adoption) -> None:
        replace_file(self._site.adoption_file, plan.to_bytes(), mode=0o640, durable=self._site.settings.durable)

    def _git_of(self, plan: Adoption) -> Path:
        return self._site.private / f"{plan.release}.git"
