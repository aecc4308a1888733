"""Whatever is broken about what is installed, the push succeeds, and one clear line says what and where."""

from __future__ import annotations

import ast
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.hookpush import pushed
from tests.support.hookworld import World, lines


def test_a_missing_package_is_one_line_and_the_other_hooks_still_run(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    copy = world.root / "venv"
    shutil.copytree(world.python.parent.parent, copy, symlinks=True)
    shutil.rmtree(next(copy.glob("lib/*/site-packages/deploykit")))
    script = origin / "hooks" / "post-receive"
    world.write(script, script.read_text().replace(str(world.python.parent.parent), str(copy)), 0o755)
    chained = world.directory("shop.git/hooks/post-receive.d")
    world.write(chained / "60-after", f"#!/bin/sh\ncat > {world.root}/work/heard\n", 0o755)
    line = pushed(world, work)
    assert f"nothing queued: no deploykit in {copy}/bin/python (No module named 'deploykit')" in line
    assert "run `deploykit hooks install` again" in line
    assert "refs/heads/main" in (world.root / "work" / "heard").read_text()


def test_an_environment_that_moved_is_found_by_the_interpreter_itself(world: World) -> None:
    origin = world.origin()
    work = world.clone(origin)
    script = origin / "hooks" / "post-receive"
    library = str(next(world.python.parent.parent.glob("lib/*/site-packages")))
    assert library in script.read_text()
    world.write(script, script.read_text().replace(library, "/nonexistent"), 0o755)
    assert "1 event queued" in pushed(world, work)


def test_an_environment_that_is_gone_is_one_line(world: World) -> None:
    """What happens to most installations some day: somebody removes the virtual environment."""
    origin = world.origin()
    work = world.clone(origin)
    script = origin / "hooks" / "post-receive"
    gone = world.root / "gone"
    world.write(script, script.read_text().replace(str(world.python.parent.parent), str(gone)), 0o755)
    line = pushed(world, work)  # git finds some python3, as most machines have one
    assert line.startswith("deploykit: nothing queued: ")
    assert "run `deploykit hooks install` again" in line
    world.settle(origin, f'python = "{world.python}"\n')
    assert "1 event queued" in pushed(world, work)
    feed = f"{'0' * 40} {'1' * 40} refs/heads/main\n".encode()
    done = world.run(script, cwd=origin, data=feed, env={"PATH": "/nonexistent"})
    said = f"deploykit: nothing queued: {gone}/bin/python is gone; run `deploykit hooks install` again"
    assert (done.returncode, done.stdout, done.stderr.splitlines()) == (0, "", [said])


def by_hand(world: World, name: str, target: Path, python: str | Path) -> Path:
    """Copy one script as it is shipped, for an interpreter that stands for the machine's python3."""
    (source,) = world.python.parent.parent.glob(f"lib/*/site-packages/deploykit/_hooks/{name}")
    text = source.read_text()
    assert text.startswith("#!/usr/bin/env python3\n")
    return world.write(target, text.replace("/usr/bin/env python3", f"{python} -I", 1), 0o755)


@pytest.mark.parametrize("place", ["file", "single quotes", "git config"])
def test_a_script_copied_by_hand_finds_the_interpreter_in_its_settings(world: World, place: str) -> None:
    origin = world.origin(install=False)
    work = world.clone(origin)
    by_hand(world, "git/post-receive", origin / "hooks" / "post-receive", _bare_python(world))
    line = pushed(world, work)
    assert "nothing queued: no deploykit in" in line
    assert "python = " in line
    if place == "git config":
        world.git("config", "deploykit.python", world.python, cwd=origin)
    else:
        quote = "'" if "single" in place else '"'
        world.settle(origin, f"python={quote}{world.python}{quote}\n")
    assert "1 event queued" in pushed(world, work)


@pytest.mark.parametrize("tool", ["pipx/venvs", "uv/tools"])
def test_a_script_copied_by_hand_finds_what_a_tool_installed_for_its_user(world: World, tool: str) -> None:
    origin = world.origin(install=False)
    work = world.clone(origin)
    by_hand(world, "git/post-receive", origin / "hooks" / "post-receive", _bare_python(world))
    place = world.directory("home") / ".local" / "share" / tool
    place.mkdir(parents=True)
    (place / "deploykit").symlink_to(world.python.parent.parent)
    assert "1 event queued" in pushed(world, work, env={"HOME": str(world.root / "home")})


def test_an_interpreter_that_has_no_deploykit_either_is_named(world: World) -> None:
    origin = world.origin(install=False, settings='python = "/usr/bin/false"\n')
    bare = _bare_python(world)
    world.settle(origin, f'python = "{bare}"\n')
    by_hand(world, "git/post-receive", origin / "hooks" / "post-receive", bare)
    work = world.clone(origin)
    assert f"no deploykit in {bare} and {bare} (" in pushed(world, work)


@pytest.mark.parametrize("kind", ["svn", "jenkins", "debian"])
def test_every_script_copied_by_hand_finds_the_interpreter_in_its_settings(world: World, kind: str) -> None:
    bare = _bare_python(world)
    where = world.directory("place")
    settings = world.write(where / "deploykit.toml", f'spool = "{world.spool}"\npython = "{world.python}"\n')
    name = {"svn": "post-commit", "jenkins": "jenkins-notify", "debian": "reprepro-incoming"}[kind]
    script = by_hand(world, f"{kind}/{name}", world.root / name, bare)
    words = {"svn": (where, "7"), "jenkins": ("--config", settings, "begin"), "debian": (f"--config={settings}",)}[kind]
    says = {"svn": "svnlook", "jenkins": "JOB_NAME is not set", "debian": "incoming, archive, reprepro not set"}[kind]
    done = world.run(script, *words)
    assert done.returncode == 0
    (line,) = lines(done)
    assert says in line


def test_the_directory_a_build_runs_in_chooses_no_interpreter(world: World) -> None:
    """Threat 34: a build's workspace holds what anybody may have committed."""
    workspace = world.directory("workspace")
    evil = world.write(workspace / "evil", f"#!/bin/sh\ntouch {workspace}/pwned\n", 0o755)
    world.write(workspace / "deploykit.toml", f'python = "{evil}"\n')
    world.directory("workspace/begin")
    world.write(workspace / "begin" / "deploykit.toml", f'python = "{evil}"\n')
    script = by_hand(world, "jenkins/jenkins-notify", world.root / "jenkins-notify", _bare_python(world))
    done = world.run(script, "begin", cwd=workspace)
    assert "no deploykit in" in lines(done)[0]
    assert not (workspace / "pwned").exists()


def _bare_python(world: World) -> Path:
    """An interpreter without deploykit."""
    where = world.root / "bare"
    subprocess.run([world.python, "-m", "venv", "--without-pip", str(where)], check=True)
    return where / "bin" / "python"


def test_a_script_copied_long_ago_works_with_the_library_of_today(world: World) -> None:
    """The first version that was handed out, kept as it was: what it calls must stay."""
    origin = world.origin(install=False)
    old = (Path(__file__).parents[2] / "data" / "hooks-v1" / "post-receive").read_text()
    text = old.replace("#!/usr/bin/env python3\n", f"#!{world.python} -I\n", 1)
    script = world.write(origin / "hooks" / "post-receive", text, 0o755)
    work = world.clone(origin)
    assert "1 event queued" in pushed(world, work)
    renewed = world.deploykit("hooks", "install", origin)
    assert (renewed.returncode, renewed.stdout) == (0, f"updated (git): {script}\n")
    assert "1 event queued" in pushed(world, work)


def test_an_old_python_says_one_line(world: World) -> None:
    """The script itself is plain enough for Python 3.6; what it needs of newer ones is found missing."""
    for source in world.python.parent.parent.glob("lib/*/site-packages/deploykit/_hooks/*/*"):
        ast.parse(source.read_text(), feature_version=(3, 6))


def test_a_library_that_is_broken_is_one_line(world: World) -> None:
    """Half an upgrade, a package that came without what it needs: whatever it is, the push stands."""
    origin = world.origin()
    work = world.clone(origin)
    copy = world.root / "venv"
    shutil.copytree(world.python.parent.parent, copy, symlinks=True)
    script = origin / "hooks" / "post-receive"
    world.write(script, script.read_text().replace(str(world.python.parent.parent), str(copy)), 0o755)
    (library,) = copy.glob("lib/*/site-packages")
    spoilt = f"nothing queued: incomplete installation in {library} ("
    (library / "attr").rename(library / "attr-gone")
    line = pushed(world, work)
    assert spoilt in line
    assert "No module named 'attr'): install it there again" in line
    (library / "attr-gone").rename(library / "attr")
    (library / "deploykit" / "hooking" / "git.py").write_text("this is no python\n")
    assert spoilt in pushed(world, work)
    (library / "deploykit" / "hooking" / "git.py").unlink()
    assert spoilt in pushed(world, work)
