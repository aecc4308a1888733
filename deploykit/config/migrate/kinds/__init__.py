"""The kinds of old files that can be converted, each in a module of its own that is loaded on use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Final

from deploykit.config.migrate.model import Kind

#: Name of a kind -> its module here, which has it as `KIND`. The order is that of the page docs/migration.md.
KINDS: Final[dict[str, str]] = {
    "stomp-git": "stompgit",
    "stomp-jenkins": "stompjenkins",
    "keepalive": "keepalive",
    "stomp-access": "stompaccess",
    "cillit-access": "cillitaccess",
    "access-users": "accessusers",
    "gitagent-facts": "gitagentfacts",
    "git-agent": "gitagent",
    "bloatagent": "bloatagent",
    "mcollective": "mcollective",
    "grubby": "grubby",
    "grabby": "grabby",
    "stomp-repo": "stomprepo",
    "auto-reprepro": "autoreprepro",
    "repository-hook": "repositoryhook",
    "jenkins-helper": "jenkinshelper",
    "gitlab-stomp": "gitlabstomp",
    "github-stomp": "githubstomp",
    "puppet-module": "puppetmodule",
    "r10k": "r10k",
    "g10k": "g10k",
}


def kind_of_name(name: str) -> Kind:
    """Return a kind by its name.

    Raises:
        KeyError: there is none of that name.
    """
    kind = importlib.import_module(f"deploykit.config.migrate.kinds.{KINDS[name]}").KIND
    if not isinstance(kind, Kind):
        raise TypeError(f"kind {name} is none")
    return kind


def all_kinds() -> Iterator[Kind]:
    """Yield every kind, in the order of the page."""
    return map(kind_of_name, KINDS)


__all__ = ["KINDS", "all_kinds", "kind_of_name"]
