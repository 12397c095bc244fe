"""Certificates for tests: an authority, and what it signs."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Authority:
    """Signs certificates.

    Args:
        folder: Where files go; ``ca_file`` among them.
        name: Of its own.
        existing: Files of the certificate and the key of one that is there already.
    """

    def __init__(
        self, folder: Path, name: str = "test-ca", *, existing: tuple[Path, Path] | None = None
    ) -> None:
        self._folder = folder
        if existing is None:
            key = ec.generate_private_key(ec.SECP256R1())
            self._key, self._name = key, _named(name)
            certificate = _builder(self._name, self._name, key, ends_in=timedelta(days=1)).add_extension(
                x509.BasicConstraints(ca=True, path_length=None), critical=True
            )
            signed = certificate.sign(key, hashes.SHA256())
            self.ca_file = folder / f"{name}.crt"
            self.ca_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        else:
            self.ca_file, key_file = existing
            self._key = serialization.load_pem_private_key(key_file.read_bytes(), None)
            self._name = x509.load_pem_x509_certificate(self.ca_file.read_bytes()).subject

    def issue(
        self,
        name: str,
        *,
        hosts: tuple[str, ...] = (),
        ends_in_days: float = 1.0,
        password: str | None = None,
    ) -> tuple[Path, Path]:
        """A certificate and its key, in files.

        Args:
            name: Of whom, and of the files.
            hosts: Names or addresses that it is for.
            ends_in_days: From now; below 0 it has ended.
            password: Encrypts the key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        builder = _builder(_named(name), self._name, key, ends_in=timedelta(days=ends_in_days))
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([_host(host) for host in hosts]), False
            )
        signed = builder.sign(self._key, hashes.SHA256())
        cert_file, key_file = self._folder / f"{name}.crt", self._folder / f"{name}.key"
        cert_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        encryption = serialization.BestAvailableEncryption(password.encode()) if password else None
        key_file.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                encryption or serialization.NoEncryption(),
            )
        )
        return cert_file, key_file


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, *, ends_in: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=30))
        .not_valid_after(now + ends_in)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)
