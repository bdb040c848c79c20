-- kind: expand
-- min_compatible_code: 1

-- Whoever may not sign in to an account for the time being: a reader, or a member in the account and in its sibling.
CREATE TABLE disabled_sign_in (
    account_id   uuid        NOT NULL,
    id           uuid        NOT NULL,
    subject_id   uuid,
    person_id    uuid,
    disabled_at  timestamptz NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT disabled_sign_in_subject UNIQUE (account_id, subject_id),
    CONSTRAINT disabled_sign_in_person UNIQUE (account_id, person_id),
    CHECK (num_nonnulls(subject_id, person_id) = 1)
);
SELECT gatefold_tenant_table('disabled_sign_in');
SELECT gatefold_marks('disabled_sign_in', '{
    "account_id": "none", "id": "none", "disabled_at": "none",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "person_id": "pseudonym; basis: contract; retention: until_leaving"
}'::jsonb);

-- One lock for each of them, shared by those who sign in: whoever disables waits for sign-ins under way and then ends
-- what they began, and later ones see that they may not.
CREATE FUNCTION sign_in_lock(account uuid, principal uuid) RETURNS bigint LANGUAGE sql IMMUTABLE AS
    $$ SELECT hashtextextended('sign-in of ' || account::text || principal::text, 0) $$;

-- By trigger, so that no way in can forget it: not a new use case, not a sign-in that waited for something.
CREATE FUNCTION refuse_disabled_sign_in() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    written jsonb := to_jsonb(NEW);
    principal uuid := coalesce(written ->> 'principal_id', written ->> 'subject_id', written ->> 'person_id');
BEGIN
    PERFORM pg_advisory_xact_lock_shared(sign_in_lock(NEW.account_id, principal));
    IF EXISTS (SELECT FROM disabled_sign_in
        WHERE account_id = NEW.account_id AND (subject_id = principal OR person_id = principal)) THEN
        RAISE EXCEPTION 'this sign-in is disabled' USING ERRCODE = 'check_violation', CONSTRAINT = 'sign_in_disabled';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER session_disabled BEFORE INSERT ON session FOR EACH ROW EXECUTE FUNCTION refuse_disabled_sign_in();
CREATE TRIGGER sign_in_disabled BEFORE INSERT ON sign_in FOR EACH ROW EXECUTE FUNCTION refuse_disabled_sign_in();

-- An owner who cannot sign in is no owner that a team could go on with.
CREATE FUNCTION has_owner(account uuid) RETURNS boolean LANGUAGE sql STABLE AS $$
    SELECT EXISTS (SELECT FROM membership WHERE account_id = account AND role = 'owner' AND person_id IS NOT NULL
        AND NOT EXISTS (SELECT FROM disabled_sign_in AS disabled
            WHERE disabled.account_id = membership.account_id AND disabled.person_id = membership.person_id))
$$;
CREATE OR REPLACE FUNCTION membership_keeps_an_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    -- One at a time for each account: two owners who leave at once would each count on the other.
    PERFORM pg_advisory_xact_lock(hashtextextended('owners of ' || OLD.account_id::text, 0));
    IF NOT has_owner(OLD.account_id) THEN
        RAISE EXCEPTION 'the last owner stays' USING ERRCODE = 'check_violation', CONSTRAINT = 'membership_last_owner';
    END IF;
    RETURN NULL;
END
$$;
CREATE FUNCTION disabled_sign_in_keeps_an_owner() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_xact_lock(hashtextextended('owners of ' || NEW.account_id::text, 0));
    -- The sibling has no team of its own.
    IF EXISTS (SELECT FROM membership WHERE account_id = NEW.account_id AND role = 'owner' AND person_id = NEW.person_id)
        AND NOT has_owner(NEW.account_id) THEN
        RAISE EXCEPTION 'the last owner stays' USING ERRCODE = 'check_violation', CONSTRAINT = 'membership_last_owner';
    END IF;
    RETURN NULL;
END
$$;
CREATE CONSTRAINT TRIGGER disabled_sign_in_last_owner AFTER INSERT ON disabled_sign_in
    DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.person_id IS NOT NULL)
    EXECUTE FUNCTION disabled_sign_in_keeps_an_owner();

GRANT EXECUTE ON FUNCTION sign_in_lock(uuid, uuid), has_owner(uuid) TO auth_app;
