-- kind: expand
-- min_compatible_code: 1

-- A password that has become known to attackers is changed before the next session begins.
ALTER TABLE credential ADD COLUMN password_must_change boolean NOT NULL DEFAULT false;
ALTER TABLE person ADD COLUMN password_must_change boolean NOT NULL DEFAULT false;
ALTER TABLE sign_in ADD COLUMN must_change boolean NOT NULL DEFAULT false;
SELECT gatefold_marks('sign_in', '{"must_change": "none"}'::jsonb);
CREATE INDEX session_by_person ON session (account_id, person_id) WHERE person_id IS NOT NULL;
SELECT gatefold_marks('credential', '{"password_must_change": "none"}'::jsonb);
SELECT gatefold_marks('person', '{"password_must_change": "none"}'::jsonb);
