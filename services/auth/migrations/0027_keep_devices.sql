-- kind: expand
-- min_compatible_code: 1

-- The device that whoever waits has signed in on before: it keeps its name when the sign-in ends well.
ALTER TABLE sign_in ADD COLUMN device_id uuid;
SELECT gatefold_marks('sign_in', '{"device_id": "pseudonym; basis: contract; retention: days_1"}'::jsonb);
