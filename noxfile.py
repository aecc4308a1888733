"""The checks: `nox` runs lint, types, tests and docs; `nox -s bench` the benchmarks; `nox -s matrix` every Python.

Tests run against the built wheel, never against the source tree. Sessions read Python versions from the
classifiers in pyproject.toml. `nox -s sweep` runs the kill sweeps whole, of which CI runs a sample; `nox -s chaos`
shoots at the bus and the relay for as long as it is asked to.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "tests", "docs"]
nox.options.default_venv_backend = "venv"

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)


def groups(name: str) -> list[str]:
    """The requirements of one dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


def install_wheel(session: nox.Session) -> None:
    """Build the wheel and install just that, so that what is tested is what is shipped."""
    dist = Path(session.create_tmp()) / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    session.run("python", "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(dist), ".")
    (wheel,) = dist.glob("*.whl")
    session.install(f"{wheel}[keys,metrics,postgresql,testing,web]")


def only_tests(session: nox.Session) -> Path:
    """A directory through which `tests` can be imported, by the processes of tests too, and the source tree cannot."""
    link = Path(session.create_tmp()).absolute() / "path" / "tests"
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(Path("tests").absolute())
    return link.parent


def run_tests(session: nox.Session, *options: str) -> None:
    """Run pytest, with further options, outside the source tree's import path."""
    install_wheel(session)
    session.install(*groups("test"))
    env = {
        "COVERAGE_FILE": str(Path(session.create_tmp()) / "coverage"),
        "PYTHONSAFEPATH": "1",
        "PYTHONPATH": str(only_tests(session)),
        "TMPDIR": "/tmp",  # outside any checkout, and short enough for a socket's name
        # Of each kill sweep, so many points, the same each time where CI=true; `nox -s sweep` runs them all.
        "DEPLOYKIT_SWEEP_SAMPLE": os.environ.get("DEPLOYKIT_SWEEP_SAMPLE", "6"),
        "DEPLOYKIT_SCHEDULES": os.environ.get("DEPLOYKIT_SCHEDULES", "20"),
    }
    workers = os.environ.get("DEPLOYKIT_TEST_WORKERS", "4")  # the tests wait more than they compute
    session.run(
        "python", "-m", "pytest", "--import-mode=importlib", "-n", workers,
        *options, *session.posargs, env=env,
    )  # fmt: skip


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format."""
    session.install(*groups("lint"))
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly; and what we export, as users of two type checkers see it."""
    session.install("-e", ".[keys,metrics,postgresql,testing,web]", *groups("types"))
    session.run("mypy", "deploykit", "tests", "noxfile.py")
    session.run("basedpyright")


@nox.session
def tests(session: nox.Session) -> None:
    """Run every test against the built wheel, on this Python."""
    run_tests(session)


@nox.session
def coverage(session: nox.Session) -> None:
    """Run every test and print which lines and branches none has reached; it takes a fifth longer than `tests`."""
    run_tests(session, "--cov", "--cov-report=term:skip-covered")


@nox.session(python=PYTHONS)
def matrix(session: nox.Session) -> None:
    """Run every test against the built wheel, on each Python of the classifiers."""
    run_tests(session)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages, warnings being errors, and run the examples in them."""
    session.install("-e", ".[keys,metrics,postgresql,testing,web]", *groups("docs"), "pytest", "pytest-timeout")
    session.run("python", "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("python", "-m", "sphinx", "-q", "-W", "-b", "doctest", "docs", "docs/_build/doctest")
    session.run("python", "-m", "pytest", "-q", "--doctest-modules", "-o", "addopts=", "deploykit")


@nox.session
def screenshots(session: nox.Session) -> None:
    """Take the pictures in docs/images anew, of a small fleet in Debian's Chromium; look at them before you commit."""
    install_wheel(session)
    session.install(*groups("test"))
    env = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(only_tests(session))}
    session.run("python", "-m", "tests.screenshots", "docs/images", *session.posargs, env=env)


@nox.session
def bench(session: nox.Session) -> None:
    """Run the benchmarks: ratios within one run, medians of interleaved rounds; `-- --check` fails above a limit."""
    install_wheel(session)
    session.install(*groups("bench"))
    for script in sorted(Path("tests/benchmarks").glob("bench_*.py")):
        takes_check = '"--check"' in script.read_text(encoding="utf-8")  # bench_wire always checks
        options = [option for option in session.posargs if option != "--check" or takes_check]
        session.run("python", str(script), *options, env={"PYTHONPATH": "."})


@nox.session
def sweep(session: nox.Session) -> None:
    """Run every point of the kill sweeps, of which `tests` draws a sample."""
    install_wheel(session)
    session.install(*groups("test"))
    env = {"DEPLOYKIT_SWEEP_SAMPLE": "all", "PYTHONSAFEPATH": "1", "PYTHONPATH": str(only_tests(session))}
    session.run(
        "python", "-m", "pytest", "--import-mode=importlib", "-s", "-m", "slow", "--timeout=7200",
        *session.posargs, env=env,
    )  # fmt: skip


@nox.session
def chaos(session: nox.Session) -> None:
    """Break everything under the bus and the relay at random, and compare the books; `-- --help` says what there is."""
    install_wheel(session)
    session.install(*groups("test"))
    env = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(only_tests(session)), "TMPDIR": "/tmp"}
    session.run("python", "-m", "tests.chaos", *session.posargs, env=env)


@nox.session
def soak(session: nox.Session) -> None:
    """Load every daemon for 15 minutes: memory, descriptors and threads must stay flat; `-- --help` says more."""
    install_wheel(session)
    session.install(*groups("test"))
    env = {"PYTHONSAFEPATH": "1", "PYTHONPATH": str(only_tests(session)), "TMPDIR": "/tmp"}
    session.run("python", "-m", "tests.soak", *session.posargs, env=env)
