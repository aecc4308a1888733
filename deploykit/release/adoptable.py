"""May a live directory be adopted? All that would stop the adoption half-way refuses it before the first change."""

from __future__ import annotations

import os
from pathlib import Path

from deploykit.errors import PreflightRefused
from deploykit.release.adoption import Kind
from deploykit.release.site import Site
from deploykit.system.exchange import mount_of
from deploykit.system.ownership import OthersCanChange, check_owned


def check_place(site: Site, place: Path, kind: Kind, release: str) -> None:
    """Refuse a place where others could swap what root moves, one that cannot be exchanged, and a site that is in use.

    Args:
        place: the way to it without symlinks.
        release: the name that the release is to have.

    Raises:
        PreflightRefused: the remedy names the directory.
    """
    if os.geteuid() == 0:
        try:
            check_owned(place.parent, frozenset({0}))
        except OthersCanChange as found:
            raise PreflightRefused(
                f"{place} is not safe to move: others can change {found.place}: {found.why}", found.remedy
            ) from None
    if not os.access(place.parent, os.W_OK):
        raise PreflightRefused(f"{place.parent} may not be written to", "run this as its owner")
    if kind == "standing":
        return
    in_the_way = [site.release_path(release)]
    if Path(os.path.realpath(site.path)) != place.parent or place.name != "current":
        in_the_way.append(site.current_link)
    for path in in_the_way:
        if os.path.lexists(path):
            raise PreflightRefused(f"{path} is there already", "move it away, or give another --site")
    if kind == "linked":
        return
    if mount_of(place) != mount_of(place.parent):
        raise PreflightRefused(
            f"{place} is a mount point: what is mounted cannot change its name",
            "deploy to a site beside it, and mount that there when nobody needs the old one",
        )
    above = next(path for path in (site.path, *site.path.parents) if path.exists())
    if mount_of(above) != mount_of(place):
        raise PreflightRefused(
            f"{place} is on another file system than {above}, where the site is to be",
            "give a --site on the same one: a directory in use is moved by one exchange of names",
        )
    _check_movable(place)


def paths_to_share(site: Site, place: Path, kind: Kind) -> tuple[str, ...]:
    """Return the shared paths that are in the directory and not in `shared/` yet.

    Raises:
        PreflightRefused: one cannot be moved there.
    """
    found = []
    for text in site.settings.shared:
        path = text.rstrip("/")
        inside = place / path
        if inside.is_symlink() or not inside.exists():
            continue
        for way in inside.parents[: path.count("/")]:
            if way.is_symlink():
                raise PreflightRefused(
                    f"{inside} is behind the symlink {way}: it belongs to somebody else",
                    "make a real directory of it, or take it out of shared",
                )
        there = site.shared_dir / path
        if os.path.lexists(there):
            raise PreflightRefused(f"{inside} and {there} are both there", "move one of them away")
        _check_shared(site, place, inside, kind)
        found.append(path)
    return tuple(found)


def _check_shared(site: Site, place: Path, inside: Path, kind: Kind) -> None:
    """Refuse what cannot be exchanged with an entry of `shared/`."""
    if kind != "linked":
        if mount_of(inside) != mount_of(place):
            raise PreflightRefused(
                f"{inside} is on another file system", "mount it at its place in shared/, and link it here"
            )
        _check_movable(inside)
    if site.shared_dir.exists() and mount_of(site.shared_dir) != mount_of(site.path):
        raise PreflightRefused(
            f"{site.shared_dir} is on another file system than {inside}, which is in use",
            f"take it out of shared until it was copied to {site.shared_dir} and linked here",
        )


def _check_movable(path: Path) -> None:
    """Refuse a directory that is another user's: what changes its parent is written to (`..`)."""
    if path.is_dir() and not os.access(path, os.W_OK):
        raise PreflightRefused(f"{path} may not be written to, and so not be moved", "run this as its owner")
