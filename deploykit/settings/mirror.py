"""Mirrors of repositories, and which of their refs are kept as directories."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import attrs

from deploykit.settings.credentials import hide_credentials
from deploykit.settings.problems import below, not_a_time, too_small
from deploykit.settings.tree import TreeSettings

CheckoutMode = Literal["normal", "trusting", "branch", "puppetmaster", "tags", "atomic", "dangerous"]


@attrs.frozen(kw_only=True, slots=True)
class MirrorSettings:
    """One repository's mirror: what it holds, how the origin is reached, and what the origin may change or send.

    Args:
        refs: patterns of the refs to mirror; `*` also crosses `/`.
        deadline: seconds for a whole fetch; it ends then, whatever the origin does.
        connect_timeout: seconds for reaching the origin, name lookup included.
        stall_timeout: seconds that the origin may send nothing.
        allow_http: also `http://` addresses: nothing is encrypted, passwords neither.
        ssh_key: the private key for `ssh://`; ssh's own choice when absent.
        ssh_known_hosts: the origin's host key must be in this file; ssh's own files when absent.
        ca_file: certificates to trust for `https://`; the system's when absent.
        credentials_file: lines of `https://USER:PASSWORD@HOST`, as `git credential-store` writes them; mode 0600.
        credential_helper: a program and its arguments that speaks git's credential protocol.
        non_fast_forward: `refuse` leaves a ref alone that was rewritten, and a tag that moved.
        never_older: leave a ref alone that would go back to a commit it had before, or to an older one.
        max_delete_percent: refuse to delete more of the refs than this in one fetch, unless the caller allows it; for
            mirrors of 4 refs and more.
        signed: patterns of refs that move only to what is signed by a key in `allowed_signers`.
        allowed_signers: OpenSSH's file of that name.
        max_pack_bytes, max_object_bytes, max_listing_bytes: what an origin may send at most.
        min_free_bytes, min_free_inodes: a fetch does not start, and stops, when the disk has less.
        lfs: fetch the objects of Git LFS that the branches and tags need, too.
        lfs_url: of their server; the origin's URL with `/info/lfs` when empty. Needed where the origin is not `https`.
        lfs_max_object_bytes, lfs_max_bytes: the largest object that is fetched, and what all of a mirror may take.
        lfs_deadline: seconds for the objects of one fetch, after its refs have moved.
        repack_after: number of packs from which upkeep joins them (with the git program); 0: never.
    """

    refs: tuple[str, ...] = ("refs/heads/*", "refs/tags/*")
    deadline: float = 600.0
    connect_timeout: float = 15.0
    stall_timeout: float = 60.0
    allow_http: bool = False
    ssh_key: Path | None = None
    ssh_known_hosts: Path | None = None
    ca_file: Path | None = None
    credentials_file: Path | None = None
    credential_helper: tuple[str, ...] = ()
    non_fast_forward: Literal["allow", "refuse"] = "allow"
    never_older: bool = False
    max_delete_percent: float = 50.0
    signed: tuple[str, ...] = ()
    allowed_signers: Path | None = None
    max_pack_bytes: int = 32 << 30
    max_object_bytes: int = 512 << 20
    max_listing_bytes: int = 256 << 20
    min_free_bytes: int = 64 << 20
    min_free_inodes: int = 200
    lfs: bool = False
    lfs_url: str = attrs.field(default="", repr=hide_credentials)
    lfs_max_object_bytes: int = 4 << 30
    lfs_max_bytes: int = 32 << 30
    lfs_deadline: float = 3600.0
    repack_after: int = 50

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        if self.signed and self.allowed_signers is None:
            yield "signed: needs allowed_signers, or each of these refs is refused"
        yield from too_small(self, {"lfs_max_object_bytes": 1, "lfs_max_bytes": 1})
        yield from not_a_time(self, ("lfs_deadline",))
        if self.lfs_url and not self.lfs:
            yield "lfs_url: has no effect without lfs = true"
        if self.lfs_url and (problem := _lfs_url_problem(self.lfs_url, allow_http=self.allow_http)):
            yield f"lfs_url: {problem}"


@attrs.frozen(kw_only=True, slots=True)
class CheckoutSettings(TreeSettings):
    """Refs of a mirror kept as directories; how their files are written is in `TreeSettings`.

    Args:
        mode: `normal` none; `trusting` the default branch in `target`; `branch` the one named in `branch` in `target`;
            `puppetmaster` each branch in `target/BRANCH`, by names Puppet takes; `tags` each tag in `target/TAG`;
            `atomic` each branch in `target_BRANCH`; `dangerous` as `trusting`: the original checked out inside its
            clone.
        target: where; must not be a real directory in the way (`trusting`, `branch`, `atomic`). `normal` has none.
        nested: a branch or tag `topic/z` is in `target/topic/z`, as the original had it, and no branch or tag may be
            a directory of another's path; for `tags` and `atomic`. Otherwise its directory has one name.
        prefix: stands before the name of each branch's directory, `qa_`, so that several repositories can share a
            `target`; for `puppetmaster`.
        branch: for `branch`; for `trusting` instead of the default branch.
        refs: only refs that match one of these patterns; all that the mode takes when empty.
        remove: whether the directory of a deleted ref goes; by default so in the modes with many directories.
        grace: seconds a replaced copy is left untouched for readers that still have it open.
    """

    mode: CheckoutMode
    target: Path | None = None
    branch: str = ""
    refs: tuple[str, ...] = ()
    remove: bool | None = None
    grace: float = 10.0
    nested: bool = False
    prefix: str = ""


@attrs.frozen(kw_only=True, slots=True)
class RepositorySettings:
    """One repository a node mirrors: its origin's URL, the mirror's own settings, and which refs become directories.

    Args:
        url: of the origin.
        mirror: what the mirror holds.
        checkouts: refs that are kept as directories.
        fetch_on: `push`: a push fetches, and the mirror is compared with its origin now and then. `build`: only the
            success of a build of this repository fetches, and a deploy that lacks its commit.
    """

    url: str = attrs.field(repr=hide_credentials)
    mirror: MirrorSettings = attrs.field(factory=MirrorSettings)
    checkouts: tuple[CheckoutSettings, ...] = ()
    fetch_on: Literal["push", "build"] = "push"

    def problems(self) -> tuple[str, ...]:
        """Return what is wrong, one line each; empty when all is well. The URL is checked by `git.transport`."""
        return tuple(self._problems())

    def _problems(self) -> Iterator[str]:
        yield from below("mirror", self.mirror.problems())
        if self.mirror.lfs and not self.mirror.lfs_url and not self.url.startswith(("https://", "http://")):
            yield "mirror.lfs_url: expected the address of the LFS server; the origin's own is not https"
        for at, checkout in enumerate(self.checkouts):
            yield from below(f"checkouts[{at}]", checkout.problems())


def _lfs_url_problem(url: str, *, allow_http: bool) -> str:
    """Return what is wrong with the URL of an LFS server; empty when all is well."""
    try:
        parts = urlsplit(url)
        nowhere = parts.scheme not in ("https", "http") or not parts.hostname or parts.port == 0
    except ValueError:
        return "not a URL"
    checks = (
        (nowhere, "expected https://HOST/PATH"),
        ("@" in parts.netloc, "holds a login (use credentials_file)"),
        (not url.isascii() or not url.isprintable() or " " in url or "\\" in url, "holds what no URL has"),
        (bool(parts.query or parts.fragment), "expected neither ? nor #"),
        (parts.scheme == "http" and not allow_http, "http sends everything in clear (use https, or set allow_http)"),
    )
    return next((problem for wrong, problem in checks if wrong), "")
