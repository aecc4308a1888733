"""A mandate and a command inside it, to be changed by tests."""

from __future__ import annotations

from datetime import timedelta

import attrs

from deploykit.messages import DeployRequested, RolloutApproved, SiteRelease
from deploykit.names import NodeName, ObjectId, RefName, SiteName
from deploykit.trust.mandate import Mandate
from deploykit.trust.signature import Signer, Signers
from tests.support.asked import NOW, WEB1, WEB2, request

HOUR = timedelta(hours=1)
DIGEST = "d" * 64
WEB3 = NodeName("web3")
NEW = SiteRelease(release="2", ref=RefName("refs/tags/v1"), commit=ObjectId("a" * 40))
OLD = SiteRelease(release="1", ref=RefName("refs/tags/v0"), commit=ObjectId("0" * 40))
OLDER = SiteRelease(release="0", ref=RefName("refs/tags/v00"), commit=ObjectId("b" * 40))


def person(name: str, *principals: str, present: bool = True) -> Signer:
    """A signer who stands for these principals, by default for the one of its name."""
    kind = "sk-ssh-ed25519@openssh.com" if present else "ssh-ed25519"
    lines = tuple((principal,) for principal in principals or (name,))
    return Signer(fingerprint=f"SHA256:{name}", principals=lines, key_type=kind, present=present)


def approved(**changes: object) -> RolloutApproved:
    base = RolloutApproved(
        id="approval-1",
        time=NOW,
        site=SiteName("shop"),
        rollout="r1",
        ref=NEW.ref,
        commit=NEW.commit,
        nodes=(WEB1, WEB2),
        phases=("deploy", "prepare", "activate"),
        allow_rollback=True,
        not_before=NOW - HOUR,
        not_after=NOW + HOUR,
    )
    return attrs.evolve(base, **changes)  # type: ignore[arg-type]


def mandate(*signers: Signer, **changes: object) -> Mandate:
    return Mandate(message=approved(**changes), signers=Signers(each=signers or (person("ann"),)), digest=DIGEST)


def command(**changes: object) -> DeployRequested:
    return request(**{"rollout": "r1", "mandate": DIGEST, **changes})
