"""Build results, their keys and a judge, to be changed by the tests of the gate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import attrs

from deploykit.builds import KnownResult, SignedResult
from deploykit.messages import BuildFinished
from deploykit.names import NodeName, ObjectId, RefName, RepoName
from deploykit.settings import GrantSettings, TrustSettings
from deploykit.trust.allowed_signers import AllowedSigners
from deploykit.trust.check import Trust
from deploykit.trust.signature import BodySigner, SigningKey, sign
from deploykit.wire import encode
from tests.support.keys import fixed_key

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
DAY = timedelta(days=1)
REMEMBER = 90 * DAY
SHOP = RepoName("shop")
COMMIT, OTHER = ObjectId("1a2b3c4d" * 5), ObjectId("9f" * 20)
JOB = "shop-tests"
JENKINS, STRANGER = fixed_key(31), fixed_key(32)
GRANT = GrantSettings(principal="jenkins", types=("build.finished",), repos=("shop",), jobs=("shop-*",))


def result(**changes: object) -> BuildFinished:
    """A successful build number 41 of the commit, five minutes old."""
    base = BuildFinished(
        source="jenkins/ci1",
        time=NOW - timedelta(minutes=5),
        job=JOB,
        number=41,
        repo=SHOP,
        ref=RefName("refs/tags/v1"),
        commit=COMMIT,
        outcome="success",
    )
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def signed(message: BuildFinished, key: BodySigner = JENKINS) -> SignedResult:
    return SignedResult.from_frame(sign(encode(message), key))


def known(**changes: object) -> KnownResult:
    """A result that counts, unless `objection` is given."""
    objection = str(changes.pop("objection", ""))
    return KnownResult(result=result(**changes), objection=objection, signer=JENKINS.fingerprint)


def trust(*grants: GrantSettings, keys: dict[str, SigningKey] | None = None, revoked: str = "") -> Trust:
    """Whom a node believes: `jenkins`, unless other keys are given."""
    lines = "\n".join(f"{name} {key.public_openssh}" for name, key in (keys or {"jenkins": JENKINS}).items())
    allowed = AllowedSigners.parse(lines, revoked=revoked)
    settings = TrustSettings(grants=grants or (GRANT,))
    return Trust.from_settings(settings, NodeName("web1"), trusted=lambda: allowed)
