"""The options of every command that signs: which key, and how its passphrase is found."""

from __future__ import annotations

import functools
import getpass
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploykit.cli.options import F

if TYPE_CHECKING:
    from deploykit.operations.keychoice import KeyChoice
    from deploykit.trust.signature import BodySigner

_FILE = click.Path(path_type=Path, dir_okay=False)


def passphrase_file_option(function: F) -> F:
    """Add `--passphrase-file FILE`, handed on as `passphrase_file: Path | None`."""
    return click.option("--passphrase-file", type=_FILE, help="The key's passphrase is this file's first line.")(
        function
    )


def key_options(*, help: str = "Sign with this key instead; KEY.pub: an ssh-agent holds it.") -> Callable[[F], F]:
    """Add `--key` and `--passphrase-file`, handed on as `key: KeyChoice`.

    Args:
        help: of `--key`.
    """

    def decorate(function: F) -> F:
        @functools.wraps(function)
        def chosen(*args: Any, key: Path | None, passphrase_file: Path | None, **given: Any) -> Any:
            return function(*args, key=key_choice(key, passphrase_file), **given)

        return click.option("--key", type=_FILE, help=help)(passphrase_file_option(chosen))  # type: ignore[return-value]  # a wrapper

    return decorate


def key_choice(key: Path | None, passphrase_file: Path | None = None) -> KeyChoice:
    """Return the key that a person chose; its passphrase comes from the file, else from the terminal."""
    from deploykit.operations.keychoice import KeyChoice

    return KeyChoice(key, passphrase=_passphrase(passphrase_file), notify=notify)


def load_key(key: Path, passphrase_file: Path | None = None) -> BodySigner:
    """Return the key at a path, at once. A person may be asked for its passphrase.

    Raises:
        KeyFileError: it cannot be used.
    """
    from deploykit.trust.keyfiles import load_signer

    return load_signer(key, passphrase=_passphrase(passphrase_file), notify=notify)


def notify(line: str) -> None:
    """Print a line for the person who must do something now."""
    from deploykit.cli import print_error

    print_error(line)


def ask_passphrase(path: Path, again: bool) -> str:
    """Return the passphrase of a key file, typed at the terminal.

    Raises:
        KeyFileError: there is no terminal.
    """
    from deploykit.errors import KeyFileError
    from deploykit.trust.keyfiles import unlock_hint

    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        problem = f"{path} has a passphrase, and there is no terminal to ask for it"
        raise KeyFileError(problem, unlock_hint(path)) from None
    if again:
        notify("wrong passphrase, try again")
    try:
        return getpass.getpass(f"Passphrase for {path}: ")
    except EOFError:
        raise click.Abort from None


def _passphrase(file: Path | None) -> Callable[[Path, bool], str]:
    """Return what finds the passphrase of each key that has one: in the file, else at the terminal."""
    if file is None:
        return ask_passphrase
    source = file

    def from_file(path: Path, again: bool) -> str:
        from deploykit.errors import WrongPassphrase
        from deploykit.trust.keyfiles import load_passphrase

        if again:
            raise WrongPassphrase(f"the passphrase in {source} is not that of {path}", "correct the file's first line")
        return load_passphrase(source)

    return from_file


__all__ = ["ask_passphrase", "key_choice", "key_options", "load_key", "notify", "passphrase_file_option"]
