-- kind: expand
-- min_compatible_code: 1
-- The publisher's accounts at Stripe, and the readers' counterparts there. Secrets are sealed by the account's cipher.
CREATE TABLE payment_connection (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    provider text NOT NULL CHECK (provider = 'stripe'),
    live boolean NOT NULL,
    provider_account text NOT NULL CHECK (provider_account <> ''),
    publishable_key text NOT NULL CHECK (publishable_key LIKE 'pk\_%'),
    secret_key_sealed bytea NOT NULL,
    webhook_secrets_sealed bytea NOT NULL,
    time_zone text NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT payment_connection_mode CHECK (live = (publishable_key LIKE 'pk\_live\_%'))
);

-- Routing: which account a webhook's address belongs to. No row-level security, since no tenant is known yet.
CREATE TABLE payment_connection_route (
    connection_id uuid PRIMARY KEY,
    account_id uuid NOT NULL,
    live boolean NOT NULL
);

CREATE TABLE customer (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    connection_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    provider_customer text,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT customer_connection FOREIGN KEY (account_id, connection_id)
        REFERENCES payment_connection (account_id, id),
    CONSTRAINT customer_subject UNIQUE (account_id, connection_id, subject_id),
    CONSTRAINT customer_provider UNIQUE (account_id, connection_id, provider_customer)
);

CREATE INDEX customer_by_subject ON customer (account_id, subject_id);

CREATE TABLE payment_method (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    connection_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    provider_method text NOT NULL,
    brand text,
    last4 text CHECK (last4 ~ '^[0-9]{4}$'),
    expiry_month smallint CHECK (expiry_month BETWEEN 1 AND 12),
    expiry_year smallint,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT payment_method_connection FOREIGN KEY (account_id, connection_id)
        REFERENCES payment_connection (account_id, id),
    CONSTRAINT payment_method_provider UNIQUE (account_id, connection_id, provider_method)
);

CREATE INDEX payment_method_by_subject ON payment_method (account_id, subject_id);

SELECT gatefold_tenant_table('payment_connection');
SELECT gatefold_tenant_table('customer');
SELECT gatefold_tenant_table('payment_method');

SELECT gatefold_marks('payment_connection', '{"account_id": "none", "id": "none", "provider": "none", "live": "none",
    "provider_account": "none", "publishable_key": "none", "secret_key_sealed": "none",
    "webhook_secrets_sealed": "none", "time_zone": "none", "created_at": "none"}'::jsonb);
SELECT gatefold_marks('payment_connection_route', '{"connection_id": "none", "account_id": "none",
    "live": "none"}'::jsonb);
SELECT gatefold_marks('customer', '{"account_id": "none", "id": "none", "connection_id": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "provider_customer": "pseudonym; basis: contract; retention: until_erasure", "created_at": "none"}'::jsonb);
SELECT gatefold_marks('payment_method', '{"account_id": "none", "id": "none", "connection_id": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "provider_method": "pseudonym; basis: contract; retention: until_erasure",
    "brand": "payment; basis: contract; retention: until_erasure",
    "last4": "payment; basis: contract; retention: until_erasure",
    "expiry_month": "payment; basis: contract; retention: until_erasure",
    "expiry_year": "payment; basis: contract; retention: until_erasure",
    "created_at": "none"}'::jsonb);
