-- kind: expand
-- min_compatible_code: 1

-- Events to be published. No row-level security: the relay routes the rows of all tenants, and the app can only add.
CREATE TABLE outbox (
    id             uuid        PRIMARY KEY,
    account_id     uuid        NOT NULL,
    aggregate_type text        NOT NULL,
    aggregate_id   text        NOT NULL,
    sequence       bigint      NOT NULL CHECK (sequence > 0),
    type           text        NOT NULL,
    envelope       bytea       NOT NULL,
    recorded_at    timestamptz NOT NULL,
    published_at   timestamptz,
    -- Positions are given out before the commit, so a reader of all rows goes by transaction: rows of transactions that
    -- are older than every running one are complete.
    xid            xid8        NOT NULL DEFAULT pg_current_xact_id(),
    position       bigint      GENERATED ALWAYS AS IDENTITY,
    CONSTRAINT outbox_sequence_key UNIQUE (account_id, aggregate_type, aggregate_id, sequence),
    CONSTRAINT outbox_position_key UNIQUE (position)
);
CREATE INDEX outbox_unpublished ON outbox (position) WHERE published_at IS NULL;
CREATE INDEX outbox_visible ON outbox (xid, position);

REVOKE ALL ON outbox FROM PUBLIC;
DO $$
BEGIN
    EXECUTE format('REVOKE ALL ON outbox FROM %I', current_schema() || '_app');
    EXECUTE format('GRANT INSERT ON outbox TO %I', current_schema() || '_app');
    -- xid: rows brought by a logical restore carry another cluster's transaction numbers, and are given new ones.
    EXECUTE format('GRANT SELECT, DELETE, UPDATE (published_at, xid) ON outbox TO %I', current_schema() || '_jobs');
END
$$;

SELECT gatefold_marks('outbox', '{
    "id": "none", "account_id": "none", "aggregate_type": "none", "sequence": "none", "type": "none",
    "recorded_at": "none", "published_at": "none", "xid": "none", "position": "none",
    "aggregate_id": "pseudonym; basis: contract; retention: days_7",
    "envelope": "pseudonym; basis: contract; retention: days_7"
}'::jsonb);

-- How far this service has worked off each aggregate of another one.
CREATE TABLE consumer_position (
    account_id     uuid   NOT NULL,
    producer       text   NOT NULL,
    aggregate_type text   NOT NULL,
    aggregate_id   text   NOT NULL,
    sequence       bigint NOT NULL,
    PRIMARY KEY (account_id, producer, aggregate_type, aggregate_id)
);
SELECT gatefold_tenant_table('consumer_position');
SELECT gatefold_marks('consumer_position', '{
    "account_id": "none", "producer": "none", "aggregate_type": "none", "sequence": "none",
    "aggregate_id": "pseudonym; basis: contract; retention: until_account_closure"
}'::jsonb);

-- How far this service has swept each producer's outbox.
CREATE TABLE consumer_cursor (
    producer text PRIMARY KEY,
    cursor   text NOT NULL
);
DO $$
BEGIN
    EXECUTE format('GRANT SELECT, INSERT, UPDATE, DELETE ON consumer_cursor TO %I', current_schema() || '_jobs');
END
$$;
SELECT gatefold_marks('consumer_cursor', '{"producer": "none", "cursor": "none"}'::jsonb);
