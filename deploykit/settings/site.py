"""Sites: how a release is made, switched and kept, and where a node has which site."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal

import attrs

from deploykit.names import RepoName
from deploykit.settings.credentials import hide_credentials

_NOTHING: Mapping[str, str] = MappingProxyType({})
_NO_TIMES: Mapping[str, float] = MappingProxyType({})
_NO_ANSWERS: Mapping[str, Literal["again", "skip", "stop"]] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class SiteSettings:
    """One site's releases. The defaults suit a directory that is set up on its first deploy and has no scripts.

    Args:
        keep: how many good releases stay; the live one, the last good one and pinned ones always do.
        recycle: keep one release beyond that and turn it into the next one: a deploy then costs what changed.
        grace: seconds for which a release that was live is neither recycled nor removed, whatever `keep` says: whoever
            opened it before the switch reads on undisturbed. Deploys that follow each other faster leave more behind.
        paranoid: read every file of a release that is recycled or verified, not only what `lstat` says.
        shared: what lives in `shared/` and is linked into every release; `uploads/` is a directory and is made when
            missing, `config.php` a file that must be there or is taken from the first release.
        subdirectory: only this directory of the repository, as the release's root.
        state_files: write `TAG` and `.deploykit/REVISION` into the release, unless the tree has files of that name.
        symlinks: `inside` refuses a link that leaves the tree, `any` writes it, `refuse` allows none.
        submodules: `refuse`, or `skip`: an empty directory in its place.
        raw_attributes: which of `filter`, `eol`, `ident`, `working-tree-encoding` may be ignored.
        export_attributes: honour `export-ignore` and `export-subst` as `git archive` does.
        max_entries, max_depth, max_bytes, max_file_bytes: what a tree may hold at most.
        umask: bits taken from the modes of what is written; the process's own when absent.
        owner: `user` or `user:group` for everything written; needs root.
        durable: nothing is reported done that a power cut could take away.
        lock_wait: how long to wait while another deploy runs; 0 refuses at once.
        scripts: where the deploy scripts are: a directory of the tree, or an absolute one outside it; "" for none.
        required: scripts that must be there; without one of them nothing is touched.
        script_timeout: for each script; its whole process group is killed after it.
        timeouts: for single scripts, by name.
        at_crash: what becomes of a script that a crash cut off, by name: run it `again` (the default), `skip` it, or
            `stop` and leave the decision to a person.
        output_limit: bytes of a script's output that are kept: half from its start, half from its end.
        environment: further variables for the scripts. Never printed or recorded.
        run_as: `user` or `user:group` the scripts run as, or `owner`: who `owner` names; needs root. A script runs only
            if nobody but that user and root can change it or a directory on the way to it.
        health_url: fetched after post-deploy until it answers with 2xx; else the old release comes back.
        health_timeout: for all attempts together.
        drift: when files of the live release were edited by hand: `warn`, `refuse` to deploy over it, or `ignore`.
        drift_ignore: patterns of paths that may change (`cache/*`).
        older: `refuse` to deploy a commit that the live one already contains, unless told; or `allow`.
    """

    keep: int = attrs.field(default=5, validator=attrs.validators.ge(1))
    recycle: bool = True
    grace: float = attrs.field(default=2.0, validator=attrs.validators.ge(0))
    paranoid: bool = False
    shared: tuple[str, ...] = ()
    subdirectory: str = ""
    state_files: bool = True
    symlinks: Literal["inside", "any", "refuse"] = "inside"
    submodules: Literal["refuse", "skip"] = "refuse"
    raw_attributes: tuple[Literal["filter", "eol", "ident", "working-tree-encoding"], ...] = ()
    export_attributes: bool = False
    max_entries: int = 250_000
    max_depth: int = 64
    max_bytes: int = 8 * 1024**3
    max_file_bytes: int = 1024**3
    umask: int | None = None
    owner: str = ""
    durable: bool = True
    lock_wait: float = 600.0
    scripts: str = "deploy"
    required: tuple[str, ...] = ()
    script_timeout: float = 300.0
    timeouts: Mapping[str, float] = _NO_TIMES
    at_crash: Mapping[str, Literal["again", "skip", "stop"]] = _NO_ANSWERS
    output_limit: int = 65536
    environment: Mapping[str, str] = attrs.field(default=_NOTHING, repr=False)
    run_as: str = ""
    health_url: str = attrs.field(default="", repr=hide_credentials)
    health_timeout: float = 30.0
    drift: Literal["warn", "refuse", "ignore"] = "warn"
    drift_ignore: tuple[str, ...] = ()
    older: Literal["refuse", "allow"] = "refuse"


@attrs.frozen(kw_only=True, slots=True)
class NodeSiteSettings:
    """One site on a node: where it lives, and which repository feeds it."""

    path: Path
    repo: RepoName
    release: SiteSettings = attrs.field(factory=SiteSettings)
