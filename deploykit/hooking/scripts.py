"""The hook scripts: one table of kinds and one template, of which the four committed scripts are made.

Rules:

* `hooks/hook.py.in` is the body of every script. A script adds its head: first line, marker, its own text, its KIND.
* The scripts are committed, so that they can be copied by hand. A test compares them with what `render` returns.
* The marker in the first lines says that a file is ours, whatever its version.

`python -m deploykit.hooking.scripts --write hooks` writes the scripts again after a change of template or table.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal, NamedTuple

import deploykit
from deploykit.errors import InstallError, UsageError
from deploykit.hooking.console import print_line

Kind = Literal["git", "svn", "gitolite", "jenkins", "debian"]
KINDS: Final[tuple[Kind, ...]] = ("git", "svn", "gitolite", "jenkins", "debian")

#: Without `.py` at its end: an installer would compile it beside the scripts.
TEMPLATE: Final = "hook.py.in"
#: Stands, with the script's kind behind it, in the first lines of every script, old and new.
MARKER: Final = "# deploykit hook: "
_MARKED_LINES: Final = 16
_MADE: Final = "# Made by `python -m deploykit.hooking.scripts --write hooks`: edit hooks/hook.py.in, not this file."


class HookScript(NamedTuple):
    """One row of the table: the script's file below `hooks/`, and its docstring."""

    file: str
    text: str


_OTHERS: Final = """\
Other hooks go into `{name}.d` beside this file and get the same {what}: names that sort before `50` run before
the {event} is queued, the others after it. One that fails stops nothing.
"""

#: What `deploykit.hooking.run` calls the kind -> its script. (gitolite takes git's.)
SCRIPTS: Final[Mapping[str, HookScript]] = {
    "git": HookScript(
        "git/post-receive",
        """\
git post-receive hook: queue an event for each ref of a push. It never fails a push and waits for no broker.

Copy it into a repository as `hooks/post-receive`, or let `deploykit hooks install REPOSITORY.git` do it. Settings, if
any: `deploykit.toml` beside the `hooks` directory, `/etc/deploykit/hooks.toml`, or git config `deploykit.*`.

"""
        + _OTHERS.format(name="post-receive", what="input", event="push"),
    ),
    "svn": HookScript(
        "svn/post-commit",
        """\
Subversion post-commit hook: queue an event for a revision. It never fails a commit and waits for no broker.

Copy it into a repository as `hooks/post-commit`, or let `deploykit hooks install REPOSITORY` do it. Settings, if any:
`deploykit.toml` beside the `hooks` directory, or `/etc/deploykit/hooks.toml`.

"""
        + _OTHERS.format(name="post-commit", what="arguments", event="revision"),
    ),
    "jenkins": HookScript(
        "jenkins/jenkins-notify",
        """\
Queue an event for a Jenkins build: `jenkins-notify begin`, and at its end `success|failure|unstable|aborted`.

Copy it to where Jenkins can run it, or let `deploykit hooks install --kind jenkins DIRECTORY` do it. It reads the
variables that Jenkins gives a build, and never fails one. Settings, if any: `/etc/deploykit/hooks.toml`, or
`--config FILE`. The original's `-b`, `-p` and `-c` are understood.
""",
    ),
    "debian": HookScript(
        "debian/reprepro-incoming",
        """\
Take new packages into a Debian repository: incoming/DISTRIBUTION/*.deb -> reprepro -> archive -> an event each.

Run it from cron or a path unit; copy it anywhere, or let `deploykit hooks install --kind debian DIRECTORY` do it. It
may be run twice at once and killed at any instant. Settings: `incoming`, `archive` and `reprepro` in
`/etc/deploykit/hooks.toml`, or `--config FILE`.
""",
    ),
}


def script_of(kind: Kind) -> HookScript:
    """Return the script that an installation of this kind gets."""
    return SCRIPTS["git" if kind == "gitolite" else kind]


def hooks_dir() -> Path:
    """Return the directory of the hook scripts: beside the code in a wheel, at the top of the tree in a checkout.

    Raises:
        InstallError: this installation has none.
    """
    package = Path(deploykit.__file__).resolve().parent
    for candidate in (package / "_hooks", package.parent / "hooks"):
        if (candidate / SCRIPTS["git"].file).is_file():
            return candidate
    raise InstallError(f"no hook scripts beside {package}", "install deploykit from its wheel")


def is_ours(script: Path) -> bool:
    """Return whether a file is a hook script of ours, of any version."""
    text = read_script(script)
    return text is not None and any(line.startswith(MARKER) for line in text.split("\n", _MARKED_LINES)[:_MARKED_LINES])


def read_script(script: Path) -> str | None:
    """Return the text of a script, "" for a broken link, None if nothing is there.

    Raises:
        InstallError: it cannot be read.
    """
    try:
        return script.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return "" if script.is_symlink() else None
    except OSError as error:
        raise InstallError(f"cannot read {script}: {error.strerror}") from error


# -- making the scripts ------------------------------------------------------------------------------------------------


def render(kind: str, template: str) -> str:
    """Return the whole text of a script.

    Args:
        kind: a key of `SCRIPTS`.
        template: the text of `hooks/hook.py.in`.

    Raises:
        UsageError: the template lacks its own docstring or its KIND.
    """
    body = re.sub(r'\A""".*?"""\n', "", template, count=1, flags=re.DOTALL)
    body, replaced = re.subn(r'^KIND = "git"$', f'KIND = "{kind}"', body, flags=re.MULTILINE)
    if body.startswith('"""') or replaced != 1:
        raise UsageError(f"{TEMPLATE} is not the template of the hooks", 'it has a docstring and one line KIND = "git"')
    return f'#!/usr/bin/env python3\n{MARKER}{kind}\n{_MADE}\n"""{SCRIPTS[kind].text}"""\n{body}'


def rendered(directory: Path) -> dict[Path, str]:
    """Return every script of a hooks directory, by its path, as its template makes it."""
    template = (directory / TEMPLATE).read_text(encoding="utf-8")
    return {directory / script.file: render(kind, template) for kind, script in SCRIPTS.items()}


def outdated(directory: Path) -> list[Path]:
    """Return the scripts of a hooks directory that are missing, not executable, or not what the template makes."""
    return [
        path
        for path, text in rendered(directory).items()
        if not path.is_file() or path.read_text(encoding="utf-8") != text or not path.stat().st_mode & 0o100
    ]


def write(directory: Path) -> None:
    """Write every script of a hooks directory, executable."""
    for path, text in rendered(directory).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)


def main(argv: Sequence[str]) -> int:
    """Run `--write DIRECTORY` or `--check DIRECTORY`; return the exit code."""
    match argv:
        case ["--write", directory]:
            write(Path(directory))
            return 0
        case ["--check", directory]:
            stale = outdated(Path(directory))
            for path in stale:
                print_line(f"{path} is not what {TEMPLATE} makes: edit the template, then use --write")
            return 1 if stale else 0
        case _:
            print_line("usage: python -m deploykit.hooking.scripts --write|--check DIRECTORY")
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
