"""`deploykit config migrate`: settings of the original's programs, and of r10k and g10k, to `deploykit.toml`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import json_option, print_json
from deploykit.cli.visible import visible

if TYPE_CHECKING:
    from deploykit.config.migrate.model import MigrationDraft


@click.command()
@click.argument("files", metavar="FILE…", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the settings there, mode 0600, and beside it the files of secrets and hooks.toml.",
)
@click.option("--force", is_flag=True, help="With -o: write over what is there.")
@click.option("--node", metavar="NAME", default="", help="The node's name; by default that of its machine.")
@click.option(
    "--kind",
    metavar="NAME",
    default="",
    help="What the files are, where their keys do not show it; docs/migration.md lists the names.",
)
@json_option
@click.pass_context
def migrate(
    ctx: click.Context, files: tuple[Path, ...], output: Path | None, force: bool, node: str, kind: str, as_json: bool
) -> None:
    """Convert old settings FILE… to one deploykit.toml, and list what could not be carried over, with the reason.

    FILE is a YAML file of the original's programs (stomp-git, stomp-jenkins, …), a facts file, server.cfg of
    MCollective, r10k.yaml or g10k.yaml: all of one machine at once. Where two of them say otherwise, the first counts.
    Nothing is run, and no network is used: the URL of an origin is read from the old clone, where that is on this
    machine.

    Without -o the settings are printed, and secrets are left out. Ends with 1 where the result needs a hand before
    `config check` accepts it, with 2 where a file cannot be read.

    \b
    Examples:
      deploykit config migrate /etc/stomp-git/stomp-git.yaml
      deploykit config migrate -o new/deploykit.toml /etc/stomp-git/stomp-git.yaml /etc/facts.d/site.yaml
    """
    from deploykit.config.migrate.convert import convert
    from deploykit.config.migrate.oldfiles import read_old_file
    from deploykit.config.migrate.render import render, render_hooks
    from deploykit.config.migrate.writing import acceptance_problems, write_draft

    draft = convert([read_old_file(file) for file in dict.fromkeys(files)], kind=kind, node=node)
    problems = acceptance_problems(draft)
    written = write_draft(draft, files, output, force=force) if output is not None else []
    if as_json:
        print_json(_as_json(draft, problems, written, "" if output else render(draft, files), render_hooks(draft)))
    elif output is None:
        click.echo(render(draft, files), nl=False)
        if hooks := render_hooks(draft, files):
            click.echo("\n# -- what follows is for a file of its own: /etc/deploykit/hooks.toml")
            click.echo("".join(f"# {line}".rstrip() + "\n" for line in hooks.splitlines()), nl=False)
    if not as_json:
        _print_report(draft, problems, written)
    ctx.exit(1 if problems else 0)


def _print_report(draft: MigrationDraft, problems: tuple[str, ...], written: list[Path]) -> None:
    """Print to standard error what was written, what was lost, and what a person has to look at."""
    for file in written:
        _print(f"wrote {file}")
    if draft.lost:
        _print(f"not carried over ({len(draft.lost)}):")
    for lost in draft.lost:
        _print(f"  {lost.file}: {lost.key}: {lost.why}")
    lines = [*draft.warnings, *([] if written else _left_out(draft))]
    if lines:
        _print("look at:")
    for line in lines:
        _print(f"  {line}")
    if problems:
        _print("not accepted by `config check` until this is mended:")
    for problem in problems:
        _print(f"  {problem}")


def _left_out(draft: MigrationDraft) -> list[str]:
    """Return a line for each secret that is not printed."""
    from deploykit.config.migrate.render import SECRETS_DIRECTORY, dotted, holds_passcode

    lines = [
        f"{dotted(place)}: the secret is not printed: write it to {SECRETS_DIRECTORY / str(draft.values[place])}, "
        "mode 0600, or use -o"
        for place in draft.secrets
    ]
    if holds_passcode(draft.values.get(("broker", "address"))):
        lines.append("broker.address: write the passcodes in place of PASSCODE, or use -o")
    return lines


def _as_json(
    draft: MigrationDraft, problems: tuple[str, ...], written: list[Path], text: str, hooks: str
) -> dict[str, object]:
    from deploykit.config.migrate.render import dotted

    return {
        "settings": text,
        "hooks": hooks,
        "written": [str(file) for file in written],
        "lost": [{"file": str(lost.file), "key": lost.key, "why": lost.why} for lost in draft.lost],
        "warnings": draft.warnings,
        "secrets": {dotted(place): str(draft.values[place]) for place in draft.secrets},
        "problems": list(problems),
    }


def _print(line: str) -> None:
    click.echo(visible(line), err=True)
