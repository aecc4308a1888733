"""The commands of docs/migration.md for sites in Subversion: what svn exports of a real repository goes live."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support import docmachine
from tests.support.docmachine import Machine
from tests.support.needs import needs, needs_file
from tests.support.ports import free_port

SECTION = "Sites in Subversion"
blocks = partial(docmachine.blocks, "migration.md")


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    needs("svn", package="subversion")
    needs_file("/usr/lib/git-core/git-svn", package="git-svn")
    made = Machine(tmp_path, free_port())
    try:
        yield made
    finally:
        made.stop()


class Subversion:
    """A repository with trunk, branches and tags, and a working copy of it."""

    def __init__(self, machine: Machine) -> None:
        self.url = f"file://{machine.root}/srv/svn/shop"
        self.work = machine.root / "work"
        (machine.root / "srv" / "svn").mkdir()
        self.run("svnadmin", "create", f"{machine.root}/srv/svn/shop")
        self.run(
            "svn", "mkdir", "-q", "-m", "layout", *(f"{self.url}/{name}" for name in ("trunk", "branches", "tags"))
        )
        self.run("svn", "checkout", "-q", f"{self.url}/trunk", str(self.work))

    def commit(self, text: str) -> None:
        """Change a file; the first time with a program, a symlink and a directory."""
        new = not (self.work / "index.php").exists()
        (self.work / "index.php").write_text(text)
        if new:
            (self.work / "bin").mkdir()
            (self.work / "bin" / "run").write_text("#!/bin/sh\n")
            (self.work / "bin" / "run").chmod(0o755)
            (self.work / "latest").symlink_to("index.php")
            self.run("svn", "add", "-q", *(f"{self.work}/{name}" for name in ("index.php", "bin", "latest")))
        self.run("svn", "commit", "-q", "-m", text, str(self.work))

    def tag(self, name: str) -> None:
        self.run("svn", "copy", "-q", "-m", name, f"{self.url}/trunk", f"{self.url}/tags/{name}")

    def export(self, name: str, where: Path) -> dict[str, tuple[int, bytes]]:
        """Return the files of a tag, as svn writes them."""
        self.run("svn", "export", "-q", f"{self.url}/tags/{name}", str(where))
        return files_of(where)

    def run(self, *argv: str) -> None:
        """Run a program of Subversion."""
        subprocess.run([*argv, "--config-dir", f"{self.work}.svnconfig"] if argv[0] == "svn" else argv, check=True)


def files_of(root: Path) -> dict[str, tuple[int, bytes]]:
    """Mode and content, or where it leads, of each file and symlink."""
    found = {}
    for path in root.rglob("*"):
        name = str(path.relative_to(root))
        if path.is_symlink():
            found[name] = (0, os.fsencode(path.readlink()))
        elif path.is_file():
            found[name] = (path.stat().st_mode & 0o111, path.read_bytes())
    return found


def test_what_svn_tags_goes_live_as_svn_exports_it(machine: Machine) -> None:
    svn = Subversion(machine)
    svn.commit("first")
    svn.tag("v1")
    once, again = blocks(SECTION, "sh")
    machine.must(once)
    site, repo = machine.root / "site", machine.root / "srv/git/shop.git"
    for number, tag in enumerate(("v1", "v2")):
        if number:
            svn.commit("second")
            svn.tag(tag)
        machine.must(again)
        machine.must(f"deploykit release deploy {site} --mirror {repo} --ref {tag}")
        live = files_of(site / "current")
        ours = {name: live.pop(name) for name in ("TAG", ".deploykit/REVISION")}
        assert live == svn.export(tag, machine.root / f"export-{tag}")
        assert ours["TAG"][1] == f"Tag: {tag}\n".encode()
    machine.must(again)  # nothing new: nothing is pushed


def test_a_tag_that_was_made_anew_is_refused_and_named(machine: Machine) -> None:
    svn = Subversion(machine)
    svn.commit("first")
    svn.tag("v1")
    once, again = blocks(SECTION, "sh")
    machine.must(once + again)
    svn.run("svn", "delete", "-q", "-m", "oops", f"{svn.url}/tags/v1")
    svn.commit("second")
    svn.tag("v1")
    done = machine.run(again)
    assert done.returncode != 0
    assert "v1" in done.stderr
    assert "rejected" in done.stderr
