-- kind: expand
-- min_compatible_code: 1

-- Verdicts of the abuse service that a service holds against what it is asked to do; filled only where one follows them.
-- account_id is the nil UUID for what is about the platform as a whole.
CREATE TABLE held_verdict (
    account_id  uuid        NOT NULL,
    verdict_id  uuid        NOT NULL,
    scope       text        NOT NULL,
    entity_hash bytea       NOT NULL CHECK (octet_length(entity_hash) = 16),
    -- When it ends by itself; the end itself is no longer part of it.
    until       timestamptz NOT NULL,
    -- Taken back: kept, so that an older state of it finds it.
    lifted      boolean     NOT NULL,
    -- Only ever grows.
    revision    bigint      NOT NULL,
    -- As long as any of its states would have held.
    kept_until  timestamptz NOT NULL CHECK (kept_until >= until),
    PRIMARY KEY (account_id, verdict_id)
);
CREATE INDEX held_verdict_by_entity ON held_verdict (account_id, scope, entity_hash) WHERE NOT lifted;
CREATE INDEX held_verdict_by_end ON held_verdict (kept_until);
SELECT gatefold_tenant_table('held_verdict');
-- What is about the platform holds in every account, and says nothing of any other.
CREATE POLICY everywhere ON held_verdict FOR SELECT USING (account_id = '00000000-0000-0000-0000-000000000000');
SELECT gatefold_jobs_table('held_verdict');
DO $$
BEGIN
    EXECUTE format('GRANT SELECT, DELETE ON held_verdict TO %I', current_schema() || '_jobs');
END
$$;
SELECT gatefold_marks('held_verdict', '{
    "account_id": "none", "verdict_id": "none", "scope": "none", "until": "none", "lifted": "none", "revision": "none",
    "kept_until": "none", "entity_hash": "pseudonym; basis: legitimate_interest; retention: days_90"
}'::jsonb);
CREATE FUNCTION held_verdict_grows() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.revision < OLD.revision OR NEW.kept_until < OLD.kept_until
        OR (NEW.revision = OLD.revision AND ROW (NEW.until, NEW.lifted) IS DISTINCT FROM ROW (OLD.until, OLD.lifted))
        OR ROW (NEW.scope, NEW.entity_hash) IS DISTINCT FROM ROW (OLD.scope, OLD.entity_hash) THEN
        RAISE EXCEPTION 'a verdict never goes back to an earlier state'
            USING ERRCODE = 'check_violation', CONSTRAINT = 'held_verdict_grows';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER held_verdict_grows BEFORE UPDATE ON held_verdict FOR EACH ROW EXECUTE FUNCTION held_verdict_grows();
