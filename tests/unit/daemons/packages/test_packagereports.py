"""What a node reports about announced packages."""

from __future__ import annotations

from deploykit.daemons.packages.packagenames import AnnouncedPackage
from deploykit.daemons.packages.packagereports import PackageReportMaker
from deploykit.daemons.packages.ports import PackageVersions, SourceRead
from deploykit.names import NodeName
from deploykit.wire import decode, encode

READ = SourceRead(outcome="read")
MAKER = PackageReportMaker(node=NodeName("web1"))
HELLO = AnnouncedPackage(
    name="hello", version="2", architecture="amd64", distribution="bookworm", request="id-1", correlation_id="push-1"
)
HELD = {"hello": PackageVersions(installed="1:1.0", candidate="1:2.0")}


def again(request: str, correlation_id: str = "", name: str = "hello", architecture: str = "amd64") -> AnnouncedPackage:
    return AnnouncedPackage(
        name=name,
        version="3",
        architecture=architecture,
        distribution="bookworm",
        request=request,
        correlation_id=correlation_id,
    )


def test_a_report_has_the_versions_and_the_correlation_id() -> None:
    (report,) = MAKER.reports([(HELLO, {"ours": READ, "other": READ})], HELD)
    assert (report.outcome, report.installed, report.candidate) == ("refreshed", "1:1.0", "1:2.0")
    assert (report.request, report.correlation_id, report.source) == ("id-1", "push-1", "packages/web1")
    assert (report.architecture, report.distribution, report.sources) == ("amd64", "bookworm", ("ours", "other"))
    assert report.summary == "package hello on web1: 1:1.0 installed, 1:2.0 available"
    frame = encode(report)
    assert decode(frame.headers, frame.body) == report


def test_a_package_has_one_report_a_burst_for_the_announcement_that_came_last() -> None:
    pairs = [
        (each, {"ours": READ})
        for each in (HELLO, again("id-2", "push-2"), again("id-3", architecture="i386"), again("id-4", name="world"))
    ]
    reports = MAKER.reports(pairs, HELD)
    assert [(each.name, each.architecture, each.request) for each in reports] == [
        ("hello", "amd64", "id-2"),
        ("hello", "i386", "id-3"),
        ("world", "amd64", "id-4"),
    ]
    assert [each.correlation_id for each in reports] == ["push-2", "id-3", "id-4"]
    assert reports[2].summary == "package world on web1: not installed"


def test_a_source_that_was_not_read_makes_it_a_failure_that_says_which() -> None:
    ends = {
        "ours": READ,
        "other": SourceRead(outcome="failed", detail="no\nroute"),
        "gone": SourceRead(outcome="missing"),
    }
    (report,) = MAKER.reports([(HELLO, ends)], HELD)
    assert (report.outcome, report.sources) == ("failed", ("ours",))
    assert report.detail == "other: no route; gone: missing"
    assert report.candidate == "1:2.0"


def test_versions_that_nobody_knows_are_a_failure_too() -> None:
    (report,) = MAKER.reports([(HELLO, {"ours": READ})], {}, "dpkg does not answer")
    assert (report.outcome, report.installed, report.detail) == ("failed", "", "dpkg does not answer")


def test_the_same_work_done_twice_has_the_same_id_and_another_outcome_another_one() -> None:
    (first,) = MAKER.reports([(HELLO, {"ours": READ})], HELD)
    (second,) = MAKER.reports([(HELLO, {"ours": READ})], HELD)
    (failed,) = MAKER.reports([(HELLO, {"ours": SourceRead(outcome="failed")})], HELD)
    elsewhere, *_ = PackageReportMaker(node=NodeName("web2")).reports([(HELLO, {"ours": READ})], HELD)
    assert first.id == second.id
    assert len({first.id, failed.id, elsewhere.id}) == 3
