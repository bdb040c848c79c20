-- kind: expand
-- min_compatible_code: 1

CREATE TABLE import_job (
    account_id uuid NOT NULL,
    id uuid NOT NULL,
    sequence bigint NOT NULL,
    state text NOT NULL,
    live boolean NOT NULL,
    complimentary_feature text NOT NULL,
    -- Records in the file, known once it was read through.
    total bigint NOT NULL,
    created bigint NOT NULL,
    updated bigint NOT NULL,
    unchanged bigint NOT NULL,
    duplicates bigint NOT NULL,
    refused bigint NOT NULL,
    refused_by_reason jsonb NOT NULL,
    ignored_columns text[] NOT NULL,
    failure text NOT NULL,
    created_at timestamptz NOT NULL,
    finished_at timestamptz,
    CONSTRAINT import_job_pkey PRIMARY KEY (account_id, id),
    CONSTRAINT import_job_state_known CHECK (state IN ('receiving', 'queued', 'running', 'done', 'failed')),
    -- Every record is counted exactly once: never more than there are, and all of them when the import is done.
    CONSTRAINT import_job_counts CHECK (
        least(total, created, updated, unchanged, duplicates, refused) >= 0
        AND created + updated + unchanged + duplicates + refused <= total
        AND (state <> 'done' OR created + updated + unchanged + duplicates + refused = total)
    ),
    CONSTRAINT import_job_finished CHECK ((finished_at IS NOT NULL) = (state IN ('done', 'failed'))),
    CONSTRAINT import_job_failure CHECK ((failure <> '') = (state = 'failed'))
);

SELECT gatefold_tenant_table('import_job');
SELECT gatefold_marks('import_job', '{
    "account_id": "none", "id": "none", "sequence": "none", "state": "none", "live": "none",
    "complimentary_feature": "none", "total": "none", "created": "none", "updated": "none", "unchanged": "none",
    "duplicates": "none", "refused": "none", "refused_by_reason": "none", "ignored_columns": "none",
    "failure": "none", "created_at": "none", "finished_at": "none"
}'::jsonb);

-- Lines and reasons, never what stands on the line.
CREATE TABLE import_problem (
    account_id uuid NOT NULL,
    import_id uuid NOT NULL,
    line bigint NOT NULL,
    reason text NOT NULL,
    column_name text NOT NULL,
    CONSTRAINT import_problem_pkey PRIMARY KEY (account_id, import_id, line),
    CONSTRAINT import_problem_import FOREIGN KEY (account_id, import_id)
        REFERENCES import_job (account_id, id) ON DELETE CASCADE
);

SELECT gatefold_tenant_table('import_problem');
SELECT gatefold_marks('import_problem', '{
    "account_id": "none", "import_id": "none", "line": "none", "reason": "none", "column_name": "none"
}'::jsonb);
