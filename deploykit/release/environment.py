"""What a site's settings come to on this machine: users looked up, the rules of its trees, who may change a script."""

from __future__ import annotations

import hashlib

import attrs

from deploykit.settings.site import SiteSettings
from deploykit.system.users import Identity, identity_of, owner_of, trusted_users
from deploykit.trees import TreeRules
from deploykit.trees.files import process_umask
from deploykit.trees.rules import rules_of as tree_rules_of


@attrs.frozen(kw_only=True, slots=True)
class Environment:
    """A site's settings on this machine: users looked up, and the scripts that were found.

    Args:
        scripts: step -> path below the release, or an absolute one.
    """

    rules: TreeRules
    fingerprint: str
    identity: Identity | None
    owner: tuple[int, int] | None
    trusted: frozenset[int]
    scripts: dict[str, str] = attrs.field(factory=dict)

    def optional_steps(self, settings: SiteSettings) -> frozenset[str]:
        """Return the steps that not every site has: its scripts, and `health-url` where one is set."""
        return frozenset(self.scripts) | ({"health-url"} if settings.health_url else frozenset())


def rules_of(settings: SiteSettings) -> TreeRules:
    """Return the part of a site's settings that says how a tree is written."""
    return attrs.evolve(
        tree_rules_of(settings),
        max_depth=settings.max_depth,
        max_file_bytes=settings.max_file_bytes,
        export_attributes=settings.export_attributes,
        subdirectory=settings.subdirectory,
    )


def environment_of(settings: SiteSettings) -> Environment:
    """Return the environment of a site, without scripts.

    Raises:
        PreflightRefused: a user is unknown, or this process may not become it.
    """
    rules = rules_of(settings)
    owner, identity = owner_of(settings.owner), identity_of(settings.run_as, settings.owner)
    umask = umask_of(settings)
    lasting = attrs.evolve(rules, max_entries=0, max_bytes=0, max_depth=0, max_file_bytes=0)
    text = repr((lasting, owner, umask, tuple(sorted(settings.shared)), settings.state_files))
    return Environment(
        rules=rules,
        fingerprint=hashlib.sha256(text.encode()).hexdigest()[:16],
        identity=identity,
        owner=owner,
        trusted=trusted_users(identity),
    )


def umask_of(settings: SiteSettings) -> int:
    """Return the umask of what is written: the site's, or this process's own."""
    return settings.umask if settings.umask is not None else process_umask()
