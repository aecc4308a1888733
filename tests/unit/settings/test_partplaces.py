"""Sites of several repositories: which settings are right."""

from pathlib import Path

import pytest

from deploykit.config import parse_settings
from deploykit.errors import SettingsError
from deploykit.names import RepoName
from deploykit.settings import NodeSiteSettings, SiteSettings
from deploykit.settings.partplaces import place_problems

APP, THEME = RepoName("app"), RepoName("group/theme")
REPOSITORIES = '[repositories.app]\nurl = "/a"\n[repositories."group/theme"]\nurl = "/t"\n'


def test_a_site_names_its_repositories_and_their_subdirectories() -> None:
    settings = parse_settings(
        (
            REPOSITORIES + '[sites.shop]\npath = "/srv/shop"\n[sites.shop.parts]\napp = "app"\n'
            '"group/theme" = "app.d/theme"\n'
        ).encode()
    )
    (site,) = settings.sites.values()
    assert site.repo is None
    assert site.parts == {"app": "app", "group/theme": "app.d/theme"}
    assert site.repos == ("app", "group/theme")
    assert NodeSiteSettings(path=Path("/srv"), repo=APP).repos == ("app",)


@pytest.mark.parametrize("place", [".", "", "/app", "../app", "app/..", "app//x", "app/", "a b", "-x", "a\nb", "a\\b"])
def test_a_subdirectory_is_a_plain_path_inside_a_release(place: str) -> None:
    (problem,) = place_problems({APP: place})
    assert problem.startswith("app: ")


@pytest.mark.parametrize("place", [".git", "app/.GIT", ".git./x", ".deploykit", ".DeployKit/x", "...", "git~1"])
def test_nothing_of_git_or_deploykit_is_a_subdirectory(place: str) -> None:
    (problem,) = place_problems({APP: place})
    assert problem.startswith("app: ")


@pytest.mark.parametrize(
    ("places", "found"),
    [
        (("app", "app"), "group/theme: 'app' is the subdirectory of app already"),
        (("app", "App"), "group/theme: 'App' is the subdirectory of app already"),
        (("app", "app/theme"), "group/theme: 'app/theme' is inside 'app', the subdirectory of app"),
        (("App/x", "app"), "app: 'App/x' is inside 'app', the subdirectory of group/theme"),
    ],
)
def test_subdirectories_are_neither_the_same_nor_inside_each_other(places: tuple[str, str], found: str) -> None:
    assert list(place_problems(dict(zip((APP, THEME), places, strict=True)))) == [found]
    assert not list(place_problems({APP: "app", THEME: "apple"}))


def test_shared_paths_may_be_inside_a_subdirectory_and_not_around_it() -> None:
    assert not list(place_problems({APP: "app"}, ("app/uploads/", "app/config.php")))
    (problem,) = place_problems({APP: "vendor/app"}, ("vendor/",))
    assert problem == "app: 'vendor/app' would be behind 'vendor/', which is shared"
    assert list(place_problems({APP: "app"}, ("app/",)))


def test_a_site_has_one_repository_or_parts() -> None:
    assert NodeSiteSettings(path=Path("/srv")).problems() == (
        "repo: expected the repository of the site, or parts for several",
    )
    both = NodeSiteSettings(path=Path("/srv"), repo=APP, parts={THEME: "theme"})
    assert both.problems() == ("repo: not beside parts, which name all repositories of the site",)
    inside = NodeSiteSettings(path=Path("/srv"), parts={APP: "app"}, release=SiteSettings(subdirectory="web"))
    (problem,) = inside.problems()
    assert problem.startswith("release.subdirectory: ")


def test_each_part_is_a_repository_of_the_settings() -> None:
    raw = REPOSITORIES + '[sites.shop]\npath = "/srv/shop"\n[sites.shop.parts]\napp = "a"\nother = "b"\n'
    with pytest.raises(SettingsError, match=r"sites\.shop\.parts\.other: 'other' is not in \[repositories\]"):
        parse_settings(raw.encode())
