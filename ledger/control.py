"""The control log's fold: tenant settings and published schemas, with a shard of its own, read by every other shard."""

from __future__ import annotations

from collections.abc import Callable

from session_ledger.domain.commands import Prepared
from session_ledger.domain.control import DEFAULTS, ControlState, TenantSettings, decide_control, evolve_control
from session_ledger.domain.decision import Decision
from session_ledger.domain.events import Event
from session_ledger.ledger.folds import REPLAY_RECORDS
from session_ledger.ledger.log.port import PartitionLog
from session_ledger.ledger.statefile import AccountKey
from session_ledger.schemas.codec import Codec


class ControlFolds:
    """Folds the control log, always whole and in memory: it is small.

    `settings_of` is called from other shards' threads: it reads one dictionary entry of immutable values, and only of
    facts that are durable, so that no decision ever applies a limit that is in no log.
    """

    def __init__(self, log: PartitionLog, codec: Codec) -> None:
        self._log = log
        self._codec = codec
        self._state = ControlState()
        self._durable: dict[str, TenantSettings] = {}
        self.position = 0
        self.recorded_at = 0
        self.uncounted: dict[AccountKey, None] = {}
        self.damaged = False

    def settings_of(self, tenant: str) -> TenantSettings:
        """The tenant's settings as they stand; the built-in defaults where nothing was set."""
        return self._durable.get(tenant, DEFAULTS)

    def knows_schema(self, fingerprint: bytes) -> bool:
        """Whether that schema has been published."""
        return self._state.knows_schema(fingerprint)

    def decide(self, prepared: Prepared, now: int, new_id: Callable[[], bytes]) -> Decision:
        return decide_control(self._state, prepared, now, new_id)

    def evolve(self, event: Event, position: int) -> None:
        evolve_control(self._state, event, position)
        self.position = position
        self.recorded_at = event.recorded_at

    def recover(self) -> None:
        self._state = ControlState()
        self.position = self.recorded_at = 0
        while records := self._log.read(self.position, REPLAY_RECORDS):
            for record in records:
                event = self._codec.decode(
                    record.value, record.topic, partition=self._log.partition, position=record.position
                )
                self.evolve(event, record.position)
        self.appended(b"")

    def appended(self, batch_id: bytes) -> None:
        """What was folded is durable: other shards may apply it."""
        self._durable = {tenant: state.settings for tenant, state in self._state.tenants.items()}

    def maintain(self, idle: bool) -> None:
        """Nothing to do, likewise."""

    def close(self, keep: bool) -> None:
        """Nothing is open."""
