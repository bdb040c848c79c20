-- kind: expand
-- min_compatible_code: 1

-- Verdicts of the abuse service that were acted on: once each, or whoever signs in anew would be thrown out again. A
-- routing table: some are about the platform as a whole.
CREATE TABLE obeyed_verdict (
    verdict_id uuid        PRIMARY KEY,
    until      timestamptz NOT NULL
);
CREATE INDEX obeyed_verdict_by_end ON obeyed_verdict (until);
SELECT gatefold_marks('obeyed_verdict', '{"verdict_id": "none", "until": "none"}'::jsonb);
