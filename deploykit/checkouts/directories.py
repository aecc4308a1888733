"""The directories themselves: copies beside each other, a symlink to the live one.

What is where is in `places`.

Rules:

* The symlink is swapped by a rename: a reader sees the old or the new tree.
* Only directories made here are removed, and only inside the root. One that a nested directory is in is noted before
  it is made, so that none is left behind, and removed only when it is empty.
* A directory whose ref has another one now goes after that is shown.
* What cannot be written is refused by name, and its directory stays as it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from deploykit.checkouts.copies import TreeCopies, has_rested, remove_entry
from deploykit.checkouts.links import Links, in_the_way
from deploykit.checkouts.model import CheckoutChange, CheckoutResult, CheckoutSource, ResolvedRef
from deploykit.checkouts.places import CheckoutPlaces
from deploykit.checkouts.rules import OURS, CheckoutPlan, parents_of, plan_checkouts, rule_of
from deploykit.checkouts.state import CheckedOutRef, CheckoutState, read_state, write_state
from deploykit.errors import (
    CheckoutError,
    LfsMissing,
    MirrorCorrupt,
    MirrorError,
    PreflightRefused,
    SettingsError,
    TreeDamaged,
    TreeError,
)
from deploykit.mirror.lfs.needs import lfs_places
from deploykit.mirror.submodules import ComposedTree
from deploykit.names import RefName, RepoName
from deploykit.system.users import find_identity
from deploykit.trees import Differences, WriteOptions
from deploykit.trees.files import Owner, process_umask
from deploykit.trees.graft import fingerprint_with
from deploykit.trees.rules import rules_of

if TYPE_CHECKING:
    from deploykit.settings.mirror import CheckoutSettings

_log = logging.getLogger(__name__)


class Checkouts:
    """The directories of one `CheckoutSettings`.

    Args:
        lfs: the repositories whose objects of Git LFS are fetched, where the trees have submodules: when they change,
            every tree is looked at again.
    """

    def __init__(self, settings: CheckoutSettings, lfs: Iterable[RepoName] = ()) -> None:
        self.settings = settings
        self.rule = rule_of(settings)
        self.places = CheckoutPlaces(settings, self.rule)
        temporary = f"{OURS}-{hashlib.sha256(self.places.slug.encode()).hexdigest()[:12]}.new"
        self.links = Links(self.rule.root, temporary, durable=settings.durable)
        self._rules = rules_of(settings)
        owner = _owner(settings.owner)
        umask = settings.umask if settings.umask is not None else process_umask()
        self._options = WriteOptions(
            durable=settings.durable, owner=owner, fingerprint=f"checkout-1 {self._rules!r} {owner} {umask:03o}"
        )
        self._lfs = [repo.encode() for repo in lfs]

    def update(self, source: CheckoutSource, only: Collection[RefName] | None = None) -> CheckoutResult:
        """Make the directories show what the source holds. Safe to repeat after any interruption.

        Args:
            source: a mirror.
            only: the refs that may be shown anew; the directories of others stay as they are. None: all.

        Raises:
            MirrorError: the source cannot be read.
            PreflightRefused: the root cannot be used.
            CheckoutError: the root cannot be written to.
        """
        if not self.rule.patterns:
            return CheckoutResult()
        with self.places.locked():
            try:
                return self._update(source, only)
            except OSError as error:
                raise CheckoutError(
                    f"cannot write below {self.rule.root}: {error.strerror}", "repair the disk"
                ) from error
            finally:
                source.release()

    def refs(self, source: CheckoutSource) -> tuple[RefName, ...]:
        """Return the refs that are to have a directory here.

        Raises:
            MirrorError: the source cannot be read.
        """
        return tuple(self.planned(source).directories.values())

    def planned(self, source: CheckoutSource) -> CheckoutPlan:
        """Return which directories there are to be here, and which refs get none, whatever is there by now.

        Raises:
            MirrorError: the source cannot be read.
        """
        return plan_checkouts(self.rule, source.refs, source.head, {}, self.settings.refs)

    def verify(self) -> dict[Path, Differences]:
        """Compare each directory with what was written; return those that differ."""
        found: dict[Path, Differences] = {}
        for directory in self.places.directories():
            live = self._live(directory)
            if live is not None:
                differences = self.copies(directory).compare(live)
                if differences.lines():
                    found[self.rule.root / directory] = differences
        return found

    def _update(self, source: CheckoutSource, only: Collection[RefName] | None) -> CheckoutResult:
        fingerprint = fingerprint_with(self._options.fingerprint, (), [*lfs_places(source), *self._lfs])
        state = read_state(self.places.ours, fingerprint)
        refs = dict(source.refs)
        if not refs:
            return CheckoutResult()  # never fetched, or all refs lost: no reason to remove any directory
        plan = plan_checkouts(self.rule, refs, source.head, self._held(state), self.settings.refs)
        changed: list[CheckoutChange] = []
        refused = dict(plan.refused)
        failed: dict[str, str] = {}
        damage: list[TreeDamaged | MirrorCorrupt] = []
        lacking: set[tuple[RepoName, str]] = set()
        removed = self._remove_all(plan.removed, plan, state)
        for directory, ref in plan.directories.items():
            if only is not None and ref not in only:
                continue
            try:
                known = CheckedOutRef(ref, refs[ref])
                if state.directories.get(directory) != known or self._live(directory) is None:
                    change = self._show(source, directory, ref, state)
                    state.directories[directory] = known
                    self._save(state)
                    changed += [change] if change is not None else []
                removed += self._remove_all([d for d, moved in plan.moved.items() if moved == ref], plan, state)
            except (TreeDamaged, MirrorError) as error:
                if isinstance(error, TreeDamaged | MirrorCorrupt):
                    damage.append(error)
                failed[ref] = str(error)
                if isinstance(error, LfsMissing):
                    lacking |= {(RepoName(repo), error.problem) for repo in error.repos if repo}
            except (TreeError, PreflightRefused) as error:
                refused[ref] = str(error)
            except OSError as error:
                failed[ref] = f"cannot write {self.rule.root / directory}: {error.strerror}"
        return CheckoutResult(
            changed=tuple(changed),
            removed=tuple(self.rule.root / directory for directory in removed),
            refused=refused,
            failed=failed,
            damage=tuple(damage),
            lacking=frozenset(lacking),
        )

    # -- one directory -----------------------------------------------------------------------------------------------

    def _show(
        self, source: CheckoutSource, directory: str, ref: RefName, state: CheckoutState
    ) -> CheckoutChange | None:
        """Build the ref's tree beside the live copy and swap; None when the live copy is that tree already."""
        resolved = source.resolve(ref)
        copies = self.copies(directory, source, resolved)
        live = self._live(directory)
        if live is not None:
            manifest = copies.manifest(live)
            if manifest is not None and (manifest.tree, manifest.fingerprint) == (
                resolved.tree,
                copies.options.fingerprint,
            ):
                return None
        link = self.links.read(directory) if live is not None else None
        rested = link is None or has_rested(link.made, self.settings.grace)
        slot, written, removed = copies.build(
            source.store, resolved.tree, live, rested=rested, durable=self.settings.durable
        )
        self._make_parents(directory, state)
        self.links.swap(directory, self.places.text(directory, slot))
        place = self.rule.root / directory
        _log.info("%s shows %s (%s): %d files written, %d removed", place, ref, resolved.commit[:12], written, removed)
        return CheckoutChange(directory=place, ref=ref, commit=resolved.commit, written=written, removed=removed)

    def _live(self, directory: str) -> str | None:
        """Return the slot that a directory shows; None when there is nothing.

        Raises:
            PreflightRefused: something else has its name, or is on the way to it.
        """
        link = self.links.read(directory)
        if link is None:
            return None
        slot = self.places.slot(directory, link.text)
        if slot is None:
            raise in_the_way(self.rule.root / directory, f"a symlink to {link.text!a}")
        return slot if (self.places.home(directory) / slot).is_dir() else None

    def copies(
        self, directory: str, source: CheckoutSource | None = None, resolved: ResolvedRef | None = None
    ) -> TreeCopies:
        """Return the copies of a directory, to be written from what a ref of a source stands for."""
        mounts = resolved.mounts if isinstance(resolved, ComposedTree) else ()
        lfs = lfs_places(source, mounts) if source is not None else {}
        fingerprint = fingerprint_with(self._options.fingerprint, mounts, lfs)
        options = attrs.evolve(self._options, mounts=mounts, lfs=lfs, fingerprint=fingerprint)
        return TreeCopies(home=self.places.home(directory), rules=self._rules, options=options)

    def _remove(self, directory: str) -> bool:
        """Remove a directory; return whether there was one."""
        home = self.places.home(directory)
        if not os.path.lexists(home):
            return False
        with contextlib.suppress(PreflightRefused):  # a foreign entry stays; the copies go
            link = self.links.read(directory)
            if link is not None and self.places.slot(directory, link.text) is None:
                shown = (self.rule.root / link.text.removeprefix("../" * directory.count("/"))).parent
                if shown.exists() and shown.samefile(home):
                    return False  # a file system that ignores case: it is another ref's, in another spelling
                raise in_the_way(self.rule.root / directory, f"a symlink to {link.text!a}")
            self.links.remove(directory)
            _log.info("%s removed: its ref is gone, or has another directory", self.rule.root / directory)
        remove_entry(home)
        return True

    # -- the directories that nested ones are in ---------------------------------------------------------------------

    def _make_parents(self, directory: str, state: CheckoutState) -> None:
        """Make what is missing on the way to a directory. It is noted first: what nobody knows of is never removed."""
        missing = self.links.missing_parents(directory)
        if missing:
            state.parents |= set(missing)
            self._save(state)
            state.parents -= {parent for parent in missing if not self.links.make_parent(parent)}

    def _remove_parents(self, plan: CheckoutPlan, state: CheckoutState) -> None:
        """Remove the directories that were made for others and that none is to be in, if they are empty."""
        needed = {parent for directory in plan.directories for parent in parents_of(directory)}
        for parent in sorted(state.parents - needed, reverse=True):
            if self.links.remove_parent(parent):
                state.parents.discard(parent)

    # -- all of them -------------------------------------------------------------------------------------------------

    def _remove_all(self, directories: Iterable[str], plan: CheckoutPlan, state: CheckoutState) -> list[str]:
        """Remove directories, and those they were in; return which there were."""
        going = list(directories)
        removed = [directory for directory in going if self._remove(directory)]
        before = (len(state.directories), len(state.parents))
        for directory in going:
            state.directories.pop(directory, None)
        self._remove_parents(plan, state)
        if (len(state.directories), len(state.parents)) != before:
            self._save(state)
        return removed

    def _held(self, state: CheckoutState) -> dict[str, str]:
        """Return the directories that are there, each with its ref, where that is known."""
        held = dict.fromkeys(self.places.directories(), "") | {d: known.ref for d, known in state.directories.items()}
        if self.rule.remove:
            return held
        return {d: ref for d, ref in held.items() if os.path.lexists(self.rule.root / d)}

    def _save(self, state: CheckoutState) -> None:
        write_state(self.places.ours, state, durable=self.settings.durable)


def _owner(text: str) -> Owner | None:
    if not text:
        return None
    identity = find_identity(text)
    if identity is None:
        raise SettingsError(f"checkout owner {text!r}: no such user or group")
    return identity.uid, identity.gid
