"""A site whose files belong to one user and that another deploys: what the owner can, and cannot, make root do."""

from __future__ import annotations

import os
import pwd
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest

from deploykit.errors import PreflightRefused, ScriptFailed
from deploykit.git.repository import Repository
from deploykit.release import Allowances, DeployResult, Runner
from deploykit.release.scripts import open_checked
from deploykit.settings import SiteSettings
from deploykit.trees.files import open_directory, put_symlink
from tests.support.needs import needs_root
from tests.support.releasing import Shop, script
from tests.support.strangers import NOBODY, as_nobody, common_directory, in_child_of

pytestmark = needs_root("to give files away, and to act as their owner")

AS_OWNER = SiteSettings(owner="nobody:nogroup", run_as="owner", grace=0)
#: As it was set before: files given away, scripts run as root.
AS_ROOT = attrs.evolve(AS_OWNER, run_as="")


class Crash(BaseException):
    """The end of the process, at a step."""


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """One that the site's owner can reach."""
    with common_directory() as path:
        yield path


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A site whose releases belong to nobody."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(0o777)
    return Shop(tmp_path, AS_OWNER)


def _rewritten(shop: Shop, name: str = "post-deploy") -> Path:
    """Let the owner rewrite a script of the oldest release, and return where that leaves who ran it."""
    mark = shop.base / "out" / "ran-as"
    path = shop.path / "releases" / min(shop.names()) / "deploy" / name
    as_nobody(f"printf '#!/bin/sh\\nid -u >> {mark}\\n' > {path}")
    return mark


def _refused(result: DeployResult) -> None:
    assert result.outcome == "refused", result
    assert "run as root" in result.detail
    assert 'run_as = "owner"' in result.detail


def test_a_rollback_runs_nothing_as_root_that_the_owner_rewrote(shop: Shop) -> None:
    shop.put({"a": b"1", "deploy/post-deploy": script("true")})
    shop.put({"a": b"2", "deploy/post-deploy": script("true")})
    mark = _rewritten(shop)
    assert "modified deploy/post-deploy" in shop.runner.rollback().detail, "it is no longer what was deployed"
    shop.settings = attrs.evolve(AS_ROOT, drift="ignore")
    _refused(shop.runner.rollback())
    assert shop.read("a") == "2", "nothing was switched"
    assert not mark.exists()
    assert shop.runner.rollback_plan().kind == "impossible", "and it is said in advance"
    shop.settings = attrs.evolve(AS_OWNER, drift="ignore")  # the remedy is enough in an emergency
    assert shop.runner.rollback().outcome == "success"
    assert shop.read("a") == "1"
    assert mark.read_text() == f"{NOBODY.pw_uid}\n"


@pytest.mark.parametrize("settings", [AS_ROOT, AS_OWNER])
def test_a_failed_deploy_goes_back_and_runs_nothing_as_root_that_the_owner_rewrote(
    shop: Shop, settings: SiteSettings
) -> None:
    """Going back is not refused: the old release is live again, and what was not run is said."""
    shop.put({"a": b"1", "deploy/post-deploy": script("true")})
    mark = _rewritten(shop)
    shop.settings = attrs.evolve(settings, health_url="http://127.0.0.1:9/", health_timeout=0.1, drift="ignore")
    result = shop.put({"a": b"2"})
    assert result.outcome == "rolled-back", result
    assert shop.read("a") == "1"
    if settings is AS_ROOT:
        assert not mark.exists()
        assert "its post-deploy was not run" in result.detail
        assert 'run_as = "owner"' in result.detail
    else:
        assert mark.read_text() == f"{NOBODY.pw_uid}\n"


@pytest.mark.parametrize("phase", ["deploy", "prepare", "preview"])
def test_scripts_that_the_owner_could_rewrite_are_refused_before_anything_is_touched(shop: Shop, phase: str) -> None:
    """The owner of a directory needs no more than an instant between its making and the script's start."""
    shop.settings = AS_ROOT
    shop.commit({"a": b"1", "deploy/pre-deploy": script("true")})
    with Repository(shop.repo.path) as source:
        if phase == "preview":
            with pytest.raises(PreflightRefused, match="nobody, whom the release belongs to, could rewrite them"):
                shop.runner.preview(source, "refs/tags/v1")
        else:
            _refused(getattr(shop.runner, phase)(source, "refs/tags/v1"))
    assert not shop.path.exists()


def test_a_prepared_release_is_not_put_live_with_scripts_the_owner_could_rewrite(shop: Shop) -> None:
    shop.put({"a": b"1"})
    shop.commit({"a": b"2", "deploy/health-check": script("true")})
    with Repository(shop.repo.path) as source:
        assert shop.runner.prepare(source, "refs/tags/v2").outcome == "success"
    shop.settings = AS_ROOT
    _refused(shop.runner.activate())
    assert shop.read("a") == "1"


def test_a_release_that_a_rollback_writes_anew_is_refused_as_well(shop: Shop) -> None:
    shop.settings = attrs.evolve(AS_OWNER, keep=1, recycle=False)
    for n in b"123":
        shop.put({"a": bytes([n]), "deploy/post-deploy": script("true")})
    assert len(shop.names()) == 2
    shop.settings = AS_ROOT
    with Repository(shop.repo.path) as source:
        _refused(shop.runner.rollback("v1", source=source))
    assert shop.read("a") == "3"


def test_recovery_runs_nothing_as_root_that_the_owner_rewrote_meanwhile(shop: Shop) -> None:
    shop.put({"a": b"1"})
    shop.commit({"a": b"2", "deploy/post-deploy": script("true")})

    def crash(step: str, record: object) -> None:
        if step == "post-deploy" and record is None:
            raise Crash

    with Repository(shop.repo.path) as source, pytest.raises(Crash):
        Runner(shop.site, on_step=crash).deploy(source, "refs/tags/v2")
    assert shop.read("a") == "2", "cut off after the switch"
    mark = shop.base / "out" / "ran-as"
    as_nobody(f"printf '#!/bin/sh\\nid -u > {mark}\\n' > {shop.path}/current/deploy/post-deploy")
    shop.settings = AS_ROOT
    done = shop.runner.recover()
    assert done is not None
    assert done.outcome == "rolled-back"
    assert "others can change" in done.detail
    assert shop.read("a") == "1"
    assert not mark.exists()


def test_scripts_run_as_the_owner_with_the_owners_group(shop: Shop) -> None:
    result = shop.put({"deploy/pre-deploy": script("id -un; id -gn")})
    assert result.outcome == "success", result
    assert next(s.output for s in result.steps if s.name == "pre-deploy") == "nobody\nnogroup\n"


def test_another_user_than_the_owner_is_no_better_than_root(shop: Shop) -> None:
    shop.settings = attrs.evolve(AS_OWNER, run_as="daemon")
    result = shop.put({"deploy/pre-deploy": script("true")})
    assert result.outcome == "refused"
    assert "would run as daemon, and nobody, whom the release belongs to, could rewrite them" in result.detail


def test_a_site_without_scripts_or_with_scripts_of_roots_own_needs_no_other_user(shop: Shop) -> None:
    shop.settings = AS_ROOT
    assert shop.put({"a": b"1"}).outcome == "success"
    outside = shop.base / "scripts"
    outside.mkdir()
    (outside / "post-deploy").write_text("#!/bin/sh\nid -u\n")
    (outside / "post-deploy").chmod(0o755)
    shop.settings = attrs.evolve(AS_ROOT, scripts=str(outside))
    result = shop.put({"a": b"2", "deploy/post-deploy": script("exit 1")})
    assert result.outcome == "success", result
    assert next(s.output for s in result.steps if s.name == "post-deploy") == "0\n"
    outside.chmod(0o1777)  # others cannot take root's script away, and can add the next one
    said = shop.runner.rollback()
    assert said.outcome == "refused"
    assert f"others can change {outside}: everybody can write it (chmod o-w {outside})" in said.detail
    outside.chmod(0o755)
    assert shop.runner.rollback().outcome == "success"


def test_a_umask_that_lets_others_rewrite_the_scripts_is_refused_before_anything_is_touched(shop: Shop) -> None:
    for umask, gid in ((0o020, "daemon"), (0o002, "nogroup")):
        shop.settings = SiteSettings(owner=f"root:{gid}", umask=umask)
        result = shop.put({"deploy/pre-deploy": script("true")})
        assert result.outcome == "refused"
        assert f"others could rewrite them by umask {umask:03o} (set umask = 0o022)" in result.detail
    shop.settings = SiteSettings(owner="root:root", umask=0o002)
    assert shop.put({"deploy/pre-deploy": script("true")}).outcome == "success"


def test_what_runs_after_the_switch_is_checked_on_disk_before_it(shop: Shop) -> None:
    """No setting shows the group that a setgid directory gives to what is made in it."""
    shop.settings = SiteSettings(umask=0o002)
    shop.put({"a": b"1"})
    building = shop.path / ".deploykit" / "building"
    os.chown(building, 0, NOBODY.pw_gid)
    building.chmod(0o2755)
    switched: list[str] = []
    shop.commit({"a": b"2", "deploy/post-deploy": script("true")})
    with Repository(shop.repo.path) as source:
        result = Runner(shop.site, on_step=lambda step, _: switched.append(step)).deploy(source, "refs/tags/v2")
    assert result.outcome == "failure"
    assert "the group nogroup can write it" in result.detail
    assert "activate" not in switched
    assert shop.read("a") == "1"


def test_a_script_behind_a_link_to_shared_is_as_safe_as_the_way_there(shop: Shop) -> None:
    shop.settings = SiteSettings(shared=("deploy/",), health_timeout=0.1)
    assert shop.put({"a": b"1", "deploy/post-deploy": script("true")}).outcome == "success"
    mark = shop.base / "out" / "ran-as"
    os.chown(shop.path / "shared", NOBODY.pw_uid, -1)  # as a site's uploads often are
    as_nobody(
        f"cd {shop.path}/shared && mv deploy away && cp -r away deploy"
        f" && printf '#!/bin/sh\\nid -u > {mark}\\n' > deploy/post-deploy"
    )
    result = shop.put({"a": b"2", "deploy/post-deploy": script("true")})
    assert result.outcome == "failure", result
    assert f"others can change {shop.path}/shared: it belongs to uid" in result.detail
    assert shop.read("a") == "1"
    assert not mark.exists()


# -- interpreters ------------------------------------------------------------------------------------------------------


def test_an_interpreter_that_others_can_change_is_a_script_that_others_can_change(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / "python").symlink_to("/bin/sh")
    path = tmp_path / "s"
    trusted = frozenset({0})
    for line in (f"#!{tmp_path}/venv/python -E", f"#! {tmp_path}/venv/python", "#!venv/python"):
        path.write_text(f"{line}\n")
        path.chmod(0o755)
        os.close(open_checked(path, trusted, tmp_path))
        os.chown(tmp_path / "venv", NOBODY.pw_uid, -1)
        with pytest.raises(ScriptFailed, match=f"others can change {tmp_path}/venv: it belongs to uid"):
            open_checked(path, trusted, tmp_path)
        os.chown(tmp_path / "venv", 0, -1)


# -- the site's own directories ----------------------------------------------------------------------------------------


def _preview(shop: Shop) -> object:
    with Repository(shop.repo.path) as source:
        return shop.runner.preview(source, "refs/tags/v1", allow=Allowances(older=True))


OPERATIONS: dict[str, Callable[[Shop], Any]] = {
    "recover": lambda shop: shop.runner.recover(),
    "preview": _preview,
    "pin": lambda shop: shop.runner.pin("1"),
    "deploy": lambda shop: shop.deploy("v1", again=True),
    "rollback": lambda shop: shop.runner.rollback(),
    "activate": lambda shop: shop.runner.activate(),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_whoever_owns_the_sites_directory_cannot_send_root_elsewhere(shop: Shop, operation: str) -> None:
    """They can put a link in the place of `.deploykit`: root would clear and write wherever it leads."""
    shop.put({"a": b"1"})
    shop.put({"a": b"2"})
    victim = shop.base / "victim"
    for name in ("trash", "building", "history", "manifests"):
        (victim / name / "precious").mkdir(parents=True)
    (victim / "state.json").write_bytes((shop.path / ".deploykit" / "state.json").read_bytes())
    os.chown(shop.path, NOBODY.pw_uid, NOBODY.pw_gid)
    as_nobody(f"cd {shop.path} && mv .deploykit away && ln -s {victim} .deploykit")
    before = sorted(victim.rglob("*"))
    try:
        result = OPERATIONS[operation](shop)
    except PreflightRefused as error:
        said = str(error)
    else:
        assert isinstance(result, DeployResult)
        assert result.outcome == "refused"
        said = result.detail
    assert f"others can change {shop.path}: it belongs to uid {NOBODY.pw_uid} (nobody) (chown root {shop.path})" in said
    assert sorted(victim.rglob("*")) == before


@pytest.mark.parametrize(
    ("uid", "gid", "mode", "remedy"),
    [(NOBODY.pw_uid, 0, 0o755, "chown root"), (0, NOBODY.pw_gid, 0o2775, "chmod g-w"), (0, 0, 0o757, "chmod o-w")],
)
def test_root_uses_no_site_on_whose_way_others_can_swap_a_directory(
    tmp_path: Path, uid: int, gid: int, mode: int, remedy: str
) -> None:
    above = tmp_path / "srv"
    above.mkdir()
    shop = Shop(above)
    os.chown(above, uid, gid)
    above.chmod(mode)
    result = shop.put({"a": b"1"})
    assert result.outcome == "refused"
    assert f"({remedy} {above})" in result.detail
    assert not shop.path.exists()
    os.chown(above, 0, 0)
    above.chmod(0o2775)  # umask 002: root's own group
    assert shop.put({"a": b"2"}).outcome == "success"


def test_a_link_swapped_for_another_file_while_it_is_made_is_not_given_to_the_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The directory it is made in is the owner's already; a hard link is enough where the kernel allows them."""
    secret = tmp_path / "shadow"
    secret.write_text("root's")
    made = os.symlink

    def swap(target: str, name: str, *, dir_fd: int) -> None:
        made(target, name, dir_fd=dir_fd)
        os.unlink(name, dir_fd=dir_fd)
        os.link(secret, name, dst_dir_fd=dir_fd)

    fd = open_directory(tmp_path)
    try:
        put_symlink("good", fd, b"shadow", owner=(NOBODY.pw_uid, NOBODY.pw_gid))
        monkeypatch.setattr(os, "symlink", swap)
        with pytest.raises(OSError, match="it was swapped while it was made"):
            put_symlink("link", fd, b"x", owner=(NOBODY.pw_uid, NOBODY.pw_gid))
    finally:
        os.close(fd)
    assert secret.stat().st_uid == 0
    assert (tmp_path / "good").lstat().st_uid == NOBODY.pw_uid


@pytest.mark.parametrize("recycle", [True, False])
def test_a_tree_of_any_depth_is_cleared_away_and_blocks_no_deploy(shop: Shop, recycle: bool) -> None:
    """The owner may nest directories deeper than any stack, or a cache gone wild may."""
    shop.settings = attrs.evolve(AS_OWNER, keep=1, recycle=recycle)
    shop.put({"a": b"1"})
    deep = 1200
    fd = os.open(shop.path / "current" / ".", os.O_RDONLY)
    for _ in range(deep):
        os.mkdir("x", dir_fd=fd)
        above, fd = fd, os.open("x", os.O_RDONLY, dir_fd=fd)
        os.close(above)
    os.close(fd)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(4 * deep, hard), hard))
    try:
        for n in b"2345":
            assert shop.put({"a": bytes([n])}).outcome == "success"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    private = shop.path / ".deploykit"
    assert not [*(private / "building").iterdir(), *(private / "trash").iterdir()]
    assert not [p for p in (shop.path / "releases").iterdir() if (p / "x").exists()]


# -- without root ------------------------------------------------------------------------------------------------------


def _alone(base: Path, settings: SiteSettings) -> str:
    """Deploy twice and go back, and return the outcomes and what the scripts said."""
    shop = Shop(base, settings)
    files = {name: script("id -un") for name in ("deploy/pre-deploy", "deploy/post-deploy", "deploy/health-check")}
    results = [shop.put({"a": b"1", **files}), shop.put({"a": b"2", **files}), shop.runner.rollback()]
    said = {step.output for r in results for step in r.steps if step.name in ("pre-deploy", "post-deploy")}
    return " ".join([*(r.outcome for r in results), *(said if results[0].outcome == "success" else [str(results[0])])])


@pytest.mark.parametrize(
    "named", [{}, {"owner": "daemon"}, {"run_as": "daemon"}, {"owner": "daemon", "run_as": "owner"}]
)
@pytest.mark.parametrize("umask", [0o022, 0o002])
def test_a_site_of_the_deploying_users_own_works_as_ever(tmp_path: Path, umask: int, named: dict[str, str]) -> None:
    """With `umask 002` too, where the group is the user's own."""
    who = pwd.getpwnam("daemon")
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, who.pw_uid, who.pw_gid)
    home.chmod(0o2775)
    settings = SiteSettings(**named)  # type: ignore[arg-type]
    assert in_child_of("daemon", lambda: _alone(home, settings), umask=umask) == "success success success daemon\n"


def test_a_group_that_others_are_in_can_rewrite_nothing_that_is_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    os.chown(home, NOBODY.pw_uid, NOBODY.pw_gid)
    said = in_child_of("nobody", lambda: _alone(home, SiteSettings()), umask=0o002)
    assert said.startswith("refused refused refused")
    assert "by umask 002 (set umask = 0o022)" in said
    assert in_child_of("nobody", lambda: _alone(home / "b", SiteSettings(umask=0o022)), umask=0o022).startswith(
        "success success success nobody"
    )


def test_a_refusal_proposes_to_run_as_the_owner_only_where_there_is_one(shop: Shop) -> None:
    shop.settings = SiteSettings(grace=0)
    for n in (b"1", b"2"):
        shop.put({"a": n, "deploy/post-deploy": script("true")}).check()
    os.chown(shop.path / "releases" / min(shop.names()) / "deploy" / "post-deploy", NOBODY.pw_uid, NOBODY.pw_gid)
    result = shop.runner.rollback(allow=Allowances(drift=True))
    assert result.outcome == "refused"
    assert 'run_as = "nobody"' in result.detail
    assert '"owner"' not in result.detail
