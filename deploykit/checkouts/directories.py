"""The directories themselves: copies beside each other, a symlink to the live one.

    ROOT/NAME                          symlink -> .deploykit/SLUG/NAME/a
    ROOT/.deploykit/SLUG/NAME/a, b     copies of the tree, with a.manifest, b.manifest
    ROOT/.deploykit/SLUG/state.json    which ref each directory is of

Rules: the symlink is swapped by a rename, so a reader sees the old or the new tree; only changed files are written
(into the spare copy, which is proved by its manifest first); a directory goes only if we made it, and only inside the
root. What cannot be written is refused by name, and the directory stays as it was.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

import attrs

from deploykit.checkouts.rules import OURS, plan_checkouts, rule_of
from deploykit.errors import (
    CheckoutError,
    MirrorCorrupt,
    MirrorError,
    PreflightRefused,
    SettingsError,
    TreeDamaged,
    TreeError,
    UsageError,
)
from deploykit.names import ObjectId, RefName, path_component
from deploykit.system.durable import sync_directory, sync_filesystem, write_durably
from deploykit.system.lock import FileLock
from deploykit.system.ownership import OthersCanChange, check_owned
from deploykit.system.users import find_identity
from deploykit.trees import (
    CannotPatch,
    Differences,
    Manifest,
    ObjectStore,
    TreeRules,
    WriteOptions,
    compare,
    patch_tree,
    read_link,
    remove_symlink,
    swap_symlink,
    write_tree,
)
from deploykit.trees.files import Owner, open_directory, process_umask, remove_tree

if TYPE_CHECKING:
    from deploykit.settings.mirror import CheckoutSettings

_log = logging.getLogger(__name__)

_FORMAT: Final = 1
_SLOTS: Final = "abcdefgh"


class ResolvedRef(Protocol):
    """What a name stands for."""

    @property
    def object_id(self) -> ObjectId: ...
    @property
    def commit(self) -> ObjectId: ...
    @property
    def tree(self) -> ObjectId: ...


class Source(Protocol):
    """Where trees come from: a `Mirror`."""

    @property
    def refs(self) -> Mapping[RefName, ObjectId]: ...
    @property
    def head(self) -> RefName | None: ...
    @property
    def store(self) -> ObjectStore: ...
    def resolve(self, name: str) -> ResolvedRef: ...
    def release(self) -> None: ...


@attrs.frozen(kw_only=True, slots=True)
class CheckoutChange:
    """One directory that now shows another tree. `written` and `removed` count files."""

    directory: Path
    ref: RefName
    commit: ObjectId
    written: int
    removed: int


@attrs.frozen(kw_only=True, slots=True)
class CheckoutResult:
    """What an update did: directories changed, directories removed, and refs whose directory is as it was, with why.

    `refused`: the ref's tree or name, or what is in the way, has to change. `failed`: the disk or the mirror has to be
    mended, and the next update tries again; `damaged` tells that it is the mirror.
    """

    changed: tuple[CheckoutChange, ...] = ()
    removed: tuple[Path, ...] = ()
    refused: Mapping[str, str] = attrs.field(factory=dict)
    failed: Mapping[str, str] = attrs.field(factory=dict)
    damaged: bool = False


@attrs.define(slots=True)
class _Held:
    ref: str = ""
    object_id: str = ""


class Checkouts:
    """The directories of one `CheckoutSettings`."""

    def __init__(self, settings: CheckoutSettings) -> None:
        self.settings = settings
        self.rule = rule_of(settings)
        self._ours = self.rule.root / OURS / path_component(f"{settings.mode}-{settings.target.name}")
        self._rules = TreeRules(
            max_entries=settings.max_entries,
            max_bytes=settings.max_bytes,
            symlinks=settings.symlinks,
            submodules=settings.submodules,
            raw_attributes=settings.raw_attributes,
            umask=settings.umask,
        )
        owner = _owner(settings.owner)
        umask = settings.umask if settings.umask is not None else process_umask()
        self._options = WriteOptions(
            durable=settings.durable, owner=owner, fingerprint=f"checkout-1 {self._rules!r} {owner} {umask:03o}"
        )

    def update(self, source: Source) -> CheckoutResult:
        """Make the directories show what the source holds. Safe to repeat after any interruption.

        Raises:
            MirrorError: the source cannot be read.
            PreflightRefused: the root cannot be used.
            CheckoutError: the root cannot be written to.
        """
        if not self.rule.patterns:
            return CheckoutResult()
        with self._locked():
            try:
                return self._update(source)
            except OSError as error:
                raise CheckoutError(
                    f"cannot write below {self.rule.root}: {error.strerror}", "mend the disk"
                ) from error
            finally:
                source.release()

    def refs(self, source: Source) -> tuple[RefName, ...]:
        """The refs that are to have a directory here.

        Raises:
            MirrorError: the source cannot be read.
        """
        plan = plan_checkouts(self.rule, source.refs, source.head, {}, self.settings.refs)
        return tuple(plan.wanted.values())

    def verify(self) -> dict[Path, Differences]:
        """Compare each directory with what was written: only those that differ."""
        found: dict[Path, Differences] = {}
        for directory in self._directories():
            live = self._live(directory)
            if live is not None:
                told = compare(Manifest.load(self._manifest(directory, live)), self._ours / directory / live)
                if told.lines():
                    found[self.rule.root / directory] = told
        return found

    def _update(self, source: Source) -> CheckoutResult:
        state = self._read_state()
        refs = dict(source.refs)
        if not refs:
            return CheckoutResult()  # it was never fetched, or lost all: nothing to follow, and no reason to remove
        held = {d: state[d].ref if d in state else "" for d in (*self._directories(), *state)}
        plan = plan_checkouts(self.rule, refs, source.head, held, self.settings.refs)
        changed: list[CheckoutChange] = []
        refused = dict(plan.refused)
        failed: dict[str, str] = {}
        damaged = False
        removed = [directory for directory in plan.removed if self._remove(directory)]
        if plan.removed:
            state = {directory: known for directory, known in state.items() if directory not in plan.removed}
            self._write_state(state)
        for directory, ref in plan.wanted.items():
            try:
                if state.get(directory) == _Held(ref, refs[ref]) and self._live(directory) is not None:
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
            state[directory] = _Held(ref, refs[ref])
            self._write_state(state)
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

    def _show(self, source: Source, directory: str, ref: RefName) -> CheckoutChange | None:
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
        """Where to build: a spare copy that readers have had time to leave, or a new one. Surplus copies go."""
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
        """The slot a directory shows; None when there is nothing.

        Raises:
            PreflightRefused: something that is not ours has its name.
        """
        link = self.rule.root / directory
        target = read_link(link)
        if target is None:
            if os.path.lexists(link):
                raise PreflightRefused(f"{link} is not ours: a real file or directory", "move it away")
            return None
        if not self._is_ours(directory, target):
            raise PreflightRefused(f"{link} is not ours: a symlink to {target!a}", "move it away")
        slot = target.rpartition("/")[2]
        return slot if (self._ours / directory / slot).is_dir() else None

    def _is_ours(self, directory: str, target: str) -> bool:
        """Tell whether a symlink's target is one of the directory's copies."""
        ours, _, slot = target.rpartition("/")
        return self.rule.root / ours == self._ours / directory and slot in _SLOTS

    def _remove(self, directory: str) -> bool:
        """Remove a directory; tell whether there was one."""
        home = self._ours / directory
        target = read_link(self.rule.root / directory)
        if not os.path.lexists(home):
            return False
        if target and not self._is_ours(directory, target):
            shown = (self.rule.root / target).parent
            if shown.exists() and shown.samefile(home):
                return False  # a file system that ignores case: it is another's, who is spelled otherwise
        with contextlib.suppress(PreflightRefused):  # what is not ours stays; our copies go
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
        """The directories we have copies for, whatever state they are in."""
        if not self._ours.is_dir():
            return []
        return sorted(entry.name for entry in os.scandir(self._ours) if entry.is_dir(follow_symlinks=False))

    def _read_state(self) -> dict[str, _Held]:
        try:
            told = json.loads((self._ours / "state.json").read_bytes())
            if told["format"] != _FORMAT:
                raise UsageError(f"{self._ours} is of format {told['format']!r}", "use the version that wrote it")
            same = told.get("fingerprint") == self._options.fingerprint  # else each directory is looked at again
            return {
                str(d): _Held(str(h["ref"]), str(h["object_id"]) if same else "")
                for d, h in told["directories"].items()
            }
        except FileNotFoundError:
            return {}
        except (ValueError, KeyError, TypeError, AttributeError):
            _log.warning("%s/state.json is damaged: looking at every directory", self._ours)
            return {}

    def _write_state(self, state: Mapping[str, _Held]) -> None:
        directories = {d: attrs.asdict(h) for d, h in sorted(state.items())}
        told = {"format": _FORMAT, "fingerprint": self._options.fingerprint, "directories": directories}
        write_durably(self._ours / "state.json", json.dumps(told).encode() + b"\n", durable=self.settings.durable)

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
    """Remove a directory of ours with all below it, never through a symlink."""
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
