"""AWS KMS as the key service: tenant keys are encrypted and decrypted there, bound by the encryption context.

The context is `session-ledger` (the ledger's name), `tenant` and `key-id`; it stands in CloudTrail and can be asked for
in key policies. A key that KMS itself rotates keeps its ARN and needs no rotation here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, NoReturn, TypeVar

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError, PartialCredentialsError

from session_ledger.domain.errors import KeyServiceUnavailable, KeyUnavailable, Misconfigured
from session_ledger.security.provider import KeyProvider
from session_ledger.security.wrapping import Bound, Secret

TRIES_MAX = 2  # of one call, within the time that callers wait
_DOES_NOT_OPEN = frozenset(("InvalidCiphertextException", "IncorrectKeyException"))
_AWAY = frozenset(
    (
        "DependencyTimeoutException", "KMSInternalException", "KeyUnavailableException", "LimitExceededException",
        "ThrottlingException", "Throttling", "RequestLimitExceeded", "TooManyRequestsException", "InternalFailure",
        "InternalError", "ServiceUnavailable", "ServiceUnavailableException", "RequestTimeout", "ExpiredTokenException",
    )
)  # fmt: skip
_SERVER_ERROR = 500

T = TypeVar("T")


class KmsProvider(KeyProvider):
    """One symmetric key of AWS KMS wraps; whichever key a wrapped key names unwraps."""

    remote: ClassVar[bool] = True

    def __init__(self, key: str, *, region: str | None, endpoint: str | None, timeout_s: float) -> None:
        """`key`: id, ARN or alias. Region and credentials, where not given, are boto3's defaults. Asks nothing yet."""
        self._key = key
        timeouts = {"connect_timeout": timeout_s, "read_timeout": timeout_s}
        config = Config(**timeouts, retries={"total_max_attempts": TRIES_MAX, "mode": "standard"})
        try:
            self._client = boto3.Session().client("kms", region_name=region, endpoint_url=endpoint, config=config)
        except (BotoCoreError, ValueError) as error:
            raise Misconfigured(f"AWS KMS can not be used: {error}; see `kms_region` and `kms_endpoint`") from error

    def describe(self) -> str:
        return f"the key {self._key} of AWS KMS"

    def holds(self, provider_key_id: str) -> bool:
        return provider_key_id.startswith("arn:")

    def current(self) -> str:
        arn: str = self._asked(lambda: self._client.describe_key(KeyId=self._key))["KeyMetadata"]["Arn"]
        return arn

    def wrap(self, key: bytes, bound: Bound) -> tuple[str, bytes]:
        context = bound.context()
        answer = self._asked(lambda: self._client.encrypt(KeyId=self._key, Plaintext=key, EncryptionContext=context))
        return answer["KeyId"], answer["CiphertextBlob"]

    def unwrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> bytes:
        given = {"KeyId": provider_key_id, "CiphertextBlob": wrapped, "EncryptionContext": bound.context()}
        return Secret(self._asked(lambda: self._client.decrypt(**given), provider_key_id)["Plaintext"])

    def rewrap(self, provider_key_id: str, wrapped: bytes, bound: Bound) -> tuple[str, bytes]:
        """By ReEncrypt: the tenant key does not leave the service for it."""
        context = bound.context()
        answer = self._asked(
            lambda: self._client.re_encrypt(
                CiphertextBlob=wrapped,
                SourceKeyId=provider_key_id,
                SourceEncryptionContext=context,
                DestinationKeyId=self._key,
                DestinationEncryptionContext=context,
            ),
            provider_key_id,
        )
        return answer["KeyId"], answer["CiphertextBlob"]

    def _asked(self, call: Callable[[], T], by: str | None = None) -> T:
        """What the call answers. `by`: the key that should open something, where it is not the one that wraps."""
        try:
            return call()
        except ClientError as error:
            self._raise(error, by or self._key)
        except (NoCredentialsError, PartialCredentialsError, NoRegionError) as error:
            raise Misconfigured(f"AWS KMS can not be asked: {error}") from None
        except BotoCoreError as error:  # no connection, no answer in time, an answer that is none
            raise KeyServiceUnavailable(f"AWS KMS can not be asked now: {error}; repeat in a moment") from None

    def _raise(self, error: ClientError, key: str) -> NoReturn:
        code, said = error.response["Error"]["Code"], error.response["Error"].get("Message", "")
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _DOES_NOT_OPEN:
            raise KeyUnavailable(
                f"a tenant key does not unwrap with {key} of AWS KMS ({code}): it is damaged, or belongs to another "
                "ledger or tenant"
            ) from None
        if code in _AWAY or status >= _SERVER_ERROR:
            raise KeyServiceUnavailable(f"AWS KMS does not answer for {key} now ({code}): repeat in a moment") from None
        raise Misconfigured(f"AWS KMS refuses key {key} ({code}): {said}; see that it exists, is enabled, and that "
                            "this process may use it") from None  # fmt: skip
