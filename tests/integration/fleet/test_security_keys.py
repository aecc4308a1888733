"""Rollouts signed by a security key: obeyed by real agents, and refused at once where a signature shows too little."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from deploykit.broker.server import EmbeddedBroker
from deploykit.trust.keyfiles import trust
from deploykit.trust.signature import BodySigner
from tests.support.keys import fixed_key
from tests.support.realfleet import RealFleet
from tests.support.securitykeys import SoftwareSecurityKey


@pytest.mark.parametrize(
    ("last", "says"),
    [
        (SoftwareSecurityKey.ecdsa(presence=False), "the signature does not show what this node asks for"),
        (fixed_key(77), "this node obeys no command without a signature by a key that it trusts"),
    ],
    ids=["untouched", "stranger"],
)
def test_a_security_keys_rollout_is_obeyed_and_one_that_does_not_count_is_refused_at_once(
    tmp_path: Path, deploykit_broker: EmbeddedBroker, last: BodySigner, says: str
) -> None:
    """The refusal is believed although the node could not verify what it answers: nobody waits for the timeout."""
    token = SoftwareSecurityKey.ecdsa()
    fleet = RealFleet(tmp_path, deploykit_broker.address, ("web1",))
    trust(tmp_path / "allowed_signers", "ops@example.org", token.public_blob)
    with fleet:
        fleet.push("v1")
        done = fleet.run(attrs.evolve(fleet.planned("v1"), key=token))
        assert (done.exit_code, fleet.live()) == (0, ["v1"]), done.model
        fleet.push("v2")
        refused = fleet.run(attrs.evolve(fleet.planned("v2"), key=last))
        assert (refused.exit_code, fleet.live()) == (3, ["v1"]), refused.model
        (node,) = refused.model.nodes.values()
        assert node.state == "refused"
        assert says in node.detail
