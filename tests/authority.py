"""Certificates for tests, in files as Kubernetes mounts a Secret: links into a directory that is swapped as a whole."""

import datetime
import ipaddress
import os
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

DAY = datetime.timedelta(days=1)


class Authority:
    """Signs certificates for names of this machine."""

    def __init__(self, name: str = "test authority") -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        builder = _builder(self._name, self._name, self._key.public_key())
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        self.pem = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def issue(self, name: str = "localhost") -> tuple[bytes, bytes]:
        """A certificate for `name` and for 127.0.0.1 to 127.0.0.3, and its key, in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        addresses = [x509.IPAddress(ipaddress.ip_address(f"127.0.0.{number}")) for number in (1, 2, 3)]
        names = x509.SubjectAlternativeName([x509.DNSName(name), *addresses])
        builder = _builder(subject, self._name, key.public_key()).add_extension(names, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        pem = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return certificate.public_bytes(serialization.Encoding.PEM), pem


class SecretMount:
    """A mounted Secret: tls.crt -> ..data/tls.crt, and ..data -> a directory of this version."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._version = 0
        self.cert, self.key, self.ca = (directory / name for name in ("tls.crt", "tls.key", "ca.crt"))

    def write(self, *, cert: bytes, key: bytes, ca: bytes) -> None:
        """Replace all three at once."""
        self._version += 1
        version = self._directory / f"..{self._version}"
        version.mkdir(parents=True)
        for name, content in (("tls.crt", cert), ("tls.key", key), ("ca.crt", ca)):
            (version / name).write_bytes(content)
            if self._version == 1:
                (self._directory / name).symlink_to(Path("..data") / name)
        link = self._directory / "..data_tmp"
        link.symlink_to(version.name)
        os.replace(link, self._directory / "..data")

    def renew(self, authority: Authority, name: str = "localhost") -> bytes:
        """A new certificate; returns it."""
        cert, key = authority.issue(name)
        self.write(cert=cert, key=key, ca=authority.pem)
        return cert


def _builder(subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
    )
