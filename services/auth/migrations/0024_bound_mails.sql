-- kind: expand
-- min_compatible_code: 1

-- When a mailbox was last sent what anybody can ask for. Its name is an HMAC: unknown addresses have rows as well.
CREATE TABLE mailbox (
    account_id uuid          NOT NULL,
    mailbox    bytea         NOT NULL CHECK (octet_length(mailbox) = 32),
    mailed_at  timestamptz[] NOT NULL CHECK (cardinality(mailed_at) <= 20),
    asked_at   timestamptz   NOT NULL,
    PRIMARY KEY (account_id, mailbox)
);
CREATE INDEX mailbox_by_age ON mailbox (asked_at);
SELECT gatefold_tenant_table('mailbox');
SELECT gatefold_marks('mailbox', '{
    "account_id": "none",
    "mailbox": "pseudonym; basis: legitimate_interest; retention: days_1",
    "mailed_at": "none", "asked_at": "none"
}'::jsonb);
GRANT SELECT (asked_at), DELETE ON mailbox TO auth_jobs;
SELECT gatefold_jobs_table('mailbox');
-- It may delete these, and saw none.
SELECT gatefold_jobs_table('known_network');
