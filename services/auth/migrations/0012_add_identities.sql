-- kind: expand
-- min_compatible_code: 1

-- OpenID providers whose word on people an account takes; those for staff are kept in the live account.
CREATE TABLE identity_provider (
    account_id           uuid        NOT NULL,
    id                   uuid        NOT NULL,
    kind                 text        NOT NULL CHECK (kind IN ('google', 'apple', 'microsoft', 'oidc')),
    audience             text        NOT NULL CHECK (audience IN ('readers', 'staff')),
    name                 text        NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    issuer               text        NOT NULL,
    client_id            text        NOT NULL,
    -- The client's secret, or Apple's private key; sealed under the account.
    secret_sealed        bytea,
    team_id              text        NOT NULL DEFAULT '',
    key_id               text        NOT NULL DEFAULT '',
    scopes               text[]      NOT NULL,
    redirect_uris        text[]      NOT NULL CHECK (cardinality(redirect_uris) BETWEEN 1 AND 20),
    tenants              text[]      NOT NULL DEFAULT '{}',
    email_domains        text[]      NOT NULL DEFAULT '{}',
    trust_verified_email boolean     NOT NULL DEFAULT false,
    default_role         text        CHECK (default_role IN
        ('admin', 'finance', 'support', 'sales', 'developer', 'privacy_officer', 'read_only')),
    asks_second_factor   boolean     NOT NULL DEFAULT false,
    enabled              boolean     NOT NULL,
    created_at           timestamptz NOT NULL,
    updated_at           timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    -- One for each issuer: an identity is known by its issuer, and leads to one provider's settings.
    CONSTRAINT identity_provider_issuer UNIQUE (account_id, audience, issuer),
    CHECK (audience = 'staff' OR (default_role IS NULL AND NOT asks_second_factor)),
    CHECK (default_role IS NULL OR (cardinality(email_domains) > 0 AND trust_verified_email)),
    CHECK (kind <> 'microsoft' OR cardinality(tenants) > 0)
);
SELECT gatefold_tenant_table('identity_provider');
SELECT gatefold_marks('identity_provider', '{
    "account_id": "none", "id": "none", "kind": "none", "audience": "none", "name": "none", "issuer": "none",
    "client_id": "none", "secret_sealed": "none", "team_id": "none", "key_id": "none", "scopes": "none",
    "redirect_uris": "none", "tenants": "none", "email_domains": "none", "trust_verified_email": "none",
    "default_role": "none", "asks_second_factor": "none", "enabled": "none", "created_at": "none",
    "updated_at": "none"
}'::jsonb);

-- Who somebody is at another provider, of OpenID Connect or SAML: known by account, issuer and the provider's own
-- identifier of them, never by an address. `subject_id` is the principal: a reader, or a person who is a member.
CREATE TABLE identity (
    account_id     uuid        NOT NULL,
    id             uuid        NOT NULL,
    audience       text        NOT NULL CHECK (audience IN ('readers', 'staff')),
    provider_id    uuid        NOT NULL,
    provider_name  text        NOT NULL,
    issuer         text        NOT NULL,
    -- HMAC-SHA-256 of issuer and identifier under a key of the account's.
    foreign_hash   bytea       NOT NULL CHECK (length(foreign_hash) = 32),
    foreign_sealed bytea       NOT NULL,
    subject_id     uuid        NOT NULL,
    created_at     timestamptz NOT NULL,
    last_used_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT identity_foreign UNIQUE (account_id, audience, issuer, foreign_hash)
);
CREATE INDEX identity_by_subject ON identity (account_id, subject_id);
CREATE INDEX identity_by_provider ON identity (account_id, provider_id);
SELECT gatefold_tenant_table('identity');
SELECT gatefold_marks('identity', '{
    "account_id": "none", "audience": "none", "provider_id": "none", "provider_name": "none", "created_at": "none",
    "last_used_at": "none",
    "id": "pseudonym; basis: contract; retention: until_erasure",
    "issuer": "identity; basis: contract; retention: until_erasure",
    "foreign_hash": "credential; basis: contract; retention: until_erasure",
    "foreign_sealed": "identity; basis: contract; retention: until_erasure; sealed: profile; field: 1",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure"
}'::jsonb);

-- Whoever leaves a team comes back as somebody new, whichever way they were removed.
CREATE FUNCTION membership_takes_identities() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM identity
    WHERE account_id = OLD.account_id AND audience = 'staff' AND subject_id = OLD.person_id;
    RETURN NULL;
END
$$;
CREATE TRIGGER membership_deleted AFTER DELETE ON membership FOR EACH ROW
    WHEN (OLD.person_id IS NOT NULL) EXECUTE FUNCTION membership_takes_identities();

-- A browser that was sent to a provider, until it comes back: once, within ten minutes. It lies where the provider does.
CREATE TABLE federated_sign_in (
    account_id   uuid        NOT NULL,
    id           uuid        NOT NULL,
    provider_id  uuid        NOT NULL,
    -- Where the session begins: the account itself, or its test sibling for staff.
    place_id     uuid        NOT NULL,
    live         boolean     NOT NULL,
    redirect_uri text        NOT NULL,
    -- SHA-256 of what the browser keeps that was sent away.
    browser_hash bytea       NOT NULL CHECK (length(browser_hash) = 32),
    -- Whose identity is to be added, and in which session they asked for it; none for a sign-in.
    principal_id uuid,
    session_id   uuid,
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CHECK ((principal_id IS NULL) = (session_id IS NULL))
);
CREATE INDEX federated_sign_in_by_expiry ON federated_sign_in (expires_at);
SELECT gatefold_tenant_table('federated_sign_in');
SELECT gatefold_jobs_table('federated_sign_in');
SELECT gatefold_marks('federated_sign_in', '{
    "account_id": "none", "id": "none", "provider_id": "none", "place_id": "none", "live": "none",
    "redirect_uri": "none", "browser_hash": "none", "expires_at": "none",
    "principal_id": "pseudonym; basis: contract; retention: days_1",
    "session_id": "pseudonym; basis: contract; retention: days_1"
}'::jsonb);
GRANT SELECT (account_id, id, expires_at), DELETE ON federated_sign_in TO auth_jobs;

-- The identity that a session began with, and what waits for more: of staff such a session opens this account alone.
ALTER TABLE session ADD COLUMN identity_id uuid;
ALTER TABLE sign_in ADD COLUMN identity_id uuid;
CREATE INDEX session_by_identity ON session (account_id, identity_id) WHERE identity_id IS NOT NULL;
SELECT gatefold_marks('session', '{"identity_id": "pseudonym; basis: contract; retention: until_erasure"}'::jsonb);
SELECT gatefold_marks('sign_in', '{"identity_id": "pseudonym; basis: contract; retention: days_1"}'::jsonb);

ALTER TABLE security_policy
    ADD COLUMN staff_sign_in text NOT NULL DEFAULT 'any' CHECK (staff_sign_in IN ('any', 'provider_only'));
SELECT gatefold_marks('security_policy', '{"staff_sign_in": "none"}'::jsonb);

-- A mail tells of each identity that is added or removed.
ALTER TABLE challenge
    DROP CONSTRAINT challenge_purpose_check,
    ADD CONSTRAINT challenge_purpose_check CHECK (purpose IN
        ('verify_registration', 'already_registered', 'invite_member',
         'reset_password', 'magic_link', 'change_email', 'revert_email', 'unlock', 'email_code',
         'password_changed', 'new_device', 'factor_added', 'factor_removed', 'recovery_code_used', 'email_changed',
         'session_ended', 'sign_in_locked', 'identity_added', 'identity_removed'));
