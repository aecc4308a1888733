"""One line of an authority stands for a node and for who deploys to it; a revoked serial stops one of them."""

from __future__ import annotations

from pathlib import Path

import attrs

from deploykit.broker.server import EmbeddedBroker
from deploykit.trust.keyfiles import load_signing_key
from deploykit.trust.krl import serial_line
from tests.support.node import NODE, Node
from tests.support.sshkeygen import SshKeygen


def certified(keygen: SshKeygen, name: str, principal: str, serial: int) -> Path:
    """Have ssh-keygen sign a key of the node's directory; the path of the certificate."""
    done = keygen.run(
        *("-q", "-s", "ca", "-I", f"{name} by the test", "-n", principal, "-z", str(serial), "-V", "-5m:+5m"),
        f"{name}.key.pub",
    )
    assert done.returncode == 0, done.stderr
    return keygen.directory / f"{name}.key-cert.pub"


def test_a_node_and_a_person_certified_by_one_authority_understand_each_other(
    tmp_path: Path, deploykit_broker: EmbeddedBroker
) -> None:
    node, keygen = Node(tmp_path, deploykit_broker), SshKeygen(tmp_path)
    keygen.generate("ca")
    line = f'* cert-authority,namespaces="deploykit" {(tmp_path / "ca.pub").read_text()}'
    node.signers.write_text(line)
    operator = certified(keygen, "operator", "ops@example.org", 7)
    key_file = certified(keygen, "node", str(NODE), 8)
    (tmp_path / "spec").write_text("")
    assert keygen.run("-q", "-k", "-s", "ca.pub", "-f", "krl", "spec").returncode == 0
    (tmp_path / "krl").chmod(0o644)
    node.keys["operator"] = load_signing_key(operator)
    trust = attrs.evolve(node.settings.trust, revoked_keys=tmp_path / "krl")
    commit = node.origin.push(tag="v1", files={"index.html": "one\n"})
    with node, node.agent(signing_key=key_file, trust=trust) as agent:
        agent.ready()
        first = node.request("v1", commit)
        node.send(first)
        report = node.report_on(first)  # by the node's certificate: there is no line of its key
        assert report.outcome == "success", report
        # The next message is judged by the list as it is then.
        (tmp_path / "spec").write_text(serial_line(7) + "\n")
        assert keygen.run("-q", "-k", "-u", "-s", "ca.pub", "-f", "krl", "spec").returncode == 0
        second = node.request("v1", commit)
        node.send(second)
        refusal = node.report_on(second)
        assert refusal.outcome == "refused"
        assert "serial" not in refusal.detail  # a fixed text: it goes to a topic that others hear
