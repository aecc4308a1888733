"""A package goes into a real repository, is announced by our message or the original's, and the node's apt knows it.

Real apt and dpkg in a root of their own; the command `deploykit packages` itself.
"""

from __future__ import annotations

from pathlib import Path

from deploykit.broker.server import EmbeddedBroker
from deploykit.daemons.packages.aptmanager import AptManager
from deploykit.settings import PackageSourceSettings
from tests.support.cli import run
from tests.support.daemon import RunningDaemon
from tests.support.debpackages import AptRoot, DebianRepository
from tests.support.packagesworld import PackagesWorld
from tests.support.wait import wait_until


def test_apt_knows_a_package_once_it_was_announced(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    apt = AptRoot(tmp_path / "root")
    ours, gone = DebianRepository(tmp_path / "repo"), DebianRepository(tmp_path / "gone")
    ours.include("hello", "1.0")
    gone.include("other", "1.0")
    sources = {
        "ours": apt.source("ours.sources", f"file:{ours.base}", "Trusted=yes"),
        "gone": apt.source("gone.list", f"file:{gone.base}"),
    }
    sources["gone"] = PackageSourceSettings(file=sources["gone"].file, distributions=("sid",))
    sources["ours"] = PackageSourceSettings(file=sources["ours"].file, distributions=("bookworm",))
    apt.install("hello", "1.0")
    manager = AptManager(apt.environment)
    world = PackagesWorld(tmp_path, deploykit_broker.address, sources=sources, attempts=1)
    with world, world.daemon(manager) as daemon:
        ours.include("hello", "1:2.0-1")
        report = world.report_on(world.announce(version="1:2.0-1", architecture="all"))
        assert (report.outcome, report.installed, report.candidate) == ("refreshed", "1.0", "1:2.0-1")
        assert manager.versions(["other"])["other"].candidate == "", "the other source was not read"
        ours.include("hello", "1:2.0-2")
        world.announce_file("hello_1%3a2.0-2_all.deb")  # the original's: all sources
        report = world.reported(lambda each: each.candidate == "1:2.0-2")
        assert (report.outcome, report.sources) == ("refreshed", ("ours", "gone"))
        gone.base.rename(tmp_path / "away")
        report = world.report_on(world.announce(architecture="all", distribution=""))
        assert (report.outcome, report.sources, report.candidate) == ("failed", ("ours",), "1:2.0-2")
        assert report.detail.startswith("gone: ")
        assert "source gone: " in daemon.problems[0]
        with apt.locked():
            message = world.announce(architecture="all")
            wait_until(lambda: daemon.metrics.series("package_source_reads_total")["ours", "locked"], "a locked read")
        assert world.report_on(message).outcome == "refreshed"
        assert manager.installed(["hello"])["hello"].installed == "1.0", "nothing is ever installed"


def test_the_command_runs_the_daemon_of_the_settings(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> None:
    """This machine's own apt: nothing is announced, so nothing is read."""
    source = tmp_path / "ours.sources"
    source.write_text("Types: deb\n")
    more = f'[packages.sources.ours]\nfile = "{source}"\n'
    daemon = RunningDaemon(tmp_path, deploykit_broker.address, "run", "packages", "keepalive")
    daemon.write(deploykit_broker.address, f'keepalive = ["/topic/alive"]\n{more}')
    with daemon:
        daemon.wait("ready: packages on web1\n")
    assert run("packages", "--forget", "-c", str(daemon.file)).returncode == 0
    daemon.write(deploykit_broker.address)
    done = run("packages", "-c", str(daemon.file))
    assert (done.returncode, "docs/packages.md" in done.stderr) == (2, True)
