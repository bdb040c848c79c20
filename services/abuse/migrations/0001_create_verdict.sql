-- kind: expand
-- min_compatible_code: 1

-- What is done about an entity. account_id is the nil UUID for what is about the platform as a whole.
CREATE TABLE verdict (
    account_id   uuid             NOT NULL,
    id           uuid             NOT NULL,
    -- Made of entity, detector and the event's time: whoever reads the events again decides the same, and nothing new.
    decision_key bytea            NOT NULL,
    detector     text             NOT NULL,
    scope        text             NOT NULL,
    entity_hash  bytea            NOT NULL CHECK (octet_length(entity_hash) = 16),
    action       text             NOT NULL CHECK (action IN ('tag', 'challenge', 'throttle', 'block', 'revoke')),
    state        text             NOT NULL DEFAULT 'active'
                 CHECK (state IN ('active', 'expired', 'revoked', 'superseded')),
    shadow       boolean          NOT NULL,
    reasons      text[]           NOT NULL,
    confidence   double precision NOT NULL,
    evidence     jsonb            NOT NULL,
    rule_version text             NOT NULL,
    strikes      integer          NOT NULL,
    request_id   text             NOT NULL,
    case_id      uuid,
    -- One appeal a verdict.
    appealed_at  timestamptz,
    revision     bigint           NOT NULL DEFAULT 1,
    decided_at   timestamptz      NOT NULL,
    expires_at   timestamptz      NOT NULL,
    PRIMARY KEY (account_id, id),
    CONSTRAINT verdict_once UNIQUE (account_id, decision_key)
);
CREATE INDEX verdict_in_force ON verdict (account_id, scope, entity_hash) WHERE state = 'active';
CREATE INDEX verdict_by_case ON verdict (account_id, case_id) WHERE case_id IS NOT NULL;
CREATE INDEX verdict_by_time ON verdict (account_id, decided_at);
-- A row is its own due work: the worker looks for what is over.
CREATE INDEX verdict_by_expiry ON verdict (expires_at) WHERE state = 'active';
CREATE INDEX verdict_by_id ON verdict (id);
CREATE INDEX verdict_by_age ON verdict (decided_at);

SELECT gatefold_tenant_table('verdict');
SELECT gatefold_jobs_table('verdict');
GRANT SELECT, UPDATE (state, revision), DELETE ON verdict TO abuse_jobs;
SELECT gatefold_marks('verdict', '{
    "account_id": "none", "id": "none", "decision_key": "none", "detector": "none", "scope": "none", "action": "none",
    "state": "none", "shadow": "none", "reasons": "none", "confidence": "none", "evidence": "none",
    "rule_version": "none", "strikes": "none", "case_id": "none", "appealed_at": "none", "revision": "none", "decided_at": "none",
    "expires_at": "none",
    "entity_hash": "pseudonym; basis: legitimate_interest; retention: days_90",
    "request_id": "pseudonym; basis: legitimate_interest; retention: days_90"
}'::jsonb);

-- Entities of the event that tipped a verdict: what was seen together.
CREATE TABLE entity_link (
    account_id  uuid  NOT NULL,
    verdict_id  uuid  NOT NULL,
    scope       text  NOT NULL,
    entity_hash bytea NOT NULL,
    PRIMARY KEY (account_id, verdict_id, scope),
    FOREIGN KEY (account_id, verdict_id) REFERENCES verdict (account_id, id) ON DELETE CASCADE
);
CREATE INDEX entity_link_by_entity ON entity_link (account_id, scope, entity_hash);
SELECT gatefold_tenant_table('entity_link');
SELECT gatefold_marks('entity_link', '{
    "account_id": "none", "verdict_id": "none", "scope": "none",
    "entity_hash": "pseudonym; basis: legitimate_interest; retention: days_90"
}'::jsonb);

-- Changes of verdicts, for whoever acts on them. A routing table: they are told of all accounts.
CREATE TABLE verdict_change (
    position     bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    xid          xid8        NOT NULL DEFAULT pg_current_xact_id(),
    account_id   uuid        NOT NULL,
    verdict_id   uuid        NOT NULL,
    until        timestamptz NOT NULL,
    published_at timestamptz
);
CREATE INDEX verdict_change_unpublished ON verdict_change (position) WHERE published_at IS NULL;
CREATE INDEX verdict_change_by_visibility ON verdict_change (xid, position);
CREATE INDEX verdict_change_by_expiry ON verdict_change (until);
GRANT SELECT, UPDATE (published_at), DELETE ON verdict_change TO abuse_jobs;
SELECT gatefold_marks('verdict_change', '{
    "position": "none", "xid": "none", "account_id": "none", "verdict_id": "none", "until": "none",
    "published_at": "none"
}'::jsonb);

-- By trigger, so that no way of changing a verdict can forget to say so. A tag is for people and never travels; what is
-- over is known to be by everybody.
CREATE FUNCTION verdict_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO verdict_change (account_id, verdict_id, until)
    VALUES (NEW.account_id, NEW.id,
            CASE TG_OP WHEN 'UPDATE' THEN greatest(OLD.expires_at, NEW.expires_at) ELSE NEW.expires_at END);
    RETURN NULL;
END
$$;
CREATE TRIGGER verdict_made AFTER INSERT ON verdict FOR EACH ROW
    WHEN (NEW.action <> 'tag') EXECUTE FUNCTION verdict_changed();
CREATE TRIGGER verdict_revised AFTER UPDATE OF revision ON verdict FOR EACH ROW
    WHEN (NEW.action <> 'tag' AND NEW.state <> 'expired' AND NEW.revision > OLD.revision)
    EXECUTE FUNCTION verdict_changed();

-- Entities that people said are legitimate; an empty detector stands for all.
CREATE TABLE suppression (
    account_id  uuid        NOT NULL,
    scope       text        NOT NULL,
    entity_hash bytea       NOT NULL CHECK (octet_length(entity_hash) = 16),
    detector    text        NOT NULL,
    case_id     uuid        NOT NULL,
    since       timestamptz NOT NULL,
    until       timestamptz NOT NULL,
    PRIMARY KEY (account_id, scope, entity_hash, detector)
);
CREATE INDEX suppression_by_end ON suppression (until);
SELECT gatefold_tenant_table('suppression');
SELECT gatefold_jobs_table('suppression');
GRANT SELECT, DELETE ON suppression TO abuse_jobs;
SELECT gatefold_marks('suppression', '{
    "account_id": "none", "scope": "none", "detector": "none", "case_id": "none", "since": "none", "until": "none",
    "entity_hash": "pseudonym; basis: legitimate_interest; retention: days_30"
}'::jsonb);

-- Requests that a verdict refused, by a digest of their id, so that whoever appeals need not know more. A routing table.
CREATE TABLE refused_request (
    request_key uuid        PRIMARY KEY,
    account_id  uuid        NOT NULL,
    verdict_id  uuid        NOT NULL,
    until       timestamptz NOT NULL
);
CREATE INDEX refused_request_by_end ON refused_request (until);
GRANT SELECT, DELETE ON refused_request TO abuse_jobs;
SELECT gatefold_marks('refused_request', '{
    "account_id": "none", "verdict_id": "none", "until": "none",
    "request_key": "pseudonym; basis: legitimate_interest; retention: days_7"
}'::jsonb);

-- Who reads which shard of the activities. Routing tables of the platform's own.
CREATE TABLE replica (
    id      uuid        PRIMARY KEY,
    seen_at timestamptz NOT NULL
);
CREATE TABLE shard (
    number       integer     PRIMARY KEY,
    holder       uuid,
    leased_until timestamptz
);
INSERT INTO shard (number) SELECT generate_series(0, 7);
SELECT gatefold_marks('replica', '{"id": "none", "seen_at": "none"}'::jsonb);
SELECT gatefold_marks('shard', '{"number": "none", "holder": "none", "leased_until": "none"}'::jsonb);
