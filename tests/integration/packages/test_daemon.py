"""The packages daemon over a broker: few reads for many messages; what is retried, refused, reported."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.bus import Bus
from deploykit.daemons.packages.announcements import MOST_BYTES
from deploykit.daemons.packages.daemon import PackagesDaemon, forget, packages_lock
from deploykit.daemons.packages.ports import PackageVersions
from deploykit.daemons.service.metrics import Metrics
from deploykit.errors import LockBusy, SettingsError
from deploykit.messages import Notice, new_id
from deploykit.settings import OutboxSettings, PackageSourceSettings, PackagesSettings
from deploykit.wire import Frame, encode
from deploykit.wire.codec import ID_HEADER
from tests.brokers.rabbitmq import RabbitMQ
from tests.support.packagesworld import DirectoryManager, PackagesWorld
from tests.support.wait import wait_until


@pytest.fixture
def world(tmp_path: Path, deploykit_broker: EmbeddedBroker) -> Iterator[PackagesWorld]:
    with PackagesWorld(tmp_path, deploykit_broker.address) as made:
        yield made


def counted(daemon: PackagesDaemon) -> dict[tuple[str, ...], float]:
    """The reads by source and outcome, without those that there were none of."""
    series = daemon.metrics.series("package_source_reads_total")
    return {key: value for key, value in series.items() if isinstance(value, float) and value}


# -- few reads for many messages ---------------------------------------------------------------------------------------


@pytest.mark.rabbitmq
def test_a_hundred_messages_in_a_moment_are_few_reads_and_one_report_a_package(
    tmp_path: Path, rabbitmq: RabbitMQ, unique_name: str
) -> None:
    with PackagesWorld(tmp_path, rabbitmq.address, topic=unique_name) as world:
        for number in range(10):
            world.install(f"lib{number}", "1.0")
        with world.daemon() as daemon:
            world.hold()
            first = world.announce()
            wait_until(lambda: world.reads, "the first read")
            for number in range(99):
                last = world.announce(f"lib{number % 10}", correlation_id=f"push-{number}")
            wait_until(lambda: "100 announced packages in work" in daemon.status, "all messages")
            world.let_go()
            report = world.report_on(first)
            assert (report.installed, report.candidate, report.sources) == ("1.0", "9.9", ("ours",))
            assert world.report_on(last).correlation_id == "push-98"
            assert world.reads == ["ours", "ours"], "one, and one for all that came during it"
            wait_until(lambda: len(world.reports) == 11, "the reports")
            assert {each.correlation_id for each in world.reports} >= {f"push-{number}" for number in range(89, 99)}
            assert counted(daemon) == {("ours", "read"): 2.0}
            once_each = {("deploykit.package.published.v1", "ack"): 100.0}
            wait_until(lambda: daemon.metrics.series("messages_total") == once_each, "the acknowledgements")
        with world.daemon() as again:  # nothing comes again
            assert world.report_on(world.announce()).outcome == "refreshed"
            wait_until(lambda: again.metrics.series("messages_total"), "the acknowledgement")
            assert again.metrics.series("messages_total") == {("deploykit.package.published.v1", "ack"): 1.0}


def test_copies_of_a_message_are_acted_on_once(world: PackagesWorld) -> None:
    with world.daemon() as daemon:
        frame = encode(message := world.announcement())
        world.hold()
        for transport in (new_id(), new_id()):  # under another transport id, the bus takes a copy for a message
            world.send(Frame({**frame.headers, ID_HEADER: transport}, frame.body))
        wait_until(lambda: "2 announced packages" in daemon.status or len(world.reads) > 1, "both copies")
        world.let_go()
        world.report_on(message)
        world.send(frame)
        world.send(frame)
        assert world.report_on(world.announce()).outcome == "refreshed"
        assert [each.request for each in world.reports].count(message.id) <= 3
        assert len({each.id for each in world.reports if each.request == message.id}) == 1, "readers know the copies"


# -- what counts -------------------------------------------------------------------------------------------------------


def test_only_what_is_installed_or_listed_has_the_matching_sources_read(world: PackagesWorld) -> None:
    sources = {
        name: PackageSourceSettings(file=world.root / "ours.sources", distributions=patterns)
        for name, patterns in (("ours", ("bookworm",)), ("next", ("trixie*",)))
    }
    world.settings = attrs.evolve(
        world.settings, packages=attrs.evolve(world.settings.packages, sources=sources, gather=0.0)
    )
    with world.daemon() as daemon:
        for away in (
            *({"name": "hello-x"}, {"name": "hell"}, {"architecture": "i386"}, {"distribution": "sid"}),
            {"name": "shop-web", "architecture": "arm64"},
        ):
            world.announce(**away)
        world.send(encode(Notice(text="hello", source="packages/repo")))
        world.send(Frame({"content-type": "text/plain"}, b"\n"))
        assert world.report_on(world.announce("shop-web", distribution="trixie-updates")).installed == ""
        assert world.reads == ["next"]
        assert world.report_on(world.announce(architecture="all")).sources == ("ours",)
        assert world.reads == ["next", "ours"]
        world.announce_file("hello_1%3a9.9_amd64.deb")  # names no distribution
        report = world.reported(lambda each: each.sources == ("ours", "next"))
        assert (report.name, report.architecture, report.distribution) == ("hello", "amd64", "")
        assert len(world.reports) == 3
        wait_until(lambda: daemon.status == "connected", "the acknowledgements")


#: Names of programs' options, patterns, other packages, files, shells; and characters that no name has.
HOSTILE = (
    *("-o", "--help", "-oDir::Etc::sourcelist=/etc/passwd", "$(touch x)", "`touch x`", "a;touch x", "a|b", "a&&b"),
    *("hello=1.0", "hello:i386", "hello/sid", "hello*", "^hello$", "hel?o", "../hello", "/etc/passwd", "hello world"),
    *("hello\nworld", "hello\rworld", "hello\tworld", "hello\x1b[2J", "h\u00e9llo", "hell\u043e", "hello\u202e", " "),
    *('"hello"', "'hello'", "hello\\", "%68ello", "{hello}", "~hello", "!hello", "#hello", "HELLO", "hello_1.0"),
)


def test_no_awkward_name_reaches_the_package_manager(world: PackagesWorld) -> None:
    with world.daemon() as daemon:
        for name in HOSTILE:
            world.announce(name)
            world.announce("hello", distribution=f"x {name}")
            world.announce("hello", architecture=f"-{name}")
            if not set(name) & set("\r\n/"):  # behind a line's end comes output; of a path the file's name counts
                world.announce_file(f"{name}_1.0_amd64.deb")
                world.announce_file(f"hello_1.0_{name}-.deb")
        world.announce("shop-web", detail="x" * MOST_BYTES)  # listed, but hundreds of those would be kept for minutes
        world.send(Frame({"content-type": "application/json"}, b"{"))
        world.send(Frame({"content-type": "text/plain"}, b"package: \n"))  # is read as a line for people
        assert world.report_on(world.announce()).outcome == "refreshed"
        assert set(world.asked) == {"hello"}
        assert world.reads == ["ours"]
        wait_until(lambda: daemon.link.bus.counters.dead_lettered == 1, "what is no message")
        assert not daemon.problems


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_a_source_that_fails_and_then_works_is_one_success(world: PackagesWorld) -> None:
    with world.daemon() as daemon:
        world.next_reads("failed", "failed")
        report = world.report_on(world.announce())
        assert (report.outcome, report.detail, report.sources) == ("refreshed", "", ("ours",))
        assert counted(daemon) == {("ours", "failed"): 2.0, ("ours", "read"): 1.0}
        assert not daemon.problems


def test_a_source_that_goes_on_failing_is_reported_and_stands_in_the_status(world: PackagesWorld) -> None:
    with world.daemon() as daemon:
        world.next_reads("failed", "failed", "failed")
        report = world.report_on(world.announce())
        assert (report.outcome, report.sources) == ("failed", ())
        assert report.detail == "ours: tried 3 times: it failed, says the test"
        assert daemon.problems == ("source ours: it failed, says the test",)
        assert not daemon.blocking
        assert world.report_on(world.announce()).outcome == "refreshed"
        assert not daemon.problems


def test_while_the_package_manager_is_asked_the_end_has_a_reason_to_wait(world: PackagesWorld) -> None:
    seen: list[str] = []

    class Watching(DirectoryManager):
        def installed(self, names: Sequence[str]) -> Mapping[str, PackageVersions]:
            seen.append(daemon.busy)
            return super().installed(names)

    with world.daemon(Watching(world.directory)) as daemon:
        world.report_on(world.announce())
    assert seen == ["the package manager, which is being asked"] * 2
    assert daemon.busy == ""


def test_a_lock_is_waited_for(world: PackagesWorld) -> None:
    with world.daemon() as daemon:
        world.next_reads("locked")
        assert world.report_on(world.announce()).outcome == "refreshed"
        assert counted(daemon) == {("ours", "locked"): 1.0, ("ours", "read"): 1.0}
    world.settings = attrs.evolve(world.settings, packages=attrs.evolve(world.settings.packages, lock_timeout=0.0))
    with world.daemon():
        world.next_reads("locked")
        report = world.report_on(world.announce())
        assert (report.outcome, report.detail) == ("failed", "ours: waited 0 s for the lock: it locked, says the test")


def test_a_package_manager_that_cannot_be_asked_lets_the_messages_wait(
    world: PackagesWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.daemons.packages.refresher._AGAIN_AFTER", 0.05)
    monkeypatch.setattr("deploykit.daemons.packages.refresher._LOOK_EVERY", 0.05)
    down = world.directory / "down"
    down.touch()
    with world.daemon() as daemon:
        message = world.announce()
        wait_until(lambda: len(daemon.blocking) == 2, "both lines")
        assert set(daemon.blocking) == {"the manager is down"}
        down.unlink()
        assert world.report_on(message).outcome == "refreshed"
        wait_until(lambda: not daemon.problems, "all to be well")


def test_a_report_that_finds_no_room_is_kept_and_its_message_too(
    world: PackagesWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deploykit.daemons.packages.refresher._AGAIN_AFTER", 0.05)
    spool = world.settings.outbox.path
    with world.daemon() as daemon:
        shutil.move(spool, world.root / "aside")
        message = world.announce()
        wait_until(lambda: any("reports wait" in problem for problem in daemon.problems), "the problem")
        assert "1 announced packages in work" in daemon.status
        shutil.move(world.root / "aside", spool)
        world.report_on(message)
        wait_until(lambda: daemon.status == "connected", "the acknowledgement")
        assert world.reads == ["ours"], "the source is not read again for that"


def test_a_file_that_is_not_there_stands_in_the_status(
    world: PackagesWorld, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("deploykit.daemons.packages.refresher._LOOK_EVERY", 0.05)
    caplog.set_level("INFO", "deploykit.daemons.packages")
    assert world.settings.packages.sources["ours"].file is not None
    (world.root / "ours.sources").unlink()
    with world.daemon() as daemon:
        assert daemon.blocking == (f"source ours: there is no {world.root}/ours.sources",)
        (world.root / "ours.sources").touch()
        wait_until(lambda: f"no more: source ours: there is no {world.root}" in caplog.text, "the line that it is over")
    far = world.root / ("x" * 300 + ".sources")  # `Path.exists` raises an error, as where nobody may look
    sources = {"ours": PackageSourceSettings(file=far)}
    world.settings = attrs.evolve(world.settings, packages=attrs.evolve(world.settings.packages, sources=sources))
    with world.daemon() as daemon:
        assert daemon.blocking == (f"source ours: cannot read {far}: File name too long",)


# -- its life ----------------------------------------------------------------------------------------------------------


def test_what_came_while_it_was_down_counts_until_it_is_forgotten(world: PackagesWorld) -> None:
    with world.daemon():
        pass
    message = world.announce()
    with world.daemon():
        world.report_on(message)
    forget(world.settings)
    lost = world.announce()
    with world.daemon():
        world.report_on(world.announce())
        assert lost.id not in {each.request for each in world.reports}


def test_a_second_one_on_the_same_directory_is_refused(world: PackagesWorld) -> None:
    with world.daemon():
        with pytest.raises(LockBusy, match="another packages daemon"), world.daemon():
            raise AssertionError("unreachable")
        with pytest.raises(LockBusy):
            forget(world.settings)
    with packages_lock(world.settings):
        pass


def test_without_a_source_there_is_nothing_to_do(world: PackagesWorld) -> None:
    with pytest.raises(SettingsError, match=r"no \[packages.sources.NAME\]"):
        PackagesDaemon(attrs.evolve(world.settings, packages=PackagesSettings()))


def test_without_a_key_it_works_and_says_that_nobody_believes_it(world: PackagesWorld) -> None:
    with world.daemon() as daemon:
        assert not daemon.problems
    settings = attrs.evolve(world.settings, signing_key=None, outbox=OutboxSettings(path=world.root / "other"))
    with PackagesDaemon(settings, manager=world.manager) as unsigned:
        assert "signing_key" in unsigned.problems[0]
        assert not unsigned.blocking


def test_it_lives_in_a_program_of_somebody_elses(world: PackagesWorld) -> None:
    """Their bus, their metrics, their subscriptions: those go on when it ends; what it had in hand comes again."""
    heard: list[str] = []
    metrics = Metrics()
    with Bus(world.settings.broker, client_id="theirs") as bus:
        assert bus.subscribe("/topic/theirs", lambda delivery: heard.append(delivery.body.decode())).wait_active(60)
        with world.daemon(bus=bus, metrics=metrics):
            world.report_on(world.announce())
            world.hold()
            world.next_reads("failed")
            left = world.announce()
            wait_until(lambda: len(world.reads) == 2, "the read")
            world.let_go()
        bus.publish("/topic/theirs", Frame({}, b"still here"))
        wait_until(lambda: heard, "their own message")
        with world.daemon(bus=bus, metrics=metrics):
            assert world.report_on(left).outcome == "refreshed"
    assert heard == ["still here"]
    reads = metrics.series("package_source_reads_total")
    assert reads["ours", "read"] == 2.0
