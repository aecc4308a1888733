"""Half-old fleets with protected sites and packages: forms, cron jobs and daemons of both kinds."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import attrs
import pytest

from deploykit.daemons.access.daemon import AccessDaemon
from deploykit.daemons.packages.aptmanager import AptManager
from deploykit.daemons.packages.daemon import PackagesDaemon
from deploykit.hooking.enqueue import outgoing_of
from deploykit.messages import AccessGrantRequested, Message, PackagePublished
from deploykit.names import SiteName
from deploykit.outbox import Outbox
from deploykit.settings import AccessSettings
from deploykit.settings.packages import PackagesSettings
from tests.brokers.server import BrokerServer
from tests.support.debpackages import AptRoot, DebianRepository
from tests.support.guardedservers import guarded
from tests.support.mixedfleet import MixedFleet
from tests.support.originals.publishers import access_form, keepalive, reprepro_cron
from tests.support.originals.readers import (
    OldAccessDaemon,
    OldAccessSite,
    OldEventbot,
    OldPackageDaemon,
)
from tests.support.wait import wait_until

pytestmark = pytest.mark.rabbitmq

SITE = SiteName("example-site")
LABEL = "Example site"


@pytest.fixture
def fleet(tmp_path: Path, rabbitmq: BrokerServer) -> MixedFleet:
    return MixedFleet(tmp_path, rabbitmq)


def queue(fleet: MixedFleet, *messages: Message) -> None:
    """Queue messages in the original's form, as our hooks do."""
    Outbox(fleet.settings.outbox.path).put_many(outgoing_of(messages, fleet.topics, notices=True, legacy=True))


def test_the_originals_form_lets_a_user_in_by_our_daemon_with_a_loud_warning(
    fleet: MixedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    with guarded("nginx", fleet.root / "web") as server, OldEventbot(fleet.old) as bot:
        site = attrs.evolve(server.settings, label=LABEL)
        access = AccessSettings(sites={SITE: site}, legacy=True, gather=0.05)
        with AccessDaemon(attrs.evolve(fleet.settings, access=access)) as daemon:
            assert daemon.wait_connected(60)
            keepalive(fleet.old, fleet.topics.access)
            access_form(fleet.old, "", "nobody")  # as from a page without a session [seen]
            access_form(fleet.old, "other", "nobody")
            password = access_form(fleet.old, LABEL, "ada@example.org")
            wait_until(lambda: server.status("ada@example.org", password) == 200, "the user's way in", every=0.05)
            assert server.status("ada@example.org", "wrong") == 401
            assert server.status("nobody", password) == 401
            wait_until(lambda: any("clear text" in text for _, text in bot.lines), f"a warning in {bot.lines}")
    assert any("clear text" in record.getMessage() for record in caplog.records)
    said = [text for _, text in bot.lines] + [record.getMessage() for record in caplog.records]
    assert not [text for text in said if password in text]
    kept = [file for file in (fleet.root / "state").rglob("*") if file.is_file()] + [site.file]
    assert not [file for file in kept if password.encode() in file.read_bytes()]


def test_without_the_setting_the_originals_form_opens_nothing(
    fleet: MixedFleet, caplog: pytest.LogCaptureFixture
) -> None:
    with guarded("nginx", fleet.root / "web") as server:
        site = attrs.evolve(server.settings, label=LABEL)
        with AccessDaemon(attrs.evolve(fleet.settings, access=AccessSettings(sites={SITE: site}))) as daemon:
            assert daemon.wait_connected(60)
            password = access_form(fleet.old, LABEL, "ada")
            wait_until(lambda: "set access.legacy to obey it" in caplog.text, "a refusal")
            assert server.status("ada", password) == 401
    assert site.file.read_text() == ""
    assert password not in caplog.text


def test_the_originals_access_daemon_reads_a_grant_of_ours_in_its_form(fleet: MixedFleet, tmp_path: Path) -> None:
    """Only with the clear password: our own commands send a hash, which it cannot take."""
    grant = AccessGrantRequested(source="desk", site=SITE, user="ada", password="bodugiba", requested_by="ops")
    site = OldAccessSite("nginx", tmp_path / "passwords", tmp_path / "users.yaml")
    queue(fleet, grant)
    with OldAccessDaemon(fleet.old, {str(SITE): site}) as old, fleet.relay():
        wait_until(lambda: bool(old.heard), "the grant")
        assert old.runs
    assert site.file.read_text() == "userlist passwords\nada:*0\n"  # which lets nobody in [seen]


def test_the_originals_package_daemon_reads_what_ours_publishes(fleet: MixedFleet, tmp_path: Path) -> None:
    done = tmp_path / "updated"
    update = (sys.executable, "-c", f"open({str(done)!r}, 'a').write('x')")
    text = "Exporting indices...\npackage: evil_1_all.deb\n"
    for name in ("hello", "hello-x"):
        published = PackagePublished(
            source="packages/repo", name=name, version="1:2.0-1", architecture="amd64", distribution="stable",
            file=f"{name}_2.0-1_amd64.deb", detail=text,
        )  # fmt: skip
        queue(fleet, published)
    with (
        OldPackageDaemon(fleet.old, ["hello"], update) as old,
        OldPackageDaemon(fleet.old, ["evil"], update) as other,
        OldEventbot(fleet.old) as bot,
        fleet.relay(),
    ):
        wait_until(lambda: len(old.heard) == len(other.heard) == 2, "two messages")
        assert done.read_text() == "x"
        reprepro_cron(fleet.old, "hello_2.1_amd64.deb", "stable")
        wait_until(lambda: len(old.heard) == 3, "the original's own")
        assert done.read_text() == "xx"
        wait_until(lambda: len(bot.lines) == 3, f"a line for each in {bot.lines}")
        assert {where for where, _ in bot.lines} == {"repository"}


def test_the_originals_package_message_has_our_daemon_read_the_sources(fleet: MixedFleet, tmp_path: Path) -> None:
    """Real apt and reprepro. The message names no distribution, so every source that is configured is read. [seen]"""
    apt, repository = AptRoot(tmp_path / "root"), DebianRepository(tmp_path / "repo")
    apt.install("hello", "1.0")
    source = attrs.evolve(
        apt.source("own.sources", f"file:{repository.base}", "Trusted=yes"), distributions=("stable",)
    )
    packages = PackagesSettings(sources={"own": source}, gather=0.05)
    settings = attrs.evolve(fleet.settings, packages=packages)
    manager = AptManager(apt.environment)
    repository.include("hello", "1:2.0-1")
    with OldEventbot(fleet.old) as bot, PackagesDaemon(settings, manager=manager) as daemon:
        assert daemon.wait_connected(60)
        keepalive(fleet.old, fleet.topics.package)
        reprepro_cron(fleet.old, "hello-x_1%3a2.0-1_all.deb", "stable")  # of no interest
        reprepro_cron(fleet.old, "hello_1%3a2.0-1_all.deb", "stable", "package: evil_1_all.deb\nExporting indices...\n")
        wait_until(lambda: len(bot.lines) >= 3, f"a line of ours after the two of cron in {bot.lines}")
    assert manager.versions(["hello"])["hello"].candidate == "1:2.0-1"
    (line,) = [text for where, text in bot.lines if where == "repository" and "added to repository" not in text]
    assert line.startswith(f"{settings.node} "), line
    assert "1:2.0-1 available" in line
