-- kind: expand
-- min_compatible_code: 1

-- What people look at. account_id is the nil UUID for the platform's own cases.
CREATE TABLE review_case (
    account_id        uuid             NOT NULL,
    id                uuid             NOT NULL,
    state             text             NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'decided')),
    origin            text             NOT NULL CHECK (origin IN ('verdict', 'appeal', 'audit')),
    severity          integer          NOT NULL CHECK (severity BETWEEN 0 AND 4),
    scope             text             NOT NULL,
    entity_hash       bytea            NOT NULL CHECK (octet_length(entity_hash) = 16),
    reasons           text[]           NOT NULL,
    detectors         text[]           NOT NULL,
    confidence        double precision NOT NULL,
    -- Of a random audit: its account's turn, so that a replay opens none twice.
    audit_turn        bigint,
    appealed_at       timestamptz,
    claimed_by        text,
    claimed_until     timestamptz,
    judgement         text             CHECK (judgement IN ('abuse', 'legit', 'unsure')),
    judged_confidence double precision CHECK (judged_confidence BETWEEN 0 AND 1),
    note              text             NOT NULL DEFAULT '' CHECK (length(note) <= 500),
    decided_by        text,
    decided_at        timestamptz,
    opened_at         timestamptz      NOT NULL,
    updated_at        timestamptz      NOT NULL,
    -- Of its latest event.
    sequence          bigint           NOT NULL DEFAULT 0,
    PRIMARY KEY (account_id, id),
    CONSTRAINT review_case_audit_once UNIQUE (account_id, audit_turn),
    CHECK ((state = 'decided') = (decided_at IS NOT NULL)),
    CHECK ((decided_at IS NULL) = (judgement IS NULL)),
    CHECK ((claimed_by IS NULL) = (claimed_until IS NULL))
);
CREATE UNIQUE INDEX review_case_open ON review_case (account_id, scope, entity_hash) WHERE state = 'open';
CREATE INDEX review_case_by_time ON review_case (account_id, opened_at);
CREATE INDEX review_case_by_entity ON review_case (account_id, scope, entity_hash);
CREATE INDEX review_case_by_age ON review_case (updated_at);
SELECT gatefold_tenant_table('review_case');
SELECT gatefold_jobs_table('review_case');
GRANT SELECT (account_id, id, updated_at), DELETE ON review_case TO abuse_jobs;
SELECT gatefold_marks('review_case', '{
    "account_id": "none", "id": "none", "state": "none", "origin": "none", "severity": "none", "scope": "none",
    "reasons": "none", "detectors": "none", "confidence": "none", "audit_turn": "none", "appealed_at": "none",
    "claimed_until": "none", "judgement": "none", "judged_confidence": "none", "decided_at": "none",
    "opened_at": "none", "updated_at": "none", "sequence": "none",
    "entity_hash": "pseudonym; basis: legitimate_interest; retention: days_365",
    "claimed_by": "pseudonym; basis: legitimate_interest; retention: days_365",
    "decided_by": "pseudonym; basis: legitimate_interest; retention: days_365",
    "note": "content; basis: legitimate_interest; retention: days_365"
}'::jsonb);

CREATE TABLE case_step (
    account_id uuid        NOT NULL,
    case_id    uuid        NOT NULL,
    sequence   bigint      NOT NULL,
    kind       text        NOT NULL,
    actor      text        NOT NULL,
    detail     text        NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (account_id, case_id, sequence),
    FOREIGN KEY (account_id, case_id) REFERENCES review_case (account_id, id) ON DELETE CASCADE
);
SELECT gatefold_tenant_table('case_step');
SELECT gatefold_marks('case_step', '{
    "account_id": "none", "case_id": "none", "sequence": "none", "kind": "none", "detail": "none", "at": "none",
    "actor": "pseudonym; basis: legitimate_interest; retention: days_365"
}'::jsonb);

CREATE TABLE case_action (
    account_id      uuid        NOT NULL,
    id              uuid        NOT NULL,
    case_id         uuid        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('lift', 'extend', 'block', 'revoke')),
    state           text        NOT NULL CHECK (state IN ('waiting', 'done', 'undone')),
    seconds         bigint      NOT NULL CHECK (seconds BETWEEN 0 AND 7776000),
    four_eyes       boolean     NOT NULL,
    requested_by    text        NOT NULL,
    requested_at    timestamptz NOT NULL,
    approved_by     text,
    approved_at     timestamptz,
    -- What it changed, and how that was before.
    verdicts        uuid[]      NOT NULL DEFAULT '{}',
    former_expiries timestamptz[] NOT NULL DEFAULT '{}',
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id, case_id) REFERENCES review_case (account_id, id) ON DELETE CASCADE,
    CONSTRAINT case_action_by_two CHECK (approved_by <> requested_by),
    CONSTRAINT case_action_four_eyes CHECK (state <> 'done' OR NOT four_eyes OR approved_by IS NOT NULL),
    CHECK (array_length(verdicts, 1) IS NOT DISTINCT FROM array_length(former_expiries, 1))
);
CREATE INDEX case_action_by_case ON case_action (account_id, case_id);
CREATE UNIQUE INDEX case_action_waiting ON case_action (account_id, case_id, kind) WHERE state = 'waiting';
SELECT gatefold_tenant_table('case_action');
SELECT gatefold_marks('case_action', '{
    "account_id": "none", "id": "none", "case_id": "none", "kind": "none", "state": "none", "seconds": "none",
    "four_eyes": "none", "requested_at": "none", "approved_at": "none", "verdicts": "none", "former_expiries": "none",
    "requested_by": "pseudonym; basis: legitimate_interest; retention: days_365",
    "approved_by": "pseudonym; basis: legitimate_interest; retention: days_365"
}'::jsonb);

-- What people said of a detector's verdicts.
CREATE TABLE detector_label (
    account_id  uuid        NOT NULL,
    detector    text        NOT NULL,
    case_id     uuid        NOT NULL,
    abuse       boolean     NOT NULL,
    labelled_at timestamptz NOT NULL,
    PRIMARY KEY (account_id, detector, case_id)
);
SELECT gatefold_tenant_table('detector_label');
SELECT gatefold_jobs_table('detector_label');
GRANT SELECT, DELETE ON detector_label TO abuse_jobs;
SELECT gatefold_marks('detector_label', '{
    "account_id": "none", "detector": "none", "case_id": "none", "abuse": "none", "labelled_at": "none"
}'::jsonb);

-- Where a detector errs too often to be acted on.
CREATE TABLE detector_demotion (
    account_id uuid        NOT NULL,
    detector   text        NOT NULL,
    since      timestamptz NOT NULL,
    PRIMARY KEY (account_id, detector)
);
SELECT gatefold_tenant_table('detector_demotion');
SELECT gatefold_jobs_table('detector_demotion');
GRANT SELECT, DELETE ON detector_demotion TO abuse_jobs;
SELECT gatefold_marks('detector_demotion', '{"account_id": "none", "detector": "none", "since": "none"}'::jsonb);

-- What operators changed about detectors, one row a change. The platform's own.
CREATE TABLE detector_setting (
    detector   text        NOT NULL,
    revision   bigint      NOT NULL,
    mode       text        NOT NULL CHECK (mode IN ('off', 'shadow', 'enforce')),
    steps      jsonb       NOT NULL,
    changed_by text        NOT NULL,
    changed_at timestamptz NOT NULL,
    PRIMARY KEY (detector, revision)
);
SELECT gatefold_marks('detector_setting', '{
    "detector": "none", "revision": "none", "mode": "none", "steps": "none", "changed_at": "none",
    "changed_by": "pseudonym; basis: legitimate_interest; retention: until_account_closure"
}'::jsonb);
