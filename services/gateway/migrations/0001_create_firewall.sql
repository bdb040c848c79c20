-- kind: expand
-- min_compatible_code: 1
-- What gateways enforce. All of it belongs to the platform: no table has a tenant, and none says anything of a subject.

-- The newest version. Every change locks this row first, so that versions are numbered without a gap and one at a time.
-- The lineage tells the versions of this database from those of another one.
CREATE TABLE head (
    id      boolean PRIMARY KEY DEFAULT true CHECK (id),
    lineage uuid    NOT NULL DEFAULT gen_random_uuid(),
    version bigint  NOT NULL DEFAULT 0 CHECK (version >= 0)
);
INSERT INTO head DEFAULT VALUES;
SELECT gatefold_marks('head', '{"id": "none", "lineage": "none", "version": "none"}'::jsonb);

CREATE TABLE rule (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL CONSTRAINT rule_name_key UNIQUE DEFERRABLE CHECK (name ~ '^[!-~]([ -~]{0,78}[!-~])?$'),
    expression  text        NOT NULL CHECK (length(expression) BETWEEN 1 AND 4096),
    action      text        NOT NULL CHECK (action IN ('log', 'tag', 'skip', 'rate', 'challenge', 'block')),
    parameter   text        NOT NULL CHECK (length(parameter) <= 80),
    priority    integer     NOT NULL CHECK (priority BETWEEN 1 AND 1000000),
    mode        text        NOT NULL CHECK (mode IN ('off', 'shadow', 'enforce')),
    expires_at  timestamptz,
    description text        NOT NULL CHECK (length(description) <= 500),
    owner       text        NOT NULL CHECK (length(owner) <= 80),
    created_at  timestamptz NOT NULL,
    changed_in  bigint      NOT NULL CHECK (changed_in > 0),
    CONSTRAINT rule_parameter CHECK ((action IN ('tag', 'rate')) = (parameter <> ''))
);
SELECT gatefold_marks('rule', '{
    "id": "none", "name": "none", "action": "none", "parameter": "none", "priority": "none", "mode": "none",
    "expires_at": "none", "created_at": "none", "changed_in": "none",
    "expression": "online_identifier; basis: legitimate_interest; retention: until_removed_by_operator",
    "description": "content; basis: legitimate_interest; retention: until_removed_by_operator",
    "owner": "content; basis: legitimate_interest; retention: until_removed_by_operator"
}'::jsonb);

-- Entries of a list in the order of their texts, packed, under the digest of what is packed: versions share them.
CREATE TABLE entry_set (
    digest bytea PRIMARY KEY CHECK (length(digest) = 32),
    packed bytea NOT NULL CHECK (length(packed) <= 16777216)
);
SELECT gatefold_marks('entry_set', '{
    "digest": "none",
    "packed": "online_identifier; basis: legitimate_interest; retention: while_a_kept_version_holds_it"
}'::jsonb);

CREATE TABLE entry_list (
    id          uuid        PRIMARY KEY,
    name        text        NOT NULL CONSTRAINT entry_list_name_key UNIQUE DEFERRABLE CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
    kind        text        NOT NULL
                            CHECK (kind IN ('networks', 'countries', 'asns', 'user_agents', 'email_domains')),
    allows      boolean     NOT NULL,
    description text        NOT NULL CHECK (length(description) <= 500),
    -- Kept level with the rows of list_entry by whoever changes them.
    size        bigint      NOT NULL CONSTRAINT entry_list_size CHECK (size BETWEEN 0 AND 200000),
    digest      bytea       NOT NULL REFERENCES entry_set (digest),
    created_at  timestamptz NOT NULL,
    changed_in  bigint      NOT NULL CHECK (changed_in > 0)
);
SELECT gatefold_marks('entry_list', '{
    "id": "none", "name": "none", "kind": "none", "allows": "none", "size": "none", "digest": "none",
    "created_at": "none", "changed_in": "none",
    "description": "content; basis: legitimate_interest; retention: until_removed_by_operator"
}'::jsonb);

CREATE TABLE list_entry (
    list_id    uuid        NOT NULL REFERENCES entry_list (id) ON DELETE CASCADE,
    text       text COLLATE "C" NOT NULL CHECK (length(text) BETWEEN 1 AND 255),
    expires_at timestamptz,
    PRIMARY KEY (list_id, text)
);
SELECT gatefold_marks('list_entry', '{
    "list_id": "none", "expires_at": "none",
    "text": "online_identifier; basis: legitimate_interest; retention: until_its_end_or_removed_by_operator"
}'::jsonb);

CREATE TABLE quota (
    name       text    PRIMARY KEY CHECK (length(name) <= 200 AND name ~ '^[a-z][A-Za-z0-9_:/.-]*\.[a-z]+$'),
    amount     bigint  NOT NULL CHECK (amount BETWEEN 1 AND 1000000000),
    seconds    integer NOT NULL CHECK (seconds BETWEEN 1 AND 2678400),
    mode       text    NOT NULL CHECK (mode IN ('off', 'shadow', 'enforce')),
    changed_in bigint  NOT NULL CHECK (changed_in > 0)
);
SELECT gatefold_marks('quota', '{
    "name": "none", "amount": "none", "seconds": "none", "mode": "none", "changed_in": "none"
}'::jsonb);

CREATE TABLE quota_override (
    account_id uuid        NOT NULL,
    name       text        NOT NULL CHECK (length(name) <= 200 AND name ~ '^[a-z][A-Za-z0-9_:/.-]*\.[a-z]+$'),
    amount     bigint      NOT NULL CHECK (amount BETWEEN 1 AND 1000000000),
    seconds    integer     NOT NULL CHECK (seconds BETWEEN 1 AND 2678400),
    mode       text        NOT NULL CHECK (mode IN ('off', 'shadow', 'enforce')),
    expires_at timestamptz,
    changed_in bigint      NOT NULL CHECK (changed_in > 0),
    PRIMARY KEY (account_id, name)
);
SELECT gatefold_marks('quota_override', '{
    "account_id": "none", "name": "none", "amount": "none", "seconds": "none", "mode": "none", "expires_at": "none",
    "changed_in": "none"
}'::jsonb);

-- Every version that there was: who made it and when stays, what it held stays for the newest of them.
CREATE TABLE version (
    number        bigint      PRIMARY KEY CHECK (number > 0),
    made_at       timestamptz NOT NULL,
    made_by       text        NOT NULL CHECK (length(made_by) BETWEEN 1 AND 80),
    change        text        NOT NULL CHECK (length(change) BETWEEN 1 AND 80),
    about         text        NOT NULL CHECK (length(about) <= 250),
    restored_from bigint      REFERENCES version (number),
    digest        bytea       NOT NULL CHECK (length(digest) = 32),
    content       bytea,
    sets          bytea[]     NOT NULL,
    published_at  timestamptz
);
CREATE INDEX version_unpublished ON version (number) WHERE published_at IS NULL;
CREATE INDEX version_kept ON version (number) WHERE content IS NOT NULL;
SELECT gatefold_marks('version', '{
    "number": "none", "made_at": "none", "change": "none", "about": "none", "restored_from": "none", "digest": "none",
    "sets": "none", "published_at": "none",
    "made_by": "pseudonym; basis: legitimate_interest; retention: as_audit_of_operators",
    "content": "online_identifier; basis: legitimate_interest; retention: newest_300_versions"
}'::jsonb);

-- No version is left out, whoever adds one.
CREATE FUNCTION follow_version() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    UPDATE head SET version = NEW.number WHERE version = NEW.number - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'version % does not follow the newest', NEW.number USING ERRCODE = 'integrity_constraint_violation';
    END IF;
    RETURN NEW;
END
$$;
CREATE TRIGGER follow_version BEFORE INSERT ON version FOR EACH ROW EXECUTE FUNCTION follow_version();

-- Rules that come with the software and were added once: whoever deletes one does not get it back.
CREATE TABLE introduced_rule (
    id uuid PRIMARY KEY
);
SELECT gatefold_marks('introduced_rule', '{"id": "none"}'::jsonb);

-- How often rules matched, by the hour.
CREATE TABLE rule_hit (
    rule_id  uuid        NOT NULL REFERENCES rule (id) ON DELETE CASCADE,
    hour     timestamptz NOT NULL,
    enforced bigint      NOT NULL CHECK (enforced >= 0),
    shadow   bigint      NOT NULL CHECK (shadow >= 0),
    -- Times that the expression could not be evaluated.
    failed   bigint      NOT NULL CHECK (failed >= 0),
    PRIMARY KEY (rule_id, hour)
);
CREATE INDEX rule_hit_by_hour ON rule_hit (hour);
SELECT gatefold_marks('rule_hit', '{"rule_id": "none", "hour": "none", "enforced": "none", "shadow": "none", "failed": "none"}'::jsonb);

DO $$
DECLARE
    app text := current_schema() || '_app';
    jobs text := current_schema() || '_jobs';
BEGIN
    -- What was is not rewritten: of a version only its content can go, and its being published be noted.
    EXECUTE format('REVOKE UPDATE, DELETE ON version FROM %I', app);
    EXECUTE format('GRANT UPDATE (content) ON version TO %I', app);
    EXECUTE format('REVOKE INSERT, DELETE, UPDATE ON head FROM %I', app);
    EXECUTE format('GRANT UPDATE (version) ON head TO %I', app);
    EXECUTE format('REVOKE UPDATE ON entry_set FROM %I', app);
    -- The app calls the trigger's function by adding a version.
    EXECUTE format('GRANT EXECUTE ON FUNCTION follow_version() TO %I', app);
    EXECUTE format('GRANT SELECT, UPDATE (published_at) ON version TO %I', jobs);
    EXECUTE format('GRANT SELECT ON head, entry_set TO %I', jobs);
    EXECUTE format('GRANT SELECT, DELETE ON rule_hit TO %I', jobs);
END
$$;
