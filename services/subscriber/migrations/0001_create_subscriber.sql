-- kind: expand
-- min_compatible_code: 1

CREATE TABLE subscriber (
    account_id uuid NOT NULL,
    subject_id uuid NOT NULL,
    -- Events of the aggregate so far: the next one's number is taken from here, so numbers have no gaps.
    sequence bigint NOT NULL,
    email_index bytea NOT NULL,
    email_sealed bytea NOT NULL,
    name_sealed bytea,
    note_sealed bytea,
    metadata_sealed bytea,
    subscribed_to_emails boolean NOT NULL,
    complimentary boolean NOT NULL,
    labels text[] NOT NULL,
    external_id text,
    source text NOT NULL,
    -- When the reader was first known; for imported ones before they came here.
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    CONSTRAINT subscriber_pkey PRIMARY KEY (account_id, subject_id),
    CONSTRAINT subscriber_email_unique UNIQUE (account_id, email_index),
    CONSTRAINT subscriber_external_id_unique UNIQUE (account_id, external_id),
    CONSTRAINT subscriber_sequence_positive CHECK (sequence >= 1),
    CONSTRAINT subscriber_email_index_length CHECK (octet_length(email_index) = 16),
    CONSTRAINT subscriber_source_known CHECK (source IN ('api', 'import', 'registration'))
);

-- The list's order; the cursor continues in it.
CREATE INDEX subscriber_newest ON subscriber (account_id, created_at DESC, subject_id DESC);

SELECT gatefold_tenant_table('subscriber');
SELECT gatefold_marks('subscriber', '{
    "account_id": "none",
    "subject_id": "identifier; basis: contract; retention: until_erasure",
    "sequence": "none",
    "email_index": "contact; basis: contract; retention: until_erasure; index",
    "email_sealed": "contact; basis: contract; retention: until_erasure; sealed: profile; field: 1",
    "name_sealed": "identity; basis: contract; retention: until_erasure; sealed: profile; field: 2",
    "note_sealed": "staff_note; basis: legitimate_interest; retention: until_erasure; sealed: profile; field: 3",
    "metadata_sealed": "publisher_data; basis: legitimate_interest; retention: until_erasure; sealed: profile; field: 4; json",
    "subscribed_to_emails": "preference; basis: consent; retention: until_erasure",
    "complimentary": "access; basis: contract; retention: until_erasure",
    "labels": "segment; basis: legitimate_interest; retention: until_erasure",
    "external_id": "identifier; basis: contract; retention: until_erasure",
    "source": "none",
    "created_at": "activity; basis: contract; retention: until_erasure",
    "updated_at": "none"
}'::jsonb);
