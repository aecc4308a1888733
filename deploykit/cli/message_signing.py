"""`deploykit message sign` and `message verify`: signatures over bodies in files, compatible with ssh-keygen.

The group `message` registers `sign` and `verify` from here.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import click

from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.signing import load_key, passphrase_file_option
from deploykit.errors import KeyFileError, UsageError

if TYPE_CHECKING:
    from deploykit.settings.trust import TrustSettings
    from deploykit.trust.signature import Signer

_FILE = click.Path(path_type=Path, dir_okay=False)
_BODY = click.File("rb")
_MAX_BODY = 64 << 20


@click.command()
@click.argument("body", type=_BODY, default="-")
@click.option("-k", "--key", type=_FILE, required=True, help="A private key file; KEY.pub: an ssh-agent holds it.")
@click.option("--passphrase", is_flag=True, hidden=True, expose_value=False)  # asked for whenever it is needed
@passphrase_file_option
@click.option("--add", metavar="SIGNATURE", help="Add to these: a header's value, or a file that holds signatures.")
@click.option("--armor", is_flag=True, help="Print a signature file as `ssh-keygen -Y sign` writes it.")
@json_option
def sign(
    *, body: BinaryIO, key: Path, passphrase_file: Path | None, add: str | None, armor: bool, as_json: bool
) -> None:
    """Sign the bytes of BODY (a file, or - for standard input); print the STOMP header.

    With --add the header holds the signatures of others too, at most four together. They must be over the same bytes.

    \b
    Example:
      deploykit message sign request.json --key ~/.ssh/deploykit > request.json.sig
    """
    from deploykit.trust.signature import HEADER, add_signature
    from deploykit.trust.sshsig import armor as armored
    from deploykit.trust.sshsig import decode_header
    from deploykit.wire import Frame

    if armor and add is not None:
        raise UsageError("--armor writes one signature, and with --add there are several", "leave out one of them")
    data = _read(body)
    before = {} if add is None else {HEADER: _header_value(add)}
    _check_same_body(data, before.get(HEADER))
    signing_key = load_key(key, passphrase_file)
    value = add_signature(Frame(before, data), signing_key).headers[HEADER]
    if as_json:
        print_json(
            {"header": HEADER, "value": value, "fingerprint": signing_key.fingerprint, "count": value.count(",") + 1}
            | ({"armor": armored(decode_header(value))} if armor else {})
        )
    elif armor:
        click.echo(armored(decode_header(value)), nl=False)
    else:
        click.echo(f"{HEADER}:{value}")


def _check_same_body(body: bytes, value: str | None) -> None:
    """Refuse signatures over other bytes: one of them would spoil the whole message."""
    from deploykit.trust.signature import decode_headers
    from deploykit.trust.sshsig import decode_blob
    from deploykit.trust.verification import check_fits

    for blob in [] if value is None else decode_headers(value):
        check_fits(decode_blob(blob), body)


@click.command()
@click.argument("body", type=_BODY, default="-")
@click.option(
    "-s",
    "--signature",
    "given",
    required=True,
    multiple=True,
    help="The header's value, or a file that holds it or ssh-keygen's; repeat for several signers.",
)
@click.option("-f", "--allowed-signers", type=_FILE, help="The keys to trust; default: those of the settings.")
@click.option("--revoked", type=_FILE, help="What is no longer accepted: public keys, one a line, or a KRL.")
@click.option("--origin", "origins", multiple=True, help="A web page whose passkey signatures count; repeat.")
@click.option("--rp-id", "rp_ids", multiple=True, help="A site whose passkeys count; repeat.")
@click.option("--verify-required", is_flag=True, help="Security keys and passkeys must have known the person.")
@click.option("-I", "--principal", help="Succeed only if one of the keys may sign as this name.")
@config_option
@json_option
def verify(
    *,
    body: BinaryIO,
    given: tuple[str, ...],
    allowed_signers: Path | None,
    revoked: Path | None,
    origins: tuple[str, ...],
    rp_ids: tuple[str, ...],
    verify_required: bool,
    principal: str | None,
    config: Path | None,
    as_json: bool,
) -> None:
    """Print who signed the bytes of BODY: each key, its kind, and what its signature shows of the person.

    Every signature must be good. The settings are read where --config or no --allowed-signers is given; the other
    options replace what they say. Ends with 3 when a signer is not in FILE, or none may sign as PRINCIPAL.

    \b
    Example:
      deploykit message verify request.json -s request.json.sig -f /etc/deploykit/allowed_signers
    """
    from deploykit.errors import SignatureError
    from deploykit.messages import utc_now
    from deploykit.trust.keyfiles import load_trusted
    from deploykit.trust.signature import HEADER, verify
    from deploykit.wire import Frame

    trust = _trust(config, allowed_signers, revoked, origins, rp_ids, verify_required)
    allowed = load_trusted(trust)
    frame = Frame({HEADER: ",".join(map(_header_value, given))}, _read(body))
    signers = verify(frame, allowed, utc_now())
    if principal is not None and not signers.is_principal(principal):
        raise SignatureError(f"the signature is good, but {signers} may not sign as {principal}")
    if as_json:
        print_json(
            {
                "good": True,
                "fingerprint": signers.fingerprint,
                "principals": signers.principals,
                "signers": [_as_json(signer) for signer in signers.each],
            }
        )
        return
    for note in allowed.unused:
        click.echo(f"note: {trust.allowed_signers}: {note}", err=True)
    for signer in signers.each:
        click.echo(f"good signature by {signer}")
        click.echo(f"  {_shows(signer)}")


def _trust(
    config: Path | None,
    allowed_signers: Path | None,
    revoked: Path | None,
    origins: tuple[str, ...],
    rp_ids: tuple[str, ...],
    verify_required: bool,
) -> TrustSettings:
    """Return the settings of trust, with what the options say instead."""
    import attrs

    from deploykit.settings.trust import TrustSettings

    trust = TrustSettings() if config is None and allowed_signers is not None else load(config).trust
    trust = attrs.evolve(
        trust,
        allowed_signers=allowed_signers or trust.allowed_signers,
        # The revoked keys of the settings belong to the allowed signers of the settings.
        revoked_keys=revoked or (None if allowed_signers else trust.revoked_keys),
        origins=origins or trust.origins,
        rp_ids=rp_ids or trust.rp_ids,
        verify_required=verify_required or trust.verify_required,
    )
    if trust.allowed_signers is None:
        raise UsageError("no keys to trust: the settings name no trust.allowed_signers", "give --allowed-signers FILE")
    if problems := trust.problems():
        raise UsageError(problems[0], "as in the settings, under [trust]", problems=problems)
    return trust


def _as_json(signer: Signer) -> dict[str, object]:
    return {
        "fingerprint": signer.fingerprint,
        "principals": signer.principals,
        "key_type": signer.key_type,
        "present": signer.present,
        "verified": signer.verified,
        "origin": signer.origin or None,
        "certificate": signer.certificate or None,
    }


def _shows(signer: Signer) -> str:
    """Return the kind of a signer's key, and what its signature shows of the person, in words."""
    shown = [signer.key_type]
    if signer.certificate:
        shown.append(f"certificate {signer.certificate}")
    if not signer.present:
        shown.append("shows no person")
    elif signer.verified:
        shown.append("somebody touched it, and it knew the person (PIN or finger)")
    else:
        shown.append("somebody touched it, without PIN or finger")
    if signer.origin:
        shown.append(f"asked for by {signer.origin}")
    return ", ".join(shown)


def _read(body: BinaryIO) -> bytes:
    data = body.read(_MAX_BODY + 1)
    if len(data) > _MAX_BODY:
        raise UsageError(f"the body is longer than {_MAX_BODY} bytes")
    return data


def _header_value(given: str) -> str:
    """Return the value of the header that is given as such, as a header's line, or in a file; ssh-keygen's too."""
    from deploykit.trust.signature import HEADER
    from deploykit.trust.sshsig import dearmor, encode_header

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
        return encode_header(dearmor(text))
    return text.removeprefix(f"{HEADER}:").strip()


__all__ = ["sign", "verify"]
