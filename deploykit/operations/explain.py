"""What a key may do, and why not: each right and each site, judged as a node judges it.

Rules:

* The grants are asked by the functions that decide (`trust.rights`). Nothing is judged here by other rules.
* This is for whoever may read the settings: unlike a node's refusals it names principals and lines of files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

import attrs

from deploykit.errors import SettingsError, UsageError
from deploykit.messages import BuildFinished, DeployReported, Message
from deploykit.names import SiteName
from deploykit.settings.node import Settings
from deploykit.settings.trust import GrantSettings
from deploykit.trust.allowed_signers import AllowedSigner, AllowedSigners, matches
from deploykit.trust.keyfiles import is_private_key, load_public_key, load_trusted
from deploykit.trust.keyformat import KEY_TYPES, SK_ECDSA, fingerprint, key_type, parse_key, parse_public_line
from deploykit.trust.mandate import Requirement
from deploykit.trust.rights import APPROVE, DEPLOY, RIGHTS, RUN, WITHOUT_BUILD, covers, granted, type_names
from deploykit.trust.signature import Signer
from deploykit.trust.signaturerules import SSH_APPLICATION
from deploykit.trust.sshsig import NAMESPACE

#: The rights that are always explained, in this order; others where a grant names them.
_SHOWN: Final = (
    "deploy.requested",
    RUN,
    "rollout.approved",
    "rollout.abort",
    WITHOUT_BUILD,
    "site.locked",
    "lock.release",
    "lock.override",
    "node.queried",
)


@attrs.frozen(kw_only=True, slots=True)
class KeyLine:
    """One line of allowed_signers that is about a key.

    Args:
        authority: the key signs certificates of these principals, and no message itself.
        objection: why it does not count now; empty where it does.
    """

    line: int
    principals: tuple[str, ...]
    comment: str
    authority: bool
    objection: str


@attrs.frozen(kw_only=True, slots=True)
class ExplainedRight:
    """Whether a key has one right for one site.

    Args:
        right: the message type or right, as grants name it.
        site: the site; empty where the settings have none: then `why` names the sites of the grants.
        allowed: the key has it.
        principals, grants: as whom, by which grants (their numbers in the settings).
        why: the reason where it is not allowed; what else is asked for where it is.
    """

    right: str
    site: str
    allowed: bool
    principals: tuple[str, ...] = ()
    grants: tuple[int, ...] = ()
    why: str = ""


@attrs.frozen(kw_only=True, slots=True)
class ExplainedKey:
    """What one key may do.

    Args:
        fingerprint, kind: of the key; of an authority for what it certifies.
        lines: what allowed_signers says about it.
        principals: the names in grants that it may sign as.
        problem: why nothing that it signs counts; empty where it may count.
        rights: for each right and site.
    """

    fingerprint: str
    kind: str
    lines: tuple[KeyLine, ...]
    principals: tuple[str, ...]
    problem: str
    rights: tuple[ExplainedRight, ...]


def explain_keys(settings: Settings, asked: Sequence[str], now: datetime) -> tuple[ExplainedKey, ...]:
    """Return what keys may do on this node.

    Args:
        settings: of this node; without sites the rights are explained for the sites that grants name.
        asked: for each a fingerprint, a file, a public key line, or a principal: then every key that may sign as it.
        now: aware.

    Raises:
        SettingsError: the settings name no allowed_signers.
        UsageError: nothing is known by such a name.
        KeyFileError: a file cannot be read.
    """
    if settings.trust.allowed_signers is None:
        raise SettingsError("no trust.allowed_signers is set: no key may do anything", "see `deploykit keys trust`")
    allowed = load_trusted(settings.trust)
    return tuple(found for text in asked for found in explain(settings, allowed, text, now))


def explain(settings: Settings, allowed: AllowedSigners, asked: str, now: datetime) -> Iterator[ExplainedKey]:
    """Yield what each key may do that is meant by one text. Reads no file but a named key's."""
    if asked.startswith("SHA256:"):
        lines = [line for line in allowed.signers if fingerprint(line.key) == asked]
        yield _explained(settings, allowed, asked, lines[0].key if lines else None, lines, now)
        return
    blob = _key_in(asked)
    if blob is not None:
        yield _explained(settings, allowed, fingerprint(blob), blob, _lines_of(allowed, blob), now)
        return
    lines = [line for line in allowed.signers if matches(line.principals, asked)]
    if not lines and all(grant.principal != asked for grant in settings.trust.grants):
        raise UsageError(
            f"{asked!a} is no fingerprint, no key file, and no principal of allowed_signers or of a grant",
            "name a key by SHA256:…, by its .pub file, or by a principal",
        )
    if not lines:
        yield _explained(settings, allowed, "", None, [], now, only=asked)
    for key in dict.fromkeys(line.key for line in lines):
        about = _lines_of(allowed, key)
        only = asked if all(line.authority for line in about) else ""
        yield _explained(settings, allowed, fingerprint(key), key, about, now, only=only)


def _key_in(asked: str) -> bytes | None:
    """Return the key in a file or in a line; None where the text is neither."""
    if asked.startswith(KEY_TYPES) and " " in asked:
        return parse_public_line(asked)[0]
    path = Path(asked)
    if "/" not in asked and not path.is_file():
        return None
    if is_private_key(path):  # what signs is not asked for: the public half says enough
        path = path.with_name(f"{path.name}.pub")
    return load_public_key(path)[0]


def _lines_of(allowed: AllowedSigners, key: bytes) -> list[AllowedSigner]:
    return [*allowed.lines_for(key), *allowed.authorities_for(key)]


def _explained(
    settings: Settings,
    allowed: AllowedSigners,
    name: str,
    key: bytes | None,
    lines: Sequence[AllowedSigner],
    now: datetime,
    *,
    only: str = "",
) -> ExplainedKey:
    """Explain one key; with `only`, what it may do as this principal."""
    counting = [line for line in lines if not line.objection(NAMESPACE, now)]
    patterns = tuple((only,) if only else line.principals for line in counting)
    kind = key_type(key) if key is not None else ""
    signer = Signer(fingerprint=name, principals=patterns, key_type=kind)
    problem = _problem(allowed, key, lines, counting, only)
    return ExplainedKey(
        fingerprint=name,
        kind=kind,
        lines=tuple(
            KeyLine(
                line=line.line,
                principals=line.principals,
                comment=line.comment,
                authority=line.authority,
                objection=line.objection(NAMESPACE, now),
            )
            for line in lines
        ),
        principals=tuple(dict.fromkeys(g.principal for g in settings.trust.grants if signer.is_principal(g.principal))),
        problem=problem,
        rights=tuple(
            _right(settings, signer, right, site, certified=any(line.authority for line in counting), problem=problem)
            for site in (settings.sites or ("",))
            for right in _rights(settings.trust.grants)
        ),
    )


def _problem(
    allowed: AllowedSigners,
    key: bytes | None,
    lines: Sequence[AllowedSigner],
    counting: Sequence[AllowedSigner],
    only: str,
) -> str:
    """Return why nothing that a key signs counts, whatever grants say; empty where it may count."""
    if not lines or key is None:
        return f"no key of allowed_signers may sign as {only}" if only else "not among the allowed signers"
    if allowed.is_revoked(key):
        return "revoked"
    if not counting:
        return "none of its lines counts now"
    if all(line.authority for line in counting):
        return ""
    application = parse_key(key).application
    passkey = key_type(key) == SK_ECDSA and application in allowed.rules.rp_ids
    if application and not application.startswith(SSH_APPLICATION) and not passkey:
        return f"a passkey of {application}, which trust.rp_ids does not name"
    return ""


def _rights(grants: Sequence[GrantSettings]) -> tuple[str, ...]:
    """Return the rights to explain: the usual ones, then what else grants name, by the short name."""
    short = {name: type_names(kind)[1] for kind in _kinds(Message) for name in type_names(kind)}
    named = (short.get(name, name) for grant in grants for name in grant.types)
    return tuple(dict.fromkeys((*_SHOWN, *named)))


def _kinds(base: type[Message]) -> Iterator[type[Message]]:
    for kind in base.__subclasses__():
        if kind.TYPE:
            yield kind
        yield from _kinds(kind)


def _names(right: str) -> tuple[str, ...]:
    """Return all names of a right in grants."""
    if right in RIGHTS:
        return (right,)
    return next((names for kind in _kinds(Message) if right in (names := type_names(kind))), (right,))


def _right(
    settings: Settings, signer: Signer, right: str, site: str, *, certified: bool, problem: str
) -> ExplainedRight:
    names = _names(right)
    every = settings.trust.grants
    naming = [grant for grant in every if set(names).intersection(grant.types)]
    own = granted(naming, names, signer)
    fitting = [grant for grant in own if not site or covers(grant, site, settings.site_repos)]
    why = problem
    if not why and not naming:
        why = f"no grant is for {right}"
    elif not why and not own:
        why = f"granted only to {', '.join(dict.fromkeys(grant.principal for grant in naming))}"
    elif not why and not fitting:
        why = "; ".join(_elsewhere(settings, grant, site) for grant in own)
    elif not why:
        why = _not_counted(settings, signer, names, site, certified=certified)
    if why:
        return ExplainedRight(right=right, site=site, allowed=False, why=why)
    return ExplainedRight(
        right=right,
        site=site,
        allowed=True,
        principals=tuple(dict.fromkeys(grant.principal for grant in fitting)),
        grants=tuple(at for at, grant in enumerate(every) if grant in fitting),
        why="; ".join(dict.fromkeys(_limits(settings, fitting, names, right, site))),
    )


def _elsewhere(settings: Settings, grant: GrantSettings, site: str) -> str:
    """Return why a grant does not fit a site."""
    at = f"trust.grants[{settings.trust.grants.index(grant)}]"
    if not matches(grant.sites, site):
        return f"{at} is for sites {', '.join(grant.sites)}"
    return f"{at} is for repositories {', '.join(grant.repos)}, not {settings.site_repos[SiteName(site)]}"


def _not_counted(settings: Settings, signer: Signer, names: tuple[str, ...], site: str, *, certified: bool) -> str:
    """Return why a signature of this key would not count for a site, although it is granted."""
    wanted = settings.sites.get(SiteName(site))
    if names != APPROVE or wanted is None or wanted.require != "person":
        return ""
    if certified or signer.key_type.startswith("sk-"):
        return ""
    return f"the site asks for a person, and a key of type {signer.key_type} shows none"


def _limits(
    settings: Settings, grants: Sequence[GrantSettings], names: tuple[str, ...], right: str, site: str
) -> Iterator[str]:
    """Yield what else is asked for where a right is granted."""
    wanted = settings.sites.get(SiteName(site))
    if not site:
        yield f"for sites {', '.join(dict.fromkeys(pattern for grant in grants for pattern in grant.sites))}"
    if grants and all(grant.phases for grant in grants) and names in (DEPLOY, (RUN,), APPROVE, (WITHOUT_BUILD,)):
        yield f"in phases {', '.join(dict.fromkeys(phase for grant in grants for phase in grant.phases))}"
    if names == DEPLOY and wanted is not None and wanted.needs_mandate:
        yield f"inside a mandate of {Requirement.of(wanted)}"
    if names == (RUN,):
        yield "inside a mandate"
    if names == type_names(BuildFinished):
        for grant in grants:
            yield f"jobs {', '.join(grant.jobs) or 'none'} of {', '.join(grant.repos) or 'no repository'}"
    if names == type_names(DeployReported):
        for grant in grants:
            yield f"for nodes {', '.join(grant.speaks_for) or 'none but its own'}"


__all__ = ["ExplainedKey", "ExplainedRight", "KeyLine", "explain", "explain_keys"]
