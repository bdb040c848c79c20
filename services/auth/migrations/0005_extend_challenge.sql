-- kind: expand
-- min_compatible_code: 1

-- Mails about signing in: links that recover it, codes, and notices without a token. Persons' lie under the nil account.
ALTER TABLE challenge_route DROP CONSTRAINT challenge_route_account_id_fkey;

ALTER TABLE challenge
    DROP CONSTRAINT challenge_purpose_check,
    ADD CONSTRAINT challenge_purpose_check CHECK (purpose IN
        ('verify_registration', 'already_registered', 'invite_member',
         'reset_password', 'magic_link', 'change_email', 'revert_email', 'unlock', 'email_code',
         'password_changed', 'new_device', 'factor_added', 'factor_removed', 'recovery_code_used', 'email_changed',
         'session_ended', 'sign_in_locked')),
    -- What the mail tells besides, as JSON: device, place, time.
    ADD COLUMN details_sealed bytea NOT NULL DEFAULT '',
    -- SHA-256 of the secret that the asking browser keeps: a link works in that browser alone.
    ADD COLUMN browser_hash bytea CHECK (length(browser_hash) = 32),
    -- Tries of a code, counted before the code is looked at.
    ADD COLUMN tries smallint NOT NULL DEFAULT 0 CHECK (tries <= 5),
    -- How often the mail was asked for: the sequence of the challenge's events.
    ADD COLUMN mails integer NOT NULL DEFAULT 1,
    ADD CONSTRAINT challenge_browser CHECK ((purpose = 'magic_link') = (browser_hash IS NOT NULL));
SELECT gatefold_marks('challenge', '{
    "details_sealed": "device; basis: contract; retention: days_30; sealed: profile; field: 3; json",
    "browser_hash": "none", "tries": "none", "mails": "none"
}'::jsonb);
