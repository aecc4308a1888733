"""`deploykit checkout`: directories that an agent keeps, taken over from what was there before."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from deploykit.cli.options import Directory, config_option, json_option, load, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.checkouts.adopting import AdoptedCheckout

_place = Directory(path_type=Path, resolve_path=False)


@click.group()
def checkout() -> None:
    """Have an agent's checkouts take the place of what readers use already.

    \b
    Example:
      deploykit checkout adopt /etc/puppetlabs/code/environments/* --dry-run
    """


@checkout.command()
@click.argument("directories", metavar="DIRECTORY...", type=_place, nargs=-1, required=True)
@config_option
@click.option("--dry-run", is_flag=True, help="Show what would be done, and what differs from the commit.")
@click.option("--allow-differences", is_flag=True, help="Readers may lose what the commit does not have; it is kept.")
@click.option("--undo", is_flag=True, help="Put what was there back.")
@json_option
def adopt(
    directories: tuple[Path, ...],
    config: Path | None,
    dry_run: bool,
    allow_differences: bool,
    undo: bool,
    as_json: bool,
) -> int:
    """Make each DIRECTORY the checkout that the settings want there; no reader finds nothing meanwhile.

    DIRECTORY is a real directory, a clone, or a symlink to one, in the way of an agent's checkout. The checkout is
    written beside it, and the two change places in one step. What was there is kept, unchanged. Files that readers
    would lose are named, and need consent. The agent may be running.

    \b
    Example:
      deploykit checkout adopt /srv/site/v1 --dry-run
      deploykit checkout adopt /srv/site/v1
      deploykit checkout adopt /srv/site/v1 --undo
    """
    from deploykit.cli import report
    from deploykit.errors import DeploykitError
    from deploykit.operations.adoptcheckout import adopted_at, open_adoption

    settings, worst = load(config), 0
    found: list[object] = []
    for place in directories:
        try:
            if undo:
                back = adopted_at(settings, place).undo()
                found.append({"undone": back})
                if not as_json:
                    click.echo(f"{visible(back)} is what it was")
                continue
            with open_adoption(settings, place) as (adopter, source):
                if dry_run:
                    done = adopter.preview(source)
                else:
                    done = adopter.adopt(source, allow_differences=allow_differences)
        except DeploykitError as error:
            report(error)
            worst = max(worst, error.exit_code)
            continue
        found.append(attrs.asdict(done))
        if not as_json:
            _show(done, would=dry_run)
    if as_json:
        print_json(found)
    return worst


def _show(done: AdoptedCheckout, *, would: bool) -> None:
    from deploykit.cli.differences import show_differences, show_paths

    verb = "would adopt" if would else "adopted"
    what = f"{visible(done.ref)} ({done.commit[:12]})"
    click.echo(f"{verb} {visible(done.directory)} as a checkout of {what}: {done.files.count} files")
    show_differences(done.files, done.ref, None if would else 20)
    if would and (done.files.added or done.files.modified):
        click.echo("readers would lose what is added (+) and changed (~): that takes --allow-differences")
    show_paths("!", done.late)
    if done.late:
        click.echo("that was written into the old one meanwhile, and readers do not find it: look where it is kept")
    click.echo(f"what was there {'would be' if would else 'is'} kept: {visible(done.kept)}")
