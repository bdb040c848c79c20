-- kind: expand
-- min_compatible_code: 1

CREATE TABLE membership (
    account_id   uuid        NOT NULL,
    id           uuid        NOT NULL,
    role         text        NOT NULL CHECK (role IN
        ('owner', 'admin', 'finance', 'support', 'sales', 'developer', 'privacy_officer', 'read_only')),
    person_id    uuid,
    email_index  bytea       CHECK (length(email_index) = 16),
    email_sealed bytea,
    invited_at   timestamptz NOT NULL,
    accepted_at  timestamptz,
    PRIMARY KEY (account_id, id),
    CONSTRAINT membership_email UNIQUE (account_id, email_index),
    CONSTRAINT membership_person UNIQUE (account_id, person_id),
    CHECK ((person_id IS NULL) = (accepted_at IS NULL)),
    CHECK (person_id IS NULL OR email_sealed IS NULL)
);
SELECT gatefold_tenant_table('membership');
SELECT gatefold_marks('membership', '{
    "account_id": "none", "role": "none", "invited_at": "none", "accepted_at": "none",
    "id": "pseudonym; basis: contract; retention: until_leaving",
    "person_id": "pseudonym; basis: contract; retention: until_leaving",
    "email_index": "contact; basis: contract; retention: until_leaving; index",
    "email_sealed": "contact; basis: contract; retention: until_accepted; sealed: profile; field: 1"
}'::jsonb);

CREATE TABLE api_key (
    account_id uuid        NOT NULL,
    id         uuid        NOT NULL,
    kind       text        NOT NULL CHECK (kind IN ('secret', 'publishable')),
    live       boolean     NOT NULL,
    name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    prefix     text        NOT NULL,
    last_four  text        NOT NULL,
    scopes     text[]      NOT NULL,
    key_hash   bytea       NOT NULL CHECK (length(key_hash) = 32),
    created_at timestamptz NOT NULL,
    revoked_at timestamptz,
    PRIMARY KEY (account_id, id)
);
SELECT gatefold_tenant_table('api_key');
SELECT gatefold_marks('api_key', '{
    "account_id": "none", "id": "none", "kind": "none", "live": "none", "name": "none", "prefix": "none",
    "last_four": "none", "scopes": "none", "key_hash": "none", "created_at": "none", "revoked_at": "none"
}'::jsonb);

-- What a reader signs in with; sealed and found under the reader's subject, as the profile elsewhere is.
CREATE TABLE credential (
    account_id         uuid        NOT NULL,
    id                 uuid        NOT NULL,
    subject_id         uuid        NOT NULL,
    email_index        bytea       CHECK (length(email_index) = 16),
    email_sealed       bytea       NOT NULL,
    password_scheme    text        NOT NULL,
    password_params    text        NOT NULL,
    password_pepper_id text        NOT NULL,
    password_hash      text        NOT NULL,
    sequence           bigint      NOT NULL DEFAULT 1,
    verified_at        timestamptz NOT NULL,
    created_at         timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT credential_subject UNIQUE (account_id, subject_id),
    CONSTRAINT credential_email UNIQUE (account_id, email_index)
);
SELECT gatefold_tenant_table('credential');
SELECT gatefold_marks('credential', '{
    "account_id": "none", "sequence": "none", "verified_at": "none", "created_at": "none",
    "id": "pseudonym; basis: contract; retention: until_erasure",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "email_index": "contact; basis: contract; retention: until_erasure; index",
    "email_sealed": "contact; basis: contract; retention: until_erasure; sealed: profile; field: 1",
    "password_scheme": "none", "password_params": "none", "password_pepper_id": "none",
    "password_hash": "credential; basis: contract; retention: until_erasure"
}'::jsonb);

-- A mail with a token, until it is spent or expires. A registration waits here with its password, not yet a credential.
CREATE TABLE challenge (
    account_id         uuid        NOT NULL,
    id                 uuid        NOT NULL,
    purpose            text        NOT NULL CHECK (purpose IN
        ('verify_registration', 'already_registered', 'invite_member')),
    subject_id         uuid        NOT NULL,
    membership_id      uuid,
    email_index        bytea       CHECK (length(email_index) = 16),
    email_sealed       bytea       NOT NULL,
    name_sealed        bytea       NOT NULL,
    password_scheme    text,
    password_params    text,
    password_pepper_id text,
    password_hash      text,
    created_at         timestamptz NOT NULL,
    expires_at         timestamptz NOT NULL,
    spent_at           timestamptz,
    spent_by           text,
    PRIMARY KEY (account_id, id),
    CHECK ((purpose = 'invite_member') = (membership_id IS NOT NULL)),
    CHECK (password_hash IS NULL OR purpose = 'verify_registration')
);
CREATE INDEX challenge_by_subject ON challenge (account_id, subject_id);
CREATE INDEX challenge_by_email ON challenge (account_id, email_index) WHERE spent_at IS NULL;
CREATE INDEX challenge_by_expiry ON challenge (expires_at);
SELECT gatefold_tenant_table('challenge');
SELECT gatefold_jobs_table('challenge');
SELECT gatefold_marks('challenge', '{
    "account_id": "none", "id": "none", "purpose": "none", "created_at": "none", "expires_at": "none",
    "spent_at": "none", "spent_by": "none",
    "subject_id": "pseudonym; basis: contract; retention: days_30",
    "membership_id": "pseudonym; basis: contract; retention: days_30",
    "email_index": "contact; basis: contract; retention: days_30; index",
    "email_sealed": "contact; basis: contract; retention: days_30; sealed: profile; field: 1",
    "name_sealed": "identity; basis: contract; retention: days_30; sealed: profile; field: 2",
    "password_scheme": "none", "password_params": "none", "password_pepper_id": "none",
    "password_hash": "credential; basis: contract; retention: days_30"
}'::jsonb);

-- Sessions of everybody; an operator's lie under the nil account.
CREATE TABLE session (
    account_id       uuid        NOT NULL,
    id               uuid        NOT NULL,
    kind             text        NOT NULL CHECK (kind IN ('STAFF', 'SUBSCRIBER', 'PLATFORM_OPERATOR')),
    live             boolean     NOT NULL,
    person_id        uuid,
    subject_id       uuid,
    acr              text        NOT NULL,
    salt             bytea       NOT NULL CHECK (length(salt) = 32),
    generation       bigint      NOT NULL DEFAULT 1 CHECK (generation > 0),
    rotated_at       timestamptz NOT NULL,
    authenticated_at timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    revoked_at       timestamptz,
    revoked_reason   text,
    PRIMARY KEY (account_id, id),
    CHECK ((kind = 'SUBSCRIBER') = (subject_id IS NOT NULL)),
    CHECK ((person_id IS NULL) = (subject_id IS NOT NULL)),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL))
);
CREATE INDEX session_by_subject ON session (account_id, subject_id) WHERE subject_id IS NOT NULL;
CREATE INDEX session_by_expiry ON session (expires_at);
SELECT gatefold_tenant_table('session');
SELECT gatefold_jobs_table('session');
SELECT gatefold_marks('session', '{
    "account_id": "none", "kind": "none", "live": "none", "acr": "none", "salt": "none", "generation": "none",
    "rotated_at": "none", "authenticated_at": "none", "expires_at": "none", "revoked_at": "none",
    "revoked_reason": "none",
    "id": "pseudonym; basis: contract; retention: days_30",
    "person_id": "pseudonym; basis: contract; retention: days_30",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure"
}'::jsonb);

-- The jobs role clears away what is over, and reads nothing of it but when it ended.
GRANT SELECT (account_id, id, expires_at), DELETE ON challenge, session TO auth_jobs;
GRANT SELECT (challenge_id, expires_at), DELETE ON challenge_route TO auth_jobs;
GRANT SELECT (session_id, expires_at), DELETE ON session_route TO auth_jobs;
GRANT SELECT (id, retired_at), DELETE ON signing_key TO auth_jobs;
