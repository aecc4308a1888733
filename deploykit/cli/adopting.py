"""What `release adopt` reads and prints."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import attrs
import click

from deploykit.cli.options import print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.release import TreeSource
    from deploykit.release.adopt import Adopted, Adopter, Undone

_SHOWN: Final = 20


@contextlib.contextmanager
def open_adopter(
    directory: Path, site_dir: Path | None, settings: Path | None, mirror: Path | None, ref: str, commit: str
) -> Iterator[tuple[Adopter, TreeSource | None, str]]:
    """Yield the adopter, and where the commit is looked up, with the name to look up. A clone knows its own."""
    from deploykit.config import load_site_settings
    from deploykit.errors import UsageError
    from deploykit.git.repository import Repository
    from deploykit.release import Site
    from deploykit.release.adopt import Adopter

    place = Path(os.path.abspath(directory))  # noqa: PTH100 -- resolve() would walk through it
    if site_dir is None and place.name != "current":
        raise UsageError("where is the site to be?", f"give --site, such as --site {place}.site")
    where = site_dir if site_dir is not None else place.parent
    adopter = Adopter(Site(where, load_site_settings(settings, where)), place)
    base = mirror if mirror is not None else adopter.clone
    if (ref or commit) and base is None:
        raise UsageError("--ref and --commit need --mirror", "give the mirror or a clone that has them")
    with contextlib.ExitStack() as stack:
        if base is None:
            yield adopter, None, ""
            return
        source = stack.enter_context(Repository(base))
        name = ref or commit or (source.head or "" if mirror is None else "")
        if not name:
            raise UsageError("what of that repository is live?", "give --ref or --commit")
        yield adopter, source, name


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
    if not plan.tree:
        click.echo("of which commit it is, is not known (--mirror, --ref): nothing was compared")
        return
    for sign, paths in (("+", found.files.added), ("~", found.files.modified), ("-", found.files.missing)):
        for path in paths[:_SHOWN]:
            click.echo(f"  {sign} {visible(path, tabs=True)}")
        if len(paths) > _SHOWN:
            click.echo(f"  {sign} and {len(paths) - _SHOWN} more")
    counts = f"{len(found.files.added)} added, {len(found.files.modified)} changed, {len(found.files.missing)} missing"
    click.echo(f"beside {plan.ref or plan.commit}: {counts}")
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
    for path in undone.written[:_SHOWN]:
        click.echo(f"  ! {visible(path, tabs=True)}")
    if len(undone.written) > _SHOWN:
        click.echo(f"  ! and {len(undone.written) - _SHOWN} more")
    click.echo(f"that was written since, and is not in it: look into {kept}")
