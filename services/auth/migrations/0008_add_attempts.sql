-- kind: expand
-- min_compatible_code: 1

-- Wrong passwords, counted here while the store is away. A bucket is an HMAC: neither an address nor a name.
-- A routing table: unknown addresses and networks fill buckets as well.
CREATE TABLE attempt (
    bucket     bytea       NOT NULL CHECK (octet_length(bucket) = 32),
    field      text        NOT NULL,
    tries      integer     NOT NULL CHECK (tries >= 0),
    until_ms   bigint      NOT NULL,
    last_ms    bigint      NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (bucket, field)
);
CREATE INDEX attempt_by_age ON attempt (updated_at);
SELECT gatefold_marks('attempt', '{
    "field": "pseudonym; basis: legitimate_interest; retention: days_30",
    "tries": "none", "until_ms": "none", "last_ms": "none", "updated_at": "none",
    "bucket": "pseudonym; basis: legitimate_interest; retention: days_30"
}'::jsonb);
GRANT SELECT (bucket, updated_at), DELETE ON attempt TO auth_jobs;
