"""Killed at any system call, or the power cut there: the site is whole, the next start converges, no lie was told.

The command is the public one, in a process of its own, killed by strace at each call that changes something below the
site (tests/support/killsweep.py). For the power cut the site lives on an ext4 file system in a file: the process is
killed at the call, and the file system is shut down at once without flushing anything, as if the plug were pulled.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploykit.git.repository import Repository
from deploykit.release import DeployResult
from deploykit.release.ondisk import damage
from deploykit.settings import SiteSettings
from tests.support.aftercut import answer_to, assert_nothing_left, outcome_said, show
from tests.support.cli import command
from tests.support.killsweep import NEEDS_DISK, NEEDS_SPACE, Run, error_sweep, kill_sweep, sample_size
from tests.support.power import Disk
from tests.support.releasing import Files, Shop, script


class Case:
    """A site with four releases behind it, copied anew before each run."""

    def __init__(self, base: Path, *, keep: int = 1, where: Path | None = None) -> None:
        self.shop = Shop(base, SiteSettings(keep=keep, grace=0, shared=("uploads/",)))
        if where is not None:
            self.shop.path = where / "site"
        self.logged = base / "log"  # outside the site: the scripts' own writes are not what is swept
        self.settings = base / "site.toml"
        self.settings.write_text(f'keep = {keep}\ngrace = 0\nshared = ["uploads/"]\n')
        for n in range(1, 5):
            assert self.shop.put(self.files(n)).outcome == "success"
        self.template = base / "template"
        if where is None:
            shutil.copytree(self.shop.path, self.template, symlinks=True)

    def files(self, n: int, post: str = "true", **more: bytes | tuple[str, bytes]) -> Files:
        """What version `n` consists of."""
        log = f'cd /; echo "$DEPLOYKIT_STEP $DEPLOYKIT_TAG ${{DEPLOYKIT_ROLLBACK:-0}}" >> {self.logged}'
        return {
            "a": b"%d" % n,
            f"d/only-{n}": b"x",
            "d/e/same": b"same" * 100,
            "deploy/pre-deploy": script(log),
            "deploy/post-deploy": script(log, post),
            **more,
        }

    def fresh(self) -> None:
        """Put the site back to what it was."""
        self.logged.unlink(missing_ok=True)
        shutil.rmtree(self.shop.path)
        shutil.copytree(self.template, self.shop.path, symlinks=True)

    def argv(self, verb: str, *words: str) -> list[str]:
        """The public command."""
        return command("release", verb, str(self.shop.path), "--settings", str(self.settings), "--json", *words)

    def deploy_argv(self, tag: str) -> list[str]:
        """Deploy a tag for a request."""
        return self.argv("deploy", "--mirror", str(self.shop.repo.path), "--ref", tag, "--request", f"req-{tag}")

    def clean(self) -> None:
        """Assert that a start leaves nothing of what was cut off."""
        assert_nothing_left(self.shop.runner)

    def one_answer(self, request: str) -> str:
        """Assert that a request has exactly one final outcome on record, and return it."""
        return answer_to(self.shop.site, request)

    def log(self) -> list[str]:
        """What the scripts wrote."""
        return self.logged.read_text().splitlines()


def _after_deploy(case: Case, run: Run, tag: str, content: str) -> None:
    """What must hold whatever happened at whichever call."""
    shop = case.shop
    shop.whole()
    assert shop.read("a") in ("4", content)
    said = outcome_said(run)
    if said == "success":
        assert shop.read("a") == content
    again: DeployResult = shop.deploy(tag, request=f"req-{tag}")
    if said in ("failure", "rolled-back") and again.again:
        # Where even the record could not be made to last, the answer said just that, and the record may be there.
        unsure = "cannot write down what was done" in run.stdout
        assert unsure or again.outcome == said, "a request has one answer"
        again = shop.deploy(tag, request="another request")
    assert again.outcome == "success", again
    assert shop.read("a") == content
    shop.whole()
    case.clean()
    case.one_answer(f"req-{tag}")
    # and the site goes on from there
    assert shop.runner.rollback().outcome == "success"
    assert shop.read("a") == "4"
    shop.whole()


def _after_rollback(case: Case, run: Run) -> None:
    """What must hold whatever happened at whichever call of a rollback from 4 to 3."""
    shop = case.shop
    shop.whole()
    shop.runner.recover()
    shop.whole()
    live = shop.read("a")
    known = [o for o in shop.site.history() if o.phase == "rollback" and o.outcome == "success"]
    assert live == ("3" if known else "4")
    if outcome_said(run) == "success":
        assert live == "3"
    case.clean()
    assert shop.runner.rollback().outcome == "success"
    assert shop.read("a") == ("2" if known else "3")


def _prepare_fifth(case: Case) -> str:
    """Prepare version 5 in the template, and return its commit."""
    commit = case.shop.commit(case.files(5))
    with Repository(case.shop.repo.path) as source:
        assert case.shop.runner.prepare(source, "refs/tags/v5").outcome == "success"
    shutil.rmtree(case.template)
    shutil.copytree(case.shop.path, case.template, symlinks=True)
    return commit


def _after_discard(case: Case, run: Run, commit: str) -> None:
    """What must hold whatever happened at whichever call of a discard of 5 while 4 is live."""
    shop = case.shop
    shop.whole()
    assert shop.read("a") == "4"
    gone = [o for o in shop.site.history() if o.phase == "discard"]
    fifth = shop.site.recorded().releases[-1]
    assert (fifth.status, len(gone)) in (("prepared", 0), ("discarded", 1))
    if outcome_said(run) == "success":
        assert fifth.status == "discarded"
    if fifth.status == "prepared":
        assert not damage(shop.site, fifth.name), "until it is on record, it can still be activated"
    again = shop.runner.discard("refs/tags/v5", commit, request="again")
    assert (again.outcome, shop.read("a")) == ("success", "4")
    assert fifth.name not in shop.names()
    shop.whole()
    case.clean()
    assert len([o for o in shop.site.history() if o.phase == "discard"]) == 1
    assert "post-deploy v5 0" not in (case.log() if case.logged.exists() else [])
    # and the site goes on from there
    assert shop.deploy("v5").outcome == "success"
    assert shop.read("a") == "5"
    shop.whole()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("keep", [5, 1], ids=["fresh", "recycled"])
def test_a_deploy_killed_at_any_call_leaves_a_whole_site_and_converges(
    tmp_path: Path, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path, keep=keep)
    case.shop.commit(case.files(5, new=b"n"))

    def check(run: Run) -> None:
        _after_deploy(case, run, "v5", "5")
        assert "post-deploy v5 0" in case.log()

    report = kill_sweep(
        case.deploy_argv("v5"),
        roots=[case.shop.path],
        prepare=case.fresh,
        check=check,
    )
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_rollback_killed_at_any_call_goes_back_once_and_not_twice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path, keep=5)
    shop = case.shop

    def check(run: Run) -> None:
        _after_rollback(case, run)

    report = kill_sweep(case.argv("rollback"), roots=[shop.path], prepare=case.fresh, check=check)
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_deploy_that_goes_back_by_itself_is_killed_at_any_call_and_still_ends_on_the_old_release(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path)
    shop = case.shop
    shop.commit(case.files(5, post='[ "$DEPLOYKIT_TAG" != v5 ]'))

    def check(run: Run) -> None:
        shop.whole()
        assert shop.read("a") in ("4", "5")
        assert outcome_said(run) in ("", "rolled-back")
        again = shop.deploy("v5", request="req-v5")
        assert again.outcome == "rolled-back"
        assert shop.read("a") == "4"
        shop.whole()
        case.clean()
        assert case.one_answer("req-v5") == "rolled-back"
        assert case.log()[-1] == "post-deploy v4 1"

    report = kill_sweep(case.deploy_argv("v5"), roots=[shop.path], prepare=case.fresh, check=check)
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_discard_killed_at_any_call_converges_and_never_touches_what_is_live(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path, keep=5)
    shop = case.shop
    commit = _prepare_fifth(case)

    def check(run: Run) -> None:
        _after_discard(case, run, commit)

    report = kill_sweep(case.argv("discard", "v5"), roots=[shop.path], prepare=case.fresh, check=check)
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("error", "calls"), [("ENOSPC", NEEDS_SPACE), ("EIO", NEEDS_DISK)])
def test_a_discard_with_a_call_that_fails_is_no_success_that_did_not_last(
    tmp_path: Path, error: str, calls: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path, keep=5)
    commit = _prepare_fifth(case)

    def check(run: Run) -> None:
        assert "Traceback" not in run.stderr, run.stderr
        assert (run.returncode == 0) == (outcome_said(run) == "success")
        _after_discard(case, run, commit)

    report = error_sweep(
        case.argv("discard", "v5"),
        roots=[case.shop.path],
        prepare=case.fresh,
        check=check,
        error=error,
        calls=calls,
    )
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("error", "calls"), [("ENOSPC", NEEDS_SPACE), ("EIO", NEEDS_DISK)])
def test_a_call_that_fails_is_never_a_success_that_did_not_last(
    tmp_path: Path, error: str, calls: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path)
    case.shop.commit(case.files(5))

    def check(run: Run) -> None:
        assert "Traceback" not in run.stderr, run.stderr
        said = outcome_said(run)
        assert (run.returncode == 0) == (said == "success")
        _after_deploy(case, run, "v5", "5")

    report = error_sweep(
        case.deploy_argv("v5"),
        roots=[case.shop.path],
        prepare=case.fresh,
        check=check,
        error=error,
        calls=calls,
    )
    show(report, capsys)


@pytest.mark.parametrize("answer", ["again", "skip", "stop"])
@pytest.mark.parametrize("step", ["pre-deploy", "post-deploy"])
def test_a_script_cut_off_by_a_crash_is_run_again_skipped_or_left_to_a_person(
    tmp_path: Path, step: str, answer: str
) -> None:
    """The deploying process is killed while the script runs; the site's setting decides what the next start does."""
    shop = Shop(tmp_path)
    shop.put({"a": b"1"})
    log = "$DEPLOYKIT_SHARED/log"
    kill = script(f"echo begun >> {log}", "[ -e $DEPLOYKIT_SHARED/armed ] && kill -9 $PPID", "true")
    shop.commit({"a": b"2", f"deploy/{step}": kill, "deploy/pre-link": script(f"echo link >> {log}")})
    (shop.path / "shared" / "armed").touch()
    settings = tmp_path / "site.toml"
    settings.write_text(f'at_crash = {{ "{step}" = "{answer}" }}\n')
    argv = command(
        *("release", "deploy", str(shop.path), "--settings", str(settings), "--json"),
        *("--mirror", str(shop.repo.path), "--ref", "v2", "--request", "r2"),
    )
    cut = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert cut.returncode == -9, cut
    (shop.path / "shared" / "armed").unlink()
    shop.whole()
    assert shop.read("a") == ("1" if step == "pre-deploy" else "2")
    again = subprocess.run(argv, capture_output=True, text=True, check=False)
    said = json.loads(again.stdout)
    lines = (shop.path / "shared" / "log").read_text().split()
    begun = lines.count("begun")
    if answer == "stop":
        assert said["outcome"] == "failure"
        assert "settings say to stop there" in said["detail"]
        assert begun == 1
        assert shop.read("a") == ("1" if step == "pre-deploy" else "2")
    else:
        assert said["outcome"] == "success"
        assert begun == (2 if answer == "again" else 1)
        assert lines.count("link") == 1, "what had ended is not run again"
        assert shop.read("a") == "2"
        skipped = [s["name"] for s in said["steps"] if s["outcome"] == "skipped" and "crash" in s["output"]]
        assert skipped == ([step] if answer == "skip" else [])
    shop.whole()
    final = [o.outcome for o in shop.site.history() if o.request == "r2" and o.outcome != "interrupted"]
    assert len(final) == 1


@pytest.mark.parametrize("step", ["post-deploy", "health-check"])
def test_a_script_that_can_no_longer_be_run_after_a_crash_did_not_pass(tmp_path: Path, step: str) -> None:
    shop = Shop(tmp_path)
    shop.put({"a": b"1"})
    shop.commit({"a": b"2", f"deploy/{step}": script(f"chmod -x deploy/{step}", "kill -9 $PPID", "sleep 5")})
    words = ("release", "deploy", str(shop.path), "--mirror", str(shop.repo.path), "--ref", "v2")
    cut = subprocess.run(command(*words), capture_output=True, text=True, check=False)
    assert cut.returncode == -9, cut
    assert shop.read("a") == "2"
    done = shop.runner.recover()
    assert done is not None
    assert (done.outcome, "it is not executable" in done.detail) == ("rolled-back", True)
    assert shop.read("a") == "1"
    shop.whole()


# -- power -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path)
    yield disk
    disk.unmount()


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("keep", [5, 1], ids=["fresh", "recycled"])
def test_power_cut_at_any_call_of_a_deploy_leaves_a_whole_site_and_converges(
    tmp_path: Path, disk: Disk, keep: int, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path, keep=keep, where=disk.where)
    case.shop.commit(case.files(5, new=b"n" * 10_000))
    disk.save()

    def check(run: Run) -> None:
        disk.cut()
        _after_deploy(case, run, "v5", "5")

    # A cut costs a second or two more than a kill alone; a sample stands for all where no number is given.
    wanted = sample_size()
    report = kill_sweep(
        case.deploy_argv("v5"),
        roots=[case.shop.path],
        prepare=disk.restore,
        check=check,
        sample=40 if wanted is None and "DEPLOYKIT_SWEEP_SAMPLE" not in os.environ else wanted,
    )
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_power_cut_at_any_call_of_a_rollback_leaves_a_whole_site_and_converges(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path, keep=5, where=disk.where)
    shop = case.shop
    disk.save()

    def check(run: Run) -> None:
        disk.cut()
        _after_rollback(case, run)

    report = kill_sweep(case.argv("rollback"), roots=[shop.path], prepare=disk.restore, check=check)
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_power_cut_at_any_call_of_a_discard_leaves_the_live_release_and_converges(
    tmp_path: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    case = Case(tmp_path, keep=5, where=disk.where)
    case.template.mkdir()
    commit = _prepare_fifth(case)
    disk.save()

    def plug_in() -> None:
        case.logged.unlink(missing_ok=True)
        disk.restore()

    def check(run: Run) -> None:
        disk.cut()
        _after_discard(case, run, commit)

    report = kill_sweep(
        case.argv("discard", "v5"),
        roots=[case.shop.path],
        prepare=plug_in,
        check=check,
        sample=sample_size(15),
    )
    show(report, capsys)


def test_power_cut_right_after_success_was_reported_takes_nothing_away(tmp_path: Path, disk: Disk) -> None:
    case = Case(tmp_path, where=disk.where)
    case.shop.commit(case.files(5, big=os.urandom(3_000_000)))
    done = subprocess.run(case.deploy_argv("v5"), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["outcome"] == "success"
    disk.cut()
    assert case.shop.read("a") == "5"
    case.shop.whole()
    case.clean()
    assert case.one_answer("req-v5") == "success"


def test_power_cut_without_durability_does_take_something_away(tmp_path: Path, disk: Disk) -> None:
    """The control: it shows that the cut above is a real one."""
    case = Case(tmp_path, where=disk.where)
    subprocess.run(["sync", "-f", disk.where], check=True)
    case.settings.write_text("keep = 1\ngrace = 0\ndurable = false\n")
    case.shop.commit({"a": b"5"})
    done = subprocess.run(case.deploy_argv("v5"), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["outcome"] == "success"
    disk.cut()
    assert case.shop.site.live_name() != json.loads(done.stdout)["release"] or not case.shop.read("a")
