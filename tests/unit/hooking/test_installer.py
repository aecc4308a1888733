"""Installing keeps what was there, changes nothing the second time, and can be taken back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deploykit.errors import InstallError, UsageError
from deploykit.hooking import installer
from deploykit.hooking.scripts import Kind, is_ours
from tests.support.needs import missing, needs


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    git = needs("git", package="git")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run([git, "init", "--quiet", "--bare", str(tmp_path / "shop.git")], check=True, env=env)
    return tmp_path / "shop.git"


def snapshot(place: Path) -> dict[str, tuple[int, str]]:
    """Every file with its mode and content."""
    return {
        str(p.relative_to(place)): (p.lstat().st_mode, "" if p.is_dir() else p.read_text(errors="replace"))
        for p in place.rglob("*")
    }


def test_the_script_gets_the_interpreter_of_this_installation(origin: Path) -> None:
    done = installer.install(origin)
    script = origin / "hooks" / "post-receive"
    assert (done.path, done.kind, done.change, done.kept) == (script, "git", "installed", None)
    assert sys.executable in "\n".join(script.read_text().splitlines()[:3])
    assert script.stat().st_mode & 0o777 == 0o755
    started = subprocess.run([script], cwd=origin, env={}, input=b"", capture_output=True, check=True)
    assert started.stderr == b"deploykit: 0 events queued\n"


def test_a_repository_whose_path_is_not_utf8_gets_its_hook(origin: Path) -> None:
    odd = origin.with_name("l\udcff.git")
    origin.rename(odd)
    assert installer.install(odd).path == odd / "hooks" / "post-receive"
    assert installer.uninstall(odd).change == "removed"


def test_installing_again_changes_nothing(origin: Path) -> None:
    installer.install(origin)
    before, moment = snapshot(origin), (origin / "hooks" / "post-receive").stat().st_mtime_ns
    assert installer.install(origin).change == "unchanged"
    assert installer.install(origin, chain=True).change == "unchanged"
    assert (snapshot(origin), (origin / "hooks" / "post-receive").stat().st_mtime_ns) == (before, moment)


@pytest.mark.parametrize("spoil", ["text", "mode"])
def test_an_older_or_spoilt_script_of_ours_is_renewed(origin: Path, spoil: str) -> None:
    installer.install(origin)
    script = origin / "hooks" / "post-receive"
    good = script.read_text()
    if spoil == "text":
        script.write_text("#!/usr/bin/python3\n# deploykit hook: git\nfrom deploykit.old import nothing\n")
    else:
        script.chmod(0o644)
    assert installer.install(origin).change == "updated"
    assert (script.read_text(), script.stat().st_mode & 0o777) == (good, 0o755)


def test_uninstalling_leaves_the_repository_as_it_was(origin: Path) -> None:
    before = snapshot(origin)
    installer.install(origin)
    assert installer.uninstall(origin).change == "removed"
    assert snapshot(origin) == before
    assert installer.uninstall(origin).change == "absent"


def test_somebody_elses_hook_is_refused_unless_chained_and_comes_back(origin: Path) -> None:
    script = origin / "hooks" / "post-receive"
    script.write_text("#!/bin/sh\necho mine, deploykit or not\n")
    script.chmod(0o750)
    before = snapshot(origin)
    with pytest.raises(InstallError, match=r"somebody else's.*--chain"):
        installer.install(origin)
    with pytest.raises(InstallError, match="somebody else's"):
        installer.uninstall(origin)
    assert snapshot(origin) == before
    done = installer.install(origin, chain=True)
    assert done.kept == origin / "hooks" / "post-receive.d" / "10-kept"
    assert is_ours(script)
    back = installer.uninstall(origin)
    assert (back.change, back.kept) == ("removed", script)
    assert snapshot(origin) == before


@pytest.mark.parametrize("kind", ["git", "gitolite", "svn"])
def test_a_hook_that_would_run_itself_once_it_is_kept_stays_where_it_is(tmp_path: Path, kind: Kind) -> None:
    hooks = {"git": "hooks", "gitolite": ".gitolite/hooks/common", "svn": "hooks"}[kind]
    name = "post-commit" if kind == "svn" else "post-receive"
    (tmp_path / hooks).mkdir(parents=True)
    if kind == "svn":
        (tmp_path / "format").write_text("5\n")
        (tmp_path / "db").mkdir()
    elif kind == "git":
        subprocess.run([needs("git", package="git"), "init", "--quiet", "--bare", tmp_path], check=True)
    script = tmp_path / hooks / name
    script.write_text(f'#!/bin/sh\nfor h in "$PWD"/hooks/{name}.d/*; do "$h" "$@"; done\n')
    script.chmod(0o755)
    before = snapshot(tmp_path)
    with pytest.raises(InstallError, match="it would run itself"):
        installer.install(tmp_path, kind, chain=True)
    assert snapshot(tmp_path) == before
    script.write_text(f"#!/bin/sh\n# unlike {name}.d/x this one\ntrue\n")
    assert installer.install(tmp_path, kind, chain=True).change == "installed"


def test_a_hook_that_is_a_link_is_moved_as_a_link(origin: Path, tmp_path: Path) -> None:
    script = origin / "hooks" / "post-receive"
    shared = tmp_path / "shared"
    shared.write_text("#!/bin/sh\n")
    script.symlink_to(shared)
    with pytest.raises(InstallError, match="somebody else's"):
        installer.install(origin)
    installer.install(origin, chain=True)
    assert shared.read_text() == "#!/bin/sh\n", "what the link points to belongs to others"
    assert (origin / "hooks" / "post-receive.d" / "10-kept").readlink() == shared


def test_other_chained_hooks_stay_and_are_named_when_nothing_runs_them_any_more(origin: Path) -> None:
    installer.install(origin)
    place = origin / "hooks" / "post-receive.d"
    place.mkdir()
    (place / "60-mine").write_text("#!/bin/sh\n")
    assert "60-mine" in installer.uninstall(origin).note
    assert (place / "60-mine").exists()


def test_a_second_stranger_does_not_overwrite_the_first(origin: Path) -> None:
    script = origin / "hooks" / "post-receive"
    place = origin / "hooks" / "post-receive.d"
    place.mkdir()
    (place / "10-kept").write_text("first")
    script.write_text("second")
    with pytest.raises(InstallError, match="rename one of the two"):
        installer.install(origin, chain=True)
    assert ((place / "10-kept").read_text(), script.read_text()) == ("first", "second")


@pytest.mark.parametrize("forge", ["gitea", "gitlab"])
def test_a_forge_that_runs_a_directory_of_hooks_gets_ours_in_there(origin: Path, forge: str) -> None:
    if forge == "gitea":  # its own post-receive, which runs post-receive.d
        (origin / "hooks" / "post-receive.d").mkdir()
        own = '#!/bin/sh\nname=$(basename "$0")\nfor each in "$GIT_DIR"/hooks/${name}.d/*; do "$each"; done\n'
        (origin / "hooks" / "post-receive").write_text(own)
        (origin / "hooks" / "post-receive").chmod(0o755)
        place = origin / "hooks" / "post-receive.d"
    else:
        (origin / "custom_hooks").mkdir()
        place = origin / "custom_hooks" / "post-receive.d"
    before = snapshot(origin)
    done = installer.install(origin)
    assert done.path == place / "50-deploykit"
    assert os.access(done.path, os.X_OK)
    assert installer.install(origin).change == "unchanged"
    assert installer.uninstall(origin).change == "removed"
    after = snapshot(origin)
    after.pop("custom_hooks/post-receive.d", None)
    assert after == before


def test_a_hooks_directory_that_others_share_is_refused(origin: Path, tmp_path: Path) -> None:
    subprocess.run(["git", f"--git-dir={origin}", "config", "core.hooksPath", str(tmp_path / "all")], check=True)
    with pytest.raises(InstallError, match="which other repositories may use too"):
        installer.install(origin)


def test_a_hooks_directory_of_the_repositorys_own_is_used(origin: Path) -> None:
    subprocess.run(["git", f"--git-dir={origin}", "config", "core.hooksPath", str(origin / "my-hooks")], check=True)
    assert installer.install(origin).path == origin / "my-hooks" / "post-receive"


@pytest.mark.parametrize(
    ("kind", "says"),
    [(None, "not a git"), ("git", "not a git"), ("svn", "not a Subversion"), ("gitolite", "no gitolite")],
)
def test_what_is_no_repository_is_named(tmp_path: Path, kind: Kind | None, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        installer.install(tmp_path, kind)


@pytest.mark.parametrize("kind", ["jenkins", "debian"])
def test_programs_go_into_a_directory_and_never_over_another_file(tmp_path: Path, kind: Kind) -> None:
    done = installer.install(tmp_path, kind)
    assert done.path.parent == tmp_path
    assert installer.install(tmp_path, kind).change == "unchanged"
    assert installer.uninstall(tmp_path, kind).change == "removed"
    done.path.write_text("#!/bin/sh\n")
    with pytest.raises(InstallError, match="remove it, or choose another place"):
        installer.install(tmp_path, kind, chain=True)
    with pytest.raises(UsageError, match=r"no such directory: .*/not-yet"):  # it would become the program itself
        installer.install(tmp_path / "not-yet", kind)
    assert not (tmp_path / "not-yet").exists()
    with pytest.raises(UsageError, match="no such directory"):
        installer.install(tmp_path / "none" / "x", kind)


def test_a_script_is_whole_or_not_there(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = origin / "hooks" / "post-receive"
    script.write_text("#!/bin/sh\n# mine\n")
    before = snapshot(origin)

    def fail(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InstallError, match="No space left on device"):
        installer.install(origin, chain=True)
    after = snapshot(origin)
    after.pop("hooks/post-receive.d", None)
    assert after == before


# -- the text ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["with blank", "quo'te", "x" * 200, 'dollar$HOME"`id`'])
def test_an_interpreter_that_no_first_line_can_name_is_started_by_sh(tmp_path: Path, name: str) -> None:
    python = tmp_path / name / "python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    script = tmp_path / "script"
    body = 'import sys\n"""doc"""\nprint(sys.executable, sys.argv[1:], sys.flags.isolated)\n'
    script.write_text(installer._first_lines(str(python), "-I") + body)
    script.chmod(0o755)
    done = subprocess.run([script, "a b", "$x"], capture_output=True, text=True, check=True, env={})
    assert done.stdout.strip() == f"{python} ['a b', '$x'] 1"


def test_every_path_that_is_written_into_a_script_is_there(origin: Path) -> None:
    installer.install(origin)
    text = (origin / "hooks" / "post-receive").read_text()
    paths = re.findall(r"'(/[^']+)'", text.split("USUAL")[0])
    assert sys.executable in paths
    assert all(Path(path).exists() for path in paths)


def test_an_interpreter_that_is_gone_is_told_of_in_one_line(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(
        installer._first_lines("/gone/with 'it/python", "-I") + 'import sys\nprint("ran", sys.argv[1:])\n'
    )
    script.chmod(0o755)
    nowhere = subprocess.run([script], capture_output=True, text=True, check=False, env={"PATH": str(tmp_path)})
    said = "deploykit: nothing queued: /gone/with 'it/python is gone; run `deploykit hooks install` again\n"
    assert (nowhere.returncode, nowhere.stdout, nowhere.stderr) == (0, "", said)
    (tmp_path / "python3").symlink_to(sys.executable)
    env = {"PATH": str(tmp_path), "PYTHONPATH": "/evil"}
    elsewhere = subprocess.run([script, "a b"], capture_output=True, text=True, check=True, env=env)
    assert elsewhere.stdout == "ran ['a b']\n"


@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_a_directory_for_chained_hooks_is_as_open_as_the_one_it_is_in(origin: Path, umask: int) -> None:
    """Else a careful administrator's umask would silently stop the hook that was kept."""
    script = origin / "hooks" / "post-receive"
    script.write_text("#!/bin/sh\n")
    (origin / "hooks").chmod(0o755)
    before = os.umask(umask)
    try:
        installer.install(origin, chain=True)
    finally:
        os.umask(before)
    assert (origin / "hooks" / "post-receive.d").stat().st_mode & 0o777 == 0o755
    assert script.stat().st_mode & 0o777 == 0o755


def test_an_interpreter_that_the_repositorys_owner_cannot_run_is_told_of(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if os.geteuid() != 0:
        missing("root, to give a repository away")
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(closed / "python"))
    os.chown(origin / "hooks", 64111, 64111)
    assert "uid 64111 may not enter or run" in installer.install(origin).note


def test_a_link_laid_where_root_will_write_a_hook_is_not_followed(
    origin: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever owns a repository's hooks can lay links there for the process number of root's installer."""
    victim = tmp_path / "passwd"
    victim.write_text("root's")
    hooks = origin / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / f".post-receive.{os.getpid()}").symlink_to(victim)
    installer.install(origin)
    assert victim.read_text() == "root's"
    monkeypatch.setattr("secrets.token_hex", lambda _: "guessed")
    installer.uninstall(origin)
    (hooks / ".post-receive.guessed").symlink_to(victim)
    with pytest.raises((InstallError, OSError)):
        installer.install(origin)
    assert victim.read_text() == "root's"


def test_a_directory_of_hooks_swapped_for_a_link_gives_nothing_else_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "etc"
    victim.mkdir(mode=0o700)
    made = Path.mkdir

    def swap(path: Path) -> None:
        made(path)
        path.rmdir()
        path.symlink_to(victim)

    tmp_path.chmod(0o755)
    monkeypatch.setattr(Path, "mkdir", swap)
    with pytest.raises(OSError, match="directory"):
        installer._make_directory(tmp_path / "post-receive.d")
    assert victim.stat().st_mode & 0o777 == 0o700
