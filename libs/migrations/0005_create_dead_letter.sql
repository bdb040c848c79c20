-- kind: expand
-- min_compatible_code: 1

-- Events that this service's handler could not take. Each waits until somebody has it replayed, which deletes it.
CREATE TABLE dead_letter (
    account_id     uuid        NOT NULL,
    id             uuid        NOT NULL,
    producer       text        NOT NULL,
    aggregate_type text        NOT NULL,
    aggregate_id   text        NOT NULL,
    sequence       bigint      NOT NULL,
    type           text        NOT NULL,
    envelope       bytea       NOT NULL,
    -- The reason of an error or the class of an exception: messages may hold personal data.
    error          text        NOT NULL,
    attempts       integer     NOT NULL,
    failed_at      timestamptz NOT NULL,
    PRIMARY KEY (account_id, id)
);
CREATE INDEX dead_letter_by_time ON dead_letter (account_id, failed_at, id);

SELECT gatefold_tenant_table('dead_letter');
SELECT gatefold_marks('dead_letter', '{
    "account_id": "none", "id": "none", "producer": "none", "aggregate_type": "none", "sequence": "none",
    "type": "none", "error": "none", "attempts": "none", "failed_at": "none",
    "aggregate_id": "pseudonym; basis: contract; retention: until_replayed",
    "envelope": "pseudonym; basis: contract; retention: until_replayed"
}'::jsonb);
