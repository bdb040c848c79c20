-- kind: expand
-- min_compatible_code: 1

-- How far a test account's clock runs ahead of the wall. Routing table: read for all accounts at once.
CREATE TABLE account_clock (
    account_id     uuid   PRIMARY KEY,
    offset_seconds bigint NOT NULL CHECK (offset_seconds >= 0)
);
DO $$
BEGIN
    EXECUTE format('GRANT SELECT ON account_clock TO %I', current_schema() || '_jobs');
END
$$;
SELECT gatefold_marks('account_clock', '{"account_id": "none", "offset_seconds": "none"}'::jsonb);

-- Subjects whose data was erased here: late events and a restore must not bring them back.
CREATE TABLE erased_subject (
    account_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    erased_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, subject_id)
);
SELECT gatefold_tenant_table('erased_subject');
SELECT gatefold_marks('erased_subject', '{
    "account_id": "none", "erased_at": "none",
    "subject_id": "pseudonym; basis: legal_obligation; retention: as_proof_of_erasure"
}'::jsonb);
