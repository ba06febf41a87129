-- Trends: table macros over `events`, one row a bucket (and slice); see docs/trends.md. All times are UTC, by happened_at.
--
-- since, until: the window [since, until). every: 'hour', 'day', 'week' (ISO, from Monday) or 'window' (one bucket).
-- slice_by: NULL or 'tenant', 'domain', 'channel', 'agent_type', 'model', as far as the trend knows it.
-- only_...: NULL, or only what has this value. Buckets without events are there; a slice is there for every bucket.
-- What a macro does not need is constant and false, and so costs nothing: the joins to sessions and agents.

CREATE TABLE IF NOT EXISTS prices (
    model VARCHAR NOT NULL,
    effective_from TIMESTAMPTZ NOT NULL,
    currency VARCHAR NOT NULL,
    input_per_million DECIMAL(18, 9) NOT NULL,
    cached_input_per_million DECIMAL(18, 9) NOT NULL,
    output_per_million DECIMAL(18, 9) NOT NULL
);
COMMENT ON TABLE prices IS 'What a million tokens cost, from when; filled by `session-ledger prices load`. One currency.';
COMMENT ON COLUMN prices.model IS 'The model, as messages name it.';
COMMENT ON COLUMN prices.effective_from IS 'From when, until the model''s next one.';
COMMENT ON COLUMN prices.currency IS 'ISO 4217, such as USD.';
COMMENT ON COLUMN prices.input_per_million IS 'A million tokens that the model reads, but for the cached ones.';
COMMENT ON COLUMN prices.cached_input_per_million IS 'A million tokens that it reads from a cache.';
COMMENT ON COLUMN prices.output_per_million IS 'A million tokens that it writes, those of its reasoning included.';

-- Buckets are counted from Monday, 0001-01-01, so that no time is before the first and every week begins on a Monday.
CREATE OR REPLACE MACRO trend_width_us(every) AS CASE
    WHEN every = 'hour' THEN 3600000000
    WHEN every = 'day' THEN 86400000000
    WHEN every = 'week' THEN 604800000000
    WHEN every = 'window' THEN 9000000000000000000
    ELSE error('every: must be hour, day, week or window')::BIGINT
END;
COMMENT ON MACRO trend_width_us IS 'How long a bucket is, microseconds.';

CREATE OR REPLACE MACRO trend_bucket(at_us, every) AS (at_us + 62135596800000000) // trend_width_us(every);
COMMENT ON MACRO trend_bucket IS 'The number of the bucket that holds a time, microseconds since 1970.';

CREATE OR REPLACE MACRO trend_start_us(number, every, since) AS
    greatest(number * trend_width_us(every) - 62135596800000000, if(every = 'window', epoch_us(since), -62135596800000000));
COMMENT ON MACRO trend_start_us IS 'When a bucket begins, microseconds since 1970; the window as a bucket: when it does.';

CREATE OR REPLACE MACRO trend_start(number, every, since) AS
    to_timestamp(trend_start_us(number, every, since) // 1000000)
    + to_microseconds(trend_start_us(number, every, since) % 1000000);
COMMENT ON MACRO trend_start IS 'When a bucket begins.';

CREATE OR REPLACE MACRO trend_spine(since, until, every) AS TABLE
SELECT unnest(range(
    trend_bucket(epoch_us(since::TIMESTAMPTZ), every),
    if(since < until, trend_bucket(epoch_us(until::TIMESTAMPTZ) - 1, every) + 1, 0)
)) AS number;
COMMENT ON MACRO TABLE trend_spine IS 'The numbers of every bucket of a window, those without events too.';

CREATE OR REPLACE MACRO trend_events(
    since, until, every, slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, only_model := NULL
) AS TABLE
SELECT
    trend_bucket(epoch_us(e.happened_at), every) AS number,
    CASE
        WHEN slice_by IS NULL THEN NULL
        WHEN slice_by = 'tenant' THEN e.tenant
        WHEN slice_by = 'domain' THEN begun.domain
        WHEN slice_by = 'channel' THEN begun.channel
        WHEN slice_by = 'agent_type' THEN coalesce(e.agent_type, agent.agent_type)
        WHEN slice_by = 'model' THEN e.model
        ELSE error('slice_by: must be tenant, domain, channel, agent_type or model')
    END AS slice,
    e.event_type, e.happened_at, e.tenant, e.user, e.session_id, e.role, e.model, e.tokens_in, e.tokens_out,
    e.tokens_cached, e.tokens_reasoning, e.latency_ms, e.topic, e.reason, e.resource, e.count, e.severity, e.waited_ms
FROM events AS e
LEFT JOIN (
    SELECT session_id, domain, channel FROM events
    WHERE event_type = 'SessionCreated' AND (
        coalesce(slice_by = 'domain' OR slice_by = 'channel', false)
        OR only_domain IS NOT NULL OR only_channel IS NOT NULL
    )
) AS begun ON begun.session_id = e.session_id
LEFT JOIN (
    SELECT agent_id, agent_type FROM events
    WHERE event_type = 'AgentRegistered' AND (coalesce(slice_by = 'agent_type', false) OR only_agent_type IS NOT NULL)
) AS agent ON agent.agent_id = e.agent_id
WHERE e.happened_at >= since::TIMESTAMPTZ AND e.happened_at < until::TIMESTAMPTZ
    AND (only_tenant IS NULL OR e.tenant = only_tenant)
    AND (only_domain IS NULL OR begun.domain = only_domain)
    AND (only_channel IS NULL OR begun.channel = only_channel)
    AND (only_agent_type IS NULL OR coalesce(e.agent_type, agent.agent_type) = only_agent_type)
    AND (only_model IS NULL OR e.model = only_model);
COMMENT ON MACRO TABLE trend_events IS 'The events of a window with their bucket and slice: what the trends are made of.';

CREATE OR REPLACE MACRO trend_spans(since, until, slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL) AS TABLE
SELECT
    begun.session_id,
    CASE
        WHEN slice_by IS NULL THEN NULL
        WHEN slice_by = 'tenant' THEN begun.tenant
        WHEN slice_by = 'domain' THEN begun.domain
        WHEN slice_by = 'channel' THEN begun.channel
        ELSE error('slice_by: must be tenant, domain or channel')
    END AS slice,
    begun.happened_at AS started_at,
    ended.ended_at,
    ended.reason
FROM events AS begun
LEFT JOIN (
    SELECT
        session_id,
        coalesce(reason, if(event_type = 'SessionEvicted', 'evicted', NULL)) AS reason,
        CASE
            WHEN event_type = 'SessionExpired' AND happened_at > since::TIMESTAMPTZ
                THEN coalesce((details ->> 'due_at')::TIMESTAMPTZ, happened_at)
            ELSE happened_at
        END AS ended_at
    FROM events WHERE event_type IN ('SessionEnded', 'SessionExpired', 'SessionEvicted')
) AS ended ON ended.session_id = begun.session_id
WHERE begun.event_type = 'SessionCreated' AND begun.happened_at < until::TIMESTAMPTZ
    AND (only_tenant IS NULL OR begun.tenant = only_tenant)
    AND (only_domain IS NULL OR begun.domain = only_domain)
    AND (only_channel IS NULL OR begun.channel = only_channel);
COMMENT ON MACRO TABLE trend_spans IS 'Sessions that began before until: from when to when. An end before since is there as some time before since; one that ran out ended when it was due.';
