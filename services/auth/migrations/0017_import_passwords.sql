-- kind: expand
-- min_compatible_code: 1

-- Passwords that another system hashed, of readers who have no sign-in yet; the hash is sealed with the pepper. Once its
-- time is over it is forgotten, and the address stays for a reset.
CREATE TABLE imported_password (
    account_id         uuid        NOT NULL,
    id                 uuid        NOT NULL,
    subject_id         uuid        NOT NULL,
    email_index        bytea       NOT NULL CHECK (length(email_index) = 16),
    email_sealed       bytea       NOT NULL,
    password_scheme    text        NOT NULL,
    password_params    text        NOT NULL,
    password_pepper_id text        NOT NULL,
    password_hash      text        NOT NULL,
    usable_until       timestamptz,
    imported_at        timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT imported_password_subject UNIQUE (account_id, subject_id),
    CONSTRAINT imported_password_email UNIQUE (account_id, email_index),
    CHECK ((usable_until IS NULL) = (password_hash = ''))
);
CREATE INDEX imported_password_by_deadline ON imported_password (usable_until) WHERE usable_until IS NOT NULL;
SELECT gatefold_tenant_table('imported_password');
SELECT gatefold_jobs_table('imported_password');
SELECT gatefold_marks('imported_password', '{
    "account_id": "none", "usable_until": "none", "imported_at": "none",
    "id": "pseudonym; basis: contract; retention: until_erasure",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "email_index": "contact; basis: contract; retention: until_erasure; index",
    "email_sealed": "contact; basis: contract; retention: until_erasure; sealed: profile; field: 1",
    "password_scheme": "none", "password_params": "none", "password_pepper_id": "none",
    "password_hash": "credential; basis: contract; retention: until_erasure"
}'::jsonb);
GRANT SELECT (usable_until), UPDATE (password_hash, usable_until) ON imported_password TO auth_jobs;
