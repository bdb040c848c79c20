-- kind: expand
-- min_compatible_code: 1

-- Second factors. `subject_id` is the principal: a reader in the account, or a person under the nil account.
CREATE TABLE factor (
    account_id    uuid        NOT NULL,
    id            uuid        NOT NULL,
    subject_id    uuid        NOT NULL,
    kind          text        NOT NULL CHECK (kind IN ('totp', 'email_code')),
    name          text        NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    secret_sealed bytea,
    -- The newest time step whose code was taken; a code works only beyond it.
    last_step     bigint      NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL,
    confirmed_at  timestamptz,
    PRIMARY KEY (account_id, id),
    CHECK ((kind = 'totp') = (secret_sealed IS NOT NULL)),
    CHECK (kind = 'totp' OR confirmed_at IS NOT NULL)
);
CREATE INDEX factor_by_subject ON factor (account_id, subject_id);
CREATE UNIQUE INDEX factor_one_unconfirmed ON factor (account_id, subject_id) WHERE confirmed_at IS NULL;
CREATE UNIQUE INDEX factor_one_mailbox ON factor (account_id, subject_id) WHERE kind = 'email_code';
SELECT gatefold_tenant_table('factor');
SELECT gatefold_jobs_table('factor');
SELECT gatefold_marks('factor', '{
    "account_id": "none", "kind": "none", "last_step": "none", "created_at": "none", "confirmed_at": "none",
    "id": "pseudonym; basis: contract; retention: until_erasure",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "name": "device; basis: contract; retention: until_erasure",
    "secret_sealed": "secret; basis: contract; retention: until_erasure; sealed: profile; field: 1"
}'::jsonb);

-- The jobs role clears away what was begun and never confirmed.
GRANT SELECT (account_id, id, created_at, confirmed_at), DELETE ON factor TO auth_jobs;

-- Ten places for each principal: a new set overwrites the old one, so that there is never more than one.
CREATE TABLE recovery_code (
    account_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    number     smallint    NOT NULL CHECK (number BETWEEN 1 AND 10),
    code_hash  bytea       NOT NULL CHECK (length(code_hash) = 32),
    created_at timestamptz NOT NULL,
    spent_at   timestamptz,
    PRIMARY KEY (account_id, subject_id, number)
);
SELECT gatefold_tenant_table('recovery_code');
SELECT gatefold_marks('recovery_code', '{
    "account_id": "none", "number": "none", "created_at": "none", "spent_at": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "code_hash": "credential; basis: contract; retention: until_erasure"
}'::jsonb);

-- Codes and passwords tried in a row without success, over all sign-ins of a principal; a right one deletes the row.
CREATE TABLE factor_attempt (
    account_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    tries      integer     NOT NULL CHECK (tries > 0),
    retry_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, subject_id)
);
SELECT gatefold_tenant_table('factor_attempt');
SELECT gatefold_marks('factor_attempt', '{
    "account_id": "none", "tries": "none", "retry_at": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure"
}'::jsonb);

ALTER TABLE sign_in
    -- The session that is proven anew; none where a new one is to begin.
    ADD COLUMN session_id uuid,
    -- The newest mailed code, and how many were mailed.
    ADD COLUMN code_id uuid,
    ADD COLUMN codes_sent smallint NOT NULL DEFAULT 0 CHECK (codes_sent <= 3);
SELECT gatefold_marks('sign_in', '{
    "session_id": "pseudonym; basis: contract; retention: days_1", "code_id": "none", "codes_sent": "none"
}'::jsonb);
