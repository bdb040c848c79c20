-- kind: expand
-- min_compatible_code: 1

-- What was answered to a call that carried an Idempotency-Key. account_id is the nil UUID on the platform plane.
CREATE TABLE idempotency_key (
    account_id   uuid        NOT NULL,
    caller       text        NOT NULL,
    method       text        NOT NULL,
    key          text        NOT NULL,
    request_hash bytea       NOT NULL,
    state        text        NOT NULL CHECK (state IN ('started', 'done')),
    reference    uuid,
    response     bytea,
    created_at   timestamptz NOT NULL,
    locked_until timestamptz NOT NULL,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, caller, method, key),
    CHECK (state = 'done' OR response IS NULL)
);
CREATE INDEX idempotency_key_by_expiry ON idempotency_key (expires_at);

SELECT gatefold_tenant_table('idempotency_key');
SELECT gatefold_jobs_table('idempotency_key');
DO $$
BEGIN
    EXECUTE format(
        'GRANT SELECT (account_id, caller, method, key, expires_at), DELETE ON idempotency_key TO %I',
        current_schema() || '_jobs');
END
$$;

SELECT gatefold_marks('idempotency_key', '{
    "account_id": "none", "method": "none", "request_hash": "none", "state": "none", "reference": "none",
    "created_at": "none", "locked_until": "none", "expires_at": "none",
    "caller": "pseudonym; basis: contract; retention: hours_24",
    "key": "pseudonym; basis: contract; retention: hours_24",
    "response": "content; basis: contract; retention: hours_24"
}'::jsonb);
