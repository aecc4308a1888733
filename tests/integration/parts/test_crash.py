"""Deploys of several repositories, killed at any call or with the power cut there: one version of all, old or new.

As tests/integration/release/test_crash.py does it for one repository: the public command, killed by strace. Each
release is compared with what git itself writes of that version.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from copy import copy
from functools import partial
from pathlib import Path

import attrs
import pytest

from deploykit.git.repository import Repository
from deploykit.mirror.submodules import SubmoduleRules, SubmoduleSource
from deploykit.names import RepoName
from deploykit.release import DeployResult, Runner, Site
from deploykit.settings import SiteSettings
from tests.support.aftercut import answer_to, assert_nothing_left, assert_whole, outcome_said, show
from tests.support.cli import command
from tests.support.killsweep import Run, kill_sweep, record, sample_size
from tests.support.parts import OURS, Assembly, export_of, wanted
from tests.support.power import Disk
from tests.support.submodules import Content, Worked, files_of

REQUEST = "req-5"
SETTINGS = SiteSettings(keep=1, grace=0)
Files = Mapping[str, tuple[str, bytes]]


@attrs.frozen(kw_only=True)
class Case:
    """A site with version 4 live and a spare release, of which version 5 changes two repositories.

    Args:
        expected: the files of versions 4 and 5, as git writes them.
        words: of the command that deploys version 5.
        deploy: does the same in this process, for a request.
    """

    site: Site
    expected: Mapping[int, Files]
    words: tuple[str, ...]
    deploy: Callable[[str], DeployResult]

    @property
    def argv(self) -> list[str]:
        return command("release", "deploy", str(self.site.path), "--json", "--request", REQUEST, *self.words)

    @property
    def runner(self) -> Runner:
        """A runner with nothing remembered."""
        return Runner(Site(self.site.path, self.site.settings), node="n")

    def shown(self) -> int:
        """Return which version is live, whole; 0 for anything else."""
        files = files_of(self.site.path / "current", but=OURS)
        return next((number for number, expected in self.expected.items() if files == expected), 0)

    def check(self, run: Run) -> None:
        """What must hold whatever happened at whichever call of the deploy of version 5."""
        said = outcome_said(run)
        assert_whole(self.runner.site)
        assert self.shown() in ((5,) if said == "success" else (4, 5))
        again = self.deploy(REQUEST)
        assert (again.outcome, self.shown()) == ("success", 5), again
        assert_whole(self.runner.site)
        assert_nothing_left(self.runner)
        assert answer_to(self.runner.site, REQUEST) == "success"
        assert self.runner.rollback().outcome == "success"
        assert self.shown() == 4
        assert_whole(self.runner.site)


def changes(number: int) -> dict[str, Content]:
    """What a repository's version changes: a file, a file that comes and one that goes."""
    return {"version": b"%d" % number, f"d/only-{number}": b"x", f"d/only-{number - 1}": None}


class Parts:
    """Three repositories, of which two have five versions. The third has two: the second holds more that stays."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.made = Assembly(base, {"app": "web/app", "theme": "web/theme", "docs": "docs"}, SETTINGS)
        app, theme, docs = self.made.repos.values()
        docs.push({"index.md": b"# 1"}, tag="v1")
        docs.push({f"page-{n}.md": b"page %d" % n for n in range(40)}, tag="v2")
        for number in range(1, 6):
            for each in (app, theme):
                each.push({"same": b"same" * 100, **changes(number)}, tag=f"v{number}")
        self.expected = {n: self.made.archived(app=f"v{n}", theme=f"v{n}", docs="v1") for n in (4, 5)}

    def case(self, where: Path, docs: str = "v1") -> Case:
        made = copy(self.made)
        made.path = where / "site"

        def deploy(number: int, request: str = "") -> DeployResult:
            refs = {"app": f"v{number}", "theme": f"v{number}", "docs": docs}
            return made.by(lambda source: made.runner.deploy(source, parts=wanted(refs), request=request))

        for number in range(1, 5):
            result = deploy(number)
            assert result.outcome == "success", result
        assert "recycled" in export_of(result).output
        return Case(
            site=made.site,
            expected=self.expected,
            words=(
                *(f"--part={repo}={place}={made.repos[repo].origin}" for repo, place in made.places.items()),
                *("--ref", "app=v5", "--ref", "theme=v5", "--settings", written(self.base, "")),
            ),
            deploy=partial(deploy, 5),
        )


class Submodules:
    """A shop with a theme as a submodule, which has a submodule in turn, in five versions."""

    def __init__(self, base: Path) -> None:
        self.base = base
        deep, theme, shop = self.repos = [Worked(base, name) for name in ("deep", "theme", "shop")]
        deep.push(changes(1))
        theme.add(deep, "deep")
        theme.push(changes(1))
        shop.add(theme, "theme")
        shop.push({"same": b"same" * 100, **changes(1)}, tag="v1")
        for number in range(2, 6):
            theme.follow("deep", deep.push(changes(number)))
            shop.follow("theme", theme.push(changes(number)))
            shop.push({}, tag=f"v{number}")
        self.expected = {n: shop.cloned(f"v{n}", base / f"clone-{n}") for n in (4, 5)}

    def case(self, where: Path) -> Case:
        deep, theme, shop = self.repos
        site = Site(where / "site", attrs.evolve(SETTINGS, submodules="mirror"))
        table = {each.url: RepoName(each.name) for each in (deep, theme)}

        def deploy(number: int, request: str = "") -> DeployResult:
            with ExitStack() as stack:
                opened = {RepoName(each.name): stack.enter_context(Repository(each.origin)) for each in (deep, theme)}
                rules = SubmoduleRules(repositories=table, open=opened.__getitem__)
                source = SubmoduleSource(stack.enter_context(Repository(shop.origin)), shop.url, rules)
                stack.callback(source.release)
                runner = Runner(Site(site.path, site.settings), node="n")
                return runner.deploy(source, f"refs/tags/v{number}", request=request)

        for number in range(1, 5):
            result = deploy(number)
            assert result.outcome == "success", result
        assert "recycled" in export_of(result).output
        return Case(
            site=site,
            expected=self.expected,
            words=(
                *("--mirror", str(shop.origin), "--ref", "v5"),
                *(f"--submodule={each.url}={each.origin}" for each in (deep, theme)),
                *("--settings", written(self.base, 'submodules = "mirror"\n')),
            ),
            deploy=partial(deploy, 5),
        )


def written(base: Path, more: str) -> str:
    """Write the site's settings to a file; return its path."""
    file = base / "site.toml"
    file.write_text(f"keep = 1\ngrace = 0\n{more}")
    return str(file)


@pytest.fixture(scope="module", params=[Parts, Submodules], ids=["parts", "submodules"])
def origins(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Parts | Submodules:
    made: Parts | Submodules = request.param(tmp_path_factory.mktemp("origins"))
    return made


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_deploy_killed_at_any_call_shows_one_version_of_all_and_converges(
    tmp_path: Path, origins: Parts | Submodules, capsys: pytest.CaptureFixture[str]
) -> None:
    case = origins.case(tmp_path)
    template = tmp_path / "template"
    shutil.copytree(case.site.path, template, symlinks=True)

    def prepare() -> None:
        shutil.rmtree(case.site.path)
        shutil.copytree(template, case.site.path, symlinks=True)

    report = kill_sweep(case.argv, roots=[case.site.path], prepare=prepare, check=case.check, sample=sample_size(1))
    show(report, capsys)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_power_cut_at_any_call_shows_one_version_of_all_and_converges(
    tmp_path: Path, origins: Parts | Submodules, capsys: pytest.CaptureFixture[str]
) -> None:
    disk = Disk(tmp_path)
    try:
        case = origins.case(disk.where)
        disk.save()

        def check(run: Run) -> None:
            disk.cut()
            case.check(run)

        roots = [case.site.path]
        report = kill_sweep(case.argv, roots=roots, prepare=disk.restore, check=check, sample=sample_size(1))
        show(report, capsys)
    finally:
        disk.unmount()


@pytest.mark.slow
@pytest.mark.parametrize("origins", [Parts], indirect=True, ids=["parts"])
def test_a_deploy_makes_as_many_changes_whatever_the_part_holds_that_stays(tmp_path: Path, origins: Parts) -> None:
    """Counted in system calls that change something below the site, with a spare release."""
    found = []
    for docs in ("v1", "v2"):
        (tmp_path / docs).mkdir()
        case = origins.case(tmp_path / docs, docs)
        found.append(Counter(point.call for point in record(case.argv, roots=[case.site.path])))
        assert (case.site.path / "current" / "web" / "app" / "version").read_bytes() == b"5"
    assert found[0] == found[1]
