"""`deploykit hooks`: install, check and remove the hook scripts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from deploykit.cli.options import Seconds, json_option, print_json
from deploykit.errors import DeploykitError

if TYPE_CHECKING:
    from deploykit.hooking.installer import InstallResult

F = TypeVar("F", bound=Callable[..., object])
_KINDS = ("git", "svn", "gitolite", "jenkins", "debian")


def _kind_option(function: F) -> F:
    text = "What PATHS are; git, svn and gitolite are recognised."
    option: Callable[[F], F] = click.option("--kind", type=click.Choice(_KINDS), help=text)
    return option(function)


_paths = click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))


@click.group()
def hooks() -> None:
    """Install, check and remove the hook scripts.

    \b
    Example:
      deploykit hooks install /srv/git/shop.git
      deploykit hooks check /srv/git/shop.git
    """


@hooks.command()
@_paths
@_kind_option
@click.option("--chain", is_flag=True, help="Keep a hook that is there: it moves to <hook>.d/10-kept and runs first.")
@json_option
def install(paths: tuple[Path, ...], kind: str | None, chain: bool, as_json: bool) -> None:
    """Install the hook for what is at PATHS: a repository, gitolite's home, or the directory for a program.

    It uses the interpreter of this installation. Installing again replaces an old script and changes nothing else.

    \b
    Example:
      deploykit hooks install /srv/git/*.git
      deploykit hooks install --chain /srv/svn/web
      deploykit hooks install --kind gitolite /home/git
      deploykit hooks install --kind jenkins /usr/local/bin
    """
    from deploykit.hooking import installer

    _each(paths, lambda path: installer.install(path, kind, chain=chain), as_json)  # type: ignore[arg-type]  # checked


@hooks.command()
@click.argument("path", type=click.Path(path_type=Path))
@_kind_option
@click.option(
    "--config", type=click.Path(path_type=Path, exists=True), help="Settings file that the script is run with."
)
@click.option(
    "--timeout", default=5.0, show_default=True, type=Seconds(0.1), help="Seconds that the broker may take to answer."
)
@json_option
def check(path: Path, kind: str | None, config: Path | None, timeout: float, as_json: bool) -> None:
    """Show what the hook at PATH would publish, and whether script, settings, spool and broker are right.

    Nothing is queued or changed. Ends with 1 if there is an error.

    \b
    Example:
      deploykit hooks check /srv/git/shop.git
      sudo -u git deploykit hooks check /srv/git/shop.git
      deploykit hooks check --kind debian --config /etc/packages.toml /usr/local/bin
    """
    from deploykit.operations import hookcheck
    from deploykit.settings.hooks import SYSTEM_FILE

    failed = False
    file = str((config or Path(SYSTEM_FILE)).absolute())
    for finding in hookcheck.check(path, kind, config=file, timeout=timeout):  # type: ignore[arg-type]  # click checked
        failed |= finding.failed
        if as_json:
            print_json({"subject": finding.check, "verdict": finding.verdict, "text": finding.text})
        else:
            click.echo(finding)
    if failed:
        raise click.exceptions.Exit(1)


@hooks.command()
@_paths
@_kind_option
@json_option
def uninstall(paths: tuple[Path, ...], kind: str | None, as_json: bool) -> None:
    """Remove the hook from PATHS; a hook that was kept comes back.

    \b
    Example:
      deploykit hooks uninstall /srv/git/shop.git
    """
    from deploykit.hooking import installer

    _each(paths, lambda path: installer.uninstall(path, kind), as_json)  # type: ignore[arg-type]  # checked


def _each(paths: tuple[Path, ...], act: Callable[[Path], InstallResult], as_json: bool) -> None:
    """Act on every path; an error at one is printed, and stops no other."""
    from deploykit.cli import report

    codes = set()
    for path in paths:
        try:
            _show(act(path), as_json)
        except DeploykitError as error:
            report(error)
            codes.add(error.exit_code)
    if codes:
        raise click.exceptions.Exit(max(codes))


def _show(done: InstallResult, as_json: bool) -> None:
    if as_json:
        kept = str(done.kept) if done.kept else None
        print_json({"path": str(done.path), "kind": done.kind, "change": done.change, "kept": kept, "note": done.note})
        return
    click.echo(f"{done.change} ({done.kind}): {done.path}")
    if done.kept:
        click.echo(f"  the hook that was there {'is back:' if done.change == 'removed' else 'is kept as'} {done.kept}")
    if done.note:
        click.echo(f"  {done.note}")
