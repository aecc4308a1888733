"""The directories themselves: copies beside each other, a symlink to the live one.

    ROOT/NAME                          symlink -> .deploykit/SLUG/NAME/a
    ROOT/TOPIC/NAME                    symlink -> ../.deploykit/SLUG/TOPIC,NAME/a
    ROOT/.deploykit/SLUG/NAME/a, b     copies of the tree, with a.manifest, b.manifest
    ROOT/.deploykit/SLUG/state.json    which ref each directory is of

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
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from deploykit.checkouts.copies import SLOTS, TreeCopies, has_rested, remove_entry
from deploykit.checkouts.links import Links, in_the_way
from deploykit.checkouts.model import CheckoutChange, CheckoutResult, CheckoutSource
from deploykit.checkouts.rules import OURS, CheckoutPlan, objection, parents_of, plan_checkouts, rule_of
from deploykit.checkouts.state import CheckedOutRef, CheckoutState, read_state, write_state
from deploykit.errors import (
    CheckoutError,
    MirrorCorrupt,
    MirrorError,
    PreflightRefused,
    SettingsError,
    TreeDamaged,
    TreeError,
)
from deploykit.names import RefName, path_component
from deploykit.system.lock import FileLock
from deploykit.system.ownership import OthersCanChange, check_owned
from deploykit.system.users import find_identity
from deploykit.trees import Differences, WriteOptions
from deploykit.trees.files import Owner, process_umask
from deploykit.trees.rules import rules_of

if TYPE_CHECKING:
    from deploykit.settings.mirror import CheckoutSettings

_log = logging.getLogger(__name__)


class Checkouts:
    """The directories of one `CheckoutSettings`."""

    def __init__(self, settings: CheckoutSettings) -> None:
        self.settings = settings
        self.rule = rule_of(settings)
        mode = "trusting" if settings.mode == "dangerous" else settings.mode  # one is the other, here
        slug = path_component(f"{mode}-{settings.prefix}{settings.target.name if settings.target else ''}")
        self._ours = self.rule.root / OURS / slug
        temporary = f"{OURS}-{hashlib.sha256(slug.encode()).hexdigest()[:12]}.new"
        self._links = Links(self.rule.root, temporary, durable=settings.durable)
        self._rules = rules_of(settings)
        owner = _owner(settings.owner)
        umask = settings.umask if settings.umask is not None else process_umask()
        self._options = WriteOptions(
            durable=settings.durable, owner=owner, fingerprint=f"checkout-1 {self._rules!r} {owner} {umask:03o}"
        )

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
        with self._locked():
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
        plan = plan_checkouts(self.rule, source.refs, source.head, {}, self.settings.refs)
        return tuple(plan.directories.values())

    def verify(self) -> dict[Path, Differences]:
        """Compare each directory with what was written; return those that differ."""
        found: dict[Path, Differences] = {}
        for directory in self._directories():
            live = self._live(directory)
            if live is not None:
                differences = self._copies(directory).compare(live)
                if differences.lines():
                    found[self.rule.root / directory] = differences
        return found

    def _update(self, source: CheckoutSource, only: Collection[RefName] | None) -> CheckoutResult:
        state = read_state(self._ours, self._options.fingerprint)
        refs = dict(source.refs)
        if not refs:
            return CheckoutResult()  # never fetched, or all refs lost: no reason to remove any directory
        plan = plan_checkouts(self.rule, refs, source.head, self._held(state), self.settings.refs)
        changed: list[CheckoutChange] = []
        refused = dict(plan.refused)
        failed: dict[str, str] = {}
        damaged = False
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
                damaged = damaged or isinstance(error, TreeDamaged | MirrorCorrupt)
                failed[ref] = str(error)
            except (TreeError, PreflightRefused) as error:
                refused[ref] = str(error)
            except OSError as error:
                failed[ref] = f"cannot write {self.rule.root / directory}: {error.strerror}"
        return CheckoutResult(
            changed=tuple(changed),
            removed=tuple(self.rule.root / directory for directory in removed),
            refused=refused,
            failed=failed,
            damaged=damaged,
        )

    # -- one directory -----------------------------------------------------------------------------------------------

    def _show(
        self, source: CheckoutSource, directory: str, ref: RefName, state: CheckoutState
    ) -> CheckoutChange | None:
        """Build the ref's tree beside the live copy and swap; None when the live copy is that tree already."""
        resolved = source.resolve(ref)
        copies = self._copies(directory)
        live = self._live(directory)
        if live is not None:
            manifest = copies.manifest(live)
            if manifest is not None and (manifest.tree, manifest.fingerprint) == (
                resolved.tree,
                self._options.fingerprint,
            ):
                return None
        link = self._links.read(directory) if live is not None else None
        rested = link is None or has_rested(link.made, self.settings.grace)
        slot, written, removed = copies.build(
            source.store, resolved.tree, live, rested=rested, durable=self.settings.durable
        )
        self._make_parents(directory, state)
        self._links.swap(directory, self._text(directory, slot))
        place = self.rule.root / directory
        _log.info("%s shows %s (%s): %d files written, %d removed", place, ref, resolved.commit[:12], written, removed)
        return CheckoutChange(directory=place, ref=ref, commit=resolved.commit, written=written, removed=removed)

    def _live(self, directory: str) -> str | None:
        """Return the slot that a directory shows; None when there is nothing.

        Raises:
            PreflightRefused: something else has its name, or is on the way to it.
        """
        link = self._links.read(directory)
        if link is None:
            return None
        slot = self._slot(directory, link.text)
        if slot is None:
            raise in_the_way(self.rule.root / directory, f"a symlink to {link.text!a}")
        return slot if (self._home(directory) / slot).is_dir() else None

    def _text(self, directory: str, slot: str) -> str:
        """Return the text of the symlink that shows a copy."""
        return "../" * directory.count("/") + str((self._home(directory) / slot).relative_to(self.rule.root))

    def _slot(self, directory: str, text: str) -> str | None:
        """Return which of the directory's copies a symlink shows; None where it is not one of them."""
        return next((slot for slot in SLOTS if text == self._text(directory, slot)), None)

    def _home(self, directory: str) -> Path:
        return self._ours / self.rule.home_of(directory)

    def _copies(self, directory: str) -> TreeCopies:
        return TreeCopies(home=self._home(directory), rules=self._rules, options=self._options)

    def _remove(self, directory: str) -> bool:
        """Remove a directory; return whether there was one."""
        home = self._home(directory)
        if not os.path.lexists(home):
            return False
        with contextlib.suppress(PreflightRefused):  # a foreign entry stays; the copies go
            link = self._links.read(directory)
            if link is not None and self._slot(directory, link.text) is None:
                shown = (self.rule.root / link.text.removeprefix("../" * directory.count("/"))).parent
                if shown.exists() and shown.samefile(home):
                    return False  # a file system that ignores case: it is another ref's, in another spelling
                raise in_the_way(self.rule.root / directory, f"a symlink to {link.text!a}")
            self._links.remove(directory)
            _log.info("%s removed: its ref is gone, or has another directory", self.rule.root / directory)
        remove_entry(home)
        return True

    # -- the directories that nested ones are in ---------------------------------------------------------------------

    def _make_parents(self, directory: str, state: CheckoutState) -> None:
        """Make what is missing on the way to a directory. It is noted first: what nobody knows of is never removed."""
        missing = self._links.missing_parents(directory)
        if missing:
            state.parents |= set(missing)
            self._save(state)
            state.parents -= {parent for parent in missing if not self._links.make_parent(parent)}

    def _remove_parents(self, plan: CheckoutPlan, state: CheckoutState) -> None:
        """Remove the directories that were made for others and that none is to be in, if they are empty."""
        needed = {parent for directory in plan.directories for parent in parents_of(directory)}
        for parent in sorted(state.parents - needed, reverse=True):
            if self._links.remove_parent(parent):
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
        held = dict.fromkeys(self._directories(), "") | {d: known.ref for d, known in state.directories.items()}
        if self.rule.remove:
            return held
        return {d: ref for d, ref in held.items() if os.path.lexists(self.rule.root / d)}

    def _directories(self) -> list[str]:
        """Return the directories that there are copies for, whatever state they are in."""
        if not self.rule.patterns or not self._ours.is_dir():
            return []
        homes = (entry.name for entry in os.scandir(self._ours) if entry.is_dir(follow_symlinks=False))
        return sorted(d for d in map(self.rule.directory_in, homes) if not objection(d, nested=True))

    def _save(self, state: CheckoutState) -> None:
        write_state(self._ours, self._options.fingerprint, state, durable=self.settings.durable)

    def _check_place(self) -> None:
        """Refuse root a directory that others can swap: it would write and remove where their symlinks lead.

        Raises:
            PreflightRefused: they can.
            OSError: it cannot be looked at.
        """
        if os.geteuid() != 0:
            return
        there = next(p for p in (self._ours, *self._ours.parents) if p.exists())
        try:
            check_owned(there, frozenset({0}), sticky=there != self._ours)
        except OthersCanChange as found:
            raise PreflightRefused(
                f"{self.rule.root} is not safe: others can change {found.place}: {found.why}", found.remedy
            ) from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the directories' lock, for which it waits as long as another process updates them."""
        lock = FileLock(self._ours / "lock", wait=None, busy=f"{self.rule.root} is being updated by another process")
        with contextlib.ExitStack() as stack:
            try:
                self._check_place()
                self._ours.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock)
            except OSError as error:
                raise PreflightRefused(
                    f"cannot use {self.rule.root}: {error.strerror}", "check its owner and mode"
                ) from error
            yield


def _owner(text: str) -> Owner | None:
    if not text:
        return None
    identity = find_identity(text)
    if identity is None:
        raise SettingsError(f"checkout owner {text!r}: no such user or group")
    return identity.uid, identity.gid
