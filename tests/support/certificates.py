"""OpenSSH certificates and lists of revoked keys, made field by field, also such as ssh-keygen would not make."""

from __future__ import annotations

import attrs

from deploykit.trust.keyformat import ssh_string
from deploykit.trust.signature import SigningKey
from tests.support.keys import fixed_key
from tests.support.securitykeys import SoftwareSecurityKey

#: The authority of tests.
AUTHORITY = fixed_key(200)
FOREVER = (1 << 64) - 1


def packed(*texts: str | bytes) -> bytes:
    """SSH strings in a row: principals, or names and values of options."""
    return b"".join(ssh_string(text.encode() if isinstance(text, str) else text) for text in texts)


@attrs.frozen(kw_only=True, slots=True)
class CertificateMaker:
    """Makes certificates; `attrs.evolve` it."""

    key: bytes = fixed_key(1).public_blob
    authority: SigningKey | SoftwareSecurityKey = AUTHORITY
    serial: int = 7
    type: int = 1
    key_id: str | bytes = "ann@laptop"
    principals: bytes = packed("ann")
    after: int = 0
    before: int = FOREVER
    critical: bytes = b""
    extensions: bytes = packed("permit-pty", "")
    nonce: bytes = b"n" * 32

    def make(self) -> bytes:
        """The blob of a certificate of the key."""
        size = int.from_bytes(self.key[:4], "big")
        kind = self.key[4 : 4 + size].removesuffix(b"@openssh.com") + b"-cert-v01@openssh.com"
        signed = b"".join(
            (
                ssh_string(kind),
                ssh_string(self.nonce),
                self.key[4 + size :],
                self.serial.to_bytes(8, "big"),
                self.type.to_bytes(4, "big"),
                packed(self.key_id),
                ssh_string(self.principals),
                self.after.to_bytes(8, "big"),
                self.before.to_bytes(8, "big"),
                ssh_string(self.critical),
                ssh_string(self.extensions),
                ssh_string(b""),
                ssh_string(self.authority.public_blob),
            )
        )
        if isinstance(self.authority, SoftwareSecurityKey):
            return signed + ssh_string(self.authority.signature_of(signed, self.authority.key_type))
        return signed + ssh_string(packed("ssh-ed25519", self.authority._key.sign(signed)))


def krl(*sections: tuple[int, bytes], version: int = 1, magic: bytes = b"SSHKRL\n\0") -> bytes:
    """A binary list with these sections."""
    head = magic + version.to_bytes(4, "big") + bytes(24) + packed("", "made by a test")
    return head + b"".join(bytes([kind]) + ssh_string(data) for kind, data in sections)


def krl_of(authority: bytes, *sections: tuple[int, bytes]) -> tuple[int, bytes]:
    """The section of one authority's certificates, for `krl`."""
    return 1, packed(authority, "") + b"".join(bytes([kind]) + ssh_string(data) for kind, data in sections)


def certify(signature: bytes, certificate: bytes) -> bytes:
    """A signature's SSHSIG blob with a certificate in the place of its key, as `ssh-keygen -Y sign` writes it."""
    size = int.from_bytes(signature[10:14], "big")
    return signature[:10] + ssh_string(certificate) + signature[14 + size :]
