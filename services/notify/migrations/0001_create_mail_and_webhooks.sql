-- kind: expand
-- min_compatible_code: 1
CREATE TABLE mail (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    template text NOT NULL,
    event_id uuid NOT NULL,
    subject_id uuid,
    challenge_id uuid,
    data bytea NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    sent_at timestamptz,
    PRIMARY KEY (account_id, id),
    -- One mail of a kind for one event, however often the event is delivered.
    CONSTRAINT mail_once UNIQUE (account_id, event_id, template),
    CHECK ((sent_at IS NOT NULL) = (state = 'done'))
);
CREATE INDEX mail_by_subject ON mail (account_id, subject_id);

CREATE TABLE webhook_endpoint (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    url text NOT NULL,
    event_types text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    disabled_at timestamptz,
    PRIMARY KEY (account_id, id)
);

CREATE TABLE webhook_delivery (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    endpoint_id uuid NOT NULL,
    event_id uuid NOT NULL,
    event_type text NOT NULL,
    subject_id uuid,
    payload bytea NOT NULL,
    state text NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'done', 'failed')),
    attempts integer NOT NULL DEFAULT 0,
    last_status integer NOT NULL DEFAULT 0,
    created_at timestamptz NOT NULL,
    next_attempt_at timestamptz,
    delivered_at timestamptz,
    PRIMARY KEY (account_id, id),
    CONSTRAINT webhook_delivery_once UNIQUE (account_id, endpoint_id, event_id),
    FOREIGN KEY (account_id, endpoint_id) REFERENCES webhook_endpoint (account_id, id),
    CHECK ((delivered_at IS NOT NULL) = (state = 'done'))
);
CREATE INDEX webhook_delivery_by_subject ON webhook_delivery (account_id, subject_id);

SELECT gatefold_tenant_table('mail');
SELECT gatefold_tenant_table('webhook_endpoint');
SELECT gatefold_tenant_table('webhook_delivery');

SELECT gatefold_marks('mail', '{
    "account_id": "none", "id": "none", "template": "none", "event_id": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "challenge_id": "none", "data": "none", "state": "none", "attempts": "none", "created_at": "none", "sent_at": "none"
}'::jsonb);
SELECT gatefold_marks('webhook_endpoint', '{
    "account_id": "none", "id": "none", "url": "none", "event_types": "none",
    "created_at": "none", "disabled_at": "none"
}'::jsonb);
SELECT gatefold_marks('webhook_delivery', '{
    "account_id": "none", "id": "none", "endpoint_id": "none", "event_id": "none", "event_type": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "payload": "pseudonym; basis: contract; retention: until_erasure",
    "state": "none", "attempts": "none", "last_status": "none", "created_at": "none", "next_attempt_at": "none",
    "delivered_at": "none"
}'::jsonb);
