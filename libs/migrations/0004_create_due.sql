-- kind: expand
-- min_compatible_code: 1

-- Work with a due time on the account's clock. Routing table: workers claim rows of all accounts, which hold ids alone.
CREATE TABLE due (
    account_id   uuid        NOT NULL,
    kind         text        NOT NULL,
    reference    uuid        NOT NULL,
    due_at       timestamptz NOT NULL,
    attempts     integer     NOT NULL DEFAULT 0,
    leased_until timestamptz,
    PRIMARY KEY (account_id, kind, reference)
);
-- Leads with the account, so that claiming can go round the accounts without reading the rows of a busy one.
CREATE INDEX due_by_account ON due (account_id, due_at);
-- Tells an idle worker cheaply that nothing is due.
CREATE INDEX due_by_time ON due (due_at);
DO $$
BEGIN
    EXECUTE format('GRANT SELECT, UPDATE (attempts, leased_until) ON due TO %I', current_schema() || '_jobs');
END
$$;
SELECT gatefold_marks('due', '{
    "account_id": "none", "kind": "none", "due_at": "none", "attempts": "none", "leased_until": "none",
    "reference": "pseudonym; basis: contract; retention: until_done"
}'::jsonb);
