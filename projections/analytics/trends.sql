-- Trends: table macros over `events`, one row a bucket (and slice); see docs/trends.md. Times are UTC, by happened_at.
--
-- since, until: the window [since, until). every: 'hour', 'day', 'week' (ISO, from Monday) or 'window' (one bucket).
-- slice_by: NULL or 'tenant', 'domain', 'channel', 'agent_type', 'model', as far as the trend knows it.
-- only_...: NULL, or only what has this value. most: NULL, or how many series at most, the largest of the window.
-- Buckets without events are there; a series is there for every bucket.
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
END;
COMMENT ON MACRO trend_width_us IS 'How long a bucket is, microseconds.';

CREATE OR REPLACE MACRO trend_bucket(at_us, every) AS (at_us + 62135596800000000) // trend_width_us(every);
COMMENT ON MACRO trend_bucket IS 'The number of the bucket that holds a time, microseconds since 1970.';

CREATE OR REPLACE MACRO trend_start_us(number, every, since) AS
    if(every = 'window' AND number = 0, epoch_us(since), number * trend_width_us(every) - 62135596800000000);
COMMENT ON MACRO trend_start_us IS 'When a bucket begins, microseconds since 1970; the window as a bucket: when it does.';

CREATE OR REPLACE MACRO trend_start(number, every, since) AS
    to_timestamp(trend_start_us(number, every, since) // 1000000)
    + to_microseconds(trend_start_us(number, every, since) % 1000000);
COMMENT ON MACRO trend_start IS 'When a bucket begins.';

CREATE OR REPLACE MACRO trend_spine(since, until, every, slice_by, dimensions) AS TABLE
SELECT unnest(CASE
    WHEN trend_width_us(every) IS NULL THEN error('every: must be hour, day, week or window')::BIGINT[]
    WHEN slice_by IS NOT NULL AND NOT list_contains(dimensions, slice_by)
        THEN error('slice_by: must be one of ' || array_to_string(dimensions, ', '))::BIGINT[]
    WHEN since::TIMESTAMPTZ < until::TIMESTAMPTZ THEN range(
        trend_bucket(epoch_us(since::TIMESTAMPTZ), every), trend_bucket(epoch_us(until::TIMESTAMPTZ) - 1, every) + 1
    )
    ELSE []
END) AS number;
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

CREATE OR REPLACE MACRO trend_sessions_started(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT number, slice, count(*) AS sessions
    FROM trend_events(
        since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
        only_channel := only_channel
    )
    WHERE event_type = 'SessionCreated' GROUP BY ALL
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(sessions) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice,
    coalesce(counted.sessions, 0) AS sessions
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_sessions_started IS 'Sessions that began.';

CREATE OR REPLACE MACRO trend_ended_at(event_type, happened_at, details) AS
    if(event_type = 'SessionExpired', coalesce((details ->> 'due_at')::TIMESTAMPTZ, happened_at), happened_at);
COMMENT ON MACRO trend_ended_at IS 'When a session was over: one that ran out, when it was due, though recorded later.';

CREATE OR REPLACE MACRO trend_spans(
    until, ends_from, slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL
) AS TABLE
SELECT
    CASE
        WHEN slice_by IS NULL THEN NULL
        WHEN slice_by = 'tenant' THEN begun.tenant
        WHEN slice_by = 'domain' THEN begun.domain
        WHEN slice_by = 'channel' THEN begun.channel
    END AS slice,
    epoch_us(begun.happened_at) AS started_us,
    epoch_us(ended.ended_at) AS ended_us,
    ended.reason
FROM (
    SELECT
        session_id, coalesce(reason, if(event_type = 'SessionEvicted', 'evicted', NULL)) AS reason,
        if(happened_at < ends_from::TIMESTAMPTZ, happened_at, trend_ended_at(event_type, happened_at, details)) AS ended_at
    FROM events WHERE event_type IN ('SessionEnded', 'SessionExpired', 'SessionEvicted')
) AS ended
RIGHT JOIN events AS begun ON begun.session_id = ended.session_id
WHERE begun.event_type = 'SessionCreated' AND begun.happened_at < until::TIMESTAMPTZ
    AND (only_tenant IS NULL OR begun.tenant = only_tenant)
    AND (only_domain IS NULL OR begun.domain = only_domain)
    AND (only_channel IS NULL OR begun.channel = only_channel);
COMMENT ON MACRO TABLE trend_spans IS 'Sessions that began before until: when, and when they were over. Ends before ends_from are there as some time before it.';

CREATE OR REPLACE MACRO trend_sessions_ended(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT trend_bucket(epoch_us(ended_at), every) AS number, slice, reason, count(*) AS sessions
    FROM (
        SELECT
            CASE
                WHEN slice_by IS NULL THEN NULL
                WHEN slice_by = 'tenant' THEN e.tenant
                WHEN slice_by = 'domain' THEN begun.domain
                WHEN slice_by = 'channel' THEN begun.channel
            END AS slice,
            coalesce(e.reason, if(e.event_type = 'SessionEvicted', 'evicted', NULL)) AS reason,
            trend_ended_at(e.event_type, e.happened_at, e.details) AS ended_at
        FROM events AS e
        LEFT JOIN (
            SELECT session_id, domain, channel FROM events
            WHERE event_type = 'SessionCreated' AND (
                coalesce(slice_by = 'domain' OR slice_by = 'channel', false)
                OR only_domain IS NOT NULL OR only_channel IS NOT NULL
            )
        ) AS begun ON begun.session_id = e.session_id
        WHERE e.event_type IN ('SessionEnded', 'SessionExpired', 'SessionEvicted')
            AND e.happened_at >= since::TIMESTAMPTZ  -- none is recorded before it is due
            AND (only_tenant IS NULL OR e.tenant = only_tenant)
            AND (only_domain IS NULL OR begun.domain = only_domain)
            AND (only_channel IS NULL OR begun.channel = only_channel)
    )
    WHERE ended_at >= since::TIMESTAMPTZ AND ended_at < until::TIMESTAMPTZ GROUP BY ALL
), series AS (
    (SELECT slice, reason FROM counted GROUP BY ALL ORDER BY sum(sessions) DESC, slice, reason LIMIT most)
    UNION ALL SELECT NULL, NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice, series.reason,
    coalesce(counted.sessions, 0) AS sessions
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
    AND counted.reason IS NOT DISTINCT FROM series.reason
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_sessions_ended IS 'Sessions that were over, by reason: a word of the caller''s, idle, ttl, evicted or imported. One that ran out counts when it was due.';

CREATE OR REPLACE MACRO trend_sessions_live(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    most := NULL
) AS TABLE
WITH spans AS (
    SELECT
        slice, trend_bucket(epoch_us(since::TIMESTAMPTZ), every) AS first_number,
        if(started_us <= epoch_us(since::TIMESTAMPTZ), first_number, trend_bucket(started_us - 1, every) + 1) AS enters,
        CASE
            WHEN ended_us IS NULL THEN NULL
            WHEN ended_us <= epoch_us(since::TIMESTAMPTZ) THEN first_number
            ELSE trend_bucket(ended_us - 1, every) + 1
        END AS leaves
    FROM trend_spans(
        until, since, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
        only_channel := only_channel
    )
), paired AS (
    SELECT slice, enters, leaves, count(*) AS sessions
    FROM spans
    WHERE (leaves IS NULL OR leaves > enters AND leaves > first_number)
        AND enters <= trend_bucket(epoch_us(until::TIMESTAMPTZ) - 1, every)
    GROUP BY ALL
), counted AS MATERIALIZED (
    SELECT number, slice, sum(change)::BIGINT AS change FROM (
        SELECT enters AS number, slice, sessions AS change FROM paired
        UNION ALL SELECT leaves, slice, -sessions FROM paired WHERE leaves IS NOT NULL
    ) GROUP BY ALL
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(abs(change)) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice,
    sum(coalesce(counted.change, 0)) OVER (PARTITION BY series.slice ORDER BY spine.number)::BIGINT AS sessions
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_sessions_live IS 'Sessions that are live at the moment a bucket begins (the first: at since).';

CREATE OR REPLACE MACRO trend_messages(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, only_model := NULL, most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT number, slice, count(*) AS messages,
        count(*) FILTER (role = 'user') AS of_users
    FROM trend_events(
        since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
        only_channel := only_channel, only_agent_type := only_agent_type, only_model := only_model
    )
    WHERE event_type = 'MessageAdded' GROUP BY ALL
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(messages) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice,
    coalesce(counted.messages, 0) AS messages, coalesce(counted.of_users, 0) AS of_users
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel', 'agent_type', 'model']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_messages IS 'Messages, and how many of them users wrote.';

CREATE OR REPLACE MACRO trend_tokens(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, only_model := NULL, most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT number, slice, sum(tokens_in)::BIGINT AS tokens_in,
        sum(tokens_cached)::BIGINT AS tokens_cached,
        sum(tokens_out)::BIGINT AS tokens_out,
        sum(tokens_reasoning)::BIGINT AS tokens_reasoning
    FROM trend_events(
        since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
        only_channel := only_channel, only_agent_type := only_agent_type, only_model := only_model
    )
    WHERE event_type = 'MessageAdded' GROUP BY ALL
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(tokens_in) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice,
    coalesce(counted.tokens_in, 0) AS tokens_in, coalesce(counted.tokens_cached, 0) AS tokens_cached,
    coalesce(counted.tokens_out, 0) AS tokens_out, coalesce(counted.tokens_reasoning, 0) AS tokens_reasoning
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel', 'agent_type', 'model']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_tokens IS 'Tokens: read (of which cached), written (of which reasoning).';

CREATE OR REPLACE MACRO trend_cost(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, only_model := NULL, most := NULL
) AS TABLE
WITH listed AS (
    SELECT *, lead(effective_from, 1, 'infinity') OVER (PARTITION BY model ORDER BY effective_from) AS effective_until
    FROM prices
), counted AS MATERIALIZED (
    SELECT
        number, slice, any_value(currency) AS currency,
        sum(
            (tokens_in - tokens_cached)::DECIMAL(20, 0) * input_per_million * 0.000001
            + tokens_cached::DECIMAL(20, 0) * cached_input_per_million * 0.000001
            + tokens_out::DECIMAL(20, 0) * output_per_million * 0.000001
        ) AS exact,
        (sum(tokens_in + tokens_out) FILTER (input_per_million IS NOT NULL))::BIGINT AS priced_tokens,
        (sum(tokens_in + tokens_out) FILTER (input_per_million IS NULL))::BIGINT AS unpriced_tokens
    FROM (
        SELECT
            number, slice, currency, input_per_million, cached_input_per_million, output_per_million,
            sum(coalesce(tokens_in, 0)) AS tokens_in, sum(coalesce(tokens_cached, 0)) AS tokens_cached,
            sum(coalesce(tokens_out, 0)) AS tokens_out
        FROM (FROM trend_events(
            since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
            only_channel := only_channel, only_agent_type := only_agent_type, only_model := only_model
        ) WHERE event_type = 'MessageAdded' AND coalesce(tokens_in, tokens_out) IS NOT NULL
        ) AS said
        LEFT JOIN listed ON listed.model = said.model
            AND said.happened_at >= listed.effective_from AND said.happened_at < listed.effective_until
        GROUP BY ALL
    ) GROUP BY number, slice
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(coalesce(priced_tokens, 0) + coalesce(unpriced_tokens, 0)) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice, counted.currency,
    if(coalesce(counted.priced_tokens, 0) = 0 AND counted.unpriced_tokens > 0, NULL, coalesce(counted.exact, 0)) AS cost,
    round(cost, 2) AS rounded, coalesce(counted.priced_tokens, 0) AS priced_tokens,
    coalesce(counted.unpriced_tokens, 0) AS unpriced_tokens
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel', 'agent_type', 'model']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_cost IS 'What tokens cost at the prices in effect when they were used: exact, and to the cent. Tokens of a model without a price are in unpriced_tokens alone; cost is NULL where there are no others.';

CREATE OR REPLACE MACRO trend_latency(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, only_model := NULL, most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT number, slice, messages, told[1] AS p50_ms, told[2] AS p90_ms, told[3] AS p95_ms, told[4] AS p99_ms, max_ms
    FROM (
        SELECT
            number, slice, count(*) AS messages, quantile_cont(latency_ms, [0.5, 0.9, 0.95, 0.99]) AS told,
            max(latency_ms) AS max_ms
        FROM trend_events(
            since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
            only_channel := only_channel, only_agent_type := only_agent_type, only_model := only_model
        )
        WHERE event_type = 'MessageAdded' AND latency_ms IS NOT NULL GROUP BY ALL
    )
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(messages) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice,
    coalesce(counted.messages, 0) AS messages, counted.p50_ms, counted.p90_ms, counted.p95_ms, counted.p99_ms,
    counted.max_ms
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel', 'agent_type', 'model']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_latency IS 'How long models took, milliseconds: percentiles, interpolated. NULL: there was no such message.';

CREATE OR REPLACE MACRO trend_errors(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT number, slice, severity, count(*) AS errors
    FROM trend_events(
        since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
        only_channel := only_channel, only_agent_type := only_agent_type
    )
    WHERE event_type = 'ErrorReported' GROUP BY ALL
), series AS (
    (SELECT slice, severity FROM counted GROUP BY ALL ORDER BY sum(errors) DESC, slice, severity LIMIT most)
    UNION ALL SELECT NULL, NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice, series.severity,
    coalesce(counted.errors, 0) AS errors
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel', 'agent_type']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
    AND counted.severity IS NOT DISTINCT FROM series.severity
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_errors IS 'Errors that were reported, by severity.';

CREATE OR REPLACE MACRO trend_quota_refusals(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT number, slice, resource, sum(coalesce(count, 1))::BIGINT AS refusals
    FROM trend_events(
        since, until, every, slice_by := slice_by, only_tenant := only_tenant
    )
    WHERE event_type = 'QuotaRefused' GROUP BY ALL
), series AS (
    (SELECT slice, resource FROM counted GROUP BY ALL ORDER BY sum(refusals) DESC, slice, resource LIMIT most)
    UNION ALL SELECT NULL, NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice, series.resource,
    coalesce(counted.refusals, 0) AS refusals
FROM trend_spine(since, until, every, slice_by, ['tenant']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
    AND counted.resource IS NOT DISTINCT FROM series.resource
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_quota_refusals IS 'Refusals by quotas, by resource; a fact may stand for several.';

CREATE OR REPLACE MACRO trend_agent_waiting(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_agent_type := NULL, most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT * EXCLUDE (told), told[1] AS p50_ms, told[2] AS p95_ms
    FROM (
        SELECT
            number, slice, count(*) FILTER (event_type = 'AgentAcquired') AS acquired,
            coalesce(sum(coalesce(count, 1)) FILTER (event_type = 'AgentRefused'), 0)::BIGINT AS refused,
            count(waited_ms) AS waits_told, quantile_cont(waited_ms, [0.5, 0.95]) AS told, max(waited_ms) AS max_ms
        FROM trend_events(
            since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_agent_type := only_agent_type
        )
        WHERE event_type IN ('AgentAcquired', 'AgentRefused') GROUP BY ALL
    )
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(acquired) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice,
    coalesce(counted.acquired, 0) AS acquired, coalesce(counted.refused, 0) AS refused,
    coalesce(counted.waits_told, 0) AS waits_told, counted.p50_ms, counted.p95_ms, counted.max_ms
FROM trend_spine(since, until, every, slice_by, ['tenant', 'agent_type']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_agent_waiting IS 'Agents that were acquired and refused, and how long callers had waited by then, milliseconds, as far as they told.';

CREATE OR REPLACE MACRO trend_agent_utilization(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_agent_type := NULL, most := NULL
) AS TABLE
WITH changes AS MATERIALIZED (
    SELECT
        CASE
            WHEN slice_by IS NULL THEN NULL
            WHEN slice_by = 'tenant' THEN tenant
            WHEN slice_by = 'agent_type' THEN agent_type
        END AS slice,
        trend_bucket(greatest(epoch_us(happened_at), epoch_us(since::TIMESTAMPTZ)), every) AS number,
        sum(if(event_type IN ('AgentAcquired', 'AgentReleased'), change, 0))::BIGINT AS held_change,
        sum(if(event_type IN ('AgentRegistered', 'AgentRetired'), change, 0))::BIGINT AS known_change,
        sum(if(event_type IN ('AgentAcquired', 'AgentReleased'), change * rest_us, 0)) AS held_us,
        sum(if(event_type IN ('AgentRegistered', 'AgentRetired'), change * rest_us, 0)) AS known_us
    FROM (
        SELECT
            *, if(event_type IN ('AgentAcquired', 'AgentRegistered'), 1, -1) AS change,
            least(
                trend_start_us(
                    trend_bucket(greatest(epoch_us(happened_at), epoch_us(since::TIMESTAMPTZ)), every) + 1, every, since::TIMESTAMPTZ
                ),
                epoch_us(until::TIMESTAMPTZ)
            ) - greatest(epoch_us(happened_at), epoch_us(since::TIMESTAMPTZ)) AS rest_us
        FROM events
        WHERE event_type IN ('AgentRegistered', 'AgentAcquired', 'AgentReleased', 'AgentRetired')
            AND happened_at < until::TIMESTAMPTZ AND (only_tenant IS NULL OR tenant = only_tenant)
            AND (only_agent_type IS NULL OR agent_type = only_agent_type)
    ) GROUP BY ALL
), series AS (
    (SELECT slice FROM changes GROUP BY ALL ORDER BY sum(known_us) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM changes)
), lasting AS (
    SELECT
        spine.number, series.slice,
        least(trend_start_us(spine.number + 1, every, since::TIMESTAMPTZ), epoch_us(until::TIMESTAMPTZ))
            - greatest(trend_start_us(spine.number, every, since::TIMESTAMPTZ), epoch_us(since::TIMESTAMPTZ)) AS bucket_us,
        coalesce(sum(held_change) OVER before, 0) * bucket_us + coalesce(held_us, 0) AS held_us,
        coalesce(sum(known_change) OVER before, 0) * bucket_us + coalesce(known_us, 0) AS known_us
    FROM trend_spine(since, until, every, slice_by, ['tenant', 'agent_type']) AS spine
    CROSS JOIN series
    LEFT JOIN changes ON changes.number = spine.number AND changes.slice IS NOT DISTINCT FROM series.slice
    WINDOW before AS (
        PARTITION BY series.slice ORDER BY spine.number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    )
)
SELECT
    trend_start(number, every, since::TIMESTAMPTZ) AS bucket, slice, held_us / nullif(known_us, 0) AS utilization,
    held_us / 1000000 AS held_s, known_us / 1000000 AS registered_s
FROM lasting ORDER BY ALL;
COMMENT ON MACRO TABLE trend_agent_utilization IS 'Time that agents were held by sessions, and time that they were registered: seconds, and the one as a part of the other. NULL: none was registered.';

CREATE OR REPLACE MACRO trend_users(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, only_model := NULL, most := NULL
) AS TABLE
WITH counted AS MATERIALIZED (
    SELECT number, slice, count(*) AS users, count(*) FILTER (first_us < trend_start_us(number, every, since::TIMESTAMPTZ))
        AS returning_users
    FROM (
        SELECT DISTINCT number, slice, tenant, "user"
        FROM trend_events(
            since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
            only_channel := only_channel, only_agent_type := only_agent_type, only_model := only_model
        )
        WHERE event_type = 'MessageAdded' OR (
            event_type = 'SessionCreated' AND coalesce(slice_by IN ('tenant', 'domain', 'channel'), true)
            AND only_agent_type IS NULL AND only_model IS NULL
        )
    ) AS active
    LEFT JOIN (
        SELECT tenant, "user", min(epoch_us(happened_at)) AS first_us FROM events
        WHERE event_type = 'SessionCreated' AND happened_at < until::TIMESTAMPTZ GROUP BY ALL
    ) AS known ON known.tenant = active.tenant AND known.user = active.user
    GROUP BY ALL
), series AS (
    (SELECT slice FROM counted GROUP BY ALL ORDER BY sum(users) DESC, slice LIMIT most)
    UNION ALL SELECT NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM counted)
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice, coalesce(counted.users, 0) AS users,
    coalesce(counted.returning_users, 0) AS returning_users,
    coalesce(counted.users - counted.returning_users, 0) AS new_users
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel', 'agent_type', 'model']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_users IS 'Users with a message or a new session, each once a bucket; returning: whose first session began before the bucket.';

CREATE OR REPLACE MACRO trend_topics(
    since, until, every := 'hour', slice_by := NULL, only_tenant := NULL, only_domain := NULL, only_channel := NULL,
    only_agent_type := NULL, only_model := NULL, most := NULL
) AS TABLE
WITH said AS MATERIALIZED (
    SELECT number, slice, topic
    FROM trend_events(
        since, until, every, slice_by := slice_by, only_tenant := only_tenant, only_domain := only_domain,
        only_channel := only_channel, only_agent_type := only_agent_type, only_model := only_model
    )
    WHERE event_type = 'MessageAdded'
), series AS MATERIALIZED (
    (SELECT slice, topic FROM said GROUP BY ALL ORDER BY count(*) DESC, slice, topic LIMIT most)
    UNION ALL SELECT NULL, NULL WHERE slice_by IS NULL AND NOT EXISTS (FROM said)
), counted AS (
    SELECT said.number, said.slice, said.topic, count(*) AS messages
    FROM said
    SEMI JOIN series ON said.slice IS NOT DISTINCT FROM series.slice AND said.topic IS NOT DISTINCT FROM series.topic
    GROUP BY ALL
), whole AS (
    SELECT number, slice, count(*) AS messages FROM said GROUP BY ALL
)
SELECT
    trend_start(spine.number, every, since::TIMESTAMPTZ) AS bucket, series.slice, series.topic,
    coalesce(counted.messages, 0) AS messages, coalesce(100 * counted.messages / whole.messages, 0) AS percent
FROM trend_spine(since, until, every, slice_by, ['tenant', 'domain', 'channel', 'agent_type', 'model']) AS spine
CROSS JOIN series
LEFT JOIN counted ON counted.number = spine.number AND counted.slice IS NOT DISTINCT FROM series.slice
    AND counted.topic IS NOT DISTINCT FROM series.topic
LEFT JOIN whole ON whole.number = spine.number AND whole.slice IS NOT DISTINCT FROM series.slice
ORDER BY ALL;
COMMENT ON MACRO TABLE trend_topics IS 'Messages by topic, and the percentage of all of the bucket and slice. The topic NULL is unknown, and counted.';
