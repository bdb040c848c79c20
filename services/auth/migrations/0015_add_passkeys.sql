-- kind: expand
-- min_compatible_code: 1

ALTER TABLE factor
    DROP CONSTRAINT factor_kind_check,
    ADD CONSTRAINT factor_kind_check CHECK (kind IN ('totp', 'email_code', 'passkey', 'security_key'));

-- What a factor has besides, whose key an authenticator holds (WebAuthn level 3, 4: credential record).
CREATE TABLE passkey (
    account_id         uuid        NOT NULL,
    -- The factor's.
    id                 uuid        NOT NULL,
    subject_id         uuid        NOT NULL,
    credential_id      bytea       NOT NULL CHECK (octet_length(credential_id) BETWEEN 16 AND 1023),
    public_key         bytea       NOT NULL CHECK (octet_length(public_key) BETWEEN 1 AND 2048),
    -- Random, and the same for all passkeys of a principal: all that an authenticator is told of who it is.
    user_handle        bytea       NOT NULL CHECK (octet_length(user_handle) = 64),
    sign_count         bigint      NOT NULL CHECK (sign_count BETWEEN 0 AND 4294967295),
    backup_eligible    boolean     NOT NULL,
    backed_up          boolean     NOT NULL CHECK (backup_eligible OR NOT backed_up),
    transports         text[]      NOT NULL,
    last_used_at       timestamptz,
    -- When an answer was not counted above the one before: somebody else may hold a copy.
    clone_suspected_at timestamptz,
    PRIMARY KEY (account_id, id),
    FOREIGN KEY (account_id, id) REFERENCES factor (account_id, id) ON DELETE CASCADE
);
-- All accounts are one relying party to an authenticator.
CREATE UNIQUE INDEX passkey_credential ON passkey (credential_id);
CREATE INDEX passkey_by_subject ON passkey (account_id, subject_id);
SELECT gatefold_tenant_table('passkey');
SELECT gatefold_marks('passkey', '{
    "account_id": "none", "sign_count": "none", "backup_eligible": "none", "backed_up": "none",
    "last_used_at": "none", "clone_suspected_at": "none",
    "id": "pseudonym; basis: contract; retention: until_erasure",
    "subject_id": "pseudonym; basis: contract; retention: until_erasure",
    "credential_id": "credential; basis: contract; retention: until_erasure",
    "public_key": "credential; basis: contract; retention: until_erasure",
    "user_handle": "credential; basis: contract; retention: until_erasure",
    "transports": "device; basis: contract; retention: until_erasure"
}'::jsonb);

-- What an authenticator was asked to sign, once; the row goes with the first answer, whether or not that is right.
CREATE TABLE passkey_challenge (
    account_id     uuid        NOT NULL,
    challenge_hash bytea       NOT NULL CHECK (octet_length(challenge_hash) = 32),
    ceremony       text        NOT NULL CHECK (ceremony IN ('registration', 'sign_in', 'second_factor')),
    kind           text        NOT NULL CHECK (kind IN ('passkey', 'security_key')),
    -- Who may answer: whoever registers, or whose address was named. None for whoever has a passkey.
    principal_id   uuid,
    -- The sign-in that waits for the answer.
    sign_in_id     uuid,
    user_handle    bytea,
    expires_at     timestamptz NOT NULL,
    PRIMARY KEY (account_id, challenge_hash),
    CHECK ((ceremony = 'registration') = (user_handle IS NOT NULL)),
    CHECK ((ceremony = 'second_factor') = (sign_in_id IS NOT NULL)),
    CHECK (ceremony = 'sign_in' OR principal_id IS NOT NULL)
);
CREATE INDEX passkey_challenge_by_expiry ON passkey_challenge (expires_at);
-- The newest is the one that counts, of a registration and of a sign-in that waits.
CREATE UNIQUE INDEX passkey_challenge_newest ON passkey_challenge (account_id, ceremony, (coalesce(sign_in_id, principal_id)))
    WHERE ceremony <> 'sign_in';
SELECT gatefold_tenant_table('passkey_challenge');
SELECT gatefold_jobs_table('passkey_challenge');
SELECT gatefold_marks('passkey_challenge', '{
    "account_id": "none", "challenge_hash": "none", "ceremony": "none", "kind": "none", "expires_at": "none",
    "principal_id": "pseudonym; basis: contract; retention: days_1",
    "sign_in_id": "pseudonym; basis: contract; retention: days_1",
    "user_handle": "credential; basis: contract; retention: days_1"
}'::jsonb);
GRANT SELECT (account_id, challenge_hash, expires_at), DELETE ON passkey_challenge TO auth_jobs;

ALTER TABLE challenge
    DROP CONSTRAINT challenge_purpose_check,
    ADD CONSTRAINT challenge_purpose_check CHECK (purpose IN
        ('verify_registration', 'already_registered', 'invite_member',
         'reset_password', 'magic_link', 'change_email', 'revert_email', 'unlock', 'email_code',
         'password_changed', 'new_device', 'factor_added', 'factor_removed', 'recovery_code_used', 'email_changed',
         'session_ended', 'sign_in_locked', 'identity_added', 'identity_removed', 'passkey_copied'));
