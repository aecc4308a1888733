"""The examples of `deploykit message` and `keys` do what they say when they are copied into a shell, in turn."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.trust.keyfiles import generate_key
from tests.support.cli import run
from tests.support.needs import needs

PUSH = f"repo: shop\noldrev: {'1' * 40}\nnewrev: {'2' * 40}\nrefname: refs/heads/main\n"


def example(*command: str) -> str:
    """What stands under `Example:` in a command's help, as one script."""
    shown = run(*command, "--help")
    assert shown.returncode == 0, shown.stderr
    (found,) = re.findall(r"^ +Examples?:\n((?: +\S.*\n)+)", shown.stdout, re.MULTILINE)
    return str(found)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A person's home: the command on the path, a repository with a tag, and settings in place of /etc/deploykit."""
    git = needs("git", package="git")
    for directory in ("bin", "etc", ".ssh"):
        (tmp_path / directory).mkdir(mode=0o700)
    wrapper = tmp_path / "bin" / "deploykit"
    wrapper.write_text(f'#!/bin/sh\nexec "{sys.executable}" -P -m deploykit "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "push.txt").write_text(PUSH)
    settings = tmp_path / "etc" / "deploykit.toml"
    settings.touch(0o600)
    settings.write_text(f'node = "desk"\n[trust]\nallowed_signers = "{tmp_path}/etc/allowed_signers"\n')
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "x"], ["tag", "-a", "-m", "x", "v1"]):
        subprocess.run([git, *words], cwd=tmp_path, env=environment(tmp_path), check=True, timeout=60)
    return tmp_path


def environment(home: Path) -> dict[str, str]:
    names = {f"GIT_{who}_{what}": "a@example.org" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    kept = {k: v for k, v in os.environ.items() if k.startswith("COVERAGE")}
    config = {"DEPLOYKIT_CONFIG": f"{home}/etc/deploykit.toml"}
    return {"PATH": f"{home}/bin:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8", **config, **names, **kept}


def copied(home: Path, *command: str) -> str:
    """Run an example as it stands, but for the one directory that is not ours; return what it prints."""
    done = subprocess.run(
        ["sh", "-eu", "-c", f"umask 022; {example(*command).replace('/etc/deploykit', f'{home}/etc')}"],
        cwd=home,
        env=environment(home),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_examples_in_the_help_work_when_they_are_copied(desk: Path) -> None:
    assert copied(desk, "message").startswith("hello\n")
    assert "trusts now: ops@example.com" in copied(desk, "keys")
    copied(desk, "message", "encode")
    copied(desk, "message", "sign")
    assert "good signature by ops@example.com" in copied(desk, "message", "verify")
    assert '"ref": "refs/heads/main"' in copied(desk, "message", "decode")
    assert '"title": "DeployRequested"' in copied(desk, "message", "schema")
    assert 'web1 namespaces="deploykit" ssh-ed25519 ' in copied(desk, "keys", "generate")
    copied(desk, "keys", "show")
    assert (desk / "node_key.pub").read_text().startswith("ssh-ed25519 ")
    (desk / "node_key.pub").rename(desk / "ops.pub")
    for name in ("guest", "ca"):
        generate_key(desk / name)
    trusted = copied(desk, "keys", "trust")
    assert all(f"trusts now: {who}" in trusted for who in ("ops@example.com", "guest@example.com", "*.example.com"))
    assert "authority" in copied(desk, "keys", "list")
