"""`deploykit release` for sites of several repositories: by the node's settings, and by hand."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from deploykit.names import RepoName
from tests.support.cli import run_here
from tests.support.parts import Assembly

APP, THEME = RepoName("app"), RepoName("group/theme")


class Commanded(Assembly):
    """A node whose settings have the site; its mirrors are where its agent keeps them."""

    def __init__(self, base: Path) -> None:
        super().__init__(base, {APP: "app", THEME: "web/theme"})
        self.repos[APP].push({"index.php": b"1", "deploy/post-deploy*": b"#!/bin/sh\necho deployed\n"}, tag="v1")
        self.repos[THEME].push({"style.css": b"red"}, tag="t1")
        self.mirrors = base / "state" / "mirrors"
        self.mirrors.mkdir(parents=True)
        self.mirrored = {APP: self.mirrors / "app.git", THEME: self.mirrors / "group%2Ftheme.git"}
        self.fetch()
        self.config = base / "deploykit.toml"
        self.config.write_text(
            f'node = "web1"\nstate = "{base}/state"\n'
            f'[repositories.app]\nurl = "{self.repos[APP].url}"\n'
            f'[repositories."group/theme"]\nurl = "{self.repos[THEME].url}"\n'
            f'[sites.shop]\npath = "{self.path}"\nrelease.grace = 0\nrelease.scripts = "app/deploy"\n'
            '[sites.shop.parts]\napp = "app"\n"group/theme" = "web/theme"\n'
        )

    def fetch(self) -> None:
        for repo, path in self.mirrored.items():
            shutil.rmtree(path, ignore_errors=True)
            self.repos[repo].git("clone", "-q", "--mirror", str(self.repos[repo].origin), str(path))

    def release(self, verb: str, *words: str, code: int = 0) -> str:
        """Run a command with the node's settings; return what it printed."""
        done = run_here("release", verb, str(self.path), "--settings", str(self.config), *words)
        assert done.returncode == code, done.stderr
        return done.stdout if code == 0 else done.stderr


@pytest.fixture
def made(tmp_path: Path) -> Commanded:
    return Commanded(tmp_path)


def test_the_nodes_settings_say_where_each_repository_is(made: Commanded) -> None:
    would = made.release("deploy", "--ref", "app=v1", "--ref", "group/theme=t1", "--dry-run")
    assert "app: nothing -> v1 (" in would
    assert ") in app/: 2 added, 0 changed, 0 removed" in would
    told = json.loads(made.release("deploy", "--ref", "app=v1", "--ref", "group/theme=t1", "--json"))
    assert (told["outcome"], [part["repo"] for part in told["parts"]]) == ("success", ["app", "group/theme"])
    assert next(step for step in told["steps"] if step["name"] == "post-deploy")["output"] == "deployed\n"
    made.is_as_archived(**{APP: "v1", THEME: "t1"})
    commit = made.repos[APP].push({"index.php": b"2"}, tag="v2")
    made.fetch()
    made.release("deploy", "--ref", "app=v2", "--commit", f"app={commit}")
    made.is_as_archived(**{APP: "v2", THEME: "t1"})
    assert "v2+t1" in made.release("list")
    assert f"  app refs/tags/v2 {commit} in app/" in made.release("show")
    listed = json.loads(made.release("list", "--json"))[-1]
    assert [part["ref"] for part in listed["parts"]] == ["refs/tags/v2", "refs/tags/t1"]
    status = run_here("status", "--config", str(made.config), "--json")
    (site,) = json.loads(status.stdout)["sites"]
    assert [part["path"] for part in site["parts"]] == ["app", "web/theme"]
    assert f"part    app refs/tags/v2 {commit[:12]}" in run_here("status", "--config", str(made.config)).stdout


def test_going_back_needs_mirrors_only_for_what_is_gone(made: Commanded) -> None:
    made.release("deploy", "--ref", "app=v1", "--ref", "group/theme=t1")
    first = made.live()
    made.repos[APP].push({"index.php": b"2"}, tag="v2")
    made.fetch()
    made.release("deploy", "--ref", "app=v2", "--prepare")
    made.release("activate")
    assert made.live().tag == "v2+t1"
    aside = made.mirrors.rename(made.base / "aside")
    made.release("rollback", "--to", str(first.seq))
    made.is_as_archived(**{APP: "v1", THEME: "t1"})
    made.release("deploy", "--ref", "app=v2", code=2)
    aside.rename(made.mirrors)
    made.release("deploy", "--ref", "app=v2")
    shutil.rmtree(made.site.release_path(first.name))
    assert "rebuild" in made.release("rollback", "--to", first.name, "--dry-run")
    made.release("rollback", "--to", first.name)
    made.is_as_archived(**{APP: "v1", THEME: "t1"})


def test_a_site_of_several_repositories_by_hand(made: Commanded) -> None:
    made.config.write_text('scripts = "app/deploy"\n')
    parts = [f"--part={repo}={place}={made.repos[repo].origin}" for repo, place in made.places.items()]
    made.release("deploy", *parts, "--ref", "app=v1", "--ref", "group/theme=t1")
    made.is_as_archived(**{APP: "v1", THEME: "t1"})
    assert "nothing is asked for" in made.release("deploy", *parts, "--part=x=x=/nowhere", code=1)
    assert "expected REPO=SUBDIR=MIRROR" in made.release("deploy", "--part=app", "--ref=app=v1", code=2)
    inside = f"--part=x=app/x={made.repos[APP].origin}"
    assert "'app/x' is inside 'app'" in made.release("deploy", *parts, inside, code=2)
    assert "is given twice" in made.release("deploy", *parts, parts[0], code=2)


@pytest.mark.parametrize(
    ("words", "code", "why"),
    [
        (["--ref", "v1"], 2, "--ref v1: the site is made of app, group/theme (say of which: --ref app=v1)"),
        (["--ref", "app="], 2, "say of which: --ref app=TAG"),
        (["--ref", "app=v1", "--ref", "app=v2"], 2, "--ref app=… is given twice"),
        (["--commit", "app=1"], 2, "--commit app=… without --ref app=…"),
        (["--ref", "app=v1"], 1, "nothing of group/theme is live"),
        (["--ref", "other=v1"], 2, "--ref other=v1: the site is made of app, group/theme (name one of these)"),
        (["--ref", "app=v1", "--mirror", "."], 2, "the site is made of app, group/theme"),
    ],
)
def test_what_cannot_be_meant_is_said(made: Commanded, words: list[str], code: int, why: str) -> None:
    assert why in made.release("deploy", *words, code=code)
    assert not made.path.exists()


def test_a_site_of_one_repository_has_no_parts(made: Commanded) -> None:
    mirror = str(made.repos[APP].origin)
    made.config.write_text("keep = 2\n")
    refused = made.release("deploy", "--mirror", mirror, "--ref", "app=v1", code=2)
    assert "--ref app=v1: the site is made of one repository" in refused
    assert "give one --ref" in made.release("deploy", "--mirror", mirror, "--ref", "v1", "--ref", "v2", code=2)
    assert "give --mirror" in made.release("deploy", "--ref", "v1", code=2)
    made.repos[APP].git("tag", "a=b")
    made.repos[APP].git("push", "-q", "origin", "a=b")
    made.release("deploy", "--mirror", mirror, "--ref", "a=b")
