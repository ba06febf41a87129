"""Configuration: `SESSION_LEDGER_` environment variables and a TOML file, environment first."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from session_ledger.domain.errors import Misconfigured
from session_ledger.domain.validate import Rules
from session_ledger.security.access import EVERY_TENANT
from session_ledger.security.elapsed import CACHED_S

CONFIG_VARIABLE = "SESSION_LEDGER_CONFIG"
CONFIG_FILE = "session-ledger.toml"
REGISTRY_OPTIONS = frozenset(("user", "password", "token", "ca_file", "cert_file", "key_file", "timeout_s"))


class PrincipalSettings(BaseModel):
    """What a user of the system may do; see `security.access`."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    role: Literal["owner", "operator", "auditor", "service"]
    tenants: tuple[str, ...] = Field(min_length=1)
    """Where the role counts; `["*"]`: in every tenant."""

    @field_validator("tenants")
    @classmethod
    def _named(cls, tenants: tuple[str, ...]) -> tuple[str, ...]:
        if "" in tenants:
            raise ValueError("a tenant has a name")
        if EVERY_TENANT in tenants and len(tenants) > 1:
            raise ValueError(f"{EVERY_TENANT!r} means every tenant: it stands alone")
        return tenants


class Settings(BaseSettings):
    """Everything that can be set. Each field is `SESSION_LEDGER_<NAME>` in the environment, `<name>` in the file.

    The file is the one that `SESSION_LEDGER_CONFIG` names, else `session-ledger.toml` in the working directory.
    """

    model_config = SettingsConfigDict(
        env_prefix="SESSION_LEDGER_", extra="forbid", frozen=True, hide_input_in_errors=True
    )

    url: str = "sqlite:./session-ledger"
    """The ledger that commands use when none is named."""
    name: str | None = None
    """The name of a new ledger (it enters every seal and never changes); None: the directory's name or the topic's."""

    principals: dict[str, PrincipalSettings] = Field(default_factory=dict)
    """Who may do what, by the system's user name; none: whoever reaches the ledger's files may do everything."""
    command_socket: Path | None = None
    """Where the owner listens for the commands of others; None: in the ledger's directory, for its own user alone.

    Elsewhere, and where `principals` are set, any user of the system may connect, and is answered by role.
    """

    encryption: Literal["local", "none"] = "local"
    """`local`: a keyring file and a vault beside the ledger. `none`: content stands in the log as plaintext."""
    keyring: Path | None = None
    """The wrapping keys' file; None: `keyring.json` in the ledger's directory."""
    key_service: Literal["keyring", "kms"] = "keyring"
    """What wraps tenants' keys: `keyring`, a file; `kms`, AWS KMS (needs the extra `kms`)."""
    kms_key: str | None = Field(default=None, min_length=1)
    """AWS KMS: id, ARN or alias of the symmetric key that wraps."""
    kms_region: str | None = None
    """AWS KMS: the region; None: as boto3 finds it, like the credentials."""
    kms_endpoint: str | None = None
    """AWS KMS: another URL than the region's own, such as a VPC endpoint's."""
    key_service_wait_s: float = Field(default=5.0, gt=0, le=60)
    """How long a command waits for the key service; then it fails with a retriable error, and nothing is recorded."""
    keys_cached_s: float = Field(default=CACHED_S, gt=0, le=CACHED_S)
    """How long a key that was unwrapped is used, 300 at most; then the vault is asked again, and for a tenant's key the
    service."""
    keys_cached_max: int = Field(default=20_000, ge=16)
    """Unwrapped keys in memory: of data keys that seal, of data keys that opened, and of tenant keys, each."""
    session_key_age_max_s: float = Field(default=86_400.0, ge=0)
    """A session whose data key is older gets a new one with its next sealed event; 0: only when asked for."""
    pseudonyms: bool = False
    """Users are named by keyed pseudonyms in all that is recorded. Fixed when the ledger is created."""
    metadata_allow: tuple[str, ...] = ()
    """Metadata keys that stay readable; every other key is sealed."""
    topics: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Topic to the words that tell of it: a message without a topic gets the one most of whose words it holds.

    It stays readable. Where `metadata_allow` names `topic`, the metadata's goes first.
    """

    content_bytes_max: int = Field(default=1024 * 1024, gt=0, le=2 * 1024 * 1024)
    metadata_bytes_max: int = Field(default=64 * 1024, gt=0, le=512 * 1024)
    id_bytes_max: int = Field(default=256, gt=0, le=256)

    queue_commands_max: int = Field(default=10_000, gt=0)
    """Commands that may wait for one partition; one more is refused with `Overloaded`."""
    queue_bytes_max: int = Field(default=64 * 1024 * 1024, gt=0)
    batch_commands_max: int = Field(default=1024, gt=0)
    """Commands that one append may carry."""
    batch_bytes_max: int = Field(default=3 * 1024 * 1024, gt=0, le=3 * 1024 * 1024)
    """Bytes after which no further command joins an append (a Kafka topic of the ledger takes 4 MiB)."""
    close_timeout_s: float = Field(default=30.0, ge=0)
    """How long `close()` waits for what is queued."""
    settle_timeout_s: float = Field(default=60.0, gt=0)
    """How long an append of unknown outcome is looked for before its callers are told that it is unknown."""
    clock_skew_max_s: float = Field(default=60.0, gt=0)
    """A writer further off the broker's clock, or behind the last record, refuses to serve."""

    accounts_in_memory: int = Field(default=20_000, ge=16)
    """Users of a partition whose state stays in memory; the others are read back from the local state file."""
    checkpoint_events: int = Field(default=20_000, gt=0)
    """Events after which the local state file is brought up to date (also when a partition is idle, and on close)."""

    kafka_client: dict[str, str | int | float | bool] = Field(default_factory=dict, repr=False)
    """Further options of the Kafka client: `security_protocol`, `sasl_mechanism`, `ssl_cafile`, ...

    `sasl_plain_password_file` names a file that holds the password alone.
    """

    schema_registry: str | None = None
    """URL of a schema registry (Confluent's interface): records are written in its form. Readers take both forms."""
    schema_registry_client: dict[str, str | float] = Field(default_factory=dict, repr=False)
    """How to reach it: `user`, `password`, or `token`; `ca_file`, `cert_file`, `key_file`; `timeout_s`."""

    @field_validator("principals")
    @classmethod
    def _of_users(cls, principals: dict[str, PrincipalSettings]) -> dict[str, PrincipalSettings]:
        if "" in principals:
            raise ValueError("a principal has the name of a user of the system")
        return principals

    @field_validator("schema_registry_client")
    @classmethod
    def _of_the_registry(cls, options: dict[str, object]) -> dict[str, object]:
        unknown = set(options) - REGISTRY_OPTIONS
        if unknown:
            raise ValueError(f"{sorted(unknown)} are no options; there are {sorted(REGISTRY_OPTIONS)}")
        for name, value in options.items():
            if isinstance(value, str) is (name == "timeout_s"):
                raise ValueError(f"{name} must be a {'number' if name == 'timeout_s' else 'text'}")
        return options

    @field_validator("kafka_client")
    @classmethod
    def _of_the_client(cls, options: dict[str, object]) -> dict[str, object]:
        own = {"write", "take_over", "partitions", "replication_factor", "bootstrap", "name"} & set(options)
        if own:
            raise ValueError(f"{sorted(own)} are said in the ledger's URL or by the command, not here")
        return options

    @property
    def rules(self) -> Rules:
        """The limits that commands are validated against."""
        return Rules(
            content_bytes_max=self.content_bytes_max,
            metadata_bytes_max=self.metadata_bytes_max,
            id_bytes_max=self.id_bytes_max,
        )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments before environment before file."""
        named = os.environ.get(CONFIG_VARIABLE)
        if named is not None and not Path(named).is_file():
            raise Misconfigured(f"{CONFIG_VARIABLE} names {named!r}, which is no file")
        file = Path(named or CONFIG_FILE)
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)
