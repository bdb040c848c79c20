-- kind: expand
-- min_compatible_code: 1

-- A mail about a right password that is known to attackers.
ALTER TABLE challenge
    DROP CONSTRAINT challenge_purpose_check,
    ADD CONSTRAINT challenge_purpose_check CHECK (purpose IN
        ('verify_registration', 'already_registered', 'invite_member',
         'reset_password', 'magic_link', 'change_email', 'revert_email', 'unlock', 'email_code',
         'password_changed', 'password_breached', 'new_device', 'impossible_travel', 'factor_added',
         'factor_removed', 'recovery_code_used',
         'email_changed', 'session_ended', 'sign_in_locked', 'identity_added', 'identity_removed', 'passkey_copied'));
