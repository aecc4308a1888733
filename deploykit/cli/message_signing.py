"""`deploykit message sign` and `message verify`: signatures over bodies in files, compatible with ssh-keygen.

The group `message` registers `sign` and `verify` from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from deploykit.cli.options import json_option, print_json
from deploykit.cli.signing import load_key, passphrase_file_option
from deploykit.errors import KeyFileError, UsageError

_FILE = click.Path(path_type=Path, dir_okay=False)
_BODY = click.File("rb")
_MAX_BODY = 64 << 20


@click.command()
@click.argument("body", type=_BODY, default="-")
@click.option("-k", "--key", type=_FILE, required=True, help="A private key file; KEY.pub: an ssh-agent holds it.")
@click.option("--passphrase", is_flag=True, hidden=True, expose_value=False)  # asked for whenever it is needed
@passphrase_file_option
@click.option("--armor", is_flag=True, help="Print a signature file as `ssh-keygen -Y sign` writes it.")
@json_option
def sign(*, body: BinaryIO, key: Path, passphrase_file: Path | None, armor: bool, as_json: bool) -> None:
    """Sign the bytes of BODY (a file, or - for standard input); print the STOMP header.

    \b
    Example:
      deploykit message sign request.json --key ~/.ssh/deploykit > request.json.sig
    """
    from deploykit.trust.signature import HEADER
    from deploykit.trust.sshsig import armor as armored
    from deploykit.trust.sshsig import encode_header

    signing_key = load_key(key, passphrase_file)
    blob = signing_key.sign_body(_read(body))
    if as_json:
        print_json(
            {"header": HEADER, "value": encode_header(blob), "fingerprint": signing_key.fingerprint}
            | ({"armor": armored(blob)} if armor else {})
        )
    elif armor:
        click.echo(armored(blob), nl=False)
    else:
        click.echo(f"{HEADER}:{encode_header(blob)}")


@click.command()
@click.argument("body", type=_BODY, default="-")
@click.option("-s", "--signature", required=True, help="The header's value, or a file that holds it or ssh-keygen's.")
@click.option("-f", "--allowed-signers", type=_FILE, required=True, help="The keys to trust.")
@click.option("--revoked", type=_FILE, help="Public keys that are no longer accepted, one a line.")
@click.option("-I", "--principal", help="Succeed only for a key that may sign as this name.")
@json_option
def verify(
    *,
    body: BinaryIO,
    signature: str,
    allowed_signers: Path,
    revoked: Path | None,
    principal: str | None,
    as_json: bool,
) -> None:
    """Print who signed the bytes of BODY. Ends with 3 when the signer is not in FILE, or may not sign as PRINCIPAL.

    \b
    Example:
      deploykit message verify request.json -s request.json.sig -f /etc/deploykit/allowed_signers
    """
    from deploykit.errors import SignatureError
    from deploykit.messages import utc_now
    from deploykit.trust.keyfiles import load_allowed_signers
    from deploykit.trust.signature import verify_blob

    allowed = load_allowed_signers(allowed_signers, revoked=revoked)
    signer = verify_blob(_read(body), _signature_blob(signature), allowed, utc_now())
    if principal is not None and not signer.is_principal(principal):
        raise SignatureError(f"the signature is good, but {signer} may not sign as {principal}")
    if as_json:
        print_json({"good": True, "fingerprint": signer.fingerprint, "principals": signer.principals})
        return
    for note in allowed.unused:
        click.echo(f"note: {allowed_signers}: {note}", err=True)
    click.echo(f"good signature by {signer}")


def _read(body: BinaryIO) -> bytes:
    data = body.read(_MAX_BODY + 1)
    if len(data) > _MAX_BODY:
        raise UsageError(f"the body is longer than {_MAX_BODY} bytes")
    return data


def _signature_blob(given: str) -> bytes:
    """Return the signature in a header's value, a header's line, or a file with one of these or an armored one."""
    from deploykit.trust.signature import HEADER
    from deploykit.trust.sshsig import dearmor, decode_header

    # A header's value is base64 of 200 bytes and more; a path that looks like one does not exist by accident.
    text = given
    if len(given) < 200 or "." in given:
        try:
            with Path(given).open(encoding="ascii") as file:
                text = file.read(1 << 16)
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise KeyFileError(f"cannot read signature {given}: {reason}") from error
    text = text.strip()
    if text.startswith("-----"):
        return dearmor(text)
    return decode_header(text.removeprefix(f"{HEADER}:").strip())


__all__ = ["sign", "verify"]
