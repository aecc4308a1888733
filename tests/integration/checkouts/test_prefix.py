"""Several repositories share the directory of Puppet's environments: a prefix keeps their branches apart."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploykit.checkouts import Checkouts, rule_of
from deploykit.errors import SettingsError
from deploykit.mirror import Mirror
from deploykit.settings import CheckoutSettings
from tests.support.origins import GitRepo


def test_two_repositories_share_a_directory(tmp_path: Path) -> None:
    root = tmp_path / "environments"
    sources = {}
    for name in ("main", "qa"):
        repo = GitRepo.make(tmp_path / f"{name}.git")
        repo.commit({"site.pp": name.encode()})
        repo.git("branch", "topic", "main")
        mirror = Mirror.open(tmp_path / f"{name}-mirror.git", str(repo.path))
        prefix = "" if name == "main" else f"{name}_"
        settings = CheckoutSettings(mode="puppetmaster", target=root, prefix=prefix, grace=0, durable=False)
        sources[name] = (repo, mirror, Checkouts(settings))
    for _, mirror, checkouts in sources.values():
        mirror.fetch()
        checkouts.update(mirror)
    shown = {path.name: (path / "site.pp").read_bytes() for path in root.iterdir() if path.name != ".deploykit"}
    assert shown == {"main": b"main", "topic": b"main", "qa_main": b"qa", "qa_topic": b"qa"}
    repo, mirror, checkouts = sources["main"]
    repo.git("branch", "-D", "topic")
    mirror.fetch(allow_mass_deletion=True)
    assert checkouts.update(mirror).removed == (root / "topic",)
    assert (root / "qa_topic" / "site.pp").read_bytes() == b"qa"


@pytest.mark.parametrize(("mode", "prefix"), [("tags", "qa_"), ("puppetmaster", "../x"), ("puppetmaster", "a/")])
def test_a_prefix_is_part_of_a_name_and_for_puppet_alone(mode: str, prefix: str) -> None:
    with pytest.raises(SettingsError, match="prefix"):
        rule_of(CheckoutSettings(mode=mode, target=Path("/srv/x"), prefix=prefix))  # type: ignore[arg-type]
