"""A dry run touches nothing and says what a deploy would do."""

from __future__ import annotations

from deploykit.git.repository import Repository
from deploykit.settings import SiteSettings
from tests.support.gitrepo import GITLINK, contents
from tests.support.releasing import Shop, script


def test_a_dry_run_touches_nothing_and_says_what_would_change(shop: Shop) -> None:
    shop.commit({"a": b"1", "d/x": b"1", "deploy/pre-link": script("true")})
    with Repository(shop.repo.path) as source:
        found = shop.runner.preview(source, "v1")
    assert not shop.path.exists()
    assert found.added == ("a", "d/x", "deploy/pre-link")
    assert (found.build, found.previous) == ("fresh", "")
    assert "pre-link" in found.steps
    assert "pre-deploy" not in found.steps
    shop.deploy("v1")
    before = contents(shop.path)
    shop.commit({"a": b"2", "b": b"2"})
    with Repository(shop.repo.path) as source:
        found = shop.runner.preview(source, "v2")
        assert shop.runner.preview(source, "v1").nothing_to_do
    assert (found.added, found.changed, found.removed) == (("b",), ("a",), ("d/", "deploy/"))
    assert contents(shop.path) == before


def test_a_dry_run_says_what_would_change_under_other_settings_and_without_the_old_tree(shop: Shop) -> None:
    shop.settings = SiteSettings(shared=("d/shared/",), submodules="skip")
    shop.put({"a": b"1", "d/x": b"1", "d/y": b"1", "d/shared/s": b"1", "sub": (GITLINK, b"1" * 40)})
    last = shop.commit({"a": b"1", "d/x": b"1", "d/y": b"2", "sub": (GITLINK, b"2" * 40)})
    shop.settings = SiteSettings(subdirectory="d", shared=("d/shared/",), submodules="skip")
    with Repository(shop.repo.path) as source:
        found = shop.runner.preview(source, "v2")
    assert (found.added, found.changed, found.removed) == (("x", "y"), (), ("a", "d/x", "d/y"))
    other = Shop(shop.base / "other", SiteSettings(shared=("d/shared/",), submodules="skip"))
    other.path = shop.path
    other.commit({"a": b"1", "d/x": b"1", "d/y": b"2"})
    with Repository(other.repo.path) as source:
        found = other.runner.preview(source, "v1")
    assert (found.added, found.changed, found.removed) == ((), ("d/y",), ())
    assert (found.warning, last != found.commit) == ("", True)


def test_a_dry_run_says_what_again_prepare_and_a_prepared_release_come_to(shop: Shop) -> None:
    commit = shop.commit({"a": b"1"})
    shop.deploy("v1")
    shop.commit({"a": b"2"})
    with Repository(shop.repo.path) as source:
        runner = shop.runner
        again = runner.preview(source, "v1", again=True)
        assert (again.nothing_to_do, again.commit, again.steps[-1]) == (False, commit, "activate")
        assert shop.deploy("v1", again=True).release == again.release
        prepare = runner.preview(source, "v2", again=True, activate=False)
        assert prepare.steps[-1] == "finalize"
        assert runner.prepare(source, "v2").release == prepare.release
        ready = runner.preview(source, "v2")
        assert (ready.release, ready.build, ready.steps) == (prepare.release, prepare.release, ("activate",))
        assert runner.deploy(source, "v2").release == ready.release
