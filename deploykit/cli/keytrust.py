"""`deploykit keys list|trust|untrust|revoke`: whose keys count. The group `keys` registers these commands."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from deploykit.cli.asking import print_table
from deploykit.cli.options import config_option, json_option, load, print_json
from deploykit.cli.visible import visible
from deploykit.errors import UsageError

if TYPE_CHECKING:
    from deploykit.operations.keylist import ListedKey
    from deploykit.settings.node import Settings
    from deploykit.settings.trust import GrantSettings

_FILE: Final = click.Path(path_type=Path, dir_okay=False)
_TIMES: Final = click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M:%SZ"])
_HEAD: Final = ("line", "fingerprint", "type", "principals", "counts", "may")
_SERIALS: Final = re.compile(r"([0-9]{1,20})(?:-([0-9]{1,20}))?")
_signers_option = click.option(
    "--file", "file", type=_FILE, help="The allowed_signers file; that of the settings when absent."
)


@click.command("list")
@click.argument("word", required=False)
@_signers_option
@click.option("--revoked", type=_FILE, help="The list of revoked keys; that of the settings when absent.")
@config_option
@json_option
def list_(word: str | None, file: Path | None, revoked: Path | None, config: Path | None, as_json: bool) -> None:
    """List the trusted keys: whose, of which type, whether they count now, and what grants their principals have.

    WORD chooses the lines that hold it: a principal, a fingerprint, a comment. With --file no settings are needed;
    grants are then shown only with --config.

    \b
    Examples:
      deploykit keys list
      deploykit keys list ann@example.com --json
    """
    from deploykit.messages import utc_now
    from deploykit.operations.keylist import list_keys
    from deploykit.trust.keyfiles import load_allowed_signers
    from deploykit.trust.signaturerules import SignatureRules

    settings = load(config) if file is None or config is not None else None
    if revoked is None and settings is not None and (file is None or file == settings.trust.allowed_signers):
        revoked = settings.trust.revoked_keys
    path = _chosen(file, settings)
    allowed = load_allowed_signers(path, revoked=revoked)
    grants = settings.trust.grants if settings is not None else ()
    rules = SignatureRules.from_settings(settings.trust) if settings is not None else None
    found = [key for key in list_keys(allowed, grants, utc_now(), rules=rules) if word is None or _holds(key, word)]
    if as_json:
        print_json({"file": str(path), "keys": [_entry(key) for key in found], "unused": allowed.unused})
        return
    if found:
        print_table(_HEAD, [_row(key) for key in found])
    for note in allowed.unused if word is None else ():
        click.echo(f"note: {path}: {visible(note)}", err=True)
    if not found:
        click.echo(f"{path} has no key{'' if word is None else f' of {visible(word)}'} that can count here", err=True)


@click.command()
@click.argument("principal")
@click.argument("pubkey")
@_signers_option
@click.option(
    "--cert-authority", "authority", is_flag=True, help="PUBKEY signs certificates; PRINCIPAL may be a pattern."
)
@click.option(
    "--valid-after",
    type=_TIMES,
    metavar="TIME",
    help="It counts from then on, in UTC: 2026-12-31, or 2026-12-31T23:59.",
)
@click.option("--valid-before", type=_TIMES, metavar="TIME", help="Until then, in UTC; a day means its beginning.")
@config_option
@json_option
def trust(principal: str, pubkey: str, file: Path | None, config: Path | None, as_json: bool, **given: Any) -> None:
    """Let PUBKEY (a .pub file, or the line itself in quotes) sign messages as PRINCIPAL.

    [[trust.grants]] in the settings decide what PRINCIPAL may then send. A second time adds nothing. The file is made
    when absent.

    \b
    Examples:
      deploykit keys trust ops@example.com ops.pub --file /etc/deploykit/allowed_signers
      deploykit keys trust guest@example.com guest.pub --valid-before 2026-12-31
      deploykit keys trust '*.example.com' ca.pub --cert-authority
    """
    from deploykit.trust.keyfiles import fingerprint, load_public_key
    from deploykit.trust.keyformat import parse_public_line
    from deploykit.trust.signersfile import trust as add
    from deploykit.trust.signersfile import trusted_line

    if file is None:
        file = _chosen(None, load(config))
    blob, comment = parse_public_line(pubkey) if " " in pubkey.strip() else load_public_key(Path(pubkey))
    options: dict[str, Any] = {
        "authority": given["authority"],
        "valid_after": _utc(given["valid_after"]),
        "valid_before": _utc(given["valid_before"]),
    }
    added = add(file, principal, blob, comment, **options)
    if as_json:
        print_json(
            {
                "file": str(file),
                "principal": principal,
                "fingerprint": fingerprint(blob),
                "added": added,
                "line": trusted_line(principal, blob, comment, **options),
            }
        )
        return
    change = "trusts now" if added else "trusted already"
    click.echo(f"{file} {change}: {principal} {fingerprint(blob)}")


@click.command()
@click.argument("who")
@_signers_option
@config_option
@json_option
def untrust(who: str, file: Path | None, config: Path | None, as_json: bool) -> None:
    """Remove WHO's lines from the allowed_signers file: a principal, a fingerprint, a .pub file, or a key's line.

    A principal stands for the lines that name it alone. Comments and all other lines stay. Where a key may be in other
    people's hands, use `deploykit keys revoke`: that counts whatever is added to the file later.

    \b
    Examples:
      deploykit keys untrust ann@example.com
      deploykit keys untrust SHA256:rJ3F9CeWlOwY34kabaXCB/LfZZ3/At38xvB4c7ClJ/A
    """
    from deploykit.operations.keylist import line_matcher, nothing_found, others_of
    from deploykit.trust.keyfiles import fingerprint, load_allowed_signers
    from deploykit.trust.signersfile import untrust as remove

    path = _chosen(file, None if file is not None else load(config))
    removed = remove(path, line_matcher(who)) if path.exists() else ()
    left = load_allowed_signers(path).signers
    if not removed:
        raise nothing_found(who, path, left)
    shared = others_of(who, left)
    if as_json:
        lines = [{"principals": line.principals, "fingerprint": fingerprint(line.key)} for line in removed]
        print_json({"file": str(path), "removed": lines, "also_matched_by": [line.line for line in shared]})
        return
    for line in removed:
        click.echo(f"{path} trusts no more: {visible(','.join(line.principals))} {fingerprint(line.key)}")
    for line in shared:
        names = visible(",".join(line.principals))
        click.echo(
            f"note: line {line.line} ({names}) still lets {fingerprint(line.key)} sign as {visible(who)}", err=True
        )


@click.command()
@click.argument("who", required=False)
@_signers_option
@click.option("--revoked", type=_FILE, help="The list of revoked keys; that of the settings when absent.")
@click.option("--serial", "serials", multiple=True, metavar="N[-M]", help="Certificates with these serials.")
@click.option("--key-id", "key_ids", multiple=True, help="Certificates with this key id.")
@click.option("--authority", type=_FILE, metavar="CA.pub", help="Who signed these certificates.")
@config_option
@json_option
def revoke(who: str | None, as_json: bool, **given: Any) -> None:
    """Revoke WHO's keys: they count for nothing, whatever the allowed_signers file says.

    WHO is a .pub file, a key's line, or a principal or fingerprint of the allowed_signers file. Certificates are
    revoked by --serial or --key-id, with --authority: these need a binary list (KRL), which is made when absent.

    \b
    Examples:
      deploykit keys revoke lost-laptop.pub
      deploykit keys revoke ann@example.com
      deploykit keys revoke --key-id web7 --authority ca.pub --revoked /etc/deploykit/revoked.krl
    """
    from deploykit.operations.keyrevoke import revoke_certificates, revoke_keys
    from deploykit.trust.keyfiles import fingerprint, load_public_key

    by_certificate = bool(given["serials"] or given["key_ids"])
    if (who is not None) == by_certificate or by_certificate != (given["authority"] is not None):
        raise UsageError(
            "give either WHO, or --serial or --key-id with --authority CA.pub", "see `deploykit keys revoke --help`"
        )
    settings = load(given["config"]) if given["revoked"] is None or (given["file"] is None and _is_name(who)) else None
    path = given["revoked"] or (settings.trust.revoked_keys if settings is not None else None)
    if path is None:
        raise UsageError("which list of revoked keys?", "give --revoked FILE, or set trust.revoked_keys")
    if who is None:
        lines = _specification(given["serials"], given["key_ids"])
        revoke_certificates(path, load_public_key(given["authority"])[0], lines)
        if as_json:
            print_json({"file": str(path), "certificates": lines})
        else:
            click.echo(f"{path} revokes now: {visible(', '.join(lines))}")
        return
    keys = _keys_of(who, given["file"], settings)
    new = revoke_keys(path, keys)
    if as_json:
        print_json({"file": str(path), "fingerprints": [fingerprint(key) for key, _ in keys], "added": new})
        return
    for key, _ in keys:
        click.echo(f"{path} {'revokes now' if new else 'revoked already'}: {fingerprint(key)}")


def _is_name(who: str | None) -> bool:
    """Return whether WHO must be looked up in the allowed_signers file."""
    from deploykit.operations.keylist import public_key

    return who is not None and public_key(who) is None


def _keys_of(who: str, file: Path | None, settings: Settings | None) -> list[tuple[bytes, str]]:
    """Return the keys that WHO stands for, each with its comment."""
    from deploykit.operations.keylist import line_matcher, nothing_found, public_key
    from deploykit.trust.keyfiles import load_allowed_signers

    given = public_key(who)
    if given is not None:
        return [given]
    path = _chosen(file, settings)
    lines = load_allowed_signers(path).signers
    matches = line_matcher(who)
    found = {line.key: line.comment for line in lines if matches(line)}
    if not found:
        raise nothing_found(who, path, lines)
    return list(found.items())


def _specification(serials: tuple[str, ...], key_ids: tuple[str, ...]) -> list[str]:
    """Return the lines that revoke certificates."""
    from deploykit.trust.krl import key_id_line, serial_line

    lines = []
    for text in serials:
        found = _SERIALS.fullmatch(text)
        if found is None:
            raise UsageError(f"not a serial: {text[:40]!a}", "a number of up to 20 digits, or a range: 7-9")
        first, last = found.groups()
        lines.append(serial_line(int(first), int(last) if last else None))
    return lines + [key_id_line(key_id) for key_id in key_ids]


def _chosen(file: Path | None, settings: Settings | None) -> Path:
    """Return the allowed_signers file that was given, or that of the settings."""
    path = file or (settings.trust.allowed_signers if settings is not None else None)
    if path is None:
        raise UsageError("which allowed_signers file?", "give --file FILE, or set trust.allowed_signers")
    return path


def _utc(time: datetime | None) -> datetime | None:
    return None if time is None else time.replace(tzinfo=UTC)


def _holds(key: ListedKey, word: str) -> bool:
    return word in (key.fingerprint, *key.line.principals) or word in key.line.comment


def _row(key: ListedKey) -> tuple[str, ...]:
    kind = f"{key.kind} (authority)" if key.line.authority else key.kind
    may = ", ".join(dict.fromkeys(name for grant in key.grants for name in grant.types))
    return str(key.line.line), key.fingerprint, kind, ",".join(key.line.principals), key.problem or "yes", may


def _entry(key: ListedKey) -> dict[str, object]:
    line = key.line
    return {
        "line": line.line,
        "fingerprint": key.fingerprint,
        "type": key.kind,
        "authority": line.authority,
        "principals": line.principals,
        "namespaces": line.namespaces,
        "valid_after": _shown_time(line.valid_after),
        "valid_before": _shown_time(line.valid_before),
        "comment": line.comment,
        "counts": not key.problem,
        "why_not": key.problem,
        "grants": [_grant(grant) for grant in key.grants],
    }


def _shown_time(time: datetime | None) -> str | None:
    return None if time is None else f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def _grant(grant: GrantSettings) -> dict[str, object]:
    """Return a grant as the settings have it, without what was left at its default."""
    import attrs

    return {
        field.name: getattr(grant, field.name)
        for field in attrs.fields(type(grant))
        if field.name in ("principal", "types", "sites") or getattr(grant, field.name) != field.default
    }


__all__ = ["list_", "revoke", "trust", "untrust"]
