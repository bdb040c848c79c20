-- kind: expand
-- min_compatible_code: 1

-- Routing tables, without row-level security: they lead from a credential to its account. No other table is.

-- The directory of accounts: each has a sibling in the other mode, made in the same transaction.
CREATE TABLE account (
    id         uuid        PRIMARY KEY,
    sibling_id uuid        NOT NULL UNIQUE REFERENCES account (id) DEFERRABLE INITIALLY DEFERRED,
    live       boolean     NOT NULL,
    name       text        NOT NULL CHECK (length(name) BETWEEN 1 AND 120),
    time_zone  text        NOT NULL,
    reader_url text        NOT NULL,
    created_at timestamptz NOT NULL,
    CHECK (sibling_id <> id)
);
SELECT gatefold_marks('account', '{
    "id": "none", "sibling_id": "none", "live": "none", "name": "none", "time_zone": "none", "reader_url": "none",
    "created_at": "none"
}'::jsonb);

-- Staff and operators of the whole platform, sealed under the platform's own vault account (the nil UUID).
CREATE TABLE person (
    id                 uuid        PRIMARY KEY,
    email_index        bytea       CONSTRAINT person_email UNIQUE CHECK (length(email_index) = 16),
    email_sealed       bytea       NOT NULL,
    name_sealed        bytea       NOT NULL,
    password_scheme    text        NOT NULL,
    password_params    text        NOT NULL,
    password_pepper_id text        NOT NULL,
    password_hash      text        NOT NULL,
    operator           boolean     NOT NULL DEFAULT false,
    created_at         timestamptz NOT NULL
);
SELECT gatefold_marks('person', '{
    "id": "pseudonym; basis: contract; retention: until_leaving",
    "email_index": "contact; basis: contract; retention: until_leaving; index",
    "email_sealed": "contact; basis: contract; retention: until_leaving; sealed: profile; field: 1",
    "name_sealed": "identity; basis: contract; retention: until_leaving; sealed: profile; field: 2",
    "password_scheme": "none", "password_params": "none", "password_pepper_id": "none",
    "password_hash": "credential; basis: contract; retention: until_leaving",
    "operator": "none", "created_at": "none"
}'::jsonb);

-- Which accounts a person may sign in to (the live ones; their test siblings follow).
CREATE TABLE staff_route (
    person_id  uuid NOT NULL REFERENCES person (id),
    account_id uuid NOT NULL REFERENCES account (id),
    PRIMARY KEY (person_id, account_id)
);
SELECT gatefold_marks('staff_route', '{
    "person_id": "pseudonym; basis: contract; retention: until_leaving", "account_id": "none"
}'::jsonb);

CREATE TABLE api_key_route (
    key_hash   bytea PRIMARY KEY CHECK (length(key_hash) = 32),
    account_id uuid  NOT NULL REFERENCES account (id),
    key_id     uuid  NOT NULL
);
SELECT gatefold_marks('api_key_route', '{"key_hash": "none", "account_id": "none", "key_id": "none"}'::jsonb);

-- No reference to account: an operator's session belongs to none (the nil UUID).
CREATE TABLE session_route (
    session_id uuid        PRIMARY KEY,
    account_id uuid        NOT NULL,
    expires_at timestamptz NOT NULL
);
CREATE INDEX session_route_by_expiry ON session_route (expires_at);
SELECT gatefold_marks('session_route', '{
    "session_id": "pseudonym; basis: contract; retention: days_30", "account_id": "none", "expires_at": "none"
}'::jsonb);

CREATE TABLE challenge_route (
    challenge_id uuid        PRIMARY KEY,
    token_hash   bytea       UNIQUE CHECK (length(token_hash) = 32),
    account_id   uuid        NOT NULL REFERENCES account (id),
    expires_at   timestamptz NOT NULL
);
CREATE INDEX challenge_route_by_expiry ON challenge_route (expires_at);
SELECT gatefold_marks('challenge_route', '{
    "challenge_id": "none", "token_hash": "none", "account_id": "none", "expires_at": "none"
}'::jsonb);

-- One-time tokens that make an operator; printed by a command at set-up, stored hashed.
CREATE TABLE bootstrap_token (
    id         uuid        PRIMARY KEY,
    token_hash bytea       NOT NULL UNIQUE CHECK (length(token_hash) = 32),
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    spent_at   timestamptz,
    spent_by   text,
    person_id  uuid REFERENCES person (id),
    CHECK ((spent_at IS NULL) = (person_id IS NULL))
);
SELECT gatefold_marks('bootstrap_token', '{
    "id": "none", "token_hash": "none", "created_at": "none", "expires_at": "none", "spent_at": "none",
    "spent_by": "none", "person_id": "pseudonym; basis: contract; retention: until_leaving"
}'::jsonb);

-- Keys that sign access tokens. Replicas agree because there is one active and one next key by constraint.
CREATE TABLE signing_key (
    id             uuid        PRIMARY KEY,
    kid            text        NOT NULL UNIQUE,
    state          text        NOT NULL CHECK (state IN ('next', 'active', 'retired')),
    x              text        NOT NULL,
    y              text        NOT NULL,
    private_sealed bytea,
    created_at     timestamptz NOT NULL,
    activated_at   timestamptz,
    retired_at     timestamptz,
    CHECK ((state = 'retired') = (private_sealed IS NULL)),
    CHECK ((state = 'retired') = (retired_at IS NOT NULL)),
    CHECK (state <> 'active' OR activated_at IS NOT NULL)
);
CREATE UNIQUE INDEX signing_key_one_of_a_state ON signing_key (state) WHERE state IN ('next', 'active');
SELECT gatefold_marks('signing_key', '{
    "id": "none", "kid": "none", "state": "none", "x": "none", "y": "none", "private_sealed": "none",
    "created_at": "none", "activated_at": "none", "retired_at": "none"
}'::jsonb);
