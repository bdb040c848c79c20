-- kind: expand
-- min_compatible_code: 1

-- What an erasure did here, as it was answered: repeating the erasure answers the same again.
CREATE TABLE erasure_receipt (
    account_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    receipt    bytea       NOT NULL,
    erased_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, subject_id)
);

SELECT gatefold_tenant_table('erasure_receipt');
SELECT gatefold_marks('erasure_receipt', '{
    "account_id": "none", "receipt": "none", "erased_at": "none",
    "subject_id": "pseudonym; basis: legal_obligation; retention: as_proof_of_erasure"
}'::jsonb);
