"""AWS KMS as the key service: a real client against a KMS on the loopback interface, and against what is none."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from session_ledger.domain.errors import KeyServiceUnavailable, KeyUnavailable, Misconfigured
from session_ledger.ledger.keys import open_keys, open_provider
from session_ledger.ledger.ledger import Ledger
from session_ledger.ledger.open import open_settings
from session_ledger.security.envelope import VaultEnvelope
from session_ledger.security.keyring import Keyring
from session_ledger.security.kms import KmsProvider
from session_ledger.security.providers import WithOlder
from session_ledger.security.rotation import ProviderRotated
from session_ledger.security.vault import SQLiteVault
from session_ledger.security.wrapping import Bound
from tests.security.made import TENANT, durable_key, new_key

KEY = b"t" * 32
BOUND = Bound("support", TENANT, b"k" * 16)
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[str]:
    """A KMS on the loopback interface."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(autouse=True)
def _credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process in the cloud has them in its environment."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")


@pytest.fixture
def admin(endpoint: str) -> Any:
    """Who administers keys there."""
    return boto3.client("kms", region_name=REGION, endpoint_url=endpoint)


@pytest.fixture
def arn(admin: Any) -> str:
    """A new symmetric key."""
    made: str = admin.create_key(Description="of a test")["KeyMetadata"]["Arn"]
    return made


def kms(endpoint: str, key: str) -> KmsProvider:
    """The key service under test."""
    return KmsProvider(key, region=REGION, endpoint=endpoint, timeout_s=10)


@contextmanager
def _answering(status: int, code: str) -> Iterator[str]:
    """Something on the loopback interface that answers every call with that error."""

    class Refusing(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.dumps({"__type": code, "message": "as told"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def test_a_key_is_wrapped_and_unwrapped_there(endpoint: str, arn: str) -> None:
    """The name is the key's ARN; the wrapped form holds nothing of the key."""
    provider = kms(endpoint, arn)
    name, wrapped = provider.wrap(KEY, BOUND)
    assert arn == name == provider.current()
    assert KEY not in wrapped
    assert KEY == provider.unwrap(name, wrapped, BOUND)
    assert provider.holds(name)


def test_an_alias_names_the_key_that_it_points_to(endpoint: str, admin: Any, arn: str) -> None:
    """What stands in the vault is the key's own ARN, so that moving the alias later loses nothing."""
    alias = f"alias/{arn[-12:]}"
    admin.create_alias(AliasName=alias, TargetKeyId=arn)
    provider = kms(endpoint, alias)
    name, wrapped = provider.wrap(KEY, BOUND)
    assert arn == name
    assert name == provider.current()
    other = admin.create_key()["KeyMetadata"]["Arn"]
    admin.update_alias(AliasName=alias, TargetKeyId=other)
    assert name != provider.current()
    again, rewrapped = provider.rewrap(name, wrapped, BOUND)
    assert other == again
    assert KEY == provider.unwrap(again, rewrapped, BOUND) == provider.unwrap(name, wrapped, BOUND)


@pytest.mark.parametrize(
    "other", [BOUND._replace(ledger="sales"), BOUND._replace(tenant="other"), BOUND._replace(key_id=b"o" * 16)]
)
def test_a_wrapped_key_is_bound_by_the_encryption_context(endpoint: str, arn: str, other: Bound) -> None:
    """Of another ledger, tenant or key id: KeyUnavailable that names the key, for unwrapping and for wrapping anew."""
    provider = kms(endpoint, arn)
    name, wrapped = provider.wrap(KEY, BOUND)
    for call in (provider.unwrap, provider.rewrap):
        with pytest.raises(KeyUnavailable, match="does not unwrap") as raised:
            call(name, wrapped, other)
        assert arn in str(raised.value)
        assert not raised.value.retriable


def test_the_ledgers_own_key_names_no_tenant() -> None:
    """A context holds no empty value, and the tenant of that name could not be told from none."""
    assert {"session-ledger", "key-id"} == set(BOUND._replace(tenant="").context())
    assert {"session-ledger", "key-id", "tenant"} == set(BOUND.context())


def test_a_key_that_does_not_exist_is_a_configuration(endpoint: str) -> None:
    """Misconfigured names it, for everything that would use it."""
    provider = kms(endpoint, f"arn:aws:kms:{REGION}:123456789012:key/00000000-0000-0000-0000-000000000000")
    for call in (provider.current, lambda: provider.wrap(KEY, BOUND)):
        with pytest.raises(Misconfigured, match="00000000-0000"):
            call()


def test_nobody_at_the_endpoint_is_retriable(arn: str) -> None:
    """KeyServiceUnavailable, whether nothing listens there or what listens does not answer."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(KeyServiceUnavailable) as raised:
            KmsProvider(arn, region=REGION, endpoint=nobody, timeout_s=1).wrap(KEY, BOUND)
        assert raised.value.retriable
        listener.listen()
        with pytest.raises(KeyServiceUnavailable):
            KmsProvider(arn, region=REGION, endpoint=nobody, timeout_s=0.1).wrap(KEY, BOUND)


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (400, "ThrottlingException", KeyServiceUnavailable),
        (500, "KMSInternalException", KeyServiceUnavailable),
        (503, "Whatever", KeyServiceUnavailable),
        (400, "ExpiredTokenException", KeyServiceUnavailable),
        (400, "AccessDeniedException", Misconfigured),
        (400, "DisabledException", Misconfigured),
        (400, "KMSInvalidStateException", Misconfigured),
        (400, "IncorrectKeyException", KeyUnavailable),
    ],
)
def test_what_kms_answers_is_a_typed_error(status: int, code: str, error: type[Exception], arn: str) -> None:
    """By its code: away for now, refused, or not the key that wrapped."""
    with _answering(status, code) as url, pytest.raises(error) as raised:
        kms(url, arn).unwrap(arn, b"wrapped", BOUND)
    assert error is type(raised.value)
    assert arn in str(raised.value)


def test_without_credentials_or_region_it_is_a_configuration(
    arn: str, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Misconfigured says which is missing."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Misconfigured, match="credentials"):
        kms(endpoint, arn).wrap(KEY, BOUND)
    with pytest.raises(Misconfigured, match="region"):
        KmsProvider(arn, region=None, endpoint=None, timeout_s=1)


def test_a_ledger_seals_by_keys_that_kms_wraps(endpoint: str, arn: str, tmp_path: Path) -> None:
    """By settings alone; no keyring is made, and what was said is read again after opening anew."""
    options: dict[str, Any] = {"key_service": "kms", "kms_key": arn, "kms_region": REGION, "kms_endpoint": endpoint}
    url = f"sqlite:{tmp_path / 'ledger'}"
    with Ledger.open(url, **options) as ledger:
        session = ledger.create_session("acme", "ann", title="hello").session_id
    with Ledger.open(url, **options) as ledger:
        ledger.add_message("acme", "ann", session, role="user", content="hello")
    assert not (tmp_path / "ledger" / "keyring.json").exists()
    with open_keys(tmp_path / "ledger", "ledger", open_settings(None, options)) as keys:
        assert {arn} == {key.provider_key_id for key in keys.vault.tenants.all()}


def test_a_ledger_moves_from_a_keyring_to_kms_and_back(endpoint: str, arn: str, tmp_path: Path) -> None:
    """With the other service still there a rotation of the provider wraps every tenant key; then it may go."""
    keyring, vault = Keyring.create(tmp_path / "keyring.json"), SQLiteVault(tmp_path / "vault.db")
    key = durable_key(VaultEnvelope("support", vault, keyring))
    service = kms(endpoint, arn)
    both = VaultEnvelope("support", vault, WithOlder(service, keyring))
    assert new_key(both).key_id == key.key_id
    settings = {"key_service": "kms", "kms_key": arn, "kms_region": REGION, "kms_endpoint": endpoint}
    with open_keys(tmp_path, "support", open_settings(None, settings)) as keys:
        assert (arn, 1) == _told(keys.rotation.rotate_provider())
    assert new_key(VaultEnvelope("support", vault, service)).key_id == key.key_id
    back = open_settings(None, {**settings, "key_service": "keyring"})
    assert isinstance(open_provider(tmp_path, back, must_exist=True), WithOlder)
    with open_keys(tmp_path, "support", back) as keys:
        assert (keyring.primary, 1) == _told(keys.rotation.rotate_provider())
    assert new_key(VaultEnvelope("support", vault, keyring)).key_id == key.key_id
    vault.close()


def _told(rotated: ProviderRotated) -> tuple[str, int]:
    return rotated.provider_key_id, rotated.tenant_keys


def test_kms_without_its_package_says_what_to_install(tmp_path: Path) -> None:
    """The extra's name; a ledger with a keyring never imports it."""
    script = (
        "import sys; sys.modules['boto3'] = None\n"
        "from session_ledger import Ledger\n"
        "Ledger.open(sys.argv[1]).close()\n"
        "Ledger.open(sys.argv[1], key_service='kms', kms_key='k')\n"
    )
    command = [sys.executable, "-c", script, f"sqlite:{tmp_path / 'ledger'}"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert "Misconfigured: `kms_key` is set, and the package boto3 is not there: install session-ledger[kms]" in (
        ran.stderr
    )


def test_kms_without_a_key_is_a_configuration(tmp_path: Path) -> None:
    """Misconfigured says which setting is missing, before anything is made."""
    with pytest.raises(Misconfigured, match="kms_key"):
        open_provider(tmp_path, open_settings(None, {"key_service": "kms"}), must_exist=False)
    assert [] == list(tmp_path.iterdir())
