-- kind: expand
-- min_compatible_code: 1

-- Which of its owner's passwords this is: a sign-in goes on only with the one that it has verified. Hashing a password
-- anew, at another cost, makes no other.
ALTER TABLE credential ADD COLUMN password_version bigint NOT NULL DEFAULT 1;
ALTER TABLE person ADD COLUMN password_version bigint NOT NULL DEFAULT 1;
SELECT gatefold_marks('credential', '{"password_version": "none"}'::jsonb);
SELECT gatefold_marks('person', '{"password_version": "none"}'::jsonb);
