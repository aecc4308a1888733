"""The directories themselves: copies beside each other, a symlink to the live one.

    ROOT/NAME                          symlink -> .deploykit/SLUG/NAME/a
    ROOT/.deploykit/SLUG/NAME/a, b     copies of the tree, with a.manifest, b.manifest
    ROOT/.deploykit/SLUG/state.json    which ref each directory is of

Rules:

* The symlink is swapped by a rename: a reader sees the old or the new tree.
* Only changed files are written, into the spare copy, which is compared with its manifest first.
* Only directories made here are removed, and only inside the root.
* What cannot be written is refused by name, and its directory stays as it was.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs

from deploykit.checkouts.model import CheckoutChange, CheckoutResult, CheckoutSource
from deploykit.checkouts.rules import OURS, plan_checkouts, rule_of
from deploykit.checkouts.state import CheckedOutRef, read_state, write_state
from deploykit.errors import (
    CheckoutError,
    MirrorCorrupt,
    MirrorError,
    PreflightRefused,
    SettingsError,
    TreeDamaged,
    TreeError,
)
from deploykit.names import ObjectId, RefName, path_component
from deploykit.system.durable import sync_directory, sync_filesystem
from deploykit.system.lock import FileLock
from deploykit.system.ownership import OthersCanChange, check_owned
from deploykit.system.users import find_identity
from deploykit.trees import (
    CannotPatch,
    Differences,
    Manifest,
    ObjectStore,
    WriteOptions,
    compare,
    patch_tree,
    read_link,
    remove_symlink,
    swap_symlink,
    write_tree,
)
from deploykit.trees.files import Owner, open_directory, process_umask, remove_tree
from deploykit.trees.rules import rules_of

if TYPE_CHECKING:
    from deploykit.settings.mirror import CheckoutSettings

_log = logging.getLogger(__name__)

_SLOTS: Final = "abcdefgh"


class Checkouts:
    """The directories of one `CheckoutSettings`."""

    def __init__(self, settings: CheckoutSettings) -> None:
        self.settings = settings
        self.rule = rule_of(settings)
        self._ours = (
            self.rule.root / OURS / path_component(f"{settings.mode}-{settings.target.name if settings.target else ''}")
        )
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
                differences = compare(Manifest.load(self._manifest(directory, live)), self._ours / directory / live)
                if differences.lines():
                    found[self.rule.root / directory] = differences
        return found

    def _update(self, source: CheckoutSource, only: Collection[RefName] | None) -> CheckoutResult:
        state = read_state(self._ours, self._options.fingerprint)
        refs = dict(source.refs)
        if not refs:
            return CheckoutResult()  # never fetched, or all refs lost: no reason to remove any directory
        held = {d: state[d].ref if d in state else "" for d in (*self._directories(), *state)}
        plan = plan_checkouts(self.rule, refs, source.head, held, self.settings.refs)
        changed: list[CheckoutChange] = []
        refused = dict(plan.refused)
        failed: dict[str, str] = {}
        damaged = False
        removed = [directory for directory in plan.removed if self._remove(directory)]
        if plan.removed:
            state = {directory: known for directory, known in state.items() if directory not in plan.removed}
            self._save(state)
        for directory, ref in plan.directories.items():
            if only is not None and ref not in only:
                continue
            try:
                if state.get(directory) == CheckedOutRef(ref, refs[ref]) and self._live(directory) is not None:
                    continue
                change = self._show(source, directory, ref)
            except (TreeDamaged, MirrorError) as error:
                damaged = damaged or isinstance(error, TreeDamaged | MirrorCorrupt)
                failed[ref] = str(error)
                continue
            except (TreeError, PreflightRefused) as error:
                refused[ref] = str(error)
                continue
            except OSError as error:
                failed[ref] = f"cannot write {self.rule.root / directory}: {error.strerror}"
                continue
            state[directory] = CheckedOutRef(ref, refs[ref])
            self._save(state)
            if change is not None:
                changed.append(change)
        return CheckoutResult(
            changed=tuple(changed),
            removed=tuple(self.rule.root / directory for directory in removed),
            refused=refused,
            failed=failed,
            damaged=damaged,
        )

    # -- one directory -----------------------------------------------------------------------------------------------

    def _show(self, source: CheckoutSource, directory: str, ref: RefName) -> CheckoutChange | None:
        """Build the ref's tree beside the live copy and swap; None when the live copy is that tree already."""
        resolved = source.resolve(ref)
        live = self._live(directory)
        if live is not None:
            manifest = self._load(directory, live)
            if manifest is not None and (manifest.tree, manifest.fingerprint) == (
                resolved.tree,
                self._options.fingerprint,
            ):
                return None
        home = self._ours / directory
        home.mkdir(parents=True, exist_ok=True)
        slot, spare = self._next_slot(directory, live)
        manifest, written, removed = self._build(source.store, resolved.tree, home / slot, spare)
        manifest.save(self._manifest(directory, slot), durable=False)
        if self.settings.durable:
            fd = open_directory(home)
            try:
                sync_filesystem(fd)
            finally:
                os.close(fd)
        link = self.rule.root / directory
        swap_symlink(link, str((home / slot).relative_to(self.rule.root)), durable=self.settings.durable)
        _log.info("%s shows %s (%s): %d files written, %d removed", link, ref, resolved.commit[:12], written, removed)
        return CheckoutChange(directory=link, ref=ref, commit=resolved.commit, written=written, removed=removed)

    def _build(
        self, store: ObjectStore, tree: ObjectId, target: Path, spare: Manifest | None
    ) -> tuple[Manifest, int, int]:
        if spare is not None:
            try:
                done = patch_tree(store, tree, target, spare, self._rules, self._options)
            except (CannotPatch, OSError) as why:
                _log.info("%s is written afresh: %s", target, why)
            else:
                return done.manifest, done.written, done.removed
        _remove_entry(target)
        try:
            manifest = write_tree(store, tree, target, self._rules, attrs.evolve(self._options, durable=False))
        except BaseException:
            _remove_entry(target)
            raise
        return manifest, len(manifest.paths), 0

    def _next_slot(self, directory: str, live: str | None) -> tuple[str, Manifest | None]:
        """Return where to build: a spare copy that readers have had time to leave, or a new one. Surplus copies go."""
        home = self._ours / directory
        link = self.rule.root / directory
        there = [slot for slot in _SLOTS if slot != live and (home / slot).exists()]
        rested = live is None or abs(time.time() - link.lstat().st_mtime) >= self.settings.grace
        if rested or len(there) >= len(_SLOTS) - 2:
            for surplus in there[1:]:
                self._drop(directory, surplus)
            if there:
                return there[0], self._load(directory, there[0])
        free = next(slot for slot in _SLOTS if slot != live and slot not in there)
        return free, None

    def _live(self, directory: str) -> str | None:
        """Return the slot that a directory shows; None when there is nothing.

        Raises:
            PreflightRefused: something else has its name.
        """
        link = self.rule.root / directory
        target = read_link(link)
        if target is None:
            if os.path.lexists(link):
                raise PreflightRefused(f"{link} is not a checkout: a real file or directory", "move it away")
            return None
        if not self._is_ours(directory, target):
            raise PreflightRefused(f"{link} is not a checkout: a symlink to {target!a}", "move it away")
        slot = target.rpartition("/")[2]
        return slot if (self._ours / directory / slot).is_dir() else None

    def _is_ours(self, directory: str, target: str) -> bool:
        """Return whether a symlink's target is one of the directory's copies."""
        ours, _, slot = target.rpartition("/")
        return self.rule.root / ours == self._ours / directory and slot in _SLOTS

    def _remove(self, directory: str) -> bool:
        """Remove a directory; return whether there was one."""
        home = self._ours / directory
        target = read_link(self.rule.root / directory)
        if not os.path.lexists(home):
            return False
        if target and not self._is_ours(directory, target):
            shown = (self.rule.root / target).parent
            if shown.exists() and shown.samefile(home):
                return False  # a file system that ignores case: it is another ref's, in another spelling
        with contextlib.suppress(PreflightRefused):  # a foreign entry stays; the copies go
            self._live(directory)
            remove_symlink(self.rule.root / directory, durable=self.settings.durable)
            _log.info("%s removed: its ref is gone", self.rule.root / directory)
        _remove_entry(home)
        return True

    def _drop(self, directory: str, slot: str) -> None:
        self._manifest(directory, slot).unlink(missing_ok=True)
        _remove_entry(self._ours / directory / slot)

    def _manifest(self, directory: str, slot: str) -> Path:
        return self._ours / directory / f"{slot}.manifest"

    def _load(self, directory: str, slot: str) -> Manifest | None:
        try:
            return Manifest.load(self._manifest(directory, slot))
        except TreeError:
            return None  # cut off before it was written: the copy is built afresh

    # -- all of them -------------------------------------------------------------------------------------------------

    def _directories(self) -> list[str]:
        """Return the directories that there are copies for, whatever state they are in."""
        if not self._ours.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self._ours) if entry.is_dir(follow_symlinks=False))

    def _save(self, state: Mapping[str, CheckedOutRef]) -> None:
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


def _remove_entry(path: Path) -> None:
    """Remove a directory with all below it, never through a symlink."""
    try:
        fd = open_directory(path.parent)
    except FileNotFoundError:
        return
    try:
        remove_tree(path.name, fd)
        sync_directory(fd)
    finally:
        os.close(fd)


def _owner(text: str) -> Owner | None:
    if not text:
        return None
    identity = find_identity(text)
    if identity is None:
        raise SettingsError(f"checkout owner {text!r}: no such user or group")
    return identity.uid, identity.gid
