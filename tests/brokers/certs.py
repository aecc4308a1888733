"""A certificate authority for one test, with server and client certificates made on the spot.

Nothing here is meant to be secure for longer than a test: keys are not encrypted (mode 0600), validity is a day.
Make certificates that must be refused with the keywords: other hosts, an expired validity, another `Authority`.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
from pathlib import Path

import attrs
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

_DAY = dt.timedelta(days=1)
LOOPBACK = ("localhost", "127.0.0.1", "::1")


@attrs.frozen(kw_only=True)
class Identity:
    """A certificate with its private key, both as PEM files."""

    cert_file: Path
    key_file: Path
    certificate: x509.Certificate = attrs.field(repr=False)
    key: ec.EllipticCurvePrivateKey = attrs.field(repr=False)

    def write_pkcs12(self, path: Path, *, password: str, authority: Authority) -> Path:
        """Write certificate, key and chain the way Java wants them."""
        data = pkcs12.serialize_key_and_certificates(
            b"server",
            self.key,
            self.certificate,
            [authority.certificate],
            serialization.BestAvailableEncryption(password.encode()),
        )
        return _write_private(path, data)


class Authority:
    """A self-made CA in `directory`; `ca_file` is what clients verify against."""

    def __init__(self, directory: Path, *, name: str = "deploykit test CA") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _common_name(name)
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(self._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 30 * _DAY)  # older than any certificate a test wants expired
            .not_valid_after(now + _DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def server(
        self,
        *hosts: str,
        name: str = "server",
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
    ) -> Identity:
        """Make a server certificate for `hosts` (names or addresses; the loopback ones if none are given)."""
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts or LOOPBACK])
        return self._issue(name, (hosts or LOOPBACK)[0], ExtendedKeyUsageOID.SERVER_AUTH, not_before, not_after, names)

    def client(
        self,
        common_name: str,
        *,
        name: str = "client",
        not_before: dt.datetime | None = None,
        not_after: dt.datetime | None = None,
    ) -> Identity:
        """Make a client certificate; brokers may take `common_name` for the login."""
        return self._issue(name, common_name, ExtendedKeyUsageOID.CLIENT_AUTH, not_before, not_after, None)

    def client_context(self, identity: Identity | None = None) -> ssl.SSLContext:
        """Return a context that trusts only this CA, checks host names, and shows `identity` if given."""
        context = ssl.create_default_context(cafile=str(self.ca_file))
        if identity is not None:
            context.load_cert_chain(identity.cert_file, identity.key_file)
        return context

    def write_truststore(self, path: Path, *, password: str) -> Path:
        """Write the CA as a PKCS12 file that Java takes for a trust store."""
        entry = pkcs12.PKCS12Certificate(self.certificate, b"ca")
        data = pkcs12.serialize_java_truststore([entry], serialization.BestAvailableEncryption(password.encode()))
        return _write_private(path, data)

    def _issue(
        self,
        name: str,
        common_name: str,
        usage: x509.ObjectIdentifier,
        not_before: dt.datetime | None,
        not_after: dt.datetime | None,
        hosts: x509.SubjectAlternativeName | None,
    ) -> Identity:
        key = ec.generate_private_key(ec.SECP256R1())
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(_common_name(common_name))
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(not_before or now - dt.timedelta(hours=1))
            .not_valid_after(not_after or now + _DAY)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key()), critical=False)
        )
        if hosts is not None:
            builder = builder.add_extension(hosts, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        cert_file = self.directory / f"{name}.pem"
        cert_file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        key_file = _write_private(self.directory / f"{name}-key.pem", pem)
        return Identity(cert_file=cert_file, key_file=key_file, certificate=certificate, key=key)


def _common_name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _write_private(path: Path, data: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(data)
    return path
