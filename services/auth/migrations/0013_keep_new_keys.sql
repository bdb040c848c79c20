-- kind: expand
-- min_compatible_code: 1

-- A new key, sealed, for as long as the request that made it may be repeated: an answer that was lost is given again.
ALTER TABLE api_key
    ADD COLUMN secret_sealed bytea,
    ADD COLUMN retry_until   timestamptz,
    ADD CONSTRAINT api_key_retry CHECK ((secret_sealed IS NULL) = (retry_until IS NULL));
CREATE INDEX api_key_by_retry ON api_key (retry_until) WHERE retry_until IS NOT NULL;
SELECT gatefold_jobs_table('api_key');
SELECT gatefold_marks('api_key', '{
    "secret_sealed": "secret; basis: contract; retention: days_1; sealed: account; field: 1", "retry_until": "none"
}'::jsonb);
GRANT SELECT (retry_until), UPDATE (secret_sealed, retry_until) ON api_key TO auth_jobs;

-- Somebody's sessions that have not ended, newest last: how many there may be is bounded.
CREATE INDEX session_unended ON session (account_id, coalesce(subject_id, person_id), id) WHERE revoked_at IS NULL;
