-- How the live sessions are, for the monitor.

CREATE MACRO session_health(now, error_rate_max := 0.1, latency_ms_max := 5000, age_s_max := 86400) AS TABLE
WITH live AS (
    SELECT * FROM sessions WHERE status = 'live'
), latest_error AS (
    SELECT session_id, max_by(error_type, position) AS last_error, max(happened_at) AS last_error_at
    FROM errors GROUP BY session_id
), calls AS (
    SELECT session_id, count(*) AS model_calls FROM messages WHERE model IS NOT NULL GROUP BY session_id
), measured AS (
    SELECT
        live.*, latest_error.last_error, latest_error.last_error_at, coalesce(calls.model_calls, 0) AS model_calls,
        epoch(now) - epoch(live.started_at) AS age_s, epoch(live.last_message_at) - epoch(live.started_at) AS duration_s,
        live.errors / greatest(live.messages, 1) AS error_rate
    FROM live LEFT JOIN latest_error USING (session_id) LEFT JOIN calls USING (session_id)
)
SELECT
    session_id, tenant, user, channel, started_at, last_message_at, duration_s, age_s, messages, model_calls, tokens_in,
    tokens_out, errors, error_rate, latency_ms, last_error, last_error_at,
    100 - if(error_rate > error_rate_max, 30, 0) - if(coalesce(latency_ms, 0) > latency_ms_max, 20, 0)
        - if(age_s > age_s_max, 10, 0) AS health
FROM measured;
COMMENT ON MACRO TABLE session_health IS 'The live sessions at the time now, each with its health: 100, less 30 for an error rate (errors a message) over the limit, 20 for a mean latency over it, 10 for an age over it.';
