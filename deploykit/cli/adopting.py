"""What `release adopt` reads and prints."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import attrs
import click

from deploykit.cli.differences import show_differences, show_paths
from deploykit.cli.options import print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.release import TreeSource
    from deploykit.release.adopt import Adopted, Adopter, Undone
    from deploykit.release.requests import Parts


class GivenVersion(NamedTuple):
    """The options that say what is live."""

    mirror: Path | None
    parts: Sequence[str]
    submodules: Sequence[str]
    refs: Sequence[str]
    commits: Sequence[str]


def adopter_of(directory: Path, site_dir: Path | None, settings: Path | None) -> tuple[Adopter, Path]:
    """Return who adopts a directory, and where the site is to be."""
    from deploykit.config import load_site_settings
    from deploykit.errors import UsageError
    from deploykit.release import Site
    from deploykit.release.adopt import Adopter

    place = Path(os.path.abspath(directory))  # noqa: PTH100 -- resolve() would walk through it
    if site_dir is None and place.name != "current":
        raise UsageError("where is the site to be?", f"give --site, such as --site {place}.site")
    where = site_dir if site_dir is not None else place.parent
    return Adopter(Site(where, load_site_settings(settings, where)), place), where


@contextlib.contextmanager
def open_version(
    adopter: Adopter, site_dir: Path, settings: Path | None, given: GivenVersion
) -> Iterator[tuple[TreeSource | None, str, str, Parts]]:
    """Yield where what is live is looked up, and its ref, commit and parts. A clone knows its own."""
    from deploykit.cli.releasing import open_source
    from deploykit.cli.siteparts import asked_of
    from deploykit.config import load_site
    from deploykit.errors import UsageError
    from deploykit.git.repository import Repository
    from deploykit.release import PartSource
    from deploykit.release.requests import NO_PARTS

    mirror, parts, submodules, refs, commits = given
    several = bool(parts or load_site(settings, site_dir).parts)
    clone = adopter.clone if mirror is None and not several else None
    with open_source(site_dir, settings, mirror or clone, submodules, parts) as source:
        if source is None or (several and not (parts or refs or commits)):
            if refs or commits:
                raise UsageError("--ref and --commit need --mirror", "give the mirror or a clone that has them")
            yield None, "", "", NO_PARTS
        elif isinstance(source, PartSource):
            ref, commit, of_parts = asked_of(source, refs, commits)
            yield source, ref, commit, of_parts
        else:
            if len(refs) > 1 or len(commits) > 1:
                raise UsageError("the site is made of one repository", "give at most one --ref and one --commit")
            ref, commit = "".join(refs), "".join(commits)
            if clone is not None and not ref and not commit:
                with Repository(clone) as repository:
                    ref = repository.checked_out()
            if not ref and not commit:
                raise UsageError("what of that repository is live?", "give --ref or --commit")
            yield source, ref or commit, commit, NO_PARTS


def show_adopted(found: Adopted, as_json: bool, *, would: bool = False) -> None:
    """Print what was done, or would be, and what differs from the commit."""
    plan = found.adoption
    if as_json:
        print_json(attrs.asdict(found) | {"adoption": attrs.asdict(plan) | {"rewritten": dict(plan.rewritten)}})
        return
    verb = "would adopt" if would else "adopted"
    click.echo(f"{verb} {plan.place} as {plan.release}: {found.files.count} files")
    for path, text in plan.rewritten.items():
        click.echo(
            f"  @ {visible(path, tabs=True)}: a symlink that leads out, {visible(text, tabs=True)}, says its whole path"
        )
    for path in plan.shared:
        click.echo(f"  > {visible(path, tabs=True)}: in shared/")
    if plan.git:
        click.echo("  > .git: moved into .deploykit, for --undo")
    show_paths("!", found.late)
    if found.late:
        click.echo(f"that changed in {visible(plan.link)} while it was copied: see whether {plan.place} has it")
    if not plan.tree:
        click.echo("of which commit it is, is not known (--mirror, --ref): nothing was compared")
        return
    show_differences(found.files, plan.version.tag if plan.parts else plan.ref or plan.commit)
    if found.files.added or found.files.modified:
        click.echo("the next deploy has none of that: bring it into the repository, or name it in the site's shared")


def show_undone(undone: Undone, as_json: bool) -> None:
    """Print that a directory is back."""
    place, kept = undone.adoption.place, undone.kept
    if as_json:
        print_json({"undone": place, "kept": str(kept) if kept is not None else None, "written": undone.written})
        return
    click.echo(f"{place} is what it was")
    if kept is None:
        return
    show_paths("!", undone.written)
    click.echo(f"that was written since, and is not in it: look into {kept}")
