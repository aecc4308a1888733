"""The real ssh-keygen, as an oracle for keys, signatures and allowed_signers files."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deploykit.trust.sshsig import NAMESPACE
from tests.support.needs import needs


class SshKeygen:
    """Runs ssh-keygen in a directory of its own; no agent, no home, no question asked."""

    def __init__(self, directory: Path, zone: str = "UTC") -> None:
        self.program = str(needs("ssh-keygen", package="openssh-client"))
        self.directory = directory
        self.zone = zone

    def run(self, *args: str | Path, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        env = {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "LC_ALL": "C", "TZ": self.zone}
        argv = [self.program, *map(str, args)]
        # The primes of an RSA key are found by chance: now and then it takes ten times as long.
        return subprocess.run(argv, input=stdin, capture_output=True, env=env, cwd=self.directory, timeout=240)

    def generate(self, name: str, *, kind: str = "ed25519", passphrase: str = "", comment: str = "made here") -> Path:
        path = self.directory / name
        done = self.run("-q", "-t", kind, "-N", passphrase, "-C", comment, "-f", path)
        assert done.returncode == 0, done.stderr
        return path

    def sign(self, key: Path, body: bytes, *options: str, namespace: str = NAMESPACE) -> str:
        """Return the armored signature."""
        done = self.run("-Y", "sign", "-f", key, "-n", namespace, *options, stdin=body)
        assert done.returncode == 0, done.stderr
        return done.stdout.decode()

    def verify(
        self,
        body: bytes,
        armored: str,
        allowed: str,
        *,
        principal: str,
        at: str = "",
        revoked: str | bytes = "",
        namespace: str = NAMESPACE,
    ) -> subprocess.CompletedProcess[bytes]:
        """Verify; `at` is a time as allowed_signers writes it, instead of now."""
        (self.directory / "signature").write_text(armored)
        (self.directory / "allowed").write_text(allowed)
        (self.directory / "revoked").write_bytes(revoked.encode() if isinstance(revoked, str) else revoked)
        options = [f"-Overify-time={at}"] if at else []
        options += ["-r", "revoked"] if revoked else []
        return self.run(
            *("-Y", "verify", "-f", "allowed", "-I", principal, "-n", namespace, "-s", "signature", *options),
            stdin=body,
        )

    def check(self, body: bytes, armored: str, *, namespace: str = NAMESPACE) -> subprocess.CompletedProcess[bytes]:
        (self.directory / "signature").write_text(armored)
        return self.run("-Y", "check-novalidate", "-n", namespace, "-s", "signature", stdin=body)
