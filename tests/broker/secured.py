"""A broker that lets in who proves to be somebody: TLS and SASL on a listener of its own, and an authorizer."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kafka import KafkaAdminClient
from kafka.admin import ACL, ACLOperation, ACLPermissionType, ACLResourcePatternType, ResourcePattern, ResourceType

from tests.broker.broker import Broker
from tests.broker.server import free_port

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
LOGIN = "org.apache.kafka.common.security"
AUTHORIZER = "org.apache.kafka.metadata.authorizer.StandardAuthorizer"


class Authority:
    """Who signs certificates; `file` holds its own."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(_pem(self._certificate(self._name, self._key.public_key(), authority=True)))

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePublicKey, authority: bool) -> x509.Certificate:
        now = datetime.datetime.now(datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(minutes=5))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        )
        if not authority:
            here = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.IPv4Address("127.0.0.1"))])
            made = made.add_extension(here, critical=False)
        return made.sign(self._key, hashes.SHA256())

    def keystore(self, file: Path, name: str) -> Path:
        """A new key and its certificate for 127.0.0.1 in that file, as Kafka takes them."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        plain = serialization.NoEncryption()
        form = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        file.write_bytes(form + _pem(self._certificate(subject, key.public_key(), authority=False)))
        return file


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class SecuredBroker(Broker):
    """Its listener at `secured` wants TLS and SASL, that at `mutual` a certificate of the authority's.

    On the plain one everybody may do everything, as a test must.
    """

    def __init__(self, data: Path, users: dict[str, str]) -> None:
        """`users`: name to password, known to every mechanism."""
        self.secured, self.mutual = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.authority = Authority(data, "authority")
        plain = " ".join(f'user_{name}="{password}"' for name, password in users.items())
        scram = [
            argument
            for name, password in users.items()
            for mechanism in MECHANISMS[1:]
            for argument in ("--add-scram", f"{mechanism}=[name={name},password={password}]")
        ]
        super().__init__(data, form=scram)
        ours, mutual = "listener.name.secured", "listener.name.mutual"
        listeners = f"PLAINTEXT://{self.bootstrap},SECURED://{self.secured},MUTUAL://{self.mutual}"
        certificate = str(self.authority.keystore(data / "broker.pem", "broker"))
        self.properties |= {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{self.controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,SECURED:SASL_SSL,MUTUAL:SSL,CONTROLLER:PLAINTEXT",
            "authorizer.class.name": AUTHORIZER,
            "super.users": "User:ANONYMOUS",  # the controller, the broker itself and the test
            f"{ours}.ssl.keystore.type": "PEM",
            f"{ours}.ssl.keystore.location": certificate,
            f"{ours}.sasl.enabled.mechanisms": ",".join(MECHANISMS),
            f"{ours}.plain.sasl.jaas.config": f"{LOGIN}.plain.PlainLoginModule required {plain};",
            f"{ours}.scram-sha-256.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
            f"{ours}.scram-sha-512.sasl.jaas.config": f"{LOGIN}.scram.ScramLoginModule required;",
            f"{mutual}.ssl.keystore.type": "PEM",
            f"{mutual}.ssl.keystore.location": certificate,
            f"{mutual}.ssl.truststore.type": "PEM",
            f"{mutual}.ssl.truststore.location": str(self.authority.file),
            f"{mutual}.ssl.client.auth": "required",
        }

    def allow(self, user: str, rules: str) -> None:
        """Allow a user operations, one resource a line: ``KIND NAME[*]: OPERATION, OPERATION``."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.create_acls(list(_acls(user, rules)))
        finally:
            admin.close()

    def forbid(self, user: str, rules: str) -> None:
        """Take back what was allowed."""
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        try:
            admin.delete_acls(list(_acls(user, rules)))
        finally:
            admin.close()


def _acls(user: str, rules: str) -> Iterator[ACL]:
    for line in filter(None, map(str.strip, rules.splitlines())):
        resource, _, operations = line.partition(":")
        kind, _, name = resource.partition(" ")
        how = ACLResourcePatternType.PREFIXED if name.endswith("*") else ACLResourcePatternType.LITERAL
        pattern = ResourcePattern(ResourceType[kind], name.removesuffix("*"), how)
        for operation in operations.split(","):
            yield ACL(f"User:{user}", "*", ACLOperation[operation.strip()], ACLPermissionType.ALLOW, pattern)
