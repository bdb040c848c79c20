"""Every SQL statement of auth, one noun a file; functions take the transaction they run in."""

from uuid import UUID

PERSON_TABLE = 101
MEMBERSHIP_TABLE = 102
CREDENTIAL_TABLE = 103
CHALLENGE_TABLE = 104
SIGNING_KEY_TABLE = 105
SESSION_TABLE = 106
FACTOR_TABLE = 107
RECOVERY_CODE_TABLE = 108
FACTOR_ATTEMPT_TABLE = 109
PASSKEY_TABLE = 111
IDENTITY_PROVIDER_TABLE = 112
IDENTITY_TABLE = 113
API_KEY_TABLE = 129
IMPORTED_PASSWORD_TABLE = 130
DISABLED_SIGN_IN_TABLE = 126
DEVICE_SIGHT_TABLE = 128
OAUTH_CONSENT_TABLE = 115
OAUTH_AUTHORIZATION_TABLE = 116
DIRECTORY_ENTRY_TABLE = 120
KNOWN_NETWORK_TABLE = 127
"""Stable table numbers that sealed values are bound to: never reused."""

NEWEST = UUID(int=(1 << 128) - 1)
"""The cursor before the first page: lists go from the newest identifier to the oldest."""
