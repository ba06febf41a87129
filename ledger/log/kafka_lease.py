"""Who owns a ledger on Kafka: membership in the group ``<name>.owner``, Kafka's own lease.

Likewise, in a group of its own, who signs its checkpoints.

It tells who lives; it keeps nothing safe. Safety is the producers' fencing and the barrier. The holder of the lease is
the member to which the group's leader assigned it; a member that already holds keeps it.
"""

from __future__ import annotations

import threading
import time

from session_ledger.domain.errors import LogRefused, LogUnavailable, NotOwner
from session_ledger.ledger.log.kafka_client import Cluster, Group
from session_ledger.ledger.log.kafka_types import Beat, BrokerAway, Joined, Member

SESSION_TIMEOUT_MS = 6_000  # the least that brokers allow by default; a dead holder is gone after it
HEARTBEAT_S = 1.5  # four in a session
TRIES = 3  # an old holder may look for its place once between its removal and our join
JOINS = 20
OWNER = b"owner"
HOLDS, WANTS = b"holds", b"wants"


class OwnerLease:
    """The membership of this process. `acquire` makes one; a thread keeps it alive until `release`."""

    def __init__(self, cluster: Cluster, ledger: str, role: str = "owner") -> None:
        self._group = Group(cluster, f"{ledger}.{role}", SESSION_TIMEOUT_MS)
        self._ledger, self._role = ledger, role
        self._lock = threading.Lock()  # one request at a time: a join must not cross a heartbeat
        self._joined: Joined | None = None
        self._lost: str | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"session-ledger-lease-{ledger}", daemon=True)

    @classmethod
    def acquire(cls, cluster: Cluster, ledger: str, take_over: bool, role: str = "owner") -> OwnerLease:
        """Become the holder. Raises NotOwner naming the holder (unless `take_over` puts it out), LogUnavailable."""
        lease = cls(cluster, ledger, role)
        try:
            lease._acquire(take_over)
        except BrokerAway as error:
            raise LogUnavailable(f"the owner of {ledger} can not be determined: {error}") from error
        lease._thread.start()
        return lease

    def _acquire(self, take_over: bool) -> None:
        for _ in range(TRIES):
            members = self._others()
            if members and not take_over:
                raise self._not_owner()
            if members:
                self._group.leave([member.member_id for member in members])
            if self._join(""):
                return
        raise self._not_owner()

    def _join(self, member_id: str) -> bool:
        """Join, or join again; True if this member holds the lease afterwards, else it has left."""
        metadata = HOLDS if member_id else WANTS
        for _ in range(JOINS):
            joined = self._group.join(member_id, metadata)
            if joined is None:
                return False
            assignments: dict[str, bytes] = {}
            if joined.leads:
                holders = [member for member, said in joined.members.items() if said == HOLDS]
                assignments = {holders[0] if holders else joined.member_id: OWNER}
            assigned = self._group.sync(joined, assignments)
            if assigned is not None:
                break
            member_id = joined.member_id  # the group moved on meanwhile: join its next generation
        else:
            raise BrokerAway(f"the group of owners moved on {JOINS} times while this process joined it")
        self._joined = joined
        if assigned != OWNER:
            self._joined = None
            self._group.leave([joined.member_id])
        return assigned == OWNER

    def check(self) -> None:
        """Raise NotOwner if this process is known to have lost the lease. Asks nobody."""
        if self._lost is not None:
            raise NotOwner(self._lost)

    def confirm(self) -> None:
        """Ask the coordinator. Raises NotOwner if the lease is lost, LogUnavailable if nobody answers."""
        self.check()
        try:
            with self._lock:
                self._beat()
        except BrokerAway as error:
            raise LogUnavailable(f"the owner of {self._ledger} can not be confirmed: {error}") from error
        self.check()

    def _beat(self) -> None:
        """One heartbeat and what follows from its answer."""
        if self._stop.is_set():
            return
        if self._joined is not None:
            if self._group.heartbeat(self._joined) is Beat.ALIVE or self._join(self._joined.member_id):
                return
            self._joined = None
        # Out of the group after a pause longer than the session: back in, if nobody else came.
        if not self._others() and self._join(""):
            return
        if not self._others():
            raise BrokerAway("its group put this process out again, and nobody else is in it")
        self._lost = str(self._not_owner())

    def _others(self) -> list[Member]:
        """The members that are not this process: a coordinator lists one that it put out for a moment longer."""
        return [member for member in self._group.members() if member.member_id not in self._group.own]

    def _keep(self) -> None:
        while not self._stop.wait(HEARTBEAT_S) and self._lost is None:
            try:
                with self._lock:
                    if not self._stop.is_set():
                        self._beat()
            except (BrokerAway, LogRefused):
                time.sleep(0.2)  # the coordinator's own clock decides how long that may go on

    def _not_owner(self) -> NotOwner:
        holders = [f"{member.client_id} at {member.host.lstrip('/')}" for member in self._others()]
        who = ", ".join(holders) or "another process"
        if self._role != "owner":
            return NotOwner(
                f"the ledger {self._ledger} has a {self._role} already, {who}, and one is enough: let it, or stop it "
                "first; where that process was killed, its place is free within some ten seconds"
            )
        return NotOwner(
            f"the ledger {self._ledger} is owned by {who}: send the command there, wait until it ends, or take over; "
            "where that process was killed, its place is free within some ten seconds"
        )

    def release(self) -> None:
        """Leave the group. Idempotent."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(HEARTBEAT_S)
        with self._lock:
            joined, self._joined = self._joined, None
            if joined is not None:
                try:
                    self._group.leave([joined.member_id])
                except (BrokerAway, LogRefused):
                    self._lost = f"the ledger {self._ledger} was closed"  # the membership ends with its session
