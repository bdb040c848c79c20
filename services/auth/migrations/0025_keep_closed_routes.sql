-- kind: expand
-- min_compatible_code: 1

-- Whoever is kept out of an account stays its member, whose address follows the person's own.
ALTER TABLE staff_route ADD COLUMN closed boolean NOT NULL DEFAULT false;
INSERT INTO staff_route (person_id, account_id, closed)
    SELECT person_id, account_id, true FROM membership WHERE person_id IS NOT NULL ON CONFLICT DO NOTHING;
SELECT gatefold_marks('staff_route', '{"closed": "none"}'::jsonb);
