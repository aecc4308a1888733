"""What readers use already becomes a checkout, without an instant in which they find nothing; and back.

    to be adopted   ROOT/NAME is a directory, or a symlink to one that was not made here
    adopted         ROOT/NAME is a checkout, and what was there is in `places.kept`

Rules:

* The two change places by one exchange of names: whoever opens ROOT/NAME finds it before and after. Whoever has the old
  one open, or is in it, goes on in it.
* Nothing of the old one is changed or removed. What it holds and the commit does not, readers lose: that takes consent.
* Which of the two is where is all that is known of an adoption. One that was cut off was either done or not.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal

import attrs

from deploykit.checkouts.directories import Checkouts
from deploykit.checkouts.links import no_checkout
from deploykit.checkouts.model import CheckoutSource, ResolvedRef
from deploykit.errors import CheckoutError, PolicyRefused, PreflightRefused
from deploykit.names import ObjectId, RefName, short_ref
from deploykit.system.exchange import IMPOSSIBLE, mount_of
from deploykit.trees import read_link
from deploykit.trees.files import open_directory
from deploykit.trees.livefiles import LiveFiles, changed_since, compare_with, entries_written, listing

_LISTED: Final = 5

What = Literal["nothing", "ours", "directory", "symlink", "file"]


@attrs.frozen(kw_only=True, slots=True)
class AdoptedCheckout:
    """What an adoption did, or would do.

    Args:
        directory: as readers name it.
        ref, commit: what it shows.
        kept: where what was there is.
        files: how that compares with the commit.
        late: what was written into it after it was compared, and before the checkout had its place: paths in it.
    """

    directory: Path
    ref: RefName
    commit: ObjectId
    kept: Path
    files: LiveFiles
    late: tuple[str, ...] = ()


class CheckoutAdopter:
    """Adopts one directory.

    Args:
        checkouts: whose directory it is to be.
        directory: its path below their root.
    """

    def __init__(self, checkouts: Checkouts, directory: str) -> None:
        self._checkouts = checkouts
        self._directory = directory
        self._links, self._places = checkouts.links, checkouts.places
        self._place = checkouts.rule.root / directory
        self._kept = self._places.kept(directory)

    @property
    def is_known(self) -> bool:
        """Whether something was adopted here, or was about to be when that was cut off."""
        return os.path.lexists(self._kept)

    # -- adopting ------------------------------------------------------------------------------------------------------

    def preview(self, source: CheckoutSource) -> AdoptedCheckout:
        """Return what would be done; nothing is touched.

        Raises:
            DeploykitError: what it would be refused for, but for differences.
        """
        ref = self._ref(source)
        with self._errors():
            resolved = source.resolve(ref)
            with self._open_old() as fd:
                return self._result(ref, resolved, self._compare(source, resolved, fd))

    def adopt(self, source: CheckoutSource, *, allow_differences: bool = False) -> AdoptedCheckout:
        """Make a checkout of what is there, and keep that. Safe to repeat after any interruption.

        Args:
            source: a mirror.
            allow_differences: readers may lose what the commit does not have.

        Raises:
            PolicyRefused: they would.
            DeploykitError: it was refused, or failed; what was there is there.
        """
        ref = self._ref(source)
        with self._places.locked(), self._errors():
            try:
                resolved = source.resolve(ref)
                with self._open_old() as fd:
                    return self._adopt(source, ref, resolved, fd, allow_differences=allow_differences)
            finally:
                source.release()

    def _adopt(
        self, source: CheckoutSource, ref: RefName, resolved: ResolvedRef, fd: int | None, *, allow_differences: bool
    ) -> AdoptedCheckout:
        before = listing(fd) if fd is not None else {}
        found = self._compare(source, resolved, fd)
        result = self._result(ref, resolved, found)
        if self._what() == "ours":
            return result  # it was cut off after its last change
        if (found.added or found.modified) and not allow_differences:
            raise self._differs(result)
        copies = self._checkouts.copies(self._directory, source, resolved)
        durable = self._checkouts.settings.durable
        slot, _, _ = copies.build(source.store, resolved.tree, None, rested=False, durable=durable)
        self._take_its_place(self._places.text(self._directory, slot))
        return attrs.evolve(result, late=changed_since(before, listing(fd)) if fd is not None else ())

    def _take_its_place(self, text: str) -> None:
        """Have a symlink and what is there change places."""
        self._places.adopted.mkdir(parents=True, exist_ok=True)
        with _opened(self._places.adopted) as there:
            self._discard(there)  # an adoption was cut off before the exchange
            os.symlink(text, self._kept.name, dir_fd=there)
            try:
                self._links.exchange(self._directory, there, self._kept.name)
            except OSError as error:
                self._discard(there)
                if error.errno in IMPOSSIBLE:
                    raise CheckoutError(
                        f"{self._place} cannot be adopted without a gap, by an exchange of two names: {error.strerror}",
                        f"mv it away when nobody needs it, to {self._place}.before; the next update makes the checkout",
                    ) from error
                raise

    def _compare(self, source: CheckoutSource, resolved: ResolvedRef, fd: int | None) -> LiveFiles:
        copies = self._checkouts.copies(self._directory, source, resolved)
        entries = entries_written(source.store, resolved.tree, copies.rules, copies.options)
        return compare_with(fd, entries) if fd is not None else LiveFiles(missing=tuple(sorted(entries)))

    def _result(self, ref: RefName, resolved: ResolvedRef, found: LiveFiles) -> AdoptedCheckout:
        return AdoptedCheckout(directory=self._place, ref=ref, commit=resolved.commit, kept=self._kept, files=found)

    def _differs(self, found: AdoptedCheckout) -> PolicyRefused:
        paths = [*found.files.added, *found.files.modified]
        more = f" and {len(paths) - _LISTED} more" if len(paths) > _LISTED else ""
        return PolicyRefused(
            f"{self._place} holds what {short_ref(found.ref)} has not: {', '.join(map(ascii, paths[:_LISTED]))}{more}",
            "see all of it with --dry-run. With --allow-differences readers lose it, and it is kept",
        )

    # -- undoing -------------------------------------------------------------------------------------------------------

    def undo(self) -> Path:
        """Put what was there back, also after an adoption that was cut off; return where.

        The copies stay until the ref goes: whoever is reading them goes on.

        Raises:
            DeploykitError: nothing was adopted here, or something else is there now.
        """
        if not self.is_known:
            raise self._not_adopted()
        with self._places.locked(), self._errors(), _opened(self._places.adopted) as there:
            what = self._what()
            if self._is_kept():
                if what == "ours":
                    self._links.exchange(self._directory, there, self._kept.name)
                elif what == "nothing":
                    self._links.put_back(self._directory, there, self._kept.name)
                else:
                    raise PreflightRefused(f"{self._place} is no checkout by now: {what}", "move it away first")
            self._discard(there)
            with contextlib.suppress(OSError):  # others are in it
                self._places.adopted.rmdir()
        return self._place

    def _not_adopted(self) -> PreflightRefused:
        return PreflightRefused(f"{self._place} was not adopted", "check the path")

    # -- helpers -------------------------------------------------------------------------------------------------------

    def _ref(self, source: CheckoutSource) -> RefName:
        """Return the ref that the directory is to show."""
        plan = self._checkouts.planned(source)
        ref = plan.directories.get(self._directory)
        if ref is not None:
            return ref
        why = next((why for ref, why in plan.refused.items() if self._is_of(RefName(ref))), "no ref is to be there")
        raise PreflightRefused(f"{self._place} is not to be a checkout: {why}", "see the settings of its repository")

    def _is_of(self, ref: RefName) -> bool:
        return self._checkouts.rule.directory_of(ref) == self._directory

    def _what(self) -> What:
        """Return what readers find."""
        seen = self._links.seen(self._directory)
        if seen is None:
            return "nothing"
        if not stat.S_ISLNK(seen.st_mode):
            return "directory" if stat.S_ISDIR(seen.st_mode) else "file"
        link = self._links.read(self._directory)
        if link is not None and self._places.slot(self._directory, link.text) is not None:
            return "ours"
        return "file" if self._place.exists() and not self._place.is_dir() else "symlink"

    def _is_kept(self) -> bool:
        """Return whether `kept` is something that was adopted, and not the symlink that was to take its place."""
        text = read_link(self._kept)
        return os.path.lexists(self._kept) and (text is None or self._places.slot(self._directory, text) is None)

    def _open_old(self) -> contextlib.AbstractContextManager[int | None]:
        """Open the directory to adopt, or that was adopted; None for a symlink that leads nowhere."""
        path = self._to_be_adopted()
        return _opened(path) if path is not None else contextlib.nullcontext()

    def _to_be_adopted(self) -> Path | None:
        """Return the directory to adopt, or the one that was, without symlinks; None for a symlink that leads nowhere.

        Raises:
            PreflightRefused: it cannot be adopted.
        """
        self._places.check()
        what, kept = self._what(), self._is_kept()
        if what == "ours" and kept:
            return self._directory_at(self._kept)
        if what == "ours":
            raise PreflightRefused(f"{self._place} is a checkout already", "there is nothing to adopt")
        if what == "nothing":
            raise PreflightRefused(f"there is nothing at {self._place}", "the next update makes the checkout")
        if what == "file":
            raise no_checkout(self._place)
        if kept:
            raise PreflightRefused(f"{self._kept} was kept by an earlier adoption", "move it away first")
        if not os.access(self._place.parent, os.W_OK):
            raise PreflightRefused(f"{self._place.parent} may not be written to", "run this as the agent's user")
        if what == "directory":
            self._check_movable()
            return self._place
        return self._directory_at(self._place)

    def _directory_at(self, path: Path) -> Path | None:
        """Return what a symlink, or a directory, leads to: where a kept symlink was, if it is a relative one."""
        text = read_link(path)
        where = Path(os.path.realpath(path if text is None else self._place.parent / text))
        return where if where.is_dir() else None

    def _check_movable(self) -> None:
        """Refuse a directory that cannot change its name."""
        above = next(path for path in (self._places.adopted, *self._places.adopted.parents) if path.exists())
        if not os.access(self._place, os.W_OK):
            raise PreflightRefused(
                f"{self._place} may not be written to, and so not be moved", "run this as the agent's user"
            )
        if mount_of(self._place) != mount_of(self._place.parent):
            why = f"{self._place} is a mount point: what is mounted cannot change its name"
        elif mount_of(self._place) != mount_of(above):
            why = f"{self._place} is on another file system than {above}"
        else:
            return
        raise PreflightRefused(why, "keep the checkout in another target, and let readers move there")

    def _discard(self, there: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._kept.name, dir_fd=there)

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CheckoutError(
                f"{self._place} cannot be adopted: {error.strerror} ({error.filename})", "repair that, and try again"
            ) from error


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = open_directory(path)
    try:
        yield fd
    finally:
        os.close(fd)
