"""Grants that cannot be meant: what allows nothing at all, and what allows less than it seems to. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from deploykit.messages import BuildFinished, Message
from deploykit.settings.trust import GrantSettings
from deploykit.trust.rights import (
    APPROVE,
    DEPLOY,
    PHASED,
    RIGHTS,
    WITHOUT_BUILD,
    loaded_kinds,
    message_kinds,
    type_names,
)

_NO_PATTERN: Final = frozenset('*?!,"')
_BUILDS: Final = frozenset(type_names(BuildFinished))


def grant_problems(grants: tuple[GrantSettings, ...], own_types: Iterable[type[Message]] = ()) -> Iterator[str]:
    """Find grants that could never allow anything: no principal's name, unknown types, empty lists."""
    known = {name for kind in (*loaded_kinds(), *own_types) for name in type_names(kind)} | set(RIGHTS)
    if not all(known.issuperset(grant.types) for grant in grants):
        known.update(name for kind in message_kinds() for name in type_names(kind))
    for at, grant in enumerate(grants):
        where = f"trust.grants[{at}]"
        if not grant.principal or _NO_PATTERN & set(grant.principal) or grant.principal != grant.principal.strip():
            yield f"{where}.principal: expected one name without pattern characters, not {grant.principal!r}"
        for name in grant.types:
            if name not in known:
                yield (
                    f"{where}.types: unknown message type {name!r} "
                    f"(expected e.g. deploy.requested, or a right: {', '.join(RIGHTS)})"
                )
        for field in ("types", "sites"):
            if not getattr(grant, field):
                yield f"{where}.{field}: empty, so the grant allows nothing (remove it)"


def grant_warnings(grants: tuple[GrantSettings, ...]) -> Iterator[str]:
    """Find grants that are right by themselves and allow less than they seem to."""
    for at, grant in enumerate(grants):
        where, types = f"trust.grants[{at}]", set(grant.types)
        if types & _BUILDS:
            for field in ("repos", "jobs"):
                if not getattr(grant, field):
                    yield f"{where}.{field}: empty, so no build result of {grant.principal} counts (name {field})"
        elif grant.jobs:
            yield f"{where}.jobs: means nothing without build.finished in types"
        if grant.phases and not types & PHASED:
            yield f"{where}.phases: means nothing without deploy.requested, or another right to deploy, in types"
        for field in ("sites", "repos", "jobs"):
            patterns = getattr(grant, field)
            if patterns and all(pattern.startswith("!") for pattern in patterns):
                yield f'{where}.{field}: excludes names and includes none (begin with "*")'
    yield from _useless_rights(grants)


def _useless_rights(grants: tuple[GrantSettings, ...]) -> Iterator[str]:
    """Find principals that may leave out builds, and have nothing to leave them out of."""
    deployers = {grant.principal for grant in grants if set(grant.types) & {*DEPLOY, *APPROVE}}
    for at, grant in enumerate(grants):
        if WITHOUT_BUILD in grant.types and grant.principal not in deployers:
            yield (
                f"trust.grants[{at}].types: {WITHOUT_BUILD} means nothing for {grant.principal}, who may neither "
                "deploy nor approve a rollout (add deploy.requested or rollout.approved)"
            )


__all__ = ["grant_problems", "grant_warnings"]
