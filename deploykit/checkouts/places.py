"""Where the copies of checkouts are, what the symlinks to them say, and the lock that all who change them hold.

ROOT/NAME                          symlink -> .deploykit/SLUG/NAME/a
ROOT/TOPIC/NAME                    symlink -> ../.deploykit/SLUG/TOPIC,NAME/a
ROOT/.deploykit/SLUG/NAME/a, b     copies of the tree, with a.manifest, b.manifest
ROOT/.deploykit/SLUG/state.json    which ref each directory is of
ROOT/.deploykit/adopted/SLUG/NAME  what was at ROOT/NAME before it was adopted
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from deploykit.checkouts.copies import SLOTS
from deploykit.checkouts.rules import OURS, CheckoutRule, objection
from deploykit.errors import PreflightRefused
from deploykit.names import path_component
from deploykit.system.lock import FileLock
from deploykit.system.ownership import OthersCanChange, check_owned

if TYPE_CHECKING:
    from deploykit.settings.mirror import CheckoutSettings

#: No SLUG is called so: each begins with a mode and a hyphen.
_ADOPTED: Final = "adopted"


class CheckoutPlaces:
    """The places of one `CheckoutSettings`.

    `ours` is the directory of its copies and its state, `adopted` that of what was adopted.
    """

    def __init__(self, settings: CheckoutSettings, rule: CheckoutRule) -> None:
        mode = "trusting" if settings.mode == "dangerous" else settings.mode  # one is the other, here
        #: Different for any two that have the same root.
        self.slug = path_component(f"{mode}-{settings.prefix}{settings.target.name if settings.target else ''}")
        self._rule = rule
        self.ours = rule.root / OURS / self.slug
        self.adopted = rule.root / OURS / _ADOPTED / self.slug

    def home(self, directory: str) -> Path:
        """Return where the copies of a directory are."""
        return self.ours / self._rule.home_of(directory)

    def kept(self, directory: str) -> Path:
        """Return where that is kept which a directory took the place of, when it was adopted."""
        return self.adopted / self._rule.home_of(directory)

    def text(self, directory: str, slot: str) -> str:
        """Return the text of the symlink that shows a copy."""
        return "../" * directory.count("/") + str((self.home(directory) / slot).relative_to(self._rule.root))

    def slot(self, directory: str, text: str) -> str | None:
        """Return which of the directory's copies a symlink shows; None where it is not one of them."""
        return next((slot for slot in SLOTS if text == self.text(directory, slot)), None)

    def directories(self) -> list[str]:
        """Return the directories that there are copies for, whatever state they are in."""
        if not self._rule.patterns or not self.ours.is_dir():
            return []
        homes = (entry.name for entry in os.scandir(self.ours) if entry.is_dir(follow_symlinks=False))
        return sorted(d for d in map(self._rule.directory_in, homes) if not objection(d, nested=True))

    def check(self) -> None:
        """Refuse root a directory that others can swap: it would write and remove where their symlinks lead.

        Raises:
            PreflightRefused: they can.
            OSError: it cannot be looked at.
        """
        if os.geteuid() != 0:
            return
        for place in (self.ours, self.adopted):
            there = next(p for p in (place, *place.parents) if p.exists())
            try:
                check_owned(there, frozenset({0}), sticky=there != place)
            except OthersCanChange as found:
                raise PreflightRefused(
                    f"{self._rule.root} is not safe: others can change {found.place}: {found.why}", found.remedy
                ) from None

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the directories' lock, for which it waits as long as another process updates them.

        Raises:
            PreflightRefused: they cannot be used.
        """
        lock = FileLock(self.ours / "lock", wait=None, busy=f"{self._rule.root} is being updated by another process")
        with contextlib.ExitStack() as stack:
            try:
                self.check()
                self.ours.mkdir(parents=True, exist_ok=True)
                stack.enter_context(lock)
            except OSError as error:
                raise PreflightRefused(
                    f"cannot use {self._rule.root}: {error.strerror}", "check its owner and mode"
                ) from error
            yield
