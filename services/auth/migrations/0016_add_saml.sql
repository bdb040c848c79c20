-- kind: expand
-- min_compatible_code: 1

-- Identity providers that sign staff in by SAML 2.0, kept in the live account for its test sibling too.
CREATE TABLE saml_connection (
    account_id          uuid        NOT NULL,
    id                  uuid        NOT NULL,
    name                text        NOT NULL CHECK (length(name) BETWEEN 1 AND 80),
    enabled             boolean     NOT NULL,
    entity_id           text        CHECK (length(entity_id) BETWEEN 1 AND 1024),
    sso_url             text        CHECK (sso_url LIKE 'https://%'),
    -- DER; responses must be signed with one of them.
    certificates        bytea[]     NOT NULL,
    email_attribute     text        NOT NULL,
    name_attribute      text        NOT NULL,
    email_domains       text[]      NOT NULL CHECK (cardinality(email_domains) <= 50),
    default_role        text        CHECK (default_role IN
        ('admin', 'finance', 'support', 'sales', 'developer', 'privacy_officer', 'read_only')),
    asks_second_factor  boolean     NOT NULL,
    unsolicited         boolean     NOT NULL,
    created_at          timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT saml_connection_entity UNIQUE (account_id, entity_id),
    CHECK ((entity_id IS NULL) = (sso_url IS NULL) AND (entity_id IS NULL) = (cardinality(certificates) = 0)),
    CHECK (NOT enabled OR (entity_id IS NOT NULL AND cardinality(email_domains) > 0))
);
SELECT gatefold_tenant_table('saml_connection');
SELECT gatefold_marks('saml_connection', '{
    "account_id": "none", "id": "none", "name": "none", "enabled": "none", "entity_id": "none", "sso_url": "none",
    "certificates": "none", "email_attribute": "none", "name_attribute": "none", "email_domains": "none",
    "default_role": "none", "asks_second_factor": "none", "unsolicited": "none", "created_at": "none"
}'::jsonb);

-- A sign-in from the redirect to the identity provider to its end. Until the response it is found by what was sent with
-- the request (`relay_hash`); after it by the token that finishes it (`handover_hash`), which also opens what was said.
CREATE TABLE saml_sign_in (
    account_id       uuid        NOT NULL,
    id               uuid        NOT NULL,
    connection_id    uuid        NOT NULL,
    opens_account_id uuid        NOT NULL,
    live             boolean     NOT NULL,
    relay_hash       bytea       CHECK (length(relay_hash) = 32),
    browser_hash     bytea       CHECK (length(browser_hash) = 32),
    handover_hash    bytea       CHECK (length(handover_hash) = 32),
    statement_sealed bytea,
    expires_at       timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT saml_sign_in_relay UNIQUE (account_id, relay_hash),
    CONSTRAINT saml_sign_in_handover UNIQUE (account_id, handover_hash),
    FOREIGN KEY (account_id, connection_id) REFERENCES saml_connection (account_id, id) ON DELETE CASCADE,
    CHECK ((relay_hash IS NULL) = (handover_hash IS NOT NULL)),
    CHECK ((handover_hash IS NULL) = (statement_sealed IS NULL)),
    CHECK (browser_hash IS NOT NULL OR handover_hash IS NOT NULL)
);
CREATE INDEX saml_sign_in_by_expiry ON saml_sign_in (expires_at);
CREATE INDEX saml_sign_in_by_connection ON saml_sign_in (account_id, connection_id);
SELECT gatefold_tenant_table('saml_sign_in');
SELECT gatefold_jobs_table('saml_sign_in');
SELECT gatefold_marks('saml_sign_in', '{
    "account_id": "none", "id": "none", "connection_id": "none", "opens_account_id": "none", "live": "none",
    "relay_hash": "none", "browser_hash": "none", "handover_hash": "none", "expires_at": "none",
    "statement_sealed": "identity; basis: contract; retention: days_1"
}'::jsonb);

-- Assertions that were taken, for as long as they could be taken again.
CREATE TABLE saml_assertion (
    account_id     uuid        NOT NULL,
    connection_id  uuid        NOT NULL,
    assertion_hash bytea       NOT NULL CHECK (length(assertion_hash) = 32),
    expires_at     timestamptz NOT NULL,
    CONSTRAINT saml_assertion_once PRIMARY KEY (account_id, connection_id, assertion_hash),
    FOREIGN KEY (account_id, connection_id) REFERENCES saml_connection (account_id, id) ON DELETE CASCADE
);
CREATE INDEX saml_assertion_by_expiry ON saml_assertion (expires_at);
SELECT gatefold_tenant_table('saml_assertion');
SELECT gatefold_jobs_table('saml_assertion');
SELECT gatefold_marks('saml_assertion', '{
    "account_id": "none", "connection_id": "none", "assertion_hash": "none", "expires_at": "none"
}'::jsonb);
GRANT SELECT (expires_at), DELETE ON saml_sign_in, saml_assertion TO auth_jobs;
