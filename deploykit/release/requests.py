"""What a caller asks of a site: a new release of a commit, or a release that is there already. Values only."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

import attrs

from deploykit.names import RepoName
from deploykit.release.model import Phase, Release
from deploykit.release.source import TreeSource


@attrs.frozen(kw_only=True, slots=True)
class Allowances:
    """What a caller permits for one deploy, beyond the settings.

    Args:
        moved: the ref may point elsewhere than at the commit by now.
        older: the commit may be one that the live release already contains.
        drift: files edited by hand may be replaced although the settings say refuse.
    """

    moved: bool = False
    older: bool = False
    drift: bool = False


@attrs.frozen(kw_only=True, slots=True)
class PartRequest:
    """What is asked of one of a site's repositories.

    Args:
        ref: a tag or branch, in full or short.
        commit: what it must stand for (full id); what it stands for now when empty.
    """

    ref: str
    commit: str = ""


Parts = Mapping[RepoName, PartRequest]
NO_PARTS: Final[Parts] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class DeployRequest:
    """A request for a release of a commit, or of one commit of each of several repositories.

    Args:
        ref, commit: of a site's one repository. With several, `ref` is empty, and `commit` the id that their parts must
            come to; any when empty.
        parts: repository -> what is asked of it; the others stay as they are live.
        request_id: the id of the message that asks, or empty.
        rollout: the id of the rollout that it is part of, or empty.
        again: make a new release although this very commit is live.
    """

    phase: Phase
    ref: str
    commit: str
    request_id: str
    requested_by: str
    allow: Allowances
    again: bool = False
    rollout: str = ""
    parts: Parts = NO_PARTS


@attrs.frozen(kw_only=True, slots=True)
class ReleaseRequest:
    """A request for a release that is there already.

    Args:
        name: its name, number, tag or commit; the release that is due when empty.
        ref: where given, `name` is the whole commit, and the release has to be of exactly this ref and commit.
        source: where to write the release from if it is not whole on disk.
        request_id: the id of the message that asks, or empty.
        rollout: the id of the rollout that it is part of, or empty.
    """

    name: str
    ref: str
    source: TreeSource | None
    request_id: str
    requested_by: str
    allow: Allowances
    rollout: str = ""

    @property
    def commit(self) -> str:
        """The commit, where a whole one was given; else empty."""
        return self.name if len(self.name) in (40, 64) else ""

    def means(self, release: Release) -> bool:
        """Return whether a release is one that the request names."""
        if self.ref:
            return (release.ref, release.commit) == (self.ref, self.name)
        named = self.name in ("", release.name, str(release.seq), release.tag, release.ref)
        return named or (len(self.name) >= 7 and release.commit.startswith(self.name))
