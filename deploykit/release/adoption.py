"""A directory that is live already, as the first release of a site: what it is, what is done, and the record of that.

Values and decisions only; `release/adopt.py` carries them out.

    directory   DIR is a real directory: it becomes the release, and DIR a symlink to `current`, in one exchange
    current     the same where DIR is the site's own `current`
    linked      DIR is a symlink to a directory elsewhere: that is copied, and DIR is then a symlink to `current`; or
                DIR is the site's own `current`, and then a symlink to the copy
    standing    DIR is the site's `current`, a symlink to a directory in `releases/`: nothing moves
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal, get_args

import attrs

from deploykit.errors import PreflightRefused, ReleaseError
from deploykit.release.model import ReleasePart, ReleaseVersion

FORMAT: Final = 1
Kind = Literal["directory", "current", "linked", "standing"]
_NOTHING: Mapping[str, str] = MappingProxyType({})


@attrs.frozen(kw_only=True, slots=True)
class Adoption:
    """The record of an adoption, from before its first change until it is undone.

    Args:
        place: the directory that was live, as readers name it.
        release: the directory below `releases/`.
        link: what `place` said where it was a symlink; empty where it was a directory.
        ref, commit, tree, parts: what it is said to be, as in a `Release`; empty where nobody knows.
        rewritten: symlinks that led out of the directory by relative paths: path -> what they said.
        shared: paths that were moved to `shared/`.
        git: it was a clone, whose `.git` was moved away.
        done: whether all of it was done.
    """

    kind: Kind
    place: str
    release: str
    link: str = ""
    ref: str = ""
    commit: str = ""
    tree: str = ""
    parts: tuple[ReleasePart, ...] = ()
    rewritten: Mapping[str, str] = _NOTHING
    shared: tuple[str, ...] = ()
    git: bool = False
    done: bool = False

    @property
    def version(self) -> ReleaseVersion:
        """What it is said to be made from."""
        return ReleaseVersion(ref=self.ref, commit=self.commit, parts=self.parts)

    def to_bytes(self) -> bytes:
        """Return the content of the record's file."""
        data = attrs.asdict(self) | {"rewritten": dict(self.rewritten), "shared": list(self.shared)}
        return json.dumps({"format": FORMAT, **data}).encode() + b"\n"


def read_adoption(content: bytes, path: Path) -> Adoption:
    """Parse a record; `path` is for the error text.

    Raises:
        ReleaseError: it is damaged, or of another format version.
    """
    try:
        data = json.loads(content)
        if data.pop("format") != FORMAT or data["kind"] not in get_args(Kind):
            raise ValueError("unknown format")
        parts = tuple(ReleasePart(**part) for part in data.pop("parts", ()))
        return Adoption(**data | {"shared": tuple(data["shared"]), "parts": parts})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ReleaseError(
            f"{path} is damaged: {error}", "look at the site; remove the file to give up undoing"
        ) from error


def kind_of(place: Path, site: Path, *, link: str | None, target: Path | None) -> Kind:
    """Return what a live directory is to a site.

    Args:
        place: of the directory: absolute, the way to it without symlinks.
        site: the site's directory, likewise.
        link: what `place` says where it is a symlink.
        target: the directory that it is or leads to, without symlinks; None where it is or leads to none.

    Raises:
        PreflightRefused: it cannot be adopted.
    """
    current = site / "current"
    if target is None:
        raise PreflightRefused(f"{place} is no directory, nor a symlink to one", "give the directory that is live")
    if place != current and place.is_relative_to(site) and place != site:
        raise PreflightRefused(f"{place} is inside the site {site}", f"give {current}, or another --site")
    if link is not None and place == current and target.parent == site / "releases":
        return "standing"
    if site.is_relative_to(target):
        raise PreflightRefused(
            f"the site {site} would be inside {target}, which is to become a release of it",
            "give another --site, beside it",
        )
    if link is not None:
        return "linked"
    return "current" if place == current else "directory"


def leads_out(path: str, target: str) -> bool:
    """Return whether a relative symlink of a directory leads out of it: it would lead elsewhere from another place.

    >>> leads_out("a/link", "../b"), leads_out("a/link", "../../b"), leads_out("link", "/etc")
    (False, True, False)
    """
    if target.startswith("/"):
        return False
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target)).split("/")[0] == ".."
