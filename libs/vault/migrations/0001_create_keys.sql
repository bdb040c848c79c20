-- kind: expand
-- min_compatible_code: 1
-- Wrapped keys only. Kept in a database of their own, which long-term archives leave out, so that destroying a key reaches every archive.

CREATE TABLE account_key (
    account_id        uuid        NOT NULL,
    version           integer     NOT NULL CHECK (version > 0),
    provider          text        NOT NULL,
    provider_key_id   text        NOT NULL,
    wrapped           bytea       NOT NULL,
    index_key_wrapped bytea       NOT NULL,
    created_at        timestamptz NOT NULL,
    retired_at        timestamptz,
    PRIMARY KEY (account_id, version)
);

CREATE TABLE subject_key (
    account_id          uuid        NOT NULL,
    subject_id          uuid        NOT NULL,
    purpose             text        NOT NULL CHECK (purpose IN ('profile', 'retained')),
    version             integer     NOT NULL CHECK (version > 0),
    wrapped             bytea,
    account_key_version integer     NOT NULL,
    created_at          timestamptz NOT NULL,
    destroyed_at        timestamptz,
    PRIMARY KEY (account_id, subject_id, purpose, version),
    -- A destroyed key leaves its row, so that nobody creates it again.
    CHECK ((wrapped IS NULL) = (destroyed_at IS NOT NULL))
);

-- Finds what a rotation of the account key has still to re-wrap.
CREATE INDEX subject_key_by_account_key ON subject_key (account_id, account_key_version) WHERE wrapped IS NOT NULL;

SELECT gatefold_tenant_table('account_key');
SELECT gatefold_tenant_table('subject_key');

SELECT gatefold_marks('account_key', '{
    "account_id": "none", "version": "none", "provider": "none", "provider_key_id": "none", "wrapped": "none",
    "index_key_wrapped": "none", "created_at": "none", "retired_at": "none"
}'::jsonb);
SELECT gatefold_marks('subject_key', '{
    "account_id": "none",
    "subject_id": "pseudonym; basis: legal_obligation; retention: as_proof_of_erasure",
    "purpose": "none", "version": "none", "wrapped": "none", "account_key_version": "none", "created_at": "none",
    "destroyed_at": "none"
}'::jsonb);
