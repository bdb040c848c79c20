-- kind: expand
-- min_compatible_code: 1

-- A directory's credential is a key like others: with an end, networks, a successor.
ALTER TABLE api_key
    DROP CONSTRAINT api_key_kind_check,
    ADD CONSTRAINT api_key_kind_check CHECK (kind IN ('secret', 'publishable', 'scim')),
    ADD CONSTRAINT api_key_scim_live CHECK (kind <> 'scim' OR live),
    -- Whoever made it, so that keys can end with the person's work here; NULL where it was made before this was kept.
    ADD COLUMN created_by uuid;
CREATE INDEX api_key_by_maker ON api_key (account_id, created_by) WHERE revoked_at IS NULL;
SELECT gatefold_marks('api_key', '{"created_by": "pseudonym; basis: contract; retention: until_leaving"}'::jsonb);

-- What a directory says of a member, as SCIM JSON; and whether one who has not accepted yet is wanted.
CREATE TABLE directory_entry (
    account_id        uuid        NOT NULL,
    id                uuid        NOT NULL,
    attributes_sealed bytea       NOT NULL,
    wanted            boolean     NOT NULL,
    updated_at        timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id, id) REFERENCES membership (account_id, id) ON DELETE CASCADE
);
SELECT gatefold_tenant_table('directory_entry');
SELECT gatefold_marks('directory_entry', '{
    "account_id": "none", "wanted": "none", "updated_at": "none",
    "id": "pseudonym; basis: contract; retention: until_leaving",
    "attributes_sealed": "identity; basis: contract; retention: until_leaving; sealed: account; field: 1; json"
}'::jsonb);
