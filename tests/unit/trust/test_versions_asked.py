"""What is signed of a site of several repositories: the parts decide, and never the id that stands for them."""

from __future__ import annotations

from typing import Any

import attrs
import pytest

from deploykit.errors import PolicyRefused
from deploykit.messages import DeployRequested, SitePart, SiteRelease
from deploykit.messages.site import id_of
from deploykit.names import ObjectId, RefName, RepoName
from deploykit.trust.mandate import inside
from tests.support.asked import NOW, SKEW, WEB1, policy, report, request, signer
from tests.support.mandates import command, mandate


def parts(app: str, theme: str) -> tuple[SitePart, ...]:
    return tuple(
        SitePart(repo=RepoName(repo), ref=RefName(f"refs/tags/{tag}"), commit=ObjectId(tag[1] * 40))
        for repo, tag in (("app", app), ("theme", theme))
    )


def release(of: tuple[SitePart, ...]) -> SiteRelease:
    return SiteRelease(release="r", commit=id_of(of), parts=of)


def disguised(of: tuple[SitePart, ...]) -> SiteRelease:
    """One commit whose id is that of parts: nobody can make such a commit but by luck, and no rule hangs on it."""
    return SiteRelease(release="r", ref=RefName("refs/tags/v1"), commit=id_of(of))


OLDER, OLD, NEW, OTHER = parts("v1", "v1"), parts("v1", "v2"), parts("v2", "v2"), parts("v2", "v3")


def asked(of: tuple[SitePart, ...], **more: Any) -> DeployRequested:
    return command(ref=None, commit=id_of(of), parts=of, **more)


def why_not(
    what: DeployRequested, *, previous: SiteRelease | None = None, live: SiteRelease | None = None, **more: Any
) -> str:
    approved = mandate(ref=None, commit=id_of(NEW), parts=NEW)
    return inside(approved, what, WEB1, NOW, previous, live, skew=SKEW, **more)


def test_a_command_lies_inside_with_the_same_parts_alone() -> None:
    assert why_not(asked(NEW)) == ""
    assert f"the mandate is for v2+v2 {id_of(NEW)[:12]}, the command for v2+v3" in why_not(asked(OTHER))
    assert why_not(asked(NEW[:1]))
    assert why_not(asked(tuple(attrs.evolve(part, ref=RefName("refs/heads/main")) for part in NEW)))
    assert "the command for v1" in why_not(command(ref=RefName("refs/tags/v1"), commit=id_of(NEW)))


def test_the_way_back_leads_from_the_parts_of_the_mandate_to_those_that_were_there_before() -> None:
    back = asked(OLD, phase="rollback")
    assert why_not(back, previous=release(OLD), live=release(NEW)) == ""
    assert why_not(back, previous=release(OLD), live=release(OLD)) == "", "a command that was sent again"
    assert "live is" in why_not(back, previous=release(OLD), live=release(OTHER))
    assert "live is" in why_not(back, previous=release(OLD), live=disguised(NEW))
    assert "the previous release" in why_not(asked(OLDER, phase="rollback"), previous=release(OLD), live=release(NEW))
    assert "the previous release" in why_not(back, previous=disguised(OLD), live=release(NEW))
    assert "one mandate is for one step" in why_not(
        back, previous=release(OLD), live=release(NEW), went_back=[release(OLDER)]
    )


@pytest.mark.parametrize("phase", ["deploy", "activate", "rollback"])
def test_a_success_is_believed_with_the_same_parts_alone(phase: str) -> None:
    what = request(ref=None, commit=id_of(NEW), parts=NEW, phase=phase)

    def judged(**live: Any) -> None:
        policy().authorize_reply(report(phase=phase, **live), signer("web1"), request=what, now=NOW)

    judged(ref=None, commit=id_of(NEW), parts=NEW)
    for live in (
        {"ref": None, "commit": id_of(OTHER), "parts": OTHER},
        {"ref": RefName("refs/tags/v1"), "commit": id_of(NEW), "parts": ()},
        {"ref": None, "commit": id_of(NEW), "parts": ()},
    ):
        with pytest.raises(PolicyRefused, match=r"not v2\+v2"):
            judged(**live)


def test_a_preparation_is_believed_of_the_parts_that_it_made() -> None:
    what = request(ref=None, commit=id_of(NEW), parts=NEW, phase="prepare")
    policy().authorize_reply(report(phase="prepare", target=release(NEW)), signer("web1"), request=what, now=NOW)
    for made in (release(OTHER), disguised(NEW), None):
        with pytest.raises(PolicyRefused):
            policy().authorize_reply(report(phase="prepare", target=made), signer("web1"), request=what, now=NOW)
