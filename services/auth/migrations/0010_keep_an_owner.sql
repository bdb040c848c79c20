-- kind: expand
-- min_compatible_code: 1

-- A team that has had an owner keeps one, whoever leaves, is removed or demoted, and however many do so at once.
CREATE FUNCTION membership_keeps_an_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One at a time for each account: two owners who leave at once would each count on the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('owners of ' || OLD.account_id::text, 0));
    IF NOT EXISTS (
        SELECT FROM membership
        WHERE account_id = OLD.account_id AND role = 'owner' AND person_id IS NOT NULL
    ) THEN
        RAISE EXCEPTION 'the last owner stays' USING ERRCODE = 'check_violation', CONSTRAINT = 'membership_last_owner';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER membership_last_owner AFTER UPDATE OR DELETE ON membership
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW
    WHEN (OLD.role = 'owner' AND OLD.person_id IS NOT NULL)
    EXECUTE FUNCTION membership_keeps_an_owner();

ALTER TABLE membership ADD COLUMN sequence bigint NOT NULL DEFAULT 0;
SELECT gatefold_marks('membership', '{"sequence": "none"}'::jsonb);
