"""What knows kafka-python: a reader of committed records, one admin connection, a group.

Only this module, `kafka_access` and `kafka_producer` import it, so another client can take its place. What they raise
is `ClientError` and its kinds, LogRefused and Misconfigured, not the client's own errors.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, OffsetSpec, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResourceType
from kafka.protocol.admin import DescribeConfigsRequest, DescribeGroupsRequest
from kafka.protocol.consumer import (
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    ListOffsetsRequest,
    SyncGroupRequest,
)
from kafka.protocol.metadata import FindCoordinatorRequest

from session_ledger.ledger.log.kafka_access import (
    REQUEST_TIMEOUT_MS,
    assert_let_in,
    common,
    connecting,
    said,
    translated,
)
from session_ledger.ledger.log.kafka_types import (
    MESSAGE_BYTES_MAX,
    Beat,
    BrokerAway,
    ClientOptions,
    Fetched,
    Joined,
    Member,
    TopicFacts,
)

FETCH_WAIT_MS = 50  # a fetch at the end of the log holds its connection this long, so a seek waits for it
POLL_S = 0.1  # one look for records; short, so that who reads on soon notices that it is to end
POLL_RECORDS = 2_000
READ_UNCOMMITTED, READ_COMMITTED = 0, 1  # isolation levels
JOIN_TIMEOUT_MS = 15_000  # a first join waits group.initial.rebalance.delay.ms, a later one for the other members
BEAT_TIMEOUT_MS = 2_000  # shorter than a third of a session
COORDINATOR_TIMEOUT_S = 10.0  # a group's first coordinator in a new cluster, or the next one after a broker's end


def offset_request(topic: str, partition: int, which: OffsetSpec, isolation: int) -> Any:
    """What a partition's leader is asked for one of its offsets."""
    part = ListOffsetsRequest.ListOffsetsTopic.ListOffsetsPartition(partition_index=partition, timestamp=which)
    topics = [ListOffsetsRequest.ListOffsetsTopic(name=topic, partitions=[part])]
    return ListOffsetsRequest(isolation_level=isolation, topics=topics, min_version=4, max_version=7)


class Reader:
    """Committed records of one partition from an offset on. Not thread-safe. Every method raises BrokerAway."""

    def __init__(self, options: ClientOptions, topic: str, partition: int) -> None:
        self._at = TopicPartition(topic, partition)
        with connecting(options, f"a reader of {topic}-{partition}"):
            self._consumer = KafkaConsumer(
                **common(options),
                isolation_level="read_committed",
                auto_offset_reset="none",  # the default would skip removed records silently
                enable_auto_commit=False,
                fetch_max_wait_ms=FETCH_WAIT_MS,
                retry_backoff_ms=20,
                max_partition_fetch_bytes=MESSAGE_BYTES_MAX,
                max_poll_records=POLL_RECORDS,
                allow_auto_create_topics=False,
                metrics_enabled=False,
            )
        self._consumer.assign([self._at])

    def seek(self, offset: int) -> None:
        """The next `poll` gives what stands at that offset or after it."""
        self._consumer.seek(self._at, offset)

    def poll(self, timeout_s: float, records: int = POLL_RECORDS) -> Sequence[Fetched]:
        """What comes within that time, at once when something is there. Raises OffsetGone."""
        with translated(f"reading {self._at.topic}-{self._at.partition}"):
            polled: Sequence[Fetched] = self._consumer.poll(int(timeout_s * 1000), records).get(self._at, ())
        return polled

    def offset(self) -> int:
        """Where the next `poll` goes on: behind every record, marker and aborted record that was passed."""
        with translated("the position of the reader"):
            offset: int = self._consumer.position(self._at, timeout_ms=REQUEST_TIMEOUT_MS)
        return offset

    def until(self, end: int, patience_s: float, records: int = POLL_RECORDS) -> Iterator[Sequence[Fetched]]:
        """What comes until that offset is reached, however long it takes. `poll` may give what stands behind it, too.

        Raises BrokerAway where nothing comes for `patience_s`.
        """
        at, deadline_s = self.offset(), time.monotonic() + patience_s
        while (offset := self.offset()) < end:
            if offset > at:
                at, deadline_s = offset, time.monotonic() + patience_s
            elif time.monotonic() > deadline_s:
                raise BrokerAway(f"nothing came for {patience_s:g} s at offset {at}, and {end} is the end")
            yield self.poll(POLL_S, records)

    def close(self) -> None:
        """Release the connections."""
        self._consumer.close(autocommit=False, timeout_ms=1000)


class Cluster:
    """One admin connection: topics, and requests to a group's coordinator. Thread-safe."""

    def __init__(self, options: ClientOptions) -> None:
        what = f"connecting to {options.bootstrap}"
        with translated(what):
            assert_let_in(options, what)
            self._admin: Any = KafkaAdminClient(**common(options))
        self._leaders: dict[tuple[str, int], int] = {}

    def brokers(self) -> int:
        """How many brokers there are."""
        with translated("asking for the brokers"):
            return len(self._admin.describe_cluster()["brokers"])

    def topic(self, name: str) -> TopicFacts | None:
        """The topic, None if there is none of that name."""
        with translated(f"asking for topic {name}"):
            (facts,) = self._admin.describe_topics([name])
            # The admin client's own describe_configs drops the error of a topic.
            request = DescribeConfigsRequest(resources=[(ConfigResourceType.TOPIC, name, None)], min_version=1)
            codes = [facts["error_code"]]
            if not facts["error_code"]:
                (described,) = self.ask(request).results
                codes.append(described.error_code)
            if kafka_errors.UnknownTopicOrPartitionError.errno in codes:
                return None
            if any(codes):
                raise kafka_errors.for_code(codes[-1])(f"topic {name}")
        partitions = facts["partitions"]
        configs = {entry.name: str(entry.value) for entry in described.configs}
        return TopicFacts(str(facts["topic_id"]), len(partitions), len(partitions[0]["replica_nodes"]), configs)

    def create_topic(self, name: str, partitions: int, replication_factor: int, configs: Mapping[str, str]) -> None:
        """Create it and wait until every partition has a leader; no matter if it was created meanwhile."""
        wanted = {"num_partitions": partitions, "replication_factor": replication_factor, "configs": dict(configs)}
        with translated(f"creating topic {name}"):
            try:
                self._admin.create_topics({name: wanted}, wait_for_metadata=True)
            except kafka_errors.TopicAlreadyExistsError:
                self._admin.wait_for_topics([name])

    def stable_end(self, topic: str, partition: int) -> int:
        """The last stable offset: every record before it is committed or aborted."""
        return self._offset(topic, partition, OffsetSpec.LATEST)

    def high_watermark(self, topic: str, partition: int) -> int:
        """The offset after the last one that enough replicas hold, of open transactions too."""
        return self._offset(topic, partition, OffsetSpec.LATEST, READ_UNCOMMITTED)

    def beginning(self, topic: str, partition: int) -> int:
        """The first offset that the partition still holds."""
        return self._offset(topic, partition, OffsetSpec.EARLIEST)

    def _offset(self, topic: str, partition: int, which: OffsetSpec, isolation: int = READ_COMMITTED) -> int:
        request = offset_request(topic, partition, which, isolation)
        at = topic, partition
        deadline_s = time.monotonic() + COORDINATOR_TIMEOUT_S
        while True:
            try:
                if at not in self._leaders:
                    self._leaders[at] = self._leader(topic, partition)
                found = self.ask(request, self._leaders[at]).topics[0].partitions[0]
                if not found.error_code:
                    return int(found.offset)
                with translated(f"asking for an offset of {topic}-{partition}"):
                    raise kafka_errors.for_code(found.error_code)()
            except (BrokerAway, kafka_errors.KafkaError) as error:
                self._leaders.pop(at, None)  # it has moved, or comes back
                if time.monotonic() > deadline_s:
                    what = str(error) if isinstance(error, BrokerAway) else said(error)
                    raise BrokerAway(f"asking for an offset of {topic}-{partition}: {what}") from error
                time.sleep(0.1)

    def _leader(self, topic: str, partition: int) -> int:
        (facts,) = self._admin.describe_topics([topic])
        error = kafka_errors.for_code(facts["error_code"])
        if issubclass(error, kafka_errors.AuthorizationError):
            with translated(f"asking for the leader of {topic}-{partition}"):
                raise error(f"topic {topic}")
        leaders = {one["partition_index"]: int(one["leader_id"]) for one in facts["partitions"]}
        if partition not in leaders:
            raise BrokerAway(f"the brokers know no {topic}-{partition}: was the topic deleted?")
        return leaders[partition]

    def ask(self, request: Any, node: int | None = None, timeout_ms: int = REQUEST_TIMEOUT_MS) -> Any:
        """Send a protocol request to that broker (None: any) and return its answer."""
        manager = self._admin._manager

        async def answer() -> Any:
            future = manager.send(request, node_id=node, request_timeout_ms=timeout_ms)
            return await manager.wait_for(future, timeout_ms)

        with translated(f"asking {type(request).__name__}"):
            return manager.run(answer)

    def close(self) -> None:
        """Release the connection."""
        self._admin.close()


class Group:
    """A group of Kafka's group protocol, without topics: who is in it is known to all. Raises BrokerAway."""

    PROTOCOL = "session-ledger"

    def __init__(self, cluster: Cluster, name: str, session_timeout_ms: int) -> None:
        self._cluster, self._name, self._session_timeout_ms = cluster, name, session_timeout_ms
        self._coordinator: int | None = None
        self.own: set[str] = set()  # every member id that was given to this process

    def members(self) -> list[Member]:
        """Who is in the group."""
        (group,) = self._ask(DescribeGroupsRequest(groups=[self._name]), lambda answer: answer.groups[0]).groups
        return [Member(m.member_id, m.client_id, m.client_host) for m in group.members]

    def join(self, member_id: str, metadata: bytes) -> Joined | None:
        """Join, or join again (empty `member_id`: a new member); None if that member id is not known any more."""
        request = JoinGroupRequest(
            group_id=self._name,
            session_timeout_ms=self._session_timeout_ms,
            rebalance_timeout_ms=self._session_timeout_ms,
            member_id=member_id,
            protocol_type=self.PROTOCOL,
            protocols=[(self.PROTOCOL, metadata)],
            max_version=7,
        )
        answer = self._ask(request, timeout_ms=JOIN_TIMEOUT_MS)
        if answer.error_code == kafka_errors.MemberIdRequiredError.errno:
            self.own.add(answer.member_id)
            return self.join(answer.member_id, metadata)
        if answer.error_code:
            return None
        self.own.add(answer.member_id)
        members = {m.member_id: bytes(m.metadata) for m in answer.members}
        return Joined(answer.member_id, answer.generation_id, answer.leader == answer.member_id, members)

    def sync(self, joined: Joined, assignments: Mapping[str, bytes]) -> bytes | None:
        """This member's assignment (the leader gives all of them); None if the group has moved on."""
        request = SyncGroupRequest(
            group_id=self._name,
            generation_id=joined.generation,
            member_id=joined.member_id,
            protocol_type=self.PROTOCOL,
            protocol_name=self.PROTOCOL,
            assignments=list(assignments.items()),
            max_version=5,
        )
        answer = self._ask(request, timeout_ms=JOIN_TIMEOUT_MS)
        return None if answer.error_code else bytes(answer.assignment)

    def heartbeat(self, joined: Joined) -> Beat:
        """Say that this member lives."""
        request = HeartbeatRequest(
            group_id=self._name, generation_id=joined.generation, member_id=joined.member_id, max_version=4
        )
        error = self._ask(request, timeout_ms=BEAT_TIMEOUT_MS, patience_s=0).error_code
        if error == kafka_errors.RebalanceInProgressError.errno:
            return Beat.REBALANCING
        return Beat.GONE if error else Beat.ALIVE

    def leave(self, member_ids: Sequence[str]) -> None:
        """Take these members out, whoever they are."""
        members = [LeaveGroupRequest.MemberIdentity(member_id=m) for m in member_ids]
        request = LeaveGroupRequest(group_id=self._name, members=members, min_version=3, max_version=4)
        self._ask(request, timeout_ms=BEAT_TIMEOUT_MS, patience_s=1)

    def _ask(
        self,
        request: Any,
        part: Callable[[Any], Any] = lambda answer: answer,
        timeout_ms: int = REQUEST_TIMEOUT_MS,
        patience_s: float = COORDINATOR_TIMEOUT_S,
    ) -> Any:
        """Ask the group's coordinator, found again where it has moved. `part`: what carries the error code."""
        deadline_s = time.monotonic() + patience_s
        while True:
            try:
                if self._coordinator is None:
                    find = FindCoordinatorRequest(key=self._name, key_type=0, max_version=3)
                    found = self._cluster.ask(find)
                    self._retried(found.error_code)
                    self._coordinator = found.node_id
                answer = self._cluster.ask(request, self._coordinator, timeout_ms)
                self._retried(part(answer).error_code)
                return answer
            except BrokerAway:
                self._coordinator = None
                if time.monotonic() > deadline_s:
                    raise
                time.sleep(0.1)

    def _retried(self, error_code: int) -> None:
        """Raise BrokerAway for what another try or another coordinator may answer, LogRefused for what is forbidden."""
        error = kafka_errors.for_code(error_code)
        if issubclass(error, kafka_errors.AuthorizationError):
            with translated(f"asking for group {self._name}"):
                raise error()
        if issubclass(error, kafka_errors.RetriableError) and error is not kafka_errors.RebalanceInProgressError:
            raise BrokerAway(f"the coordinator of group {self._name} answers {error.__name__}")
