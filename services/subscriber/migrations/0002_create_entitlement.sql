-- kind: expand
-- min_compatible_code: 1

CREATE TABLE entitlement (
    account_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    feature text NOT NULL,
    -- The subscription; where access was given for free the reader's own subject.
    source_id uuid NOT NULL,
    complimentary boolean NOT NULL,
    active_from timestamptz NOT NULL,
    -- NULL: without end.
    active_until timestamptz,
    -- The paywall's question is one descent of this index.
    CONSTRAINT entitlement_pkey PRIMARY KEY (account_id, subject_id, feature, source_id),
    CONSTRAINT entitlement_source CHECK (complimentary = (source_id = subject_id)),
    CONSTRAINT entitlement_period CHECK (active_until IS NULL OR active_until >= active_from)
);

SELECT gatefold_tenant_table('entitlement');
SELECT gatefold_marks('entitlement', '{
    "account_id": "none",
    "subject_id": "identifier; basis: contract; retention: until_erasure",
    "feature": "access; basis: contract; retention: until_erasure",
    "source_id": "access; basis: contract; retention: until_erasure",
    "complimentary": "access; basis: contract; retention: until_erasure",
    "active_from": "access; basis: contract; retention: until_erasure",
    "active_until": "access; basis: contract; retention: until_erasure"
}'::jsonb);

-- One row a reader: orders the changes of all their rights, and remembers what was last announced.
CREATE TABLE entitlement_head (
    account_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    sequence bigint NOT NULL,
    features text[] NOT NULL,
    CONSTRAINT entitlement_head_pkey PRIMARY KEY (account_id, subject_id),
    CONSTRAINT entitlement_head_sequence_not_negative CHECK (sequence >= 0)
);

SELECT gatefold_tenant_table('entitlement_head');
SELECT gatefold_marks('entitlement_head', '{
    "account_id": "none",
    "subject_id": "identifier; basis: contract; retention: until_erasure",
    "sequence": "none",
    "features": "access; basis: contract; retention: until_erasure"
}'::jsonb);
