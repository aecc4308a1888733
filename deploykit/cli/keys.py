"""`deploykit keys`: make signing keys, show them, and trust those of others."""

from __future__ import annotations

import getpass
import os
import socket
from pathlib import Path

import click

from deploykit.cli.keytrust import list_, revoke, trust, untrust
from deploykit.cli.options import json_option, print_json
from deploykit.cli.signing import load_key, passphrase_file_option
from deploykit.errors import UsageError

_FILE = click.Path(path_type=Path, dir_okay=False)


def passphrase_of(file: Path | None, *, ask: bool = False, confirm: bool = False) -> str | None:
    """Return a passphrase from a file's first line or from the terminal; never from an argument, which `ps` shows."""
    if file is not None:
        from deploykit.trust.keyfiles import load_passphrase

        return load_passphrase(file)
    if ask:
        return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))
    return None


@click.group()
def keys() -> None:
    """Make signing keys, trust those of others, and revoke them. Files are OpenSSH's own.

    \b
    Example:
      deploykit keys generate ~/.ssh/deploykit --principal ops@example.com
      deploykit keys trust ops@example.com ~/.ssh/deploykit.pub --file /etc/deploykit/allowed_signers
      deploykit keys list
    """


@keys.command()
@click.argument("path", type=_FILE)
@click.option("--principal", help="The name in the allowed_signers line; default USER@HOST.")
@click.option("--passphrase", "ask", is_flag=True, help="Ask for a passphrase (needs the extra `keys`).")
@click.option("--passphrase-file", type=_FILE, help="Take the passphrase from this file's first line.")
@json_option
def generate(path: Path, principal: str | None, ask: bool, passphrase_file: Path | None, as_json: bool) -> None:
    """Make a private key at PATH, mode 0600, its public half at PATH.pub; print that and the line that trusts it.

    A file that exists is never overwritten.

    \b
    Example:
      deploykit keys generate /etc/deploykit/node_key --principal web1
    """
    from deploykit.trust.keyfiles import check_principal, generate_key, trusted_line

    name = principal or _user_at_host()
    check_principal(name)  # before there is a key
    key = generate_key(path, passphrase=passphrase_of(passphrase_file, ask=ask, confirm=True), comment=name)
    line = trusted_line(name, key.public_blob, name)
    public = f"{key.public_openssh} {name}"
    if as_json:
        print_json({"path": str(path), "fingerprint": key.fingerprint, "public_key": public, "allowed_signers": line})
        return
    click.echo(f"wrote private key {path} ({key.fingerprint}); keep it secret", err=True)
    click.echo(public)
    click.echo(line)


def _user_at_host() -> str:
    """Return USER@HOST of this process; a container's user need not have a name."""
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        raise UsageError(f"user {os.getuid()} has no name here", "give the key's principal: --principal NAME") from None


@keys.command()
@click.argument("path", type=_FILE)
@click.option("--passphrase", is_flag=True, hidden=True, expose_value=False)  # asked for whenever it is needed
@passphrase_file_option
@json_option
def show(path: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Show the fingerprint and the public line of a key file, private or public. Never the secret.

    \b
    Example:
      deploykit keys show /etc/deploykit/node_key > node_key.pub
    """
    from deploykit.messages import one_line
    from deploykit.trust.keyfiles import fingerprint, is_private_key, load_public_key
    from deploykit.trust.keyformat import public_line

    private = is_private_key(path)
    if private:
        blob, comment = load_key(path, passphrase_file).public_blob, ""
    else:
        blob, comment = load_public_key(path)
    line = public_line(blob, one_line(comment))
    if as_json:
        print_json({"path": str(path), "private": private, "fingerprint": fingerprint(blob), "public_key": line})
        return
    click.echo(fingerprint(blob), err=True)
    click.echo(line)


for _command in (list_, trust, untrust, revoke):
    keys.add_command(_command)
