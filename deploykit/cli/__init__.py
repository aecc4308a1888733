"""The `deploykit` command: parse, call, print; no logic.

Sub-commands are modules of this package, each loaded on use, so `deploykit --help` stays quick.
Exit code 0 done, 1 failed, 2 wrong usage or settings, 3 refused by policy. An error is one line, never a traceback.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from deploykit._version import __version__
from deploykit.cli.visible import visible
from deploykit.errors import DeploykitError, KeyFileError, MessageError, SettingsError, UsageError

#: Command -> (module below deploykit.cli, attribute, one line for `--help`). Order is the order of the help page.
COMMANDS: dict[str, tuple[str, str, str]] = {
    "demo": ("demo", "demo", "Show one push become a release, with real processes, in a temporary directory."),
    "broker": ("broker", "broker", "Run the embedded broker in the foreground (not for production)."),
    "agent": ("agent", "agent", "Run the node's daemon: mirrors, releases, reports."),
    "jenkins": ("jenkins", "jenkins", "Run the build daemon: pushes start builds at Jenkins."),
    "access": ("access", "access", "Keep who may see protected sites; grant, revoke and list accesses."),
    "packages": ("packages", "packages", "Read package sources anew when a repository has something new."),
    "web": ("web", "web", "Show what is where, live: pages for people, an API for programs."),
    "webhook": ("webhook", "webhook", "Take the webhooks of forges; try a payload without a server."),
    "notify": ("notify", "notify", "Send what happens to IRC, Matrix, Slack, webhooks and e-mail."),
    "run": ("run", "run", "Run several daemons in one process, on one connection."),
    "relay": ("relay", "relay", "Send the messages in the outbox, those that wait and those that come."),
    "publish": ("publish", "publish", "Queue or send one message."),
    "watch": ("watch", "watch", "Print one line for each message as it passes."),
    "deploy": ("deploy", "deploy", "Put a tag live on nodes, canary first, and show it while it happens."),
    "rollback": ("rollback", "rollback", "Take nodes back to the release that was live there before."),
    "rollout": ("rollout", "rollout", "Show rollouts; pause, continue, end and repeat them."),
    "approve": ("approve", "approve", "Show what a proposed rollout may do, and sign it."),
    "lock": ("lock", "lock", "Let nothing new go live on a site for a while, and say why."),
    "unlock": ("lock", "unlock", "Lift the lock of a site."),
    "nodes": ("nodes", "nodes", "Find nodes: which there are, what they hold, which a selection chooses."),
    "builds": ("builds", "builds", "Show the build results known here, and carry them to other nodes."),
    "status": ("status", "status", "Show what this node holds, or what the fleet has live."),
    "history": ("history", "history", "Show what was done to a site, by the nodes' own journals."),
    "trace": ("trace", "trace", "Show the way of a commit from push to release."),
    "audit": ("audit", "audit", "Show what was asked for and decided, and verify the record of it."),
    "keys": ("keys", "keys", "Make signing keys and choose which to trust."),
    "outbox": ("outbox", "outbox", "Show, retry and remove queued messages and dead letters."),
    "mirror": ("mirror", "mirror", "Sync, show and check git mirrors."),
    "checkout": ("checkout", "checkout", "Have directories of refs take the place of what is there already."),
    "release": ("release", "release", "Deploy, roll back, list and verify a site's releases."),
    "message": ("message", "message", "Encode, decode, sign and verify messages."),
    "keepalive": ("keepalive", "keepalive", "Keep firewalls quiet: an empty message to listed destinations."),
    "doctor": ("doctor", "doctor", "Check each broker: which product it is, and whether it does what we need."),
    "hooks": ("hooks", "hooks", "Install, check and remove the hook scripts."),
    "config": ("config", "config", "Check and show the settings."),
}


class _LazyGroup(click.Group):
    """A group whose commands are imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, attribute, _ = COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"deploykit.cli.{module}"), attribute)
        if not isinstance(command, click.Command):
            raise TypeError(f"deploykit.cli.{module}.{attribute} is not a command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="deploykit")
def group() -> None:
    """Message-driven deploys over STOMP.

    \b
    Example:
      deploykit demo            one push, end to end, in a temporary directory
      deploykit COMMAND --help  what a command takes, with an example
    """


def report(error: DeploykitError) -> None:
    """Print an error as every command does: one line, and one more for each further problem."""
    print_error(str(error))
    if isinstance(error, SettingsError | UsageError | MessageError | KeyFileError):
        for problem in error.problems if error.problems != (error.problem,) else ():
            click.echo(f"  {visible(problem)}", err=True)


def print_error(line: str) -> None:
    """Print one line to standard error, control characters made visible."""
    click.echo(f"deploykit: {visible(line)}", err=True)


def main() -> None:
    """Run the command line: the entry point of the `deploykit` script."""
    try:
        code = group.main(prog_name="deploykit", standalone_mode=False)
    except DeploykitError as error:
        report(error)
        sys.exit(error.exit_code)
    except click.exceptions.NoArgsIsHelpError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        more = f" (see `{context.command_path} --help`)" if context is not None else ""
        print_error(f"{error.format_message()}{more}")
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        print_error("interrupted")
        sys.exit(130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        where = f" {error.filename}" if error.filename else ""
        print_error(f"{error.strerror or error}{where}")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
