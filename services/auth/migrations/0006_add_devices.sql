-- kind: expand
-- min_compatible_code: 1

-- What a session was started on, as JSON, sealed under whoever signed in; and when it was used last, to the minute.
ALTER TABLE session
    ADD COLUMN device_sealed bytea,
    ADD COLUMN last_used_at timestamptz;
SELECT gatefold_marks('session', '{
    "device_sealed": "device; basis: contract; retention: until_erasure; sealed: profile; field: 1; json",
    "last_used_at": "none"
}'::jsonb);

-- Somebody's sessions: a reader's or a person's.
CREATE INDEX session_by_principal ON session (account_id, coalesce(subject_id, person_id));

-- Sessions that ended before their time, for as long as an access token of theirs may live: gateways refuse those.
-- A routing table: gateways ask for all accounts.
CREATE TABLE session_end (
    position     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    session_id   uuid        NOT NULL,
    until        timestamptz NOT NULL,
    published_at timestamptz
);
CREATE INDEX session_end_unpublished ON session_end (position) WHERE published_at IS NULL;
CREATE INDEX session_end_by_visibility ON session_end (xid, position);
CREATE INDEX session_end_by_expiry ON session_end (until);
SELECT gatefold_marks('session_end', '{
    "position": "none", "xid": "none", "until": "none", "published_at": "none",
    "session_id": "pseudonym; basis: contract; retention: days_30"
}'::jsonb);
GRANT SELECT (position, session_id, until, published_at), UPDATE (published_at), DELETE ON session_end TO auth_jobs;

-- By trigger, so that no way of ending a session can forget to say so: not a new use case, not an erasure.
CREATE FUNCTION session_ended() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO session_end (session_id, until)
    -- An access token lives for ten minutes; a row that is gone no longer tells when its last one was issued.
    VALUES (OLD.id, CASE TG_OP WHEN 'UPDATE' THEN NEW.revoked_at + interval '15 minutes' ELSE OLD.expires_at END);
    RETURN NULL;
END
$$;
CREATE TRIGGER session_revoked AFTER UPDATE ON session FOR EACH ROW
    WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL) EXECUTE FUNCTION session_ended();
-- The jobs role deletes what is over anyway.
CREATE TRIGGER session_deleted AFTER DELETE ON session FOR EACH ROW
    WHEN (OLD.revoked_at IS NULL AND current_user <> 'auth_jobs') EXECUTE FUNCTION session_ended();
