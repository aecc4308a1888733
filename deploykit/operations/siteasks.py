"""What a site asks of mandates, as far as anybody here knows: by the settings of this machine, and as its nodes say.

Rules:

* The strictest counts. What a node says can only ask for more than the settings do, never for less.
* A node that says nothing asks for nothing: it may be older. It still judges each command by its own settings.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Self

import attrs

from deploykit.messages import SiteState
from deploykit.names import NodeName, SiteName
from deploykit.settings.node import Settings
from deploykit.trust.mandate import Requirement


@attrs.frozen(kw_only=True, slots=True)
class SiteAsks:
    """What a site asks of mandates, and which nodes made it more than the settings of this machine say.

    Args:
        requirement: the strictest that anybody asks for; None where nobody asks for a mandate.
        here: what the settings of this machine ask for; None where they ask for none, or do not know the site.
        nodes: those that ask for more than `here`, in their order.
    """

    requirement: Requirement | None = None
    here: Requirement | None = None
    nodes: tuple[NodeName, ...] = ()

    @classmethod
    def of(cls, settings: Settings, site: SiteName, states: Mapping[NodeName, SiteState]) -> Self:
        """Return what a site asks for.

        Args:
            settings: of this machine.
            site: the site.
            states: the site as those nodes describe it that a rollout is for.
        """
        here = asked_here(settings, site)
        theirs = {node: asked_by(state) for node, state in states.items()}
        stricter = tuple(node for node, asks in theirs.items() if strictest((here, asks)) != here)
        return cls(requirement=strictest((here, *theirs.values())), here=here, nodes=stricter)


def asked_here(settings: Settings, site: SiteName) -> Requirement | None:
    """Return what a site asks for by these settings; None where it asks for no mandate, or they do not know it."""
    known = settings.sites.get(site)
    return Requirement.of(known) if known is not None and known.needs_mandate else None


def asked_by(state: SiteState) -> Requirement | None:
    """Return what a node says that a site asks for; None where it asks for no mandate.

    What a younger node asks for and this version does not know is taken for the strictest that it knows: a person.
    """
    if not state.require and state.signatures <= 1:
        return None
    return Requirement(require="person" if state.require else "", signatures=max(1, state.signatures))


def strictest(several: Iterable[Requirement | None]) -> Requirement | None:
    """Return what meets all of several; None where none of them asks for anything.

    >>> strictest([None, Requirement(signatures=2), Requirement(require="person")])
    Requirement(require='person', signatures=2)
    """
    found = None
    for each in several:
        found = found.and_also(each) if found is not None else each
    return found


__all__ = ["SiteAsks", "asked_by", "asked_here", "strictest"]
