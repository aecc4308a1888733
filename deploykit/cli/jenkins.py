"""`deploykit jenkins`: the build daemon, and what people ask about its builds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from deploykit.cli.options import Seconds, config_option, json_option, load, print_json
from deploykit.cli.visible import visible
from deploykit.errors import UsageError

if TYPE_CHECKING:
    from deploykit.daemons.jenkins.model import QueuedBuild
    from deploykit.daemons.jenkins.queue import BuildQueue
    from deploykit.messages import RefUpdated, RevisionCommitted
    from deploykit.settings.node import Settings

#: The fewest characters of a key that may name a build.
_SHORTEST_KEY = 6


@click.group(invoke_without_command=True)
@config_option
@click.option("--once", is_flag=True, help="Ask for the builds that wait, then end; with 1 if some still wait.")
@click.option("--deadline", default=60.0, show_default=True, type=Seconds(1), help="With --once: ends then anyway.")
@click.option("--forget", is_flag=True, help="Drop the durable subscription at the broker, and end.")
@click.pass_context
def jenkins(ctx: click.Context, config: Path | None, once: bool, deadline: float, forget: bool) -> None:
    """Run the build daemon: pushes start builds, as [[jenkins.jobs]] says. TERM ends it, HUP reads the settings again.

    Run it once in a fleet: two of them ask for every build twice.

    \b
    Examples:
      deploykit jenkins --config /etc/deploykit/deploykit.toml
      deploykit jenkins plan --repo shop --ref refs/heads/main
      deploykit jenkins list
      deploykit jenkins retry --all
    """
    ctx.obj = config
    if ctx.invoked_subcommand is not None:
        return
    from deploykit.daemons.jenkins import commands
    from deploykit.daemons.jenkins.model import builds_text

    if forget:
        commands.forget(load(config))
    elif once:
        report = commands.once(load(config), deadline)
        left = f", {report.left} still waiting" if report.left else ""
        click.echo(
            f"{builds_text(report.asked)} answered{left}" + ("" if report.connected else "; the broker was away")
        )
        ctx.exit(0 if report.connected and not report.left else 1)
    else:
        commands.run(lambda: load(config), on_ready=lambda name: click.echo(f"ready: {name}"))


@jenkins.command()
@click.option("--repo", required=True, help="The repository.")
@click.option("--ref", help="The ref, in full or a branch's name.")
@click.option("--commit", default="2" * 40, help="The commit that was pushed.", show_default="made up")
@click.option("--deleted", is_flag=True, help="The ref was deleted.")
@click.option("--revision", type=click.IntRange(0), help="Subversion: a revision instead of a ref.")
@click.option("--project", "projects", multiple=True, help="Subversion: a project that it touches; may be repeated.")
@config_option
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    repo: str,
    ref: str | None,
    commit: str,
    deleted: bool,
    revision: int | None,
    projects: Sequence[str],
    config: Path | None,
    as_json: bool,
) -> None:
    """Show which builds a push would start, and why not the others. Contacts neither broker nor build server.

    \b
    Examples:
      deploykit jenkins plan --repo shop --ref main
      deploykit jenkins plan --repo web --revision 7 --project lib
    """
    from deploykit.daemons.jenkins.rules import BuildRules, event_key

    message = _event(repo, ref, commit, deleted, revision, tuple(projects))
    found = BuildRules(_settings(ctx, config).jenkins).plan(message, event_key(message, legacy=False))
    if as_json:
        print_json(
            {
                "builds": [
                    {"server": b.order.server, "job": b.order.job, "parameters": dict(b.order.parameters)}
                    for b in found.builds
                ],
                "left_out": [{"job": each.job, "reason": each.reason} for each in found.left_out],
            }
        )
        return
    for build in found.builds:
        click.echo(f"build  {build.order.server}: {build.order.job}")
        for name, value in build.order.parameters.items():
            click.echo(f"         {name}={value}")
    for each in found.left_out:
        click.echo(f"not    {each.job + ': ' if each.job else ''}{each.reason}")


@jenkins.command("list")
@config_option
@json_option
@click.option("--all", "everything", is_flag=True, help="Also builds that were accepted.")
@click.pass_context
def list_builds(ctx: click.Context, config: Path | None, as_json: bool, everything: bool) -> None:
    """List builds that wait for their server, and those that were refused; with their keys, for `retry` and `drop`.

    \b
    Example:
      deploykit jenkins list
    """
    from deploykit.daemons.jenkins.model import FOLLOWED, UNSETTLED

    states = (*UNSETTLED, "refused", *FOLLOWED, "done") if everything else (*UNSETTLED, "refused")
    with _queue(_settings(ctx, config)) as queue:
        builds = queue.builds(states=states)
    if as_json:
        print_json([_as_json(build) for build in builds])
        return
    for build in builds:
        click.echo(f"{build.wanted.key[:12]}  {build.state:<8} {_age(build)}  {visible(build.label)}")
        for line in _about(build):
            click.echo(f"              {visible(line)}")
    if not builds:
        none = "no builds are known here" if everything else "no build waits, none was refused (--all lists the others)"
        click.echo(none, err=True)


@jenkins.command()
@click.argument("keys", nargs=-1)
@click.option("--all", "everything", is_flag=True, help="Every build that was refused or given up.")
@config_option
@click.pass_context
def retry(ctx: click.Context, keys: Sequence[str], everything: bool, config: Path | None) -> None:
    """Ask again for builds that were refused or given up, once what their report names was changed, as the settings are
    now. A build that the server may have started all the same is looked for first.

    KEYS are what `list` shows, or six characters of it at least. A daemon that runs sees them within some seconds.

    \b
    Example:
      deploykit jenkins retry 1a2b3c4d5e6f
      deploykit jenkins retry --all
    """
    from deploykit.daemons.jenkins.model import builds_text
    from deploykit.daemons.jenkins.rules import BuildRules

    if everything == bool(keys):
        raise click.UsageError("give KEYS, or --all" if not keys else "give KEYS or --all, not both")
    _check_keys(keys)
    settings = _settings(ctx, config)
    rules, count = BuildRules(settings.jenkins), 0
    with _queue(settings) as queue:
        for build in queue.builds(states=("refused",)):
            if everything or _is_one_of(build, keys):
                event = queue.frame_of(build.wanted.key)
                wanted = rules.renewed(build.wanted, *event) if event is not None else build.wanted
                count += queue.retry(wanted, time.time())
    click.echo(f"{builds_text(count)} to be asked for again")
    if not count:
        click.echo(
            "no refused build has such a key (see `deploykit jenkins list`)" if keys else "none was refused", err=True
        )
    ctx.exit(0 if count else 1)


@jenkins.command()
@click.argument("keys", nargs=-1, required=True)
@config_option
@click.pass_context
def drop(ctx: click.Context, keys: Sequence[str], config: Path | None) -> None:
    """Give up builds that wait, without asking for them.

    \b
    Example:
      deploykit jenkins drop 1a2b3c4d5e6f
    """
    from deploykit.daemons.jenkins.model import builds_text

    _check_keys(keys)
    with _queue(_settings(ctx, config)) as queue:
        count = sum(queue.drop(build.wanted.key) for build in queue.builds() if _is_one_of(build, keys))
    click.echo(f"{builds_text(count)} dropped")
    if not count:
        click.echo("no build that waits has such a key (see `deploykit jenkins list`)", err=True)
    ctx.exit(0 if count else 1)


def _settings(ctx: click.Context, config: Path | None) -> Settings:
    return load(config or ctx.obj)


def _queue(settings: Settings) -> BuildQueue:
    from deploykit.daemons.jenkins.queue import BuildQueue
    from deploykit.daemons.jenkins.setup import queue_path

    path = queue_path(settings.state)
    if not path.exists():  # made by the daemon, as its user
        raise UsageError(f"no build daemon has run on {settings.state}", "start `deploykit jenkins`, or correct state")
    return BuildQueue(path)


def _event(
    repo: str, ref: str | None, commit: str, deleted: bool, revision: int | None, projects: tuple[str, ...]
) -> RefUpdated | RevisionCommitted:
    from deploykit.messages import RefUpdated, RevisionCommitted
    from deploykit.names import ZERO_ID, parse_object_id, parse_ref_name, parse_repo_name

    name = parse_repo_name(repo)
    if (ref is None) == (revision is None):
        raise click.UsageError("give --ref, or --revision for Subversion")
    if revision is not None:
        return RevisionCommitted(repo=name, revision=revision, projects=projects)
    full = f"refs/heads/{ref}" if ref is not None and not ref.startswith("refs/") else ref
    new = ZERO_ID if deleted else parse_object_id(commit)
    return RefUpdated(repo=name, ref=parse_ref_name(full), old=ZERO_ID, new=new)


def _check_keys(keys: Sequence[str]) -> None:
    for key in keys:
        if len(key) < _SHORTEST_KEY:
            raise click.UsageError(f"{key!a} is too short: give {_SHORTEST_KEY} characters of a key at least")


def _is_one_of(build: QueuedBuild, keys: Sequence[str]) -> bool:
    return any(build.wanted.key.startswith(key) for key in keys)


def _about(build: QueuedBuild) -> list[str]:
    """Return what else there is to know of a build, for people: why it waits, or what the server did and what to do."""
    answer = build.answer
    if build.problem or answer is None:
        return [build.problem] if build.problem else []
    if answer.accepted and answer.number:
        return [f"started as number {answer.number}"]
    return [answer.detail, *([f"to do: {answer.remedy}"] if answer.remedy else [])]


def _age(build: QueuedBuild) -> str:
    from deploykit.operations.times import shown_time

    return shown_time(datetime.fromtimestamp(build.created, UTC))


def _as_json(build: QueuedBuild) -> dict[str, object]:
    wanted = build.wanted
    return {
        "key": wanted.key,
        "state": build.state,
        "server": wanted.order.server,
        "job": wanted.order.job,
        "subject": wanted.subject,
        "correlation_id": wanted.order.correlation_id,
        "since": _age(build),
        "tries": build.tries,
        "perhaps_twice": build.doubtful,
        "detail": build.problem or (build.answer.detail if build.answer is not None else ""),
        "remedy": build.answer.remedy if build.answer is not None else "",
        "number": (build.answer.number or 0) if build.answer is not None else 0,
        "queue_item": (build.answer.queue_item or 0) if build.answer is not None else 0,
    }
