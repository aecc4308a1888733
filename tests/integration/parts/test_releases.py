"""Sites of several repositories: each file as git writes it, switched and rolled back as one, recycled part by part."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path

import attrs
import pytest

from deploykit.composition import composition_id
from deploykit.git.repository import Repository
from deploykit.mirror.submodules import ResolvingSource, SubmoduleRules, SubmoduleSource
from deploykit.names import RepoName
from deploykit.settings import SiteSettings
from tests.support.disks import small_disk
from tests.support.needs import needs_root
from tests.support.parts import OURS, Assembly, export_of, wanted
from tests.support.submodules import Worked, files_of

PLACES = {"app": "web/app", "theme": "web/theme", "docs": "docs"}


@pytest.fixture
def made(tmp_path: Path) -> Assembly:
    return assembled(tmp_path)


def assembled(base: Path, where: Path | None = None, settings: SiteSettings | None = None) -> Assembly:
    """Three repositories, each with a first version."""
    made = Assembly(base, PLACES, settings, where=where)
    made.repos[RepoName("app")].push({"index.php": b"<?php 1", "bin/run*": b"#!/bin/sh\n", "conf": b"c"}, tag="v1")
    made.repos[RepoName("theme")].push({"style.css": b"red", "img/a.png": b"\x89PNG" * 400, "conf": b"t"}, tag="t1")
    made.repos[RepoName("docs")].push({"index.md": b"# 1", "latest@": b"index.md"}, tag="d1")
    return made


def push(made: Assembly, repo: str, tag: str, **files: bytes) -> str:
    return made.repos[RepoName(repo)].push(
        {name.replace("_", "."): content for name, content in files.items()}, tag=tag
    )


def test_a_release_has_each_repository_in_its_place_as_git_writes_it(made: Assembly) -> None:
    first = made.deploy(app="v1", theme="t1", docs="refs/heads/main")
    assert first.outcome == "success", first
    made.is_as_archived(app="v1", theme="t1", docs="main")
    live = made.live()
    assert (live.ref, live.tag) == ("", "v1+main+t1")
    assert live.commit == composition_id({part.repo: part for part in live.parts})
    assert [(part.repo, part.path, part.ref) for part in live.parts] == [
        ("app", "web/app", "refs/tags/v1"),
        ("docs", "docs", "refs/heads/main"),
        ("theme", "web/theme", "refs/tags/t1"),
    ]
    assert made.read("TAG") == "Tag: v1+main+t1\n"
    assert made.read(".deploykit/REVISION") == f"{live.commit}\n"
    lines = [line.split(" ") for line in made.read(".deploykit/PARTS").splitlines()]
    assert lines == [[part.repo, part.ref, part.commit, part.path] for part in live.parts]


@needs_root("to mount a tmpfs")
def test_the_same_on_a_tmpfs(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "size=64m,mode=755") as disk:
        made = assembled(tmp_path, disk)
        assert made.deploy(app="v1", theme="t1", docs="d1").outcome == "success"
        made.is_as_archived(app="v1", theme="t1", docs="d1")
        push(made, "theme", "t2", style_css=b"blue")
        assert made.deploy(theme="t2").outcome == "success"
        made.is_as_archived(app="v1", theme="t2", docs="d1")


def test_a_part_that_is_not_named_stays_as_it_is_live(made: Assembly) -> None:
    made.deploy(app="v1", theme="t1", docs="main")
    push(made, "docs", "d2", index_md=b"# 2")  # main moved
    push(made, "app", "v2", index_php=b"<?php 2")
    assert made.deploy(app="v2").outcome == "success"
    made.is_as_archived(app="v2", theme="t1", docs="d1")
    assert made.live().tag == "v2+main+t1"


def test_the_same_parts_are_live_already_until_their_places_change(made: Assembly) -> None:
    made.deploy(app="v1", theme="t1", docs="d1")
    again = made.deploy(app="v1")
    assert (again.outcome, again.detail) == ("success", "v1+d1+t1 is live already")
    assert len(made.site.releases()) == 1
    before = made.live()
    made.places[RepoName("theme")] = "theme"
    assert made.preview().nothing_to_do is False
    assert made.deploy().outcome == "success"
    made.is_as_archived(app="v1", theme="t1", docs="d1")
    assert made.live().commit == before.commit
    assert made.live().version != before.version
    assert not (made.path / "current" / "web" / "theme").exists()


def test_all_parts_go_back_as_one(made: Assembly) -> None:
    made.deploy(app="v1", theme="t1", docs="d1")
    push(made, "app", "v2", index_php=b"<?php 2")
    push(made, "theme", "t2", style_css=b"blue")
    made.deploy(app="v2", theme="t2")
    made.is_as_archived(app="v2", theme="t2", docs="d1")
    assert made.rollback().outcome == "success"
    made.is_as_archived(app="v1", theme="t1", docs="d1")
    assert made.deploy(app="v2", theme="t2").outcome == "success"
    assert made.rollback("v1+d1+t1").outcome == "success"
    made.is_as_archived(app="v1", theme="t1", docs="d1")


def test_a_release_of_these_parts_is_named_by_their_id(made: Assembly) -> None:
    """As commands do: the id is the whole name, of the newest good release, and live already is a success."""
    made.deploy(app="v1", theme="t1", docs="d1")
    first = made.live()
    push(made, "app", "v2", index_php=b"<?php 2")
    made.deploy(app="v2")
    assert made.rollback(first.commit).outcome == "success"
    assert made.live().name == first.name
    assert made.rollback(first.commit).detail == f"{first.name} is live already"
    assert made.rollback("0" * 40).outcome == "refused"


def test_a_lost_release_is_made_again_with_its_own_parts_and_places(made: Assembly) -> None:
    made.deploy(app="v1", theme="t1", docs="d1")
    shutil.rmtree(made.site.release_path(made.live().name))
    old = dict(made.places)
    push(made, "app", "v2", index_php=b"<?php 2")
    made.places[RepoName("theme")] = "theme"
    assert made.deploy(app="v2", theme="t1", docs="d1").outcome == "success"
    assert made.rollback().outcome == "refused"
    assert made.rollback(rebuild=True).outcome == "success"
    made.places = old
    made.is_as_archived(app="v1", theme="t1", docs="d1")


def test_a_recycled_release_writes_only_what_changed_in_one_part(tmp_path: Path) -> None:
    made = assembled(tmp_path, settings=SiteSettings(grace=0, keep=1))
    made.deploy(app="v1", theme="t1", docs="d1")
    for number in range(2, 6):
        push(made, "theme", f"t{number}", style_css=b"%d" % number)
        result = made.deploy(theme=f"t{number}")
        assert result.outcome == "success", result
    assert "recycled: 1 files written, 0 removed" in export_of(result).output
    made.is_as_archived(app="v1", theme="t5", docs="d1")
    # Another part moves: the spare is two versions of the theme behind.
    push(made, "app", "v2", index_php=b"<?php 2", conf=b"new")
    result = made.deploy(app="v2")
    assert "recycled: 3 files written, 0 removed" in export_of(result).output
    made.is_as_archived(app="v2", theme="t5", docs="d1")


def test_attributes_of_one_part_do_not_reach_another(tmp_path: Path) -> None:
    made = assembled(tmp_path, settings=SiteSettings(grace=0, export_attributes=True))
    app, theme = made.repos[RepoName("app")], made.repos[RepoName("theme")]
    app.push(
        {
            ".gitattributes": b"[attr]gone export-ignore\n*.secret gone\nversion export-subst\n*.md gone\n",
            "x.secret": b"s",
            "version": b"$Format:%H %s$\n",
        },
        tag="v2",
    )
    theme.push({"x.secret": b"kept", "version": b"$Format:%H$\n", ".gitattributes": b"x.secret gone\n"}, tag="t2")
    assert made.deploy(app="v2", theme="t2", docs="d1").outcome == "success"
    made.is_as_archived(app="v2", theme="t2", docs="d1")
    assert made.read("web/theme/x.secret") == "kept"
    assert made.read("web/theme/version") == "$Format:%H$\n"
    assert not (made.path / "current" / "web/app/x.secret").exists()
    assert (made.path / "current" / "docs/index.md").exists()


def test_a_part_may_have_submodules(tmp_path: Path) -> None:
    lib = Worked(tmp_path, "lib")
    lib.push({"lib.py": b"1", ".gitattributes": b"*.py text\n"})

    class WithSubmodules(Assembly):
        def opened(self, repo: RepoName, stack: ExitStack) -> ResolvingSource:
            base, other = super().opened(repo, stack), stack.enter_context(Repository(lib.origin))
            rules = SubmoduleRules(repositories={lib.url: RepoName("lib")}, open=lambda _: other)
            return SubmoduleSource(base, self.repos[repo].url, rules)

    made = WithSubmodules(
        tmp_path, {"app": "app", "theme": "theme"}, SiteSettings(grace=0, keep=1, submodules="mirror")
    )
    app, theme = made.repos.values()
    app.add(lib, "vendor/lib")
    app.push({"index.php": b"1"}, tag="v1")
    theme.add(lib, "lib")
    theme.push({}, tag="v1")
    assert made.deploy(app="v1", theme="v1").outcome == "success"
    for number in range(2, 5):
        app.follow("vendor/lib", lib.push({"lib.py": b"%d" % number}))
        app.push({}, tag=f"v{number}")
        result = made.deploy(app=f"v{number}")
        assert result.outcome == "success", result
    assert "recycled: 1 files written" in export_of(result).output
    expected = {f"app/{path}": file for path, file in app.cloned("v4", tmp_path / "app-4").items()}
    expected |= {f"theme/{path}": file for path, file in theme.cloned("v1", tmp_path / "theme-1").items()}
    assert files_of(made.path / "current", but=OURS) == expected
    assert made.read("app/vendor/lib/lib.py") == "4"
    lost = lib.push({"lib.py": b"lost"}, branch="wip")
    app.follow("vendor/lib", lost)
    app.push({}, tag="v5")
    lib.git("push", "-q", "origin", ":refs/heads/wip")
    assert f"app: submodules are missing: vendor/lib ({lib.url})" in made.deploy(app="v5").detail


# -- what is refused ---------------------------------------------------------------------------------------------------


def test_an_older_commit_of_one_part_is_refused_by_name(made: Assembly) -> None:
    push(made, "app", "v2", index_php=b"<?php 2")
    push(made, "theme", "t2", style_css=b"blue")
    assert made.deploy(app="v2", theme="t1", docs="d1").outcome == "success"
    result = made.deploy(app="v1", theme="t2")
    assert result.outcome == "refused"
    assert result.exit_code == 3
    assert result.detail.startswith("app: ")
    assert "is older than" in result.detail
    assert "theme" not in result.detail
    made.is_as_archived(app="v2", theme="t1", docs="d1")
    made.settings = attrs.evolve(made.settings, older="allow")
    assert made.deploy(app="v1", theme="t2").outcome == "success"


def test_what_is_asked_for_is_what_the_site_has(made: Assembly) -> None:
    result = made.deploy(app="v1", theme="t1")
    assert "nothing of docs is live, and nothing is asked for" in result.detail
    result = made.deploy(app="v1", theme="t1", docs="d1", other="x")
    assert "the site has no part other" in result.detail
    assert "its parts are app, docs, theme" in result.detail
    result = made.deploy(app="v9", theme="t1", docs="d1")
    assert result.detail.startswith("app: there is no ref 'v9'")
    result = made.by(lambda source: made.runner.deploy(source, "refs/tags/v1"))
    assert "refs/tags/v1 is of one repository" in result.detail
    commit = made.repos[RepoName("app")].git("rev-parse", "v1")
    assert "is no tag or branch" in made.deploy(app=commit, theme="t1", docs="d1").detail
    assert not made.path.exists(), "nothing was touched"


def test_a_ref_that_moved_and_other_parts_than_decided_on_are_refused(made: Assembly) -> None:
    old = made.repos[RepoName("app")].git("rev-parse", "v1")
    push(made, "app", "v2", index_php=b"<?php 2")
    result = made.deploy(app=f"main@{old}", theme="t1", docs="d1")
    assert result.outcome == "refused"
    assert result.detail.startswith("app: main points at")
    assert made.deploy(app=f"v1@{old}", theme="t1", docs="d1").outcome == "success"
    decided = made.live().commit
    assert made.deploy(decided, app="v1").outcome == "success"
    result = made.deploy(decided, app="v2")
    assert result.outcome == "refused"
    assert f"and not {decided[:12]} that was asked for" in result.detail
    made.is_as_archived(app="v1", theme="t1", docs="d1")


def test_ids_of_two_kinds_are_refused(tmp_path: Path) -> None:
    made = assembled(tmp_path)
    docs = made.repos[RepoName("docs")]
    shutil.rmtree(docs.origin)
    shutil.rmtree(docs.work / ".git")
    docs.git("init", "-q", "--object-format=sha256", str(docs.work))
    docs.git("init", "-q", "--bare", "--object-format=sha256", str(docs.origin))
    docs.git("remote", "add", "origin", str(docs.origin))
    docs.push({}, tag="s1")
    result = made.deploy(app="v1", theme="t1", docs="s1")
    assert result.outcome == "refused"
    assert "docs: docs has ids of sha256" in result.detail, result
    assert not made.path.exists()


def test_parts_are_added_and_removed_with_the_settings(made: Assembly) -> None:
    docs = made.places.pop(RepoName("docs"))
    assert made.deploy(app="v1", theme="t1").outcome == "success"
    made.places[RepoName("docs")] = docs
    assert "nothing of docs is live" in made.deploy(app="v1").detail
    assert made.deploy(docs="d1").outcome == "success"
    made.is_as_archived(app="v1", theme="t1", docs="d1")
    del made.places[RepoName("theme")]
    assert made.deploy().outcome == "success"
    made.is_as_archived(app="v1", docs="d1")


# -- a dry run ---------------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_becomes_of_each_part(made: Assembly) -> None:
    first = made.preview(app="v1", theme="t1", docs="d1")
    assert [(part.repo, part.live_commit, part.added) for part in first.parts] == [
        ("app", "", 3),
        ("docs", "", 2),
        ("theme", "", 3),
    ]
    made.deploy(app="v1", theme="t1", docs="d1")
    commit = push(made, "app", "v2", index_php=b"<?php 2", new=b"n")
    del made.places[RepoName("docs")]
    found = made.preview(app="v2")
    assert found.tag == "v2+t1"
    assert (found.added, found.changed) == (("web/app/new",), ("web/app/index.php",))
    app, docs, theme = found.parts
    assert (app.repo, app.ref, app.commit, app.live_ref) == ("app", "refs/tags/v2", commit, "refs/tags/v1")
    assert (app.added, app.changed, app.removed) == (1, 1, 0)
    assert (docs.repo, docs.ref, docs.live_ref) == ("docs", "", "refs/tags/d1")
    assert (theme.commit, theme.added, theme.changed, theme.removed) == (theme.live_commit, 0, 0, 0)


# -- scripts, shared files ---------------------------------------------------------------------------------------------


def test_scripts_of_a_part_are_told_of_all_parts(made: Assembly) -> None:
    made.settings = attrs.evolve(made.settings, scripts="web/app/deploy", shared=("web/app/uploads/",))
    script = b'#!/bin/sh\necho "$DEPLOYKIT_TAG $DEPLOYKIT_PARTS" > "$DEPLOYKIT_SHARED/told"\n'
    made.repos[RepoName("app")].push({"deploy/post-deploy*": script, "uploads/a": b"seed"}, tag="v2")
    assert made.deploy(app="v2", theme="t1", docs="d1").outcome == "success"
    tag, _, parts = (made.path / "shared" / "told").read_text().partition(" ")
    assert tag == "v2+d1+t1"
    assert [(part["repo"], part["path"], part["ref"]) for part in json.loads(parts)] == [
        ("app", "web/app", "refs/tags/v2"),
        ("docs", "docs", "refs/tags/d1"),
        ("theme", "web/theme", "refs/tags/t1"),
    ]
    assert (made.path / "current" / "web/app/uploads").is_symlink()
    assert (made.path / "shared/web/app/uploads/a").read_text() == "seed"


def test_a_release_that_fails_after_the_switch_leaves_all_parts_as_they_were(made: Assembly) -> None:
    made.settings = attrs.evolve(made.settings, scripts="web/app/deploy")
    made.deploy(app="v1", theme="t1", docs="d1")
    made.repos[RepoName("app")].push({"deploy/post-deploy*": b"#!/bin/sh\nexit 3\n"}, tag="v2")
    push(made, "theme", "t2", style_css=b"blue")
    assert made.deploy(app="v2", theme="t2").outcome == "rolled-back"
    made.is_as_archived(app="v1", theme="t1", docs="d1")
    assert made.deploy(theme="t2").outcome == "success"
    assert made.live().tag == "v1+d1+t2"


def test_what_was_prepared_is_activated_pinned_and_discarded_as_one(made: Assembly) -> None:
    made.deploy(app="v1", theme="t1", docs="d1")
    push(made, "app", "v2", index_php=b"<?php 2")
    prepared = made.by(lambda source: made.runner.prepare(source, parts=wanted({"app": "v2"})))
    assert prepared.outcome == "success"
    made.is_as_archived(app="v1", theme="t1", docs="d1")
    waiting = made.site.releases()[-1]
    assert made.runner.activate(waiting.commit).outcome == "success"
    made.is_as_archived(app="v2", theme="t1", docs="d1")
    push(made, "theme", "t2", style_css=b"blue")
    made.by(lambda source: made.runner.prepare(source, parts=wanted({"theme": "t2"})))
    waiting = made.site.releases()[-1]
    assert made.runner.discard("", "1" * 40).outcome == "success"
    assert made.site.has(waiting.name)
    assert made.runner.discard("", waiting.commit).outcome == "success"
    assert not made.site.has(waiting.name)
    assert made.runner.pin("1").pinned
