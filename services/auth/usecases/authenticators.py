"""Owns what is said to authenticators and what is believed of their answers (WebAuthn level 3, 7.1 and 7.2)."""

import hmac
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import webauthn
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from webauthn import helpers
from webauthn.helpers.cose import COSEAlgorithmIdentifier as Algorithm
from webauthn.helpers.structs import (
    AttestationFormat,
    AuthenticatorSelectionCriteria,
    AuthenticatorTransport,
    CredentialDeviceType,
    PublicKeyCredentialDescriptor,
    ResidentKeyRequirement,
    UserVerificationRequirement,
)

from services.auth.domain import passkey as rules
from services.auth.domain.factor import PASSKEY
from services.auth.domain.passkey import Described, Passkey, RelyingParty

T = TypeVar("T")

ALGORITHMS = [Algorithm.EDDSA, Algorithm.ECDSA_SHA_256, Algorithm.RSASSA_PKCS1_v1_5_SHA_256]
_LEAST_RSA_BITS = 2048
_NAME = "Gatefold"
_MILLISECONDS = int(rules.LIFETIME.total_seconds() * 1000)


@dataclass(frozen=True)
class Claim:
    """What an answer says of itself; nothing of it is proven."""

    challenge: bytes
    credential_id: bytes


@dataclass(frozen=True)
class Made:
    """A key that an authenticator has just made."""

    credential_id: bytes
    public_key: bytes
    sign_count: int
    backup_eligible: bool
    backed_up: bool
    transports: tuple[str, ...]


@dataclass(frozen=True)
class Signed:
    """What a right answer says of its authenticator."""

    sign_count: int
    backed_up: bool


class Authenticators:
    """Authenticators, as one relying party meets them."""

    def __init__(self, party: RelyingParty) -> None:
        self._party = party

    def ask_to_make(self, kind: str, challenge: bytes, handle: bytes, name: str, known: Sequence[Passkey]) -> str:
        """Returns the options of `navigator.credentials.create`, as JSON."""
        verifies = kind == PASSKEY
        return webauthn.options_to_json(
            webauthn.generate_registration_options(
                rp_id=self._party.id,
                rp_name=_NAME,
                user_id=handle,
                user_name=name,
                challenge=challenge,
                timeout=_MILLISECONDS,
                authenticator_selection=AuthenticatorSelectionCriteria(
                    resident_key=ResidentKeyRequirement.REQUIRED if verifies else ResidentKeyRequirement.DISCOURAGED,
                    user_verification=_verification(verifies),
                ),
                exclude_credentials=[_descriptor(one.described) for one in known],
                supported_pub_key_algs=ALGORITHMS,
            )
        )

    def ask_to_sign(self, kind: str, challenge: bytes, allowed: Sequence[Described]) -> str:
        """Returns the options of `navigator.credentials.get`, as JSON; with nothing `allowed`, people choose a key."""
        return webauthn.options_to_json(
            webauthn.generate_authentication_options(
                rp_id=self._party.id,
                challenge=challenge,
                timeout=_MILLISECONDS,
                allow_credentials=[_descriptor(one) for one in allowed],
                user_verification=_verification(kind == PASSKEY),
            )
        )

    def claim(self, answer: str) -> Claim | None:
        """Reads which challenge an answer is to, and by which key; None for what is no answer."""

        def read() -> Claim:
            said = json.loads(answer)
            client = helpers.parse_client_data_json(helpers.base64url_to_bytes(said["response"]["clientDataJSON"]))
            return Claim(client.challenge, helpers.base64url_to_bytes(said["rawId"]))

        return _or_none(read) if len(answer) <= rules.LONGEST_ANSWER else None

    def made(self, answer: str, challenge: bytes, kind: str) -> Made | None:
        """Returns the key that was made for a challenge; None for an answer that is not right."""

        def check() -> Made | None:
            credential = helpers.parse_registration_credential_json(answer)
            attestation = helpers.parse_attestation_object(credential.response.attestation_object)
            # Nothing is asked about the make of an authenticator, so browsers take out what would tell (5.4.7).
            itself = attestation.fmt == AttestationFormat.PACKED and not attestation.att_stmt.x5c
            if not (attestation.fmt == AttestationFormat.NONE or itself) or _framed(
                credential.response.client_data_json
            ):
                return None
            found = webauthn.verify_registration_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._party.id,
                expected_origin=list(self._party.origins),
                require_user_verification=kind == PASSKEY,
                supported_pub_key_algs=ALGORITHMS,
            )
            key = helpers.decoded_public_key_to_cryptography(
                helpers.decode_credential_public_key(found.credential_public_key)
            )
            if isinstance(key, RSAPublicKey) and key.key_size < _LEAST_RSA_BITS:
                return None
            if not rules.SHORTEST_ID <= len(found.credential_id) <= rules.LONGEST_ID:
                return None
            return Made(
                found.credential_id,
                found.credential_public_key,
                found.sign_count,
                found.credential_device_type == CredentialDeviceType.MULTI_DEVICE,
                found.credential_backed_up,
                tuple(sorted({one.value for one in credential.response.transports or ()})),
            )

        return _or_none(check)

    def signed(self, answer: str, challenge: bytes, held: Passkey) -> Signed | None:
        """Returns what a right answer of a key says; None for one that is not right.

        Its count is not judged here: only a signature that holds may say anything about a copy.
        """

        def check() -> Signed | None:
            credential = helpers.parse_authentication_credential_json(answer)
            handle = credential.response.user_handle
            if handle is not None and not hmac.compare_digest(handle, held.user_handle):
                return None
            if _framed(credential.response.client_data_json):
                return None
            found = webauthn.verify_authentication_response(
                credential=credential,
                expected_challenge=challenge,
                expected_rp_id=self._party.id,
                expected_origin=list(self._party.origins),
                credential_public_key=held.public_key,
                credential_current_sign_count=0,
                require_user_verification=held.kind == PASSKEY,
            )
            eligible = found.credential_device_type == CredentialDeviceType.MULTI_DEVICE
            if found.credential_id != held.credential_id or eligible != held.backup_eligible:
                return None
            return Signed(found.new_sign_count, found.credential_backed_up)

        return _or_none(check)


def _verification(required: bool) -> UserVerificationRequirement:
    return UserVerificationRequirement.REQUIRED if required else UserVerificationRequirement.DISCOURAGED


def _descriptor(key: Described) -> PublicKeyCredentialDescriptor:
    transports = [AuthenticatorTransport(one) for one in key.transports]
    return PublicKeyCredentialDescriptor(id=key.credential_id, transports=transports)


def _framed(client_data: bytes) -> bool:
    """Tells whether the page was in a frame of another site's page: none of ours is meant to be."""
    return bool(helpers.parse_client_data_json(client_data).cross_origin)


def _or_none(check: Callable[[], T | None]) -> T | None:
    try:
        return check()
    except Exception:  # noqa: BLE001 — the library raises whatever its parsers meet in bytes that anybody may send
        return None
