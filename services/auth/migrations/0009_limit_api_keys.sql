-- kind: expand
-- min_compatible_code: 1

-- Keys end by themselves, work from some networks only, hand over to a successor, and are reported when they leak.
ALTER TABLE api_key
    ADD COLUMN expires_at   timestamptz,
    ADD COLUMN networks     cidr[] NOT NULL DEFAULT '{}' CHECK (cardinality(networks) <= 50),
    ADD COLUMN replaced_by  uuid,
    ADD COLUMN last_used_at timestamptz,
    ADD COLUMN leaked_at    timestamptz,
    ADD COLUMN leaked_in    text CHECK (leaked_in IN ('browser', 'url', 'referer')),
    ADD CONSTRAINT api_key_leak CHECK ((leaked_at IS NULL) = (leaked_in IS NULL)),
    ADD CONSTRAINT api_key_successor FOREIGN KEY (account_id, replaced_by) REFERENCES api_key (account_id, id);
SELECT gatefold_marks('api_key', '{
    "expires_at": "none", "networks": "none", "replaced_by": "none", "last_used_at": "none", "leaked_at": "none",
    "leaked_in": "none"
}'::jsonb);

-- What an account asks of its team and keys, kept in the live account for its test sibling too; no row means defaults.
CREATE TABLE security_policy (
    account_id           uuid        PRIMARY KEY,
    require_staff_factor boolean     NOT NULL DEFAULT false,
    revoke_leaked_keys   boolean     NOT NULL DEFAULT true,
    updated_at           timestamptz NOT NULL
);
SELECT gatefold_tenant_table('security_policy');
SELECT gatefold_marks('security_policy', '{
    "account_id": "none", "require_staff_factor": "none", "revoke_leaked_keys": "none", "updated_at": "none"
}'::jsonb);
