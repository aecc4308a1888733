"""What ships: the wheel carries the hooks with their modes, and CI runs the README's own line."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from deploykit.hooking import scripts
from tests.support.needs import missing

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not (ROOT / "pyproject.toml").exists():
        missing("the source tree (run the tests from a checkout)")
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(ROOT)], check=True
    )
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_carries_every_hook_with_its_mode(wheel: Path) -> None:
    tracked = [p for p in (ROOT / "hooks").rglob("*") if p.is_file() and "__pycache__" not in p.parts]
    scripts = [p for p in tracked if os.access(p, os.X_OK)]
    assert scripts
    with zipfile.ZipFile(wheel) as archive:
        for path in tracked:
            entry = archive.getinfo(f"deploykit/_hooks/{path.relative_to(ROOT / 'hooks')}")
            mode = entry.external_attr >> 16 & 0o777
            assert bool(mode & 0o111) == (path in scripts), f"{path.name} has mode {mode:o} in the wheel"


def test_the_wheel_carries_types_and_no_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "deploykit/py.typed" in names
    assert not [n for n in names if n.startswith("tests/")]


def test_the_hooks_are_found_where_deploykit_is_installed() -> None:
    assert os.access(scripts.hooks_dir() / "git" / "post-receive", os.X_OK)


def test_ci_runs_the_test_line_of_the_readme() -> None:
    line = "python3 -m venv .venv && .venv/bin/pip install -q nox && .venv/bin/nox"
    assert line in (ROOT / "README.md").read_text().splitlines()
    assert line in (ROOT / ".ci" / "run").read_text().splitlines()


def test_ci_installs_every_package_that_the_readme_names() -> None:
    readme = (ROOT / "README.md").read_text().replace("\\\n", " ")
    (line,) = [part for part in readme.splitlines() if part.startswith("apt-get install rabbitmq-server")]
    ci = (ROOT / ".ci" / "run").read_text()
    packages = ci[ci.index("packages=(") : ci.index(")\n", ci.index("packages=("))].split()
    assert set(line.split()[2:]) <= set(packages)


def test_every_dependency_has_a_lower_bound() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [item for group in project["optional-dependencies"].values() for item in group]
    for requirement in [*project["dependencies"], *extras]:
        assert ">=" in requirement, requirement
