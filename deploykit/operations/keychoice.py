"""The key that a person chose for a command: loaded when it is first needed, and asked for its passphrase once."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TypeAlias

from deploykit.errors import KeyFileError, PolicyRefused
from deploykit.settings.node import Settings
from deploykit.trust.agentkey import Notify, needs_touch
from deploykit.trust.keyfiles import AskPassphrase, load_signer
from deploykit.trust.signature import BodySigner


class KeyChoice:
    """Which key signs the commands of one run, and how its passphrase is found.

    Args:
        path: the key; that of the settings when None. See `load_signer`.
        passphrase: of its file; or what asks for it.
        notify: is shown when a person must touch the key.
    """

    __slots__ = ("_loaded", "_notify", "_passphrase", "_path")

    def __init__(
        self,
        path: Path | None = None,
        *,
        passphrase: str | AskPassphrase | None = None,
        notify: Notify | None = None,
    ) -> None:
        self._path = path
        self._passphrase = passphrase
        self._notify = notify
        self._loaded: BodySigner | None = None

    @property
    def given(self) -> bool:
        """Whether a person named the key; otherwise it is that of the settings."""
        return self._path is not None

    def with_path(self, path: Path) -> KeyChoice:
        """Return another key, whose passphrase is found in the same way."""
        return KeyChoice(path, passphrase=self._passphrase, notify=self._notify)

    def load(self, settings: Settings) -> BodySigner:
        """Return the key; a person may be asked for its passphrase the first time.

        Raises:
            PolicyRefused: there is none; an unsigned command is never sent.
            KeyFileError: it cannot be used.
        """
        if self._loaded is None:
            path = self._path or settings.signing_key
            if path is None:
                raise PolicyRefused(
                    "an unsigned deploy is refused", "give --key, or set signing_key; see `deploykit keys`"
                )
            self._loaded = load_signer(path, passphrase=self._passphrase, notify=self._notify)
        return self._loaded


def asking_key(settings: Settings, key: BodySigner) -> BodySigner:
    """Return the key that asks nodes: the settings' own instead of one that a person must touch for each question."""
    if needs_touch(key) and settings.signing_key is not None:
        with contextlib.suppress(KeyFileError):  # a daemon's key that this person may not read
            own = load_signer(settings.signing_key)
            return key if needs_touch(own) else own
    return key


#: A key as an operation takes it: a choice, a path, or None for that of the settings.
KeyGiven: TypeAlias = KeyChoice | Path | None

__all__ = ["KeyChoice", "KeyGiven", "asking_key"]
