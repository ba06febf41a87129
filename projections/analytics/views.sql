-- Views over the events: what most questions are asked of. Their names and columns are an interface, as the tables' are.

CREATE MACRO reveal(sealed) AS struct_pack(reveal := sealed);
COMMENT ON MACRO reveal IS 'Asks for a sealed value to be opened: only in the result itself, only by `session-ledger sql --reason TEXT`, after the ledger has recorded who and why. NULL where its key is gone.';

CREATE VIEW sessions AS
WITH ended AS (
    SELECT session_id, event_type, recorded_at, happened_at, reason, details
    FROM events WHERE event_type IN ('SessionEnded', 'SessionExpired', 'SessionEvicted')
), said AS (
    SELECT
        session_id, count(*) AS messages, sum(tokens_in)::BIGINT AS tokens_in, sum(tokens_out)::BIGINT AS tokens_out,
        avg(latency_ms) AS latency_ms, max(recorded_at) AS last_at
    FROM events WHERE event_type = 'MessageAdded' GROUP BY session_id
), failed AS (
    SELECT session_id, count(*) AS errors FROM events WHERE event_type = 'ErrorReported' GROUP BY session_id
)
SELECT
    begun.session_id,
    begun.tenant,
    begun.user,
    CASE ended.event_type
        WHEN 'SessionEnded' THEN if(ended.reason = 'imported', 'imported', 'ended')
        WHEN 'SessionExpired' THEN 'expired'
        WHEN 'SessionEvicted' THEN 'evicted'
        ELSE if((begun.details ->> 'imported')::BOOLEAN, 'imported', 'live')
    END AS status,
    begun.kind,
    begun.channel,
    begun.domain,
    begun.happened_at AS started_at,
    if(ended.event_type = 'SessionExpired', (ended.details ->> 'due_at')::TIMESTAMPTZ, ended.happened_at) AS ended_at,
    coalesce(ended.reason, if(ended.event_type = 'SessionEvicted', 'evicted', NULL)) AS end_reason,
    coalesce(said.last_at, begun.recorded_at) AS last_message_at,
    coalesce(said.messages, 0) AS messages,
    coalesce(said.tokens_in, 0) AS tokens_in,
    coalesce(said.tokens_out, 0) AS tokens_out,
    coalesce(failed.errors, 0) AS errors,
    said.latency_ms,
    begun.key_id,
    begun.partition,
    begun.position
FROM events AS begun
LEFT JOIN ended USING (session_id)
LEFT JOIN said USING (session_id)
LEFT JOIN failed USING (session_id)
WHERE begun.event_type = 'SessionCreated';
COMMENT ON VIEW sessions IS 'One row a session, as it stands at the end of the snapshot.';
COMMENT ON COLUMN sessions.session_id IS 'The session.';
COMMENT ON COLUMN sessions.tenant IS 'Whose it is: the tenant.';
COMMENT ON COLUMN sessions.user IS 'Whose it is: the user.';
COMMENT ON COLUMN sessions.status IS 'live, ended, expired, evicted, or imported (history, recorded after the fact).';
COMMENT ON COLUMN sessions.kind IS 'standard, website or sensitive.';
COMMENT ON COLUMN sessions.channel IS 'text, voice, phone or api.';
COMMENT ON COLUMN sessions.domain IS 'The website''s domain.';
COMMENT ON COLUMN sessions.started_at IS 'When it began.';
COMMENT ON COLUMN sessions.ended_at IS 'When it ended, or its time ran out; NULL: it is live.';
COMMENT ON COLUMN sessions.end_reason IS 'Why it ended: a word of the caller''s, idle, ttl, evicted or imported.';
COMMENT ON COLUMN sessions.last_message_at IS 'When its last message was recorded; of a session without any, its beginning.';
COMMENT ON COLUMN sessions.messages IS 'How many messages it has.';
COMMENT ON COLUMN sessions.tokens_in IS 'Tokens that models read in it.';
COMMENT ON COLUMN sessions.tokens_out IS 'Tokens that models wrote in it.';
COMMENT ON COLUMN sessions.errors IS 'How many errors were reported in it.';
COMMENT ON COLUMN sessions.latency_ms IS 'The mean time that models took, milliseconds.';
COMMENT ON COLUMN sessions.key_id IS 'Its data key when it began; NULL: nothing is sealed.';
COMMENT ON COLUMN sessions.partition IS 'Where its events stand.';
COMMENT ON COLUMN sessions.position IS 'The position of its first event there.';

CREATE VIEW messages AS
SELECT
    session_id, tenant, user, message_number, happened_at, recorded_at, role, model, topic, agent_id, tokens_in, tokens_out,
    tokens_cached, tokens_reasoning, latency_ms, shared_source,
    {
        'tenant': tenant, 'user': user, 'session_id': session_id, 'event_id': event_id, 'event_type': event_type,
        'field': 'sealed_content', 'key_id': key_id, 'sealed': content
    } AS content,
    details -> 'metadata' AS metadata, partition, position
FROM events WHERE event_type = 'MessageAdded';
COMMENT ON VIEW messages IS 'One row a message.';
COMMENT ON COLUMN messages.session_id IS 'Its session.';
COMMENT ON COLUMN messages.tenant IS 'Whose it is: the tenant.';
COMMENT ON COLUMN messages.user IS 'Whose it is: the user.';
COMMENT ON COLUMN messages.message_number IS '1, 2, 3, ... within the session.';
COMMENT ON COLUMN messages.happened_at IS 'When it was said: the caller''s time where it was given, else the ledger''s.';
COMMENT ON COLUMN messages.recorded_at IS 'When it was recorded.';
COMMENT ON COLUMN messages.role IS 'Who speaks: user, assistant, system, tool, developer, or another.';
COMMENT ON COLUMN messages.model IS 'The language model that wrote it.';
COMMENT ON COLUMN messages.topic IS 'What it is about; NULL: unknown.';
COMMENT ON COLUMN messages.agent_id IS 'The agent instance that wrote it.';
COMMENT ON COLUMN messages.tokens_in IS 'Tokens that the model read.';
COMMENT ON COLUMN messages.tokens_out IS 'Tokens that the model wrote.';
COMMENT ON COLUMN messages.tokens_cached IS 'How many of tokens_in were read from a cache.';
COMMENT ON COLUMN messages.tokens_reasoning IS 'How many of tokens_out were reasoning.';
COMMENT ON COLUMN messages.latency_ms IS 'Time that the model took, milliseconds.';
COMMENT ON COLUMN messages.shared_source IS 'The declared shared source that its text comes from.';
COMMENT ON COLUMN messages.content IS 'What was said, sealed: reveal(content) shows it.';
COMMENT ON COLUMN messages.metadata IS 'The allow-listed metadata, JSON.';
COMMENT ON COLUMN messages.partition IS 'Where it stands in the log.';
COMMENT ON COLUMN messages.position IS 'Where it stands in the log.';

CREATE VIEW quota_usage AS
SELECT
    tenant, user, resource, happened_at, event_type, if(event_type = 'QuotaReleased', -amount, amount) AS amount, used,
    "limit", (details ->> 'period_ms')::BIGINT AS period_ms, details ->> 'limit_source' AS limit_source,
    coalesce(count, 1) AS count, session_id, partition, position
FROM events WHERE event_type IN ('QuotaConsumed', 'QuotaReleased', 'QuotaRefused', 'QuotaThresholdReached');
COMMENT ON VIEW quota_usage IS 'What was consumed, released and refused of quotas, and thresholds that were reached.';
COMMENT ON COLUMN quota_usage.tenant IS 'Whose it is: the tenant.';
COMMENT ON COLUMN quota_usage.user IS 'Whose it is: the user.';
COMMENT ON COLUMN quota_usage.resource IS 'The resource.';
COMMENT ON COLUMN quota_usage.happened_at IS 'When.';
COMMENT ON COLUMN quota_usage.event_type IS 'QuotaConsumed, QuotaReleased, QuotaRefused or QuotaThresholdReached.';
COMMENT ON COLUMN quota_usage.amount IS 'The amount; of a release, negative.';
COMMENT ON COLUMN quota_usage.used IS 'What was used in the window with it.';
COMMENT ON COLUMN quota_usage.limit IS 'The limit that was applied.';
COMMENT ON COLUMN quota_usage.period_ms IS 'The length of the window, milliseconds.';
COMMENT ON COLUMN quota_usage.limit_source IS 'Where the limit comes from: user, plan or tenant.';
COMMENT ON COLUMN quota_usage.count IS 'How many refusals the row stands for; else 1.';
COMMENT ON COLUMN quota_usage.session_id IS 'The session it was consumed in, where that was told.';
COMMENT ON COLUMN quota_usage.partition IS 'Where it stands in the log.';
COMMENT ON COLUMN quota_usage.position IS 'Where it stands in the log.';

CREATE VIEW agent_leases AS
WITH steps AS (
    SELECT
        *, lead(event_type) OVER stream AS next_type, lead(happened_at) OVER stream AS next_at,
        lead(reason) OVER stream AS next_reason, lead(details) OVER stream AS next_details
    FROM events WHERE event_type IN ('AgentRegistered', 'AgentAcquired', 'AgentReleased', 'AgentRetired')
    WINDOW stream AS (PARTITION BY agent_id ORDER BY version)
)
SELECT
    agent_id, agent_type, tenant, user, session_id, happened_at AS acquired_at, waited_ms,
    if(next_type = 'AgentReleased', next_at, NULL) AS released_at,
    if(next_type = 'AgentReleased', next_reason, NULL) AS release_reason,
    if(next_type = 'AgentReleased', next_details ->> 'reset', NULL) AS reset, partition, position
FROM steps WHERE event_type = 'AgentAcquired';
COMMENT ON VIEW agent_leases IS 'One row a lease of an agent instance by a session.';
COMMENT ON COLUMN agent_leases.agent_id IS 'The instance.';
COMMENT ON COLUMN agent_leases.agent_type IS 'Its type.';
COMMENT ON COLUMN agent_leases.tenant IS 'Whose session: the tenant.';
COMMENT ON COLUMN agent_leases.user IS 'Whose session: the user.';
COMMENT ON COLUMN agent_leases.session_id IS 'The session that leased it.';
COMMENT ON COLUMN agent_leases.acquired_at IS 'From when.';
COMMENT ON COLUMN agent_leases.waited_ms IS 'How long the caller had waited for it, milliseconds; NULL: not told.';
COMMENT ON COLUMN agent_leases.released_at IS 'Until when; NULL: it is held.';
COMMENT ON COLUMN agent_leases.release_reason IS 'released, session_ended, session_expired, session_evicted or retired.';
COMMENT ON COLUMN agent_leases.reset IS 'verified, failed or not_reported; NULL: it is held.';
COMMENT ON COLUMN agent_leases.partition IS 'Where the lease stands in the log.';
COMMENT ON COLUMN agent_leases.position IS 'Where the lease stands in the log.';

CREATE VIEW errors AS
SELECT session_id, tenant, user, happened_at, component, error_type, severity, agent_id, partition, position
FROM events WHERE event_type = 'ErrorReported';
COMMENT ON VIEW errors IS 'One row an error that was reported in a session.';
COMMENT ON COLUMN errors.session_id IS 'The session.';
COMMENT ON COLUMN errors.tenant IS 'Whose it is: the tenant.';
COMMENT ON COLUMN errors.user IS 'Whose it is: the user.';
COMMENT ON COLUMN errors.happened_at IS 'When.';
COMMENT ON COLUMN errors.component IS 'What failed.';
COMMENT ON COLUMN errors.error_type IS 'How.';
COMMENT ON COLUMN errors.severity IS 'warning, error or critical.';
COMMENT ON COLUMN errors.agent_id IS 'The agent instance that it concerns.';
COMMENT ON COLUMN errors.partition IS 'Where it stands in the log.';
COMMENT ON COLUMN errors.position IS 'Where it stands in the log.';

CREATE VIEW access_log AS
SELECT
    happened_at, event_type, coalesce(details ->> 'revealed_by', details ->> 'read_by') AS who,
    coalesce(details ->> 'action', 'reveal') AS action, reason, tenant, user, session_id,
    details ->> 'query_digest' AS query_digest, (details ->> 'fields')::BIGINT AS fields, partition, position
FROM events WHERE event_type IN ('ContentRevealed', 'AuditRead');
COMMENT ON VIEW access_log IS 'Who was shown content, and who read audits.';
COMMENT ON COLUMN access_log.happened_at IS 'When.';
COMMENT ON COLUMN access_log.event_type IS 'ContentRevealed or AuditRead.';
COMMENT ON COLUMN access_log.who IS 'Who.';
COMMENT ON COLUMN access_log.action IS 'reveal, or what was read: timeline, state, diff, access, leaks.';
COMMENT ON COLUMN access_log.reason IS 'Why, in their words.';
COMMENT ON COLUMN access_log.tenant IS 'Whose it was: the tenant.';
COMMENT ON COLUMN access_log.user IS 'Whose it was: the user; empty: the whole tenant''s.';
COMMENT ON COLUMN access_log.session_id IS 'Which session''s; NULL: none in particular.';
COMMENT ON COLUMN access_log.query_digest IS 'Tells which reveals belong to one query.';
COMMENT ON COLUMN access_log.fields IS 'How many fields were opened.';
COMMENT ON COLUMN access_log.partition IS 'Where it stands in the log.';
COMMENT ON COLUMN access_log.position IS 'Where it stands in the log.';

CREATE VIEW leaks AS
WITH closed AS (
    SELECT tenant, user, details ->> 'finding_id' AS finding_id, min_by(happened_at, position) AS acknowledged_at,
        min_by(details ->> 'acknowledged_by', position) AS acknowledged_by, min_by(reason, position) AS reason
    FROM events WHERE event_type = 'LeakAcknowledged' GROUP BY ALL
)
SELECT
    found.details ->> 'finding_id' AS finding_id, found.happened_at, found.kind, found.severity,
    found.details ->> 'direction' AS direction, found.tenant, found.user, found.session_id,
    (found.details ->> 'leak_position')::BIGINT AS leak_position,
    found.details ->> 'source_tenant' AS source_tenant, found.details ->> 'source_user' AS source_user,
    (found.details ->> 'source_session_id')::UUID AS source_session_id,
    (found.details ->> 'source_partition')::BIGINT AS source_partition,
    (found.details ->> 'source_position')::BIGINT AS source_position,
    (found.details ->> 'length')::BIGINT AS length, (found.details ->> 'score')::DECIMAL(18, 6) AS score,
    closed.acknowledged_at IS NULL AS open, closed.acknowledged_at, closed.acknowledged_by, closed.reason,
    found.partition, found.position
FROM events AS found
LEFT JOIN closed ON closed.finding_id = found.details ->> 'finding_id'
    AND closed.tenant = found.tenant AND closed.user = found.user
WHERE found.event_type = 'LeakFound';
COMMENT ON VIEW leaks IS 'What leakage checks found, and who has looked at it.';
COMMENT ON COLUMN leaks.finding_id IS 'The finding.';
COMMENT ON COLUMN leaks.happened_at IS 'When it was found.';
COMMENT ON COLUMN leaks.kind IS 'What kind of leak.';
COMMENT ON COLUMN leaks.severity IS 'warning, error or critical.';
COMMENT ON COLUMN leaks.direction IS 'known, or unknown where it can not be told which session was first.';
COMMENT ON COLUMN leaks.tenant IS 'Of the session in which it came to light: the tenant.';
COMMENT ON COLUMN leaks.user IS 'Of the session in which it came to light: the user.';
COMMENT ON COLUMN leaks.session_id IS 'The session in which it came to light.';
COMMENT ON COLUMN leaks.leak_position IS 'The position of the event there.';
COMMENT ON COLUMN leaks.source_tenant IS 'Of the session that it comes from: the tenant.';
COMMENT ON COLUMN leaks.source_user IS 'Of the session that it comes from: the user.';
COMMENT ON COLUMN leaks.source_session_id IS 'The session that it comes from.';
COMMENT ON COLUMN leaks.source_partition IS 'Where that stands in the log.';
COMMENT ON COLUMN leaks.source_position IS 'Where that stands in the log.';
COMMENT ON COLUMN leaks.length IS 'Characters that both share, normalized.';
COMMENT ON COLUMN leaks.score IS '0 to 1: how much of it is shared.';
COMMENT ON COLUMN leaks.open IS 'Nobody has acknowledged it yet.';
COMMENT ON COLUMN leaks.acknowledged_at IS 'When somebody did.';
COMMENT ON COLUMN leaks.acknowledged_by IS 'Who.';
COMMENT ON COLUMN leaks.reason IS 'What it is, in their words.';
COMMENT ON COLUMN leaks.partition IS 'Where the finding stands in the log.';
COMMENT ON COLUMN leaks.position IS 'Where the finding stands in the log.';

CREATE VIEW alerts AS
SELECT
    happened_at, kind, severity, tenant, user, session_id, (details ->> 'value')::DECIMAL(18, 6) AS value,
    (details ->> 'threshold')::DECIMAL(18, 6) AS threshold, partition, position
FROM events WHERE event_type = 'AlertRaised'
UNION ALL
SELECT
    happened_at, 'quota', 'warning', tenant, user, NULL, used, "limit" * (details ->> 'threshold_percent')::INTEGER / 100,
    partition, position
FROM events WHERE event_type = 'QuotaThresholdReached';
COMMENT ON VIEW alerts IS 'What needs somebody''s attention: alerts that were raised, and quotas near their limit.';
COMMENT ON COLUMN alerts.happened_at IS 'When.';
COMMENT ON COLUMN alerts.kind IS 'What kind of alert; quota: a quota''s threshold was reached.';
COMMENT ON COLUMN alerts.severity IS 'warning, error or critical.';
COMMENT ON COLUMN alerts.tenant IS 'Whose it is: the tenant.';
COMMENT ON COLUMN alerts.user IS 'Whose it is: the user; empty: the whole tenant''s.';
COMMENT ON COLUMN alerts.session_id IS 'The session that it is about.';
COMMENT ON COLUMN alerts.value IS 'What was measured.';
COMMENT ON COLUMN alerts.threshold IS 'What it may be.';
COMMENT ON COLUMN alerts.partition IS 'Where it stands in the log.';
COMMENT ON COLUMN alerts.position IS 'Where it stands in the log.';

CREATE VIEW erasures AS
SELECT
    event_id AS erasure, happened_at,
    CASE WHEN event_type = 'TenantErased' THEN 'tenant' WHEN session_id IS NULL THEN 'user' ELSE 'session' END AS scope,
    tenant, user, session_id, event_type = 'ErasureRefused' AS refused, details ->> 'requested_by' AS requested_by, reason,
    details ->> 'matter' AS matter, partition, position
FROM events WHERE event_type IN ('ContentErased', 'ErasureRefused', 'TenantErased');
COMMENT ON VIEW erasures IS 'What was erased, and what was to be and a legal hold kept.';
COMMENT ON COLUMN erasures.erasure IS 'The erasure: the id of its event.';
COMMENT ON COLUMN erasures.happened_at IS 'When it was recorded.';
COMMENT ON COLUMN erasures.scope IS 'session, user or tenant.';
COMMENT ON COLUMN erasures.tenant IS 'Whose it is: the tenant.';
COMMENT ON COLUMN erasures.user IS 'Whose it is: the user; empty: the whole tenant''s.';
COMMENT ON COLUMN erasures.session_id IS 'Of a session: which.';
COMMENT ON COLUMN erasures.refused IS 'A legal hold kept it: nothing was erased.';
COMMENT ON COLUMN erasures.requested_by IS 'Who asked for it.';
COMMENT ON COLUMN erasures.reason IS 'Why, in their words.';
COMMENT ON COLUMN erasures.matter IS 'Of one that was refused: the matter of the hold.';
COMMENT ON COLUMN erasures.partition IS 'Where it stands in the log.';
COMMENT ON COLUMN erasures.position IS 'Where it stands in the log.';

CREATE VIEW legal_holds AS
WITH facts AS (
    SELECT
        *, details ->> 'matter' AS matter, event_type IN ('LegalHoldSet', 'TenantHoldSet') AS is_set,
        row_number() OVER (
            PARTITION BY partition, tenant, user, session_id, details ->> 'matter' ORDER BY position DESC
        ) AS latest
    FROM events WHERE event_type IN ('LegalHoldSet', 'LegalHoldLifted', 'TenantHoldSet', 'TenantHoldLifted')
)
SELECT
    matter, tenant, user, session_id, is_set AS held, happened_at, details ->> 'requested_by' AS requested_by, reason,
    partition, position
FROM facts WHERE latest = 1;
COMMENT ON VIEW legal_holds IS 'Legal holds as they stand: what is held, and what was.';
COMMENT ON COLUMN legal_holds.matter IS 'What it is for.';
COMMENT ON COLUMN legal_holds.tenant IS 'Whose content it is: the tenant.';
COMMENT ON COLUMN legal_holds.user IS 'Whose content it is: the user; empty: the whole tenant''s.';
COMMENT ON COLUMN legal_holds.session_id IS 'The session, where it is only one.';
COMMENT ON COLUMN legal_holds.held IS 'It is set; false: it was lifted.';
COMMENT ON COLUMN legal_holds.happened_at IS 'When it was set or lifted.';
COMMENT ON COLUMN legal_holds.requested_by IS 'Who asked for that.';
COMMENT ON COLUMN legal_holds.reason IS 'Why, in their words.';
COMMENT ON COLUMN legal_holds.partition IS 'Where that stands in the log.';
COMMENT ON COLUMN legal_holds.position IS 'Where that stands in the log.';
