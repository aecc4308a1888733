"""What grants name, and which of them fit: message types and rights, principals, sites, repositories, phases. Pure.

Rules:

* A grant is for one principal. Whoever may sign as that principal has it.
* A single grant must fit in all: its right, its site, its repository and its phase do not add up with another's.
* A right is no message type: it allows a command to carry something, or to be believed about a lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from deploykit import messages
from deploykit.messages import DeployRequested, Message, RolloutAbort, RolloutApproved
from deploykit.messages.deploy import DeployPhase
from deploykit.names import RepoName, SiteName
from deploykit.settings.trust import GrantSettings
from deploykit.trust.allowed_signers import matches
from deploykit.trust.signature import Signer, Signers

#: Run rollouts that others approved: send commands that lie inside a mandate.
RUN: Final = "rollout.run"
#: Lift the locks of others.
RELEASE: Final = "lock.release"
#: Deploy over a lock.
OVERRIDE: Final = "lock.override"
#: Deploy without the builds that a site requires.
WITHOUT_BUILD: Final = "without-build"
RIGHTS: Final = (RUN, RELEASE, OVERRIDE, WITHOUT_BUILD)


def type_names(kind: type[Message]) -> tuple[str, ...]:
    """Return the names of a message type in grants: its wire type, `deploy.requested`, and `DeployRequested`."""
    full = kind.TYPE
    if not full:  # a base class, or Unknown: what we do not understand cannot be granted
        return ()
    short = full.removeprefix("deploykit.").rpartition(".v")[0]
    return tuple(name for name in (full, short, kind.__name__) if name)


def message_kinds() -> tuple[type[Message], ...]:
    """Return every message type that a grant can name: ours, loaded or not yet, and those of a program around us."""
    return tuple(dict.fromkeys((*messages.BY_TYPE.values(), *loaded_kinds())))


def loaded_kinds(base: type[Message] = Message) -> Iterator[type[Message]]:
    """Yield the message types that this program has used so far. To load all the others takes 50 ms."""
    for kind in base.__subclasses__():
        if kind.TYPE:
            yield kind
        yield from loaded_kinds(kind)


DEPLOY: Final = type_names(DeployRequested)
ABORT: Final = type_names(RolloutAbort)
APPROVE: Final = type_names(RolloutApproved)
#: What `phases` of a grant restricts.
PHASED: Final = frozenset((*DEPLOY, *APPROVE, RUN, WITHOUT_BUILD, OVERRIDE))

#: No repositories: a grant that names some fits no site.
NO_REPOS: Final[Mapping[SiteName, tuple[RepoName, ...]]] = MappingProxyType({})


def granted(grants: Iterable[GrantSettings], names: Iterable[str], signer: Signer | Signers) -> list[GrantSettings]:
    """Return the grants that name one of these types or rights, and a principal that the signer may sign as."""
    wanted = frozenset(names)
    return [grant for grant in grants if wanted.intersection(grant.types) and signer.is_principal(grant.principal)]


def covers(grant: GrantSettings, site: str, repos: Mapping[SiteName, tuple[RepoName, ...]] | None) -> bool:
    """Return whether a grant is for a site and for its repository, or for each of its repositories.

    Args:
        grant: with `repos` it fits only sites of such repositories.
        site: its name; empty for a message about none.
        repos: the repositories of each site; None where this machine cannot know them: then `repos` is not looked at.
    """
    if not matches(grant.sites, site):
        return False
    if not grant.repos or repos is None:
        return True
    of_site = repos.get(SiteName(site), ())
    return bool(of_site) and all(matches(grant.repos, repo) for repo in of_site)


def allows(grant: GrantSettings, phases: Iterable[DeployPhase]) -> bool:
    """Return whether a grant is for each of these phases. Who may prepare may discard what was prepared."""
    if not grant.phases:
        return True
    own = {*grant.phases, *(("discard",) if "prepare" in grant.phases else ())}
    return own.issuperset(phases)


__all__ = [
    "ABORT",
    "APPROVE",
    "DEPLOY",
    "NO_REPOS",
    "OVERRIDE",
    "PHASED",
    "RELEASE",
    "RIGHTS",
    "RUN",
    "WITHOUT_BUILD",
    "allows",
    "covers",
    "granted",
    "loaded_kinds",
    "message_kinds",
    "type_names",
]
