-- kind: expand
-- min_compatible_code: 1

-- A sign-in that waits for a second factor or a new password; an operator's lies under the nil account.
CREATE TABLE sign_in (
    account_id   uuid        NOT NULL,
    id           uuid        NOT NULL,
    kind         text        NOT NULL CHECK (kind IN ('STAFF', 'SUBSCRIBER', 'PLATFORM_OPERATOR')),
    live         boolean     NOT NULL,
    principal_id uuid        NOT NULL,
    role         text,
    proven       text[]      NOT NULL,
    next         text        NOT NULL CHECK (next IN ('second_factor', 'change_password')),
    methods      text[]      NOT NULL,
    tries        smallint    NOT NULL DEFAULT 0 CHECK (tries <= 5),
    expires_at   timestamptz NOT NULL,
    PRIMARY KEY (account_id, id)
);
CREATE INDEX sign_in_by_expiry ON sign_in (expires_at);
CREATE INDEX sign_in_by_principal ON sign_in (account_id, principal_id);
SELECT gatefold_tenant_table('sign_in');
SELECT gatefold_jobs_table('sign_in');
SELECT gatefold_marks('sign_in', '{
    "account_id": "none", "kind": "none", "live": "none", "role": "none", "proven": "none", "next": "none",
    "methods": "none", "tries": "none", "expires_at": "none",
    "id": "pseudonym; basis: contract; retention: days_1",
    "principal_id": "pseudonym; basis: contract; retention: days_1"
}'::jsonb);
GRANT SELECT (account_id, id, expires_at), DELETE ON sign_in TO auth_jobs;
