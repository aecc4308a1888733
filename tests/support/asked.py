"""A deploy request, its report and a signer, to be changed by the tests of policies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from deploykit.messages import DeployReported, DeployRequested
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.settings import GrantSettings
from deploykit.trust.policy import Policy
from deploykit.trust.signature import Signers
from tests.support import signers

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
SECOND = timedelta(seconds=1)
CAP = timedelta(seconds=3600)
SKEW = timedelta(seconds=30)
WEB1, WEB2 = NodeName("web1"), NodeName("web2")


def signer(*patterns: str) -> Signers:
    return signers.one(fingerprint="SHA256:x", principals=(patterns,))


def request(**changes: object) -> DeployRequested:
    base = DeployRequested(
        id="request-1",
        time=NOW,
        site=SiteName("shop"),
        ref=RefName("refs/tags/v1"),
        commit=ObjectId("a" * 40),
        audience=(WEB1,),
        expires=NOW + timedelta(minutes=5),
    )
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def report(**changes: object) -> DeployReported:
    base = DeployReported(
        time=NOW,
        node=WEB1,
        site=SiteName("shop"),
        request="request-1",
        phase="deploy",
        outcome="success",
        ref=RefName("refs/tags/v1"),
        commit=ObjectId("a" * 40),
    )
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def policy(*grants: GrantSettings) -> Policy:
    return Policy(grants=grants, max_expiry=CAP, skew=SKEW)


OPS = policy(GrantSettings(principal="ops", types=("deploy.requested",)))
