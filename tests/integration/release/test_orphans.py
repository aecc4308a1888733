"""A deploying process is killed while its script runs: the script is ended before anything else is done.

The script holds a lock on a file for as long as any process of it lives, and writes down when somebody else has it: two
copies at once cannot go unnoticed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.errors import ReleaseError
from deploykit.git.repository import Repository
from deploykit.release import Runner, Site
from deploykit.release.journal import read_journal
from deploykit.release.orphans import MARK, ScriptProcess, end_orphan, start_time_of
from deploykit.settings import SiteSettings
from deploykit.system.boottime import boot_id
from tests.support.cli import command
from tests.support.needs import in_ci, needs
from tests.support.processes import is_running
from tests.support.releasing import Shop, script
from tests.support.wait import wait_until


class Stage:
    """A site whose next deploy runs a script that waits for ever, if it started before `again`."""

    def __init__(self, base: Path, settings: str = "") -> None:
        needs("flock", package="util-linux")
        self.base = base
        self.shop = Shop(base)
        self.log, self.armed = base / "log", base / "armed"
        self.armed.touch()
        self.settings = base / "site.toml"
        self.settings.write_text(settings)
        assert self.shop.put({"a": b"1"}).outcome == "success"

    def waiting(self, *before: str) -> tuple[str, bytes]:
        """A script that says when it runs twice, and waits."""
        return script(
            f"exec 9>>{self.base}/running",
            f"flock -n 9 || echo overlap >> {self.log}",
            *before,
            f"[ -e {self.armed} ] && wait=yes",
            f"echo begun $$ >> {self.log}",
            "while [ $wait ]; do sleep 0.02; done",
            f"echo ended >> {self.log}",
        )

    def argv(self) -> list[str]:
        return command(
            *("release", "deploy", str(self.shop.path), "--settings", str(self.settings), "--json"),
            *("--mirror", str(self.shop.repo.path), "--ref", "v2", "--request", "r2"),
        )

    def lines(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []

    def cut_off(self) -> int:
        """Deploy, kill the process in the middle of the script, and return the script's own process number."""
        with subprocess.Popen(self.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as deploying:
            wait_until(lambda: any(line.startswith("begun") for line in self.lines()), "the script")
            wait_until(lambda: b'{"runs":' in self.shop.site.journal_file.read_bytes(), "the note of it")
            deploying.kill()
            assert deploying.wait() == -signal.SIGKILL
        pid = int(next(line for line in self.lines() if line.startswith("begun")).split()[1])
        assert is_running(pid), "it runs on without its runner: what all this is about"
        return pid

    def recover(self) -> None:
        """Only end what was cut off."""
        self.armed.unlink()
        self.shop.runner.recover()

    def again(self) -> dict[str, object]:
        """The same request once more; its script does not wait."""
        self.armed.unlink()
        done = subprocess.run(self.argv(), capture_output=True, text=True, check=False, timeout=120)
        said: dict[str, object] = json.loads(done.stdout)
        return said


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path: Path) -> Iterator[None]:
    """A test that fails must not leave its scripts running."""
    yield
    log = tmp_path / "log"
    for line in log.read_text().splitlines() if log.exists() else []:
        if line.startswith("begun") and is_running(int(line.split()[1])):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(int(line.split()[1]), signal.SIGKILL)


@pytest.mark.parametrize("step", ["pre-deploy", "pre-link", "post-deploy", "health-check"])
def test_a_script_whose_runner_was_killed_is_ended_before_it_is_run_again(stage: Stage, step: str) -> None:
    stage.shop.commit({"a": b"2", f"deploy/{step}": stage.waiting()})
    first = stage.cut_off()
    stage.shop.whole()
    said = stage.again()
    assert said["outcome"] == "success", said
    assert not is_running(first)
    begun = [line for line in stage.lines() if line.startswith("begun")]
    assert len(begun) == 2
    assert "overlap" not in stage.lines()
    assert stage.lines()[-1] == "ended"
    assert stage.lines().count("ended") == 1, "the one that was cut off came to its end all the same"
    assert stage.shop.read("a") == "2"


@pytest.mark.parametrize("answer", ["skip", "stop"])
def test_it_is_ended_as_well_where_the_settings_say_skip_or_stop(tmp_path: Path, answer: str) -> None:
    stage = Stage(tmp_path, f'at_crash = {{ "post-deploy" = "{answer}" }}\n')
    stage.shop.commit({"a": b"2", "deploy/post-deploy": stage.waiting()})
    first = stage.cut_off()
    stage.shop.settings = SiteSettings(at_crash={"post-deploy": answer})  # type: ignore[dict-item]
    stage.recover()
    stage.armed.touch()
    assert not is_running(first)
    assert stage.again()["outcome"] == ("success" if answer == "skip" else "failure")
    assert "ended" not in stage.lines()


def test_a_script_that_is_deaf_to_term_is_killed_with_all_it_started(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = stage.waiting("trap '' TERM", "(trap '' TERM; while :; do sleep 0.02; done) &", "(sleep 3600) &")
    stage.shop.commit({"a": b"2", "deploy/post-deploy": deaf})
    first = stage.cut_off()
    entry = read_journal(stage.shop.site.journal_file)
    assert entry is not None
    assert entry.process is not None
    assert (entry.process.pid, entry.process.started) == (first, start_time_of(first))
    started = time.monotonic()
    # The script, its deaf child and the sleeper; whether the short sleeps are counted is a matter of the moment.
    assert end_orphan(entry.process, "post-deploy", grace=0.3) >= 3
    assert time.monotonic() - started >= 0.3, "it was asked before it was killed"
    assert not is_running(first)
    assert _lock_is_free(stage.base / "running")
    assert end_orphan(entry.process, "post-deploy") == 0


def _lock_is_free(path: Path) -> bool:
    return subprocess.run(["flock", "-n", path, "true"], check=False).returncode == 0


def test_what_a_dead_script_left_in_its_session_is_ended(stage: Stage) -> None:
    """The script itself has died with its runner; what it had started has not."""
    stage.shop.commit({"a": b"2", "deploy/post-deploy": stage.waiting("(while :; do sleep 0.02; done) &")})
    first = stage.cut_off()
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: not is_running(first), "its end")
    assert not _lock_is_free(stage.base / "running")
    stage.recover()
    assert "overlap" not in stage.lines()
    assert _lock_is_free(stage.base / "running")


def test_killed_between_the_start_of_a_script_and_the_note_of_its_process(stage: Stage) -> None:
    stage.shop.commit({"a": b"2", "deploy/post-deploy": stage.waiting()})
    first = stage.cut_off()
    journal = stage.shop.site.journal_file
    lines = journal.read_bytes().splitlines(keepends=True)
    assert lines[-1].startswith(b'{"runs":')
    journal.write_bytes(b"".join(lines[:-1]))
    assert stage.again()["outcome"] == "success"
    assert not is_running(first)
    assert "overlap" not in stage.lines()


@pytest.mark.parametrize("note", [True, False])
def test_a_service_that_a_script_started_on_purpose_is_left_alone(stage: Stage, note: bool) -> None:
    """It left the session with setsid, and goes on whether its script was cut off or not."""
    service = f"setsid sh -c 'echo $$ > {stage.base}/service; exec 9>&-; exec sleep 3600' &"
    wait = f"while [ ! -s {stage.base}/service ]; do sleep 0.02; done"
    stage.shop.commit({"a": b"2", "deploy/post-deploy": stage.waiting(service, wait)})
    first = stage.cut_off()
    pid = int((stage.base / "service").read_text())
    try:
        if not note:
            journal = stage.shop.site.journal_file
            journal.write_bytes(b"".join(journal.read_bytes().splitlines(keepends=True)[:-1]))
        stage.recover()
        assert not is_running(first)
        assert is_running(pid), "a service of the site was killed"
        # A process shows no environment for an instant while it begins another program.
        environment = wait_until(Path(f"/proc/{pid}/environ").read_bytes, "the environment of the service")
        assert f"{MARK}=".encode() in environment, "and it was not for want of the mark"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_service_started_by_a_script_that_ended_well_outlives_every_later_start(stage: Stage) -> None:
    service = f"setsid sh -c 'echo $$ > {stage.base}/service; exec sleep 3600' >/dev/null 2>&1 &"
    wait = f"while [ ! -s {stage.base}/service ]; do sleep 0.02; done"
    assert stage.shop.put({"a": b"2", "deploy/post-deploy": script(service, wait)}).outcome == "success"
    pid = int((stage.base / "service").read_text())
    try:
        stage.shop.runner.recover()
        stage.shop.commit({"a": b"3", "deploy/post-deploy": stage.waiting()}, tag="v2b")
        assert is_running(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


@contextlib.contextmanager
def _somebody_else(environment: dict[str, str]) -> Iterator[int]:
    """A process in a session of its own."""
    with subprocess.Popen(["sleep", "3600"], start_new_session=True, env=environment) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def test_a_number_that_was_given_out_again_is_not_killed() -> None:
    """Same number and session, started at another time, without the mark: somebody else's."""
    mark = "c" * 32
    with _somebody_else({MARK: "d" * 32}) as pid:
        reused = ScriptProcess(mark=mark, boot=boot_id(), pid=pid, started=start_time_of(pid) - 1)
        assert end_orphan(reused, "post-deploy") == 0
        assert is_running(pid)
        assert end_orphan(ScriptProcess(mark=mark, boot=boot_id()), "post-deploy") == 0
        assert is_running(pid)
        right = ScriptProcess(mark=mark, boot="another boot", pid=pid, started=start_time_of(pid))
        assert end_orphan(right, "post-deploy") == 0, "the numbers of another boot mean nothing"
        assert is_running(pid)


def test_what_cannot_be_ended_is_an_error_and_never_a_second_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    mark = "e" * 32
    with _somebody_else({MARK: mark}) as pid:
        monkeypatch.setattr(signal, "pidfd_send_signal", lambda *_: None)  # as for a process stuck in the kernel
        script = ScriptProcess(mark=mark, boot=boot_id(), pid=pid, started=start_time_of(pid))
        with pytest.raises(ReleaseError, match=f"still runs \\(process {pid}\\) and cannot be ended"):
            end_orphan(script, "post-deploy", grace=0.1, patience=0.2)


def test_the_script_of_another_user_is_ended_too(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        (pytest.fail if in_ci() else pytest.skip)("needs root, to become another user")
    for parent in (tmp_path, *tmp_path.parents):
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    stage = Stage(tmp_path, 'run_as = "nobody"\n')
    for path in (stage.base / "running", stage.log):
        path.touch()
        path.chmod(0o666)
    stage.shop.commit({"a": b"2", "deploy/post-deploy": stage.waiting()})
    first = stage.cut_off()
    assert Path(f"/proc/{first}").stat().st_uid != 0
    assert stage.again()["outcome"] == "success"
    assert not is_running(first)
    assert "overlap" not in stage.lines()


def test_a_runner_that_is_killed_again_and_again_never_has_two_scripts(stage: Stage) -> None:
    """Ten starts in a row, each killed at another instant after its script began."""
    stage.shop.commit({"a": b"2", "deploy/post-deploy": stage.waiting()})
    for n in range(10):
        with subprocess.Popen(stage.argv(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as deploying:
            wait_until(lambda n=n: len(stage.lines()) > n, "the script")  # type: ignore[misc]
            time.sleep(n * 0.003)
            deploying.kill()
    assert stage.again()["outcome"] == "success"
    assert "overlap" not in stage.lines()
    assert len([line for line in stage.lines() if line.startswith("begun")]) == 11
    assert _lock_is_free(stage.base / "running")


def test_a_line_of_the_journal_that_did_not_fit_leaves_no_half(tmp_path: Path) -> None:
    """A full disk takes half a line: what is written when there is room again must not be read as its other half."""
    code = (
        "import resource, sys, pathlib\n"
        "from deploykit.release.journal import Journal, JournalEntry, read_journal\n"
        "from deploykit.release.model import Operation\n"
        "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "journal = Journal(path)\n"
        "journal.begin(JournalEntry(operation=Operation(number=1, phase='deploy', release='r'), seq=1, tree=''))\n"
        "size = path.stat().st_size\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, resource.RLIM_INFINITY))\n"
        "try:\n    journal.starts('export')\nexcept OSError as error:\n    print('refused', error.errno)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        "journal.starts('finalize'); journal.close()\n"
        "print(read_journal(path).started)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "journal")], capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["refused", "27", "finalize"], done


def test_a_site_in_use_by_a_library_caller_is_recovered_the_same_way(tmp_path: Path) -> None:
    """No command line: `Runner.deploy` of another process ends what was left."""
    stage = Stage(tmp_path)
    stage.shop.commit({"a": b"2", "deploy/pre-deploy": stage.waiting()})
    first = stage.cut_off()
    stage.armed.unlink()
    with Repository(stage.shop.repo.path) as source:
        result = Runner(Site(stage.shop.path, SiteSettings())).deploy(source, "refs/tags/v2", request="r2")
    assert result.outcome == "success"
    assert not is_running(first)
    assert "overlap" not in stage.lines()
