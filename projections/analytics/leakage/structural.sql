-- Leaks that the facts themselves show, whatever was said. Each query gives: kind, severity, and two places; the place is
-- where it came to light, the source whose it was.

CREATE MACRO leaks_by_structure() AS TABLE
WITH agents AS (
    SELECT
        agent_id, agent_type, event_type, partition, position, recorded_at, tenant, user, session_id,
        details ->> 'reset' AS reset,
        lag(event_type) OVER stream AS before, lag(session_id) OVER stream AS before_session,
        lag(tenant) OVER stream AS before_tenant, lag(user) OVER stream AS before_user,
        lag(position) OVER stream AS before_position, lag(recorded_at) OVER stream AS before_at,
        lag(details ->> 'reset') OVER stream AS before_reset
    FROM events WHERE event_type IN ('AgentRegistered', 'AgentAcquired', 'AgentReleased', 'AgentRetired')
    WINDOW stream AS (PARTITION BY partition, agent_id ORDER BY position)
), reporting AS (
    SELECT DISTINCT tenant, agent_type FROM agents WHERE reset IN ('verified', 'failed')
), begun AS (
    SELECT session_id, partition, position, recorded_at, tenant, user, (details ->> 'imported')::BOOLEAN AS imported
    FROM events WHERE event_type = 'SessionCreated'
), ended AS (
    SELECT session_id, partition, position, recorded_at FROM events
    WHERE event_type IN ('SessionEnded', 'SessionExpired', 'SessionEvicted')
), keys AS (
    SELECT key_id, session_id, tenant, user, min(partition) AS partition, min(position) AS position,
        min(recorded_at) AS recorded_at
    FROM events
    WHERE key_id IS NOT NULL AND session_id IS NOT NULL AND event_type <> 'AuthenticationFailed' GROUP BY ALL
), first_of_key AS (
    SELECT * FROM keys QUALIFY row_number() OVER (PARTITION BY key_id ORDER BY recorded_at, partition, position) = 1
), named AS (
    SELECT partition, position, recorded_at, tenant, user, session_id, agent_id FROM events
    WHERE event_type = 'MessageAdded' AND agent_id IS NOT NULL
)
-- an agent instance held by two sessions at once
SELECT 'agent_held_twice' AS kind, 'critical' AS severity, partition, position, recorded_at, tenant, user, session_id,
    partition AS source_partition, before_position AS source_position, before_at AS source_recorded_at,
    before_tenant AS source_tenant, before_user AS source_user, before_session AS source_session_id
FROM agents WHERE event_type = 'AgentAcquired' AND before = 'AgentAcquired'
UNION ALL
-- an agent used by a session without a lease
SELECT 'agent_without_lease', 'error', named.partition, named.position, named.recorded_at, named.tenant, named.user,
    named.session_id, named.partition, coalesce(agents.position, named.position),
    coalesce(agents.recorded_at, named.recorded_at), coalesce(agents.tenant, named.tenant),
    coalesce(agents.user, ''), agents.session_id
FROM named
ASOF LEFT JOIN agents
    ON named.agent_id = agents.agent_id AND named.partition = agents.partition AND named.position > agents.position
LEFT JOIN begun ON begun.session_id = named.session_id
WHERE NOT coalesce(begun.imported, false)
    AND (agents.event_type IS DISTINCT FROM 'AgentAcquired' OR agents.session_id IS DISTINCT FROM named.session_id)
UNION ALL
-- an event whose tenant or user is not that of the session's creation, a session that was created for two users included
SELECT 'foreign_owner', 'critical', e.partition, e.position, e.recorded_at, e.tenant, e.user, e.session_id,
    begun.partition, begun.position, begun.recorded_at, begun.tenant, begun.user, begun.session_id
FROM events AS e JOIN begun ON begun.session_id = e.session_id
WHERE (e.tenant <> begun.tenant OR e.user <> begun.user) AND e.position >= begun.position
UNION ALL
-- a key used by two sessions
SELECT 'key_of_two_sessions', 'critical', keys.partition, keys.position, keys.recorded_at, keys.tenant, keys.user,
    keys.session_id, f.partition, f.position, f.recorded_at, f.tenant, f.user, f.session_id
FROM keys JOIN first_of_key AS f USING (key_id) WHERE keys.session_id <> f.session_id
UNION ALL
-- a message in a session after its end
SELECT 'message_after_end', 'error', e.partition, e.position, e.recorded_at, e.tenant, e.user, e.session_id,
    ended.partition, ended.position, ended.recorded_at, e.tenant, e.user, e.session_id
FROM events AS e JOIN ended ON ended.session_id = e.session_id AND ended.partition = e.partition
WHERE e.event_type = 'MessageAdded' AND e.position > ended.position
UNION ALL
-- an instance that another user's session got after a reset that failed, or that its pool, which reports them, did not
SELECT if(before_reset = 'failed', 'reset_failed', 'reset_missing'),
    if(before_reset = 'failed', 'critical', 'warning'), partition, position, recorded_at, tenant, user, session_id,
    partition, before_position, before_at, before_tenant, before_user, before_session
FROM agents
WHERE event_type = 'AgentAcquired' AND before = 'AgentReleased'
    AND (before_tenant <> tenant OR before_user <> user)
    AND (before_reset = 'failed' OR (before_reset = 'not_reported'
        AND EXISTS (FROM reporting WHERE reporting.tenant = agents.tenant AND reporting.agent_type = agents.agent_type)));
COMMENT ON MACRO TABLE leaks_by_structure IS 'What the facts themselves show to have crossed from one session to another: agents held twice, used without a lease or passed on without a reset, foreign owners, shared keys, messages after an end.';
