-- kind: expand
-- min_compatible_code: 1

-- Sites and apps of an account that its readers sign in to (OpenID Connect); the identifier is the `client_id`.
CREATE TABLE oauth_client (
    account_id                uuid        NOT NULL,
    id                        uuid        NOT NULL,
    name                      text        NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    home_url                  text        NOT NULL,
    logo_url                  text        NOT NULL,
    redirect_uris             text[]      NOT NULL CHECK (cardinality(redirect_uris) BETWEEN 1 AND 20),
    post_logout_redirect_uris text[]      NOT NULL CHECK (cardinality(post_logout_redirect_uris) <= 20),
    confidential              boolean     NOT NULL,
    scopes                    text[]      NOT NULL CHECK ('openid' = ANY (scopes)),
    first_party               boolean     NOT NULL,
    enabled                   boolean     NOT NULL,
    secret_hash               bytea       CHECK (length(secret_hash) = 32),
    -- The secret before, until it ends.
    former_secret_hash        bytea       CHECK (length(former_secret_hash) = 32),
    former_secret_until       timestamptz,
    created_at                timestamptz NOT NULL,
    updated_at                timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CHECK (confidential = (secret_hash IS NOT NULL)),
    CHECK ((former_secret_hash IS NULL) = (former_secret_until IS NULL))
);
SELECT gatefold_tenant_table('oauth_client');
SELECT gatefold_marks('oauth_client', '{
    "account_id": "none", "id": "none", "name": "none", "home_url": "none", "logo_url": "none",
    "redirect_uris": "none", "post_logout_redirect_uris": "none", "confidential": "none", "scopes": "none",
    "first_party": "none", "enabled": "none", "secret_hash": "none", "former_secret_hash": "none",
    "former_secret_until": "none", "created_at": "none", "updated_at": "none"
}'::jsonb);

-- Whose client it is, for requests that name nothing else. A routing table.
CREATE TABLE oauth_client_route (
    client_id  uuid PRIMARY KEY,
    account_id uuid NOT NULL REFERENCES account (id)
);
SELECT gatefold_marks('oauth_client_route', '{"client_id": "none", "account_id": "none"}'::jsonb);

-- A browser that was sent here by a client, until its reader has decided: once, within ten minutes.
CREATE TABLE oauth_request (
    account_id     uuid        NOT NULL,
    id             uuid        NOT NULL,
    -- SHA-256 of what the browser keeps that came.
    handle_hash    bytea       NOT NULL CHECK (length(handle_hash) = 32),
    client_id      uuid        NOT NULL,
    redirect_uri   text        NOT NULL,
    scopes         text[]      NOT NULL,
    state          text        NOT NULL,
    nonce          text        NOT NULL,
    code_challenge text        NOT NULL,
    prompts        text[]      NOT NULL,
    max_age        integer,
    acr            text,
    -- The session that was shown what is asked for: no other decides.
    session_id     uuid,
    created_at     timestamptz NOT NULL,
    expires_at     timestamptz NOT NULL,
    PRIMARY KEY (account_id, id)
);
CREATE INDEX oauth_request_by_expiry ON oauth_request (expires_at);
SELECT gatefold_tenant_table('oauth_request');
SELECT gatefold_jobs_table('oauth_request');
SELECT gatefold_marks('oauth_request', '{
    "account_id": "none", "id": "none", "handle_hash": "none", "client_id": "none", "redirect_uri": "none",
    "scopes": "none", "state": "none", "nonce": "none", "code_challenge": "none", "prompts": "none",
    "max_age": "none", "acr": "none", "created_at": "none", "expires_at": "none",
    "session_id": "pseudonym; basis: contract; retention: days_1"
}'::jsonb);
GRANT SELECT (account_id, id, expires_at), DELETE ON oauth_request TO auth_jobs;

-- What a reader lets a client know of them, until they take it back.
CREATE TABLE oauth_consent (
    account_id uuid        NOT NULL,
    id         uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    client_id  uuid        NOT NULL,
    scopes     text[]      NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT oauth_consent_client UNIQUE (account_id, subject_id, client_id)
);
SELECT gatefold_tenant_table('oauth_consent');
SELECT gatefold_marks('oauth_consent', '{
    "account_id": "none", "client_id": "none", "created_at": "none",
    "id": "pseudonym; basis: contract; retention: until_erasure",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "scopes": "preference; basis: contract; retention: until_erasure"
}'::jsonb);

-- One authorization of a client by a reader: its code, and the family of refresh tokens that follows. It never outlives
-- the session in which it was given.
CREATE TABLE oauth_authorization (
    account_id       uuid        NOT NULL,
    id               uuid        NOT NULL,
    client_id        uuid        NOT NULL,
    subject_id       uuid        NOT NULL,
    session_id       uuid        NOT NULL,
    scopes           text[]      NOT NULL,
    redirect_uri     text        NOT NULL,
    nonce            text        NOT NULL,
    code_challenge   text        NOT NULL,
    code_hash        bytea       NOT NULL CHECK (length(code_hash) = 32),
    code_expires_at  timestamptz NOT NULL,
    code_spent_at    timestamptz,
    -- The request that spent it, which may be repeated when its answer was lost.
    code_spent_by    text,
    acr              text        NOT NULL,
    authenticated_at timestamptz NOT NULL,
    salt             bytea       NOT NULL CHECK (length(salt) = 32),
    generation       bigint      NOT NULL DEFAULT 1 CHECK (generation > 0),
    rotated_at       timestamptz NOT NULL,
    created_at       timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    revoked_at       timestamptz,
    revoked_reason   text,
    PRIMARY KEY (account_id, id),
    CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
    CHECK ((code_spent_at IS NULL) = (code_spent_by IS NULL))
);
CREATE INDEX oauth_authorization_by_subject ON oauth_authorization (account_id, subject_id);
CREATE INDEX oauth_authorization_by_client ON oauth_authorization (account_id, client_id) WHERE revoked_at IS NULL;
CREATE INDEX oauth_authorization_by_expiry ON oauth_authorization (expires_at);
SELECT gatefold_tenant_table('oauth_authorization');
SELECT gatefold_jobs_table('oauth_authorization');
SELECT gatefold_marks('oauth_authorization', '{
    "account_id": "none", "client_id": "none", "redirect_uri": "none", "nonce": "none",
    "code_challenge": "none", "code_hash": "none", "code_expires_at": "none", "code_spent_at": "none",
    "code_spent_by": "none", "acr": "none", "authenticated_at": "none", "salt": "none", "generation": "none",
    "rotated_at": "none", "created_at": "none", "expires_at": "none", "revoked_at": "none", "revoked_reason": "none",
    "scopes": "none",
    "id": "pseudonym; basis: contract; retention: until_erasure",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "session_id": "pseudonym; basis: contract; retention: until_erasure"
}'::jsonb);
GRANT SELECT (account_id, id, expires_at), DELETE ON oauth_authorization TO auth_jobs;

-- Gateways hear of an authorization's end as of a session's: its access tokens name both.
CREATE FUNCTION oauth_authorization_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_end (session_id, until)
    VALUES (OLD.id, CASE TG_OP WHEN 'UPDATE' THEN NEW.revoked_at + interval '15 minutes' ELSE OLD.expires_at END);
    RETURN NULL;
END
$$;
CREATE TRIGGER oauth_authorization_revoked AFTER UPDATE ON oauth_authorization FOR EACH ROW
    WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION oauth_authorization_ended();
CREATE TRIGGER oauth_authorization_deleted AFTER DELETE ON oauth_authorization FOR EACH ROW
    WHEN (OLD.revoked_at IS NULL AND current_user <> 'auth_jobs') EXECUTE FUNCTION oauth_authorization_ended();
