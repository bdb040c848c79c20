-- kind: expand
-- min_compatible_code: 1

-- Networks that somebody has signed in from: there they wait for nobody else's wrong passwords. An HMAC for each
-- principal, so that neither addresses nor who shares one can be read. Persons' rows lie under the platform.
CREATE TABLE known_network (
    account_id uuid        NOT NULL,
    subject_id uuid        NOT NULL,
    network    bytea       NOT NULL CHECK (octet_length(network) = 32),
    seen_at    timestamptz NOT NULL,
    PRIMARY KEY (account_id, subject_id, network)
);
CREATE INDEX known_network_by_age ON known_network (seen_at);
SELECT gatefold_tenant_table('known_network');
SELECT gatefold_marks('known_network', '{
    "account_id": "none",
    "subject_id": "pseudonym; basis: legitimate_interest; retention: days_30",
    "network": "pseudonym; basis: legitimate_interest; retention: days_30",
    "seen_at": "none"
}'::jsonb);
GRANT SELECT (seen_at), DELETE ON known_network TO auth_jobs;
