"""Scripts that hang, fork, flood, change directory, cannot run, or look for what is not theirs."""

from __future__ import annotations

import logging
import os
import pwd
import random
import signal
import subprocess
import time
import tracemalloc
from pathlib import Path

import pytest

from deploykit.errors import ScriptFailed
from deploykit.git.repository import Repository
from deploykit.release import Runner, scripts
from deploykit.release.scripts import Script, _Output, clean_environment, open_checked, run_script
from deploykit.settings import SiteSettings
from deploykit.system.users import parse_identity
from tests.support.needs import needs_root
from tests.support.releasing import Shop, script
from tests.support.wait import wait_until

as_root = needs_root("to become another user")

ME = frozenset({0, os.geteuid()})
_RUN = random.SystemRandom().randrange(10**5, 10**6)


def _script(path: Path, text: str, *, mode: int = 0o755) -> Path:
    path.write_text(_own(text))
    path.chmod(mode)
    return path


def _own(text: str) -> str:
    """Make the sleeps in a text this run's own: the same test may run beside us, or have been cut off."""
    return text.replace("sleep 42", f"sleep {_RUN}42")


def _job(path: Path, *, timeout: float = 120.0, limit: int = 65536, **more: object) -> Script:
    return Script(
        step="pre-deploy",
        path=path,
        arguments=("-t", "v1"),
        directory=path.parent,
        environment=clean_environment(None, {}),
        timeout=timeout,
        output_limit=limit,
        trusted=ME,
        **more,  # type: ignore[arg-type]
    )


def _running(marker: str) -> list[str]:
    found = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if _own(marker) in line]


def _gone(marker: str) -> None:
    wait_until(lambda: not _running(marker))


# -- time ------------------------------------------------------------------------------------------------------------


def test_threat_36_a_script_that_hangs_is_killed_with_all_it_started(tmp_path: Path) -> None:
    path = _script(tmp_path / "hang", "#!/bin/sh\necho before\nsleep 4201 &\nsleep 4201\n")
    started = time.monotonic()
    record = run_script(_job(path, timeout=3))
    assert time.monotonic() - started < 60
    assert (record.outcome, record.exit_code) == ("failed", 128 + signal.SIGTERM)
    assert record.output == "before\n\n[ran longer than 3 s; it and what it started were killed]"
    _gone("sleep 4201")


def test_threat_36_a_script_that_ignores_sigterm_is_killed_after_a_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.release.scripts._GRACE", 0.3)
    path = _script(tmp_path / "deaf", "#!/bin/sh\ntrap '' TERM\nwhile :; do sleep 4202; done\n")
    record = run_script(_job(path, timeout=5))
    assert record.exit_code == 128 + signal.SIGKILL
    _gone("sleep 4202")


def test_threat_36_a_grandchild_that_keeps_stdout_costs_no_time_and_does_not_stay(tmp_path: Path) -> None:
    path = _script(tmp_path / "fork", "#!/bin/sh\nsleep 4203 &\necho done\n")
    started = time.monotonic()
    record = run_script(_job(path, timeout=60))
    assert time.monotonic() - started < 50
    assert (record.outcome, record.output) == ("done", "done\n")
    _gone("sleep 4203")


def test_threat_36_a_grandchild_in_a_session_of_its_own_costs_no_time(tmp_path: Path) -> None:
    """A service that was started properly stays; holding our pipe gets it nothing."""
    # It ends only when the service is in its own session: what is still on its way there belongs to the script.
    there = tmp_path / "there"
    start = f"setsid sh -c 'echo x > {there}; exec sleep 4204' &\nwhile [ ! -s {there} ]; do sleep 0.01; done"
    path = _script(tmp_path / "daemon", f"#!/bin/sh\n{start}\necho started\n")
    started = time.monotonic()
    record = run_script(_job(path, timeout=60))
    assert time.monotonic() - started < 50
    assert (record.outcome, record.output) == ("done", "started\n")
    wait_until(lambda: _running("sleep 4204"))
    (line,) = _running("sleep 4204")
    os.kill(int(line.split()[0]), signal.SIGKILL)
    _gone("sleep 4204")


def test_a_deploy_whose_script_hangs_fails_in_time_and_the_site_is_untouched(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(timeouts={"pre-deploy": 0.3}))
    shop.put({"a": b"1"})
    result = shop.put({"a": b"2", "deploy/pre-deploy": script(_own("sleep 4205"))})
    assert result.outcome == "failure"
    assert result.detail.startswith("pre-deploy ran longer than 0.3 s and was killed")
    assert shop.read("a") == "1"
    _gone("sleep 4205")


# -- output ----------------------------------------------------------------------------------------------------------


def test_threat_36_a_flood_is_kept_head_and_tail(tmp_path: Path) -> None:
    path = _script(
        tmp_path / "flood", "#!/bin/sh\necho first\nhead -c 50000000 /dev/zero | tr '\\0' x\necho\necho last\n"
    )
    heard: list[int] = []
    record = run_script(_job(path, limit=1000), lambda *said: heard.append(len(said[2])))
    assert record.outcome == "done"
    assert len(record.output) < 1100
    assert record.output.startswith("first\nxxx")
    assert "bytes left out ..." in record.output
    assert record.output.endswith("xxx\nlast\n")
    assert sum(heard) == 50_000_012


def test_threat_36_what_is_not_kept_of_a_flood_takes_no_memory() -> None:
    kept = _Output(1000)
    tracemalloc.start()
    try:
        for _ in range(1000):
            kept.add(b"x" * 10_000)
        assert tracemalloc.get_traced_memory()[1] < 200_000
    finally:
        tracemalloc.stop()
    assert len(kept.text()) < 1100


def test_a_script_that_floods_for_ever_is_ended_by_its_time(tmp_path: Path) -> None:
    path = _script(tmp_path / "yes", f"#!/bin/sh\nexec yes {_RUN}-flood\n")
    record = run_script(_job(path, timeout=0.5, limit=1000))
    assert record.outcome == "failed"
    assert len(record.output) < 1200
    _gone(f"yes {_RUN}-flood")


def test_output_is_streamed_while_the_script_runs_and_told_apart(tmp_path: Path) -> None:
    go = tmp_path / "go"
    path = _script(
        tmp_path / "talk", f"#!/bin/sh\necho out\necho err >&2\nwhile [ ! -e {go} ]; do sleep 0.01; done\necho end\n"
    )
    heard: list[tuple[str, str, str]] = []

    def listen(*said: str) -> None:
        heard.append((said[0], said[1], said[2]))
        if len(heard) >= 2:
            go.touch()  # only a listener that hears while it runs lets it end

    record = run_script(_job(path), listen)
    assert record.outcome == "done"
    assert ("pre-deploy", "stdout", "out\n") in heard
    assert ("pre-deploy", "stderr", "err\n") in heard


def test_bytes_that_are_no_text_and_split_characters_come_out_readable(tmp_path: Path) -> None:
    path = _script(tmp_path / "bytes", "#!/bin/sh\nprintf '\\303'; sleep 0.05; printf '\\251 \\377 end'\n")
    heard: list[str] = []
    record = run_script(_job(path), lambda *said: heard.append(said[2]))
    assert record.output == "é \ufffd end"
    assert "".join(heard) == "é \ufffd end"


def test_a_listener_that_fails_does_not_stop_the_deploy(tmp_path: Path) -> None:
    def broken(*_: str) -> None:
        raise BrokenPipeError

    path = _script(tmp_path / "s", "#!/bin/sh\necho 1; sleep 0.05; echo 2\n")
    assert run_script(_job(path), broken).output == "1\n2\n"


# -- what can be run ---------------------------------------------------------------------------------------------------


def test_a_script_may_change_directory_and_remove_itself(tmp_path: Path) -> None:
    path = _script(tmp_path / "s", '#!/bin/sh\nrm "$0"; cd /; pwd\n')
    assert run_script(_job(path)).output == "/\n"
    assert Path.cwd() != Path("/")


@pytest.mark.parametrize(
    ("text", "mode", "says"),
    [
        ("#!/bin/sh\n", 0o644, "it is not executable"),
        ("#!/no/such/interpreter\n", 0o755, "No such file"),
        ("echo no shebang\n", 0o755, "Exec format error"),
        ("#!/bin/sh\n", 0o757, "everybody can write it"),
    ],
)
def test_a_script_that_cannot_run_says_why(tmp_path: Path, text: str, mode: int, says: str) -> None:
    with pytest.raises(ScriptFailed, match=says):
        run_script(_job(_script(tmp_path / "s", text, mode=mode)))


def test_a_script_that_is_still_open_for_writing_is_tried_until_it_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _script(tmp_path / "job", "#!/bin/sh\necho ran\n")
    tries = 0

    def close_at_the_third(script: Script) -> subprocess.Popen[bytes]:
        nonlocal tries
        tries += 1
        if tries == 3:
            held.close()
        return start(script)

    start = scripts._popen
    monkeypatch.setattr(scripts, "_popen", close_at_the_third)
    with path.open("ab") as held:
        record = run_script(_job(path))
    assert (tries, record.outcome, record.output) == (3, "done", "ran\n")


def test_a_script_that_stays_open_for_writing_is_given_up_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts, "_BUSY_FOR", 0.2)
    path = _script(tmp_path / "job", "#!/bin/sh\necho ran\n")
    with path.open("ab"), pytest.raises(ScriptFailed, match=r"Text file busy .*fuser"):
        run_script(_job(path))


@pytest.mark.parametrize("way", ["/proc/self/cwd", "//proc/./self/cwd", "/usr/../proc/thread-self/cwd", "/dev/fd/.."])
def test_an_interpreter_below_proc_is_refused(tmp_path: Path, way: str) -> None:
    path = _script(tmp_path / "s", f"#!{way}/interp\n")
    _script(tmp_path / "interp", "#!/bin/sh\n")
    with pytest.raises(ScriptFailed, match="below /proc"):
        open_checked(path, ME, tmp_path)


@pytest.mark.parametrize("interpreter", ["/no/such/interpreter", "none"])
def test_an_interpreter_that_is_missing_is_refused_before_anything_is_touched(tmp_path: Path, interpreter: str) -> None:
    with pytest.raises(ScriptFailed, match=f"{interpreter}: No such file"):
        open_checked(_script(tmp_path / "s", f"#!{interpreter}\n"), ME, tmp_path)


def test_an_exit_code_and_a_signal_are_recorded_as_a_shell_would(tmp_path: Path) -> None:
    assert run_script(_job(_script(tmp_path / "a", "#!/bin/sh\nexit 42\n"))).exit_code == 42
    assert run_script(_job(_script(tmp_path / "b", "#!/bin/sh\nkill -SEGV $$\n"))).exit_code == 128 + signal.SIGSEGV


@pytest.mark.parametrize("tag", ["-x", "v1;id", "$(id)", "`id`", "a b", "v\u202e1", "--upload-pack=x"])
def test_threat_7_a_tag_is_one_argument_whatever_it_looks_like(tmp_path: Path, tag: str) -> None:
    path = _script(tmp_path / "s", '#!/bin/sh\nprintf "%s|" "$@"\n')
    job = Script(
        step="s",
        path=path,
        arguments=("-t", tag),
        directory=tmp_path,
        environment=clean_environment(None, {}),
        timeout=120,
        trusted=ME,
    )
    assert run_script(job).output == f"-t|{tag}|"


# -- threat 35: who can change it --------------------------------------------------------------------------------------


def test_threat_35_a_symlink_is_not_run(tmp_path: Path) -> None:
    _script(tmp_path / "real", "#!/bin/sh\n")
    (tmp_path / "link").symlink_to("real")
    with pytest.raises(ScriptFailed, match="it is a symlink"):
        run_script(_job(tmp_path / "link"))


def test_threat_35_a_directory_everybody_can_write_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open" / "deep").mkdir()
    path = _script(tmp_path / "open" / "deep" / "s", "#!/bin/sh\n")
    run_script(_job(path))
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(ScriptFailed, match=r"can change .*/open"):
        run_script(_job(path))
    (tmp_path / "open").chmod(0o1777)  # sticky, as /tmp: nobody can swap another's entry
    run_script(_job(path))


@as_root
def test_threat_35_a_file_or_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    nobody = pwd.getpwnam("nobody").pw_uid
    (tmp_path / "d").mkdir()
    path = _script(tmp_path / "d" / "s", "#!/bin/sh\n")
    os.chown(path, nobody, -1)
    with pytest.raises(ScriptFailed, match=f"it belongs to uid {nobody}"):
        run_script(_job(path))
    os.chown(path, 0, -1)
    os.chown(tmp_path / "d", nobody, -1)
    with pytest.raises(ScriptFailed, match="can change"):
        run_script(_job(path))


def test_threat_35_a_script_swapped_between_check_and_start_is_not_let_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = _script(tmp_path / "s", "#!/bin/sh\necho good\n")
    evil = _script(tmp_path / "evil", f"#!/bin/sh\nsleep 4206\ntouch {tmp_path}/pwned\n")
    checked = open_checked

    def swap(where: Path, trusted: frozenset[int], directory: Path) -> int:
        fd = checked(where, trusted, directory)
        evil.replace(where)
        return fd

    monkeypatch.setattr("deploykit.release.scripts.open_checked", swap)
    with pytest.raises(ScriptFailed, match="was swapped while it was started"):
        run_script(_job(path))
    _gone("sleep 4206")
    assert not (tmp_path / "pwned").exists()


def test_threat_35_scripts_outside_the_tree_are_checked_before_anything_is_touched(tmp_path: Path) -> None:
    (tmp_path / "scripts").mkdir()
    _script(tmp_path / "scripts" / "pre-deploy", "#!/bin/sh\n", mode=0o777)
    shop = Shop(tmp_path, SiteSettings(scripts=str(tmp_path / "scripts")))
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert "everybody can write it" in result.detail
    assert shop.names() == set()


# -- threat 34 and 24: the environment ---------------------------------------------------------------------------------


def test_threat_34_nothing_of_our_own_environment_reaches_a_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(tmp_path, SiteSettings(environment={"APP_ENV": "prod", "DEPLOYKIT_TAG": "evil"}))
    shop.commit({"deploy/pre-deploy": script("env")})
    for name in ("GIT_DIR", "GIT_WORK_TREE", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "BASH_ENV", "ENV", "IFS"):
        monkeypatch.setenv(name, "/evil")
    monkeypatch.setenv("PATH", "/evil:" + os.environ["PATH"])
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setenv("TZ", "() { :; }; echo evil")
    monkeypatch.setenv("DEPLOYKIT_TAG", "evil")
    result = shop.deploy("v1")
    output = next(s.output for s in result.steps if s.name == "pre-deploy")
    found = dict(line.split("=", 1) for line in output.splitlines())
    assert "evil" not in output
    assert set(found) - {"PWD", "SHLVL", "_", "OLDPWD"} == {
        *("PATH", "LANG", "LC_ALL", "HOME", "APP_ENV"),
        *(f"DEPLOYKIT_{n}" for n in ("SITE", "SITE_DIR", "TAG", "REF", "COMMIT", "RELEASE", "PREVIOUS", "SHARED")),
        *(f"DEPLOYKIT_{n}" for n in ("NODE", "REQUEST", "STEP", "RUN")),
    }
    assert found["APP_ENV"] == "prod"
    assert found["DEPLOYKIT_TAG"] == "v1"


def test_threat_24_a_secret_of_the_environment_shows_nowhere_but_in_the_script(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "canary-7f3a9c"
    caplog.set_level(logging.DEBUG)
    settings = SiteSettings(environment={"DB_PASSWORD": canary})
    shop = Shop(tmp_path, settings)
    check = f'[ "$DB_PASSWORD" = {canary[:6]}-7f3a9c ] || exit 9; tr "\\0" " " < /proc/$$/cmdline'
    result = shop.put({"deploy/pre-deploy": script(check), "deploy/post-deploy": script("exit 1")})
    assert result.outcome == "rolled-back"
    seen = [repr(settings), repr(result), result.detail, caplog.text, str(shop.site), str(shop.heard)]
    with Repository(shop.repo.path) as source:
        seen.append(repr(shop.runner.preview(source, "v1")))
    with pytest.raises(ScriptFailed) as caught:
        result.check()
    seen.append(str(caught.value))
    job = Script(
        step="s",
        path=tmp_path / "none",
        arguments=(),
        directory=tmp_path,
        environment={"DB_PASSWORD": canary},
        timeout=1,
    )
    seen.append(repr(job))
    files = [path for path in (shop.path / ".deploykit").rglob("*") if path.is_file()]
    seen += [path.read_bytes().decode(errors="replace") for path in files]
    assert not [text for text in seen if canary in text]


# -- threat 37: who it runs as -----------------------------------------------------------------------------------------


@as_root
def test_threat_37_a_script_runs_with_the_users_ids_and_groups_and_nothing_of_roots(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents:
        if str(parent) != "/tmp" and str(parent).startswith("/tmp"):
            parent.chmod(0o755)
    shop = Shop(tmp_path, SiteSettings(run_as="nobody", owner="nobody"))
    say = script(
        "id -u; id -g; id -G; grep -E '^(Uid|Gid|CapEff)' /proc/self/status; echo $HOME $USER; touch made-by-me"
    )
    mine = os.getgroups()
    os.setgroups([0, 4321])  # as a daemon that was started by root with root's groups
    try:
        result = shop.put({"a": b"1", "deploy/pre-deploy": say})
    finally:
        os.setgroups(mine)
    assert result.outcome == "success", result
    who = parse_identity("nobody", "test")
    lines = next(s.output for s in result.steps if s.name == "pre-deploy").splitlines()
    assert lines[0] == str(who.uid)
    assert lines[1] == str(who.gid)
    assert {int(g) for g in lines[2].split()} == set(who.groups)
    assert 0 not in who.groups
    assert lines[3].split()[1:] == [str(who.uid)] * 4
    assert lines[4].split()[1:] == [str(who.gid)] * 4
    assert int(lines[5].split()[1], 16) == 0, "no capability is left"
    assert lines[6] == f"{who.home} nobody"
    for path in (shop.path / "releases" / result.release).rglob("*"):
        assert path.lstat().st_uid == who.uid, path


@as_root
def test_threat_37_an_unknown_user_is_refused_before_anything_is_touched(tmp_path: Path) -> None:
    shop = Shop(tmp_path, SiteSettings(run_as="no-such-user"))
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert "run_as names 'no-such-user'" in result.detail


@as_root
def test_threat_37_without_root_another_user_is_refused(tmp_path: Path) -> None:
    """In a child that gave root away, as an unprivileged daemon would be."""
    tmp_path.chmod(0o777)
    for parent in tmp_path.parents:
        if str(parent) != "/tmp" and str(parent).startswith("/tmp"):
            parent.chmod(0o755)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            shop = Shop(tmp_path / "own", SiteSettings(run_as="daemon"))
            result = shop.put({"a": b"1"})
            os.write(writing, f"{result.outcome}: {result.detail}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    said = os.read(reading, 65536).decode()
    os.close(reading)
    assert os.waitpid(child, 0)[1] == 0
    assert "scripts are to run as 'daemon', and only root can do that" in said


def test_a_runner_without_listeners_is_silent(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    shop = Shop(tmp_path)
    shop.commit({"deploy/pre-deploy": script("echo hello; echo err >&2")})
    with Repository(shop.repo.path) as source:
        Runner(shop.site).deploy(source, "v1")
    assert capfd.readouterr() == ("", "")
