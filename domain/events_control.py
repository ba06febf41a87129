"""Facts of the control log, about tenants and the ledger itself; see `events` for the shapes."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from session_ledger.domain.frozen import quick
from session_ledger.domain.streams import TenantEvent


@quick
@dataclass(frozen=True, slots=True)
class QuotaDefault:
    """A default quota of a tenant or plan (a value inside LimitsSet, no event of its own)."""

    resource: str
    limit: Decimal
    period_ms: int


@quick
@dataclass(frozen=True, slots=True)
class LimitsSet(TenantEvent):
    """The settings of a tenant, or of one of its plans, as they are from now on (the whole, not a change)."""

    plan: str | None
    """None: the tenant's own; else the plan's, which go before the tenant's. None in a field: not set here."""
    max_sessions: int | None
    limit_policy: str | None
    idle_timeout_ms: int | None
    website_idle_timeout_ms: int | None
    ttl_ms: int | None
    sensitive_ttl_ms: int | None
    alert_threshold_percent: int | None
    quotas: tuple[QuotaDefault, ...]


@quick
@dataclass(frozen=True, slots=True)
class SchemaPublished(TenantEvent):
    """The full text of a schema that events of this ledger are written with (`tenant` is "")."""

    name: str
    fingerprint: bytes
    """CRC-64-AVRO of the canonical form, 8 bytes, little-endian."""
    schema_json: str
