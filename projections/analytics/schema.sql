-- The analytics database: every event of every partition in one table. Times are UTC, ids UUIDs, amounts exact decimals.
-- The names here are an interface: columns are added, never renamed or given another meaning (see docs/sql.md).

CREATE TABLE events (
    partition SMALLINT NOT NULL,
    position BIGINT NOT NULL,
    event_type VARCHAR NOT NULL,
    event_id UUID NOT NULL,
    tenant VARCHAR NOT NULL,
    user VARCHAR NOT NULL,
    happened_at TIMESTAMPTZ NOT NULL,
    recorded_at TIMESTAMPTZ NOT NULL,
    occurred_at TIMESTAMPTZ,
    stream UUID NOT NULL,
    version BIGINT NOT NULL,
    command_id UUID,
    session_id UUID,
    agent_id UUID,
    agent_type VARCHAR,
    kind VARCHAR,
    channel VARCHAR,
    domain VARCHAR,
    message_number BIGINT,
    role VARCHAR,
    model VARCHAR,
    tokens_in BIGINT,
    tokens_out BIGINT,
    tokens_cached BIGINT,
    tokens_reasoning BIGINT,
    latency_ms BIGINT,
    topic VARCHAR,
    shared_source VARCHAR,
    reason VARCHAR,
    resource VARCHAR,
    amount DECIMAL(38, 6),
    used DECIMAL(38, 6),
    "limit" DECIMAL(38, 6),
    count BIGINT,
    component VARCHAR,
    error_type VARCHAR,
    severity VARCHAR,
    waited_ms BIGINT,
    key_id UUID,
    content BLOB,
    details JSON
);
COMMENT ON TABLE events IS 'Every event of the ledger, one row each, as it stands in the log. (partition, position) is unique.';
COMMENT ON COLUMN events.partition IS 'The partition of the log; -1 is the control log.';
COMMENT ON COLUMN events.position IS 'The event''s place in its partition: 1, 2, 3, ... without a gap.';
COMMENT ON COLUMN events.event_type IS 'What happened, such as MessageAdded; see docs/events.md.';
COMMENT ON COLUMN events.event_id IS 'The event''s own id, unique in the log.';
COMMENT ON COLUMN events.tenant IS 'Whose it is: the tenant.';
COMMENT ON COLUMN events.user IS 'Whose it is: the user; empty for facts about an agent or a tenant.';
COMMENT ON COLUMN events.happened_at IS 'When it happened, for analytics: occurred_at where the caller gave it, else recorded_at.';
COMMENT ON COLUMN events.recorded_at IS 'The writer''s clock; never goes back within a partition.';
COMMENT ON COLUMN events.occurred_at IS 'The caller''s time; NULL where none was given.';
COMMENT ON COLUMN events.stream IS 'The stream it belongs to: a session, an agent, a user''s account, a tenant.';
COMMENT ON COLUMN events.version IS 'Its place in that stream.';
COMMENT ON COLUMN events.command_id IS 'The command that caused it; NULL for what the ledger did by itself.';
COMMENT ON COLUMN events.session_id IS 'The session that it is about; NULL: none.';
COMMENT ON COLUMN events.agent_id IS 'The agent instance that it is about, or that wrote the message.';
COMMENT ON COLUMN events.agent_type IS 'The type of the agent that was registered, acquired, refused, released or retired.';
COMMENT ON COLUMN events.kind IS 'SessionCreated: standard, website or sensitive. LeakFound, AlertRaised: what kind.';
COMMENT ON COLUMN events.channel IS 'SessionCreated: text, voice, phone or api.';
COMMENT ON COLUMN events.domain IS 'SessionCreated: the website''s domain.';
COMMENT ON COLUMN events.message_number IS 'MessageAdded: 1, 2, 3, ... within the session.';
COMMENT ON COLUMN events.role IS 'MessageAdded: who speaks.';
COMMENT ON COLUMN events.model IS 'MessageAdded: the language model that wrote it.';
COMMENT ON COLUMN events.tokens_in IS 'MessageAdded: tokens that the model read, the cached ones included.';
COMMENT ON COLUMN events.tokens_out IS 'MessageAdded: tokens that the model wrote, those of its reasoning included.';
COMMENT ON COLUMN events.tokens_cached IS 'MessageAdded: how many of tokens_in were read from a cache.';
COMMENT ON COLUMN events.tokens_reasoning IS 'MessageAdded: how many of tokens_out were reasoning.';
COMMENT ON COLUMN events.latency_ms IS 'MessageAdded: time that the model took, milliseconds.';
COMMENT ON COLUMN events.topic IS 'MessageAdded: what it is about, as the caller said or the taxonomy found; NULL: unknown.';
COMMENT ON COLUMN events.shared_source IS 'MessageAdded: the declared shared source that its text comes from.';
COMMENT ON COLUMN events.reason IS 'Why: of an end, a release, a retirement, a refusal, a failed log-in, a reveal, an acknowledgement.';
COMMENT ON COLUMN events.resource IS 'The resource of a quota.';
COMMENT ON COLUMN events.amount IS 'The amount consumed, released or refused of that resource.';
COMMENT ON COLUMN events.used IS 'What was used in the window, this amount included.';
COMMENT ON COLUMN events.limit IS 'The limit that was applied (of live sessions, for SessionCreated and SessionEvicted).';
COMMENT ON COLUMN events.count IS 'QuotaRefused, AgentRefused: refusals that this fact stands for.';
COMMENT ON COLUMN events.component IS 'ErrorReported: what failed.';
COMMENT ON COLUMN events.error_type IS 'ErrorReported: how.';
COMMENT ON COLUMN events.severity IS 'ErrorReported, LeakFound, AlertRaised: warning, error or critical.';
COMMENT ON COLUMN events.waited_ms IS 'AgentAcquired, AgentRefused: how long the caller had waited, milliseconds; NULL: not told.';
COMMENT ON COLUMN events.key_id IS 'The data key that opens the sealed fields; NULL: nothing is sealed.';
COMMENT ON COLUMN events.content IS 'MessageAdded: the content, sealed. Only reveal() shows it.';
COMMENT ON COLUMN events.details IS 'Every further field of the event, by its name in docs/events.md; sealed ones in base64.';

CREATE TABLE positions (
    partition SMALLINT PRIMARY KEY,
    position BIGINT NOT NULL,
    last BLOB NOT NULL
);
COMMENT ON TABLE positions IS 'How far each partition is in this database; moved in the transaction that adds its rows.';
COMMENT ON COLUMN positions.partition IS 'The partition of the log; -1 is the control log.';
COMMENT ON COLUMN positions.position IS 'The position of the last event that is in.';
COMMENT ON COLUMN positions.last IS 'A digest of the record there: tells a log that was restored from a copy.';

CREATE TABLE facts (
    name VARCHAR PRIMARY KEY,
    value VARCHAR NOT NULL
);
COMMENT ON TABLE facts IS 'What this database was made from: log_id, ledger, version of the projecting code, published_at.';
COMMENT ON COLUMN facts.name IS 'Which.';
COMMENT ON COLUMN facts.value IS 'Its value, as text; times in ISO 8601.';
