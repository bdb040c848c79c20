-- kind: expand
-- min_compatible_code: 1

-- What somebody has signed in from, so that a mail tells of a device that is new. Persons' lie under the nil account.
CREATE TABLE device_sight (
    account_id uuid        NOT NULL,
    id         uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    -- HMAC-SHA-256 of whose it is, the browser's name and the network around its address.
    sight      bytea       NOT NULL CHECK (octet_length(sight) = 32),
    seen_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT device_sight_once UNIQUE (account_id, subject_id, sight)
);
SELECT gatefold_tenant_table('device_sight');
SELECT gatefold_marks('device_sight', '{
    "account_id": "none", "id": "none", "seen_at": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "sight": "device; basis: contract; retention: until_erasure"
}'::jsonb);
