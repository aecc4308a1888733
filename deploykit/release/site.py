"""A site on disk: its directories, its lock, its state, and what is live.

    releases/<seq>-<tag>-<sha>/   one release each
    shared/                       what every release links to; may be a symlink to a mounted directory
    current -> releases/...       what is live, swapped by rename
    .deploykit/                   state.json, journal, history/, manifests/, building/, trash/, lock

The lock is flock(2) on `.deploykit/lock`: the kernel drops it with its process, so there is no stale lock and no
unlock command. Reading (`current`, `releases`, `history`) takes no lock: every file is replaced whole.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from deploykit.errors import PreflightRefused
from deploykit.names import path_component
from deploykit.release.adoption import Adoption, read_adoption
from deploykit.release.model import Operation, Release, StepRecord
from deploykit.release.state import SiteRecord, load_state, load_steps, save_state
from deploykit.settings.site import SiteSettings
from deploykit.system.lock import FileLock
from deploykit.system.ownership import OthersCanChange, check_owned, open_owned, user_name
from deploykit.trees import Manifest, check_link, read_link
from deploykit.trees.files import open_directory

_NAME_MAX: Final = 200
_FOLLOWED: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class Site:
    """One site: where it is and how it is to be run.

    Args:
        path: its directory; made with its parents by the first deploy.
        settings: its settings.
        name: what scripts and reports call it; the directory's name by default.
    """

    def __init__(self, path: Path, settings: SiteSettings | None = None, *, name: str = "") -> None:
        self.path = Path(os.path.abspath(path))  # noqa: PTH100 - resolve() would walk through current
        self.settings = settings if settings is not None else SiteSettings()
        self.name = name or self.path.name
        self.releases_dir = self.path / "releases"
        self.shared_dir = self.path / "shared"
        self.current_link = self.path / "current"
        self.private = self.path / ".deploykit"
        self.state_file = self.private / "state.json"
        self.journal_file = self.private / "journal"
        self.adoption_file = self.private / "adoption.json"
        self.building = self.private / "building"
        self.trash = self.private / "trash"

    def __repr__(self) -> str:
        return f"Site({str(self.path)!r})"

    # -- reading ---------------------------------------------------------------------------------------------------

    def exists(self) -> bool:
        """Return whether a deploy ever set this site up; also true where the directory may not be read."""
        for path in (self.state_file, self.journal_file):
            try:
                path.lstat()
            except (FileNotFoundError, NotADirectoryError):
                continue
            except OSError:
                return True
            return True
        return False

    def require(self) -> None:
        """Make sure that there is a site.

        Raises:
            PreflightRefused: no deploy ever set one up here.
        """
        if not self.exists():
            raise PreflightRefused(f"there is no site at {self.path}", "check the path; the first deploy makes a site")

    def adoption(self) -> Adoption | None:
        """Read the record of how the site came to be, where it adopted a live directory.

        Raises:
            ReleaseError: it is damaged.
        """
        try:
            content = self.adoption_file.read_bytes()
        except FileNotFoundError:
            return None
        return read_adoption(content, self.adoption_file)

    def recorded(self) -> SiteRecord:
        """Read the releases and operations as recorded, without a look at the directories."""
        return load_state(self.state_file)

    def state(self) -> SiteRecord:
        """Read the releases and operations; a release whose directory is not there is not `present`."""
        recorded = self.recorded()
        try:
            with os.scandir(self.releases_dir) as found:
                names = {entry.name for entry in found if entry.is_dir()}
        except FileNotFoundError:
            names = set()
        except OSError:
            return recorded  # the directory may not be read: the record is all there is
        return recorded.on_disk(names)

    def live_name(self) -> str:
        """Return the release that `current` names, on disk or not; empty when it names none."""
        target = read_link(self.current_link)
        return self.name_of(target) if target is not None else ""

    def name_of(self, target: str) -> str:
        """Return the release that a link's target names; empty where it names none."""
        path = Path(os.path.normpath(self.path / target))
        return path.name if path.parent == self.releases_dir else ""

    def resolved_name(self) -> str:
        """Return the release that `current` leads to; empty when it leads to none that is on disk."""
        name = self.live_name()
        return name if name and self.has(name) else ""

    def has(self, release: str) -> bool:
        """Return whether a release's directory is on disk. Also true where the directory may not be read."""
        try:
            return stat.S_ISDIR(self.release_path(release).stat().st_mode)
        except PermissionError:
            return True
        except OSError:
            return False

    def current(self) -> Release | None:
        """Return the live release, or None where none is."""
        name = self.resolved_name()
        return self.state().get(name) if name else None

    def releases(self) -> tuple[Release, ...]:
        """Return all releases known, oldest first; those that are not on disk have `present` false."""
        return self.state().releases

    def history(self) -> tuple[Operation, ...]:
        """Return the last operations, oldest first."""
        return self.state().operations

    def steps(self, operation: Operation) -> tuple[StepRecord, ...]:
        """Return the record of each step of an operation, with its output."""
        return load_steps(self.history_file(operation.number))

    def history_file(self, number: int) -> Path:
        """Return the path of one operation's record."""
        return self.private / "history" / f"{number:06d}.json"

    def manifest_file(self, release: str) -> Path:
        """Return the path of a release's manifest: the tree as it was written."""
        return self.private / "manifests" / f"{release}.manifest"

    def settled_file(self, release: str) -> Path:
        """Return the path of the second manifest: the release as the scripts left it."""
        return self.private / "manifests" / f"{release}.settled"

    def release_path(self, release: str) -> Path:
        """Return a release's directory."""
        return self.releases_dir / release

    def manifest(self, release: str) -> Manifest:
        """Load a release's manifest."""
        return Manifest.load(self.manifest_file(release))

    # -- writing ---------------------------------------------------------------------------------------------------

    def save(self, state: SiteRecord) -> None:
        """Replace the state."""
        save_state(self.state_file, state, durable=self.settings.durable)

    def set_up(self, *, adopting: bool = False) -> None:
        """Make the directories that are missing, and refuse a site that cannot be safe.

        Args:
            adopting: `current` may be a real directory, which is to become a release.

        Raises:
            PreflightRefused: something is in the way, foreign, or cannot be made; nothing else was touched.
        """
        try:
            self.check_place()
            if not adopting:
                check_link(self.current_link)
            if self.shared_dir.is_symlink():
                os.close(self.open_shared())
            self.path.mkdir(mode=0o755, parents=True, exist_ok=True)
            for directory, mode in (
                (self.releases_dir, 0o755),
                (self.shared_dir, 0o777),
                (self.private, 0o750),
                (self.private / "history", 0o750),
                (self.private / "manifests", 0o750),
                (self.building, 0o755),
                (self.trash, 0o750),
            ):
                if not directory.is_dir():
                    directory.mkdir(mode=mode)
        except NotADirectoryError as error:
            raise PreflightRefused(f"{error.filename} is not a directory", "move it away") from error
        except FileExistsError as error:
            raise PreflightRefused(
                f"{error.filename} is in the way: a directory must be there", "move it away"
            ) from error
        except OSError as error:
            raise PreflightRefused(
                f"cannot set up {self.path}: {error.strerror} ({error.filename})",
                "make the directory writable for the user deploykit runs as",
            ) from error

    def open_shared(self) -> int:
        """Open `shared/`. It may be a symlink to a directory elsewhere, such as a mounted one.

        For root nobody else may be able to change where the symlink leads.

        Raises:
            PreflightRefused: it leads nowhere, or others can change where it leads.
            OSError: it cannot be opened.
        """
        if not self.shared_dir.is_symlink():
            return open_directory(self.shared_dir)
        try:
            if os.geteuid() != 0:
                return os.open(self.shared_dir, _FOLLOWED)
            way = open_owned(self.shared_dir, frozenset({0}), way_only=True)
            try:
                return os.open(f"/proc/self/fd/{way}", _FOLLOWED)
            finally:
                os.close(way)
        except OthersCanChange as found:
            raise PreflightRefused(
                f"{self.shared_dir} is not safe: others can change {found.place}: {found.why}", found.remedy
            ) from None
        except OSError as error:
            raise PreflightRefused(
                f"{self.shared_dir} leads to {self.shared_dir.readlink()}: {error.strerror}",
                "mount what belongs there, or correct the symlink",
            ) from error

    def check_place(self) -> None:
        """Refuse a site whose directories others can change, and with them the journal, the state and `current`.

        What is not there yet is fine. For root only root may be able to, not even the site's `owner`: root would write
        and remove wherever the owner's symlinks lead.

        Raises:
            PreflightRefused: it cannot be safe; the remedy names the directory.
        """
        try:
            if self.path.exists():
                self._check_directories()
            elif os.geteuid() == 0:
                above = next(p for p in self.path.parents if p.exists())
                check_owned(above, frozenset({0}), sticky=True)  # what is made there is root's
        except OthersCanChange as found:
            raise PreflightRefused(
                f"the site at {self.path} is not safe: others can change {found.place}: {found.why}", found.remedy
            ) from None
        except OSError as error:
            raise PreflightRefused(
                f"cannot look at {self.path}: {error.strerror}", "let the user deploykit runs as reach it"
            ) from error

    def _check_directories(self) -> None:
        device = self.path.stat().st_dev
        for directory in (self.path, self.releases_dir, self.private, self.building):
            try:
                seen = directory.stat() if directory == self.path else directory.lstat()
            except FileNotFoundError:
                continue
            if not stat.S_ISDIR(seen.st_mode):
                what = "a symlink" if stat.S_ISLNK(seen.st_mode) else "no directory"
                raise PreflightRefused(f"{directory} is {what}", "move it away: a real directory must be there")
            if os.geteuid() == 0:
                check_owned(directory, frozenset({0}))
            else:
                _check_ours(directory, seen)
            if seen.st_dev != device:
                raise PreflightRefused(
                    f"{directory} is on another file system than {self.path}", "a release is put in place by a rename"
                )

    def check_adopted(self) -> None:
        """Refuse a site that is not one yet, because the adoption of a live directory was cut off. Under the lock.

        Raises:
            PreflightRefused: it is to be ended or undone first: a deploy would remove what is live.
        """
        if self.exists():
            return
        unfinished = self.adoption()
        if unfinished is not None:
            raise PreflightRefused(
                f"the adoption of {unfinished.place} was cut off",
                f"go on with it: deploykit release adopt {unfinished.place} --site {self.path}; or --undo",
            )

    @contextmanager
    def locked(self, wait: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> Iterator[None]:
        """Hold the site's lock.

        Args:
            wait: seconds to wait for another deploy to end; the site's own setting by default.

        Raises:
            LockBusy: another one still runs.
            PreflightRefused: the lock file cannot be opened, or others could swap it (see `check_place`).
        """
        self.check_place()
        lock = FileLock(
            self.private / "lock",
            wait=self.settings.lock_wait if wait is None else wait,
            busy=f"another deploy of {self.path} is running",
            remedy="wait for it, or raise lock_wait; it needs no unlock",
            mode=0o640,
            clock=clock,
        )
        with ExitStack() as stack:
            try:
                stack.enter_context(lock)
            except OSError as error:
                raise PreflightRefused(
                    f"cannot lock {self.path}: {error.strerror}", "make .deploykit writable for the deploying user"
                ) from error
            yield


def _check_ours(directory: Path, seen: os.stat_result) -> None:
    """Refuse a directory of another user, and one that everybody can write; a group may write."""
    if seen.st_uid not in (0, os.geteuid()):
        why = f"it belongs to uid {seen.st_uid} ({user_name(seen.st_uid)})"
        raise OthersCanChange(str(directory), why, f"chown {user_name(os.geteuid())} {directory}")
    if seen.st_mode & stat.S_IWOTH and not seen.st_mode & stat.S_ISVTX:
        raise OthersCanChange(str(directory), "everybody can write it", f"chmod o-w {directory}")


def release_name(seq: int, tag: str, commit: str) -> str:
    """Return the directory name of a release: `00012-v1.4-0123456789ab`. Its number alone makes it unique.

    >>> release_name(12, "topic/x", "0123456789abcdef" + "0" * 24)
    '00012-topic%2Fx-0123456789ab'
    """
    return f"{seq:05d}-{path_component(tag)[:_NAME_MAX]}-{commit[:12]}"
