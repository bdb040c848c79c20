"""Owns passkeys as tests use them: an authenticator whose every word can be forged, and people who have one."""

import base64
import hashlib
import json
import os
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from gatefold.auth.v1 import passkey_pb2, session_pb2

from libs import ids
from libs.caller import Caller
from tests.support.auth import AuthHouse, Publisher
from tests.support.factors import Reader, reader

HOST = "staff.gatefold.example"
ORIGIN = f"https://{HOST}"
"""Of the public URL that tests run auth with."""

_UP, _UV, _BE, _BS, _AT = 0x01, 0x04, 0x08, 0x10, 0x40

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


@dataclass(frozen=True)
class Forged:
    """What an answer says otherwise than an honest browser and authenticator would; None where it does not."""

    origin: str | None = None
    host: str | None = None
    challenge: str | None = None
    type: str | None = None
    cross_origin: bool = False
    present: bool = True
    verified: bool = True
    eligible: bool | None = None
    backed_up: bool | None = None
    count: int | None = None
    user_handle: bytes | None = None
    credential_id: bytes | None = None
    attestation: tuple[str, dict[str, object]] = ("none", {})
    signature: bytes | None = None


HONEST = Forged()


@dataclass
class Key:
    """A key pair of an authenticator, with its own count."""

    credential_id: bytes
    private: PrivateKey
    user_handle: bytes
    count: int = 0
    counts: bool = True
    """False for one that is synchronised: its count stays 0."""
    eligible: bool = False
    origin: str = ORIGIN
    host: str = HOST
    transports: list[str] = field(default_factory=lambda: ["internal"])

    def sign(self, options: str, forged: Forged = HONEST) -> str:
        """Answers as `JSON.stringify(credential.toJSON())` after `navigator.credentials.get`."""
        asked = json.loads(options)
        if self.counts:
            self.count += 1
        client = self._client("webauthn.get", asked["challenge"], forged)
        data = self._data(forged)
        signature = forged.signature or self._signed(data + hashlib.sha256(client).digest())
        response = {
            "clientDataJSON": text(client),
            "authenticatorData": text(data),
            "signature": text(signature),
            "userHandle": text(self.user_handle if forged.user_handle is None else forged.user_handle),
        }
        return self._answer(response, forged)

    def made(self, options: str, forged: Forged = HONEST) -> str:
        """Answers as `JSON.stringify(credential.toJSON())` after `navigator.credentials.create`."""
        asked = json.loads(options)
        client = self._client("webauthn.create", asked["challenge"], forged)
        credential_id = self.credential_id if forged.credential_id is None else forged.credential_id
        public = cbor2.dumps(_cose(self.private))
        attested = bytes(16) + struct.pack(">H", len(credential_id)) + credential_id + public
        format_, statement = forged.attestation
        data = self._data(forged, attested)
        if format_ == "packed" and statement == {"self": True}:
            statement = {"alg": -7, "sig": self._signed(data + hashlib.sha256(client).digest())}
        if format_ == "fido-u2f":
            statement = self._u2f(data, client)
        attestation = cbor2.dumps({"fmt": format_, "attStmt": statement, "authData": data})
        response = {
            "clientDataJSON": text(client),
            "attestationObject": text(attestation),
            "transports": self.transports,
        }
        return self._answer(response, forged)

    def copy(self) -> "Key":
        """The same key in other hands."""
        return replace(self)

    def _client(self, type_: str, challenge: str, forged: Forged) -> bytes:
        said = {
            "type": forged.type or type_,
            "challenge": challenge if forged.challenge is None else forged.challenge,
            "origin": forged.origin or self.origin,
            "crossOrigin": forged.cross_origin,
        }
        return json.dumps(said).encode()

    def _data(self, forged: Forged, attested: bytes = b"") -> bytes:
        eligible = self.eligible if forged.eligible is None else forged.eligible
        backed_up = eligible if forged.backed_up is None else forged.backed_up
        flags = (_UP if forged.present else 0) | (_UV if forged.verified else 0) | (_AT if attested else 0)
        flags |= (_BE if eligible else 0) | (_BS if backed_up else 0)
        count = self.count if forged.count is None else forged.count
        host = hashlib.sha256((forged.host or self.host).encode()).digest()
        return host + struct.pack(">BI", flags, count) + attested

    def _u2f(self, data: bytes, client: bytes) -> dict[str, object]:
        """An attestation that holds, by a maker whom nobody knows (WebAuthn level 3, 8.6)."""
        assert isinstance(self.private, ec.EllipticCurvePrivateKey)
        maker = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Keys of mine")])
        certificate = (
            x509.CertificateBuilder(name, name, maker.public_key(), 1)
            .not_valid_before(datetime(2020, 1, 1, tzinfo=UTC))
            .not_valid_after(datetime(2100, 1, 1, tzinfo=UTC))
            .sign(maker, SHA256())
        )
        point = self.private.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        signed = b"\x00" + data[:32] + hashlib.sha256(client).digest() + self.credential_id + point
        return {"sig": maker.sign(signed, ec.ECDSA(SHA256())), "x5c": [certificate.public_bytes(Encoding.DER)]}

    def _signed(self, data: bytes) -> bytes:
        if isinstance(self.private, ec.EllipticCurvePrivateKey):
            return self.private.sign(data, ec.ECDSA(SHA256()))
        if isinstance(self.private, rsa.RSAPrivateKey):
            return self.private.sign(data, padding.PKCS1v15(), SHA256())
        return self.private.sign(data)

    def _answer(self, response: dict[str, object], forged: Forged) -> str:
        credential_id = self.credential_id if forged.credential_id is None else forged.credential_id
        answer = {
            "id": text(credential_id),
            "rawId": text(credential_id),
            "type": "public-key",
            "response": response,
            "clientExtensionResults": {},
            "authenticatorAttachment": "platform",
        }
        return json.dumps(answer)


def text(value: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def binary(value: str) -> bytes:
    return base64.urlsafe_b64decode(value + "=" * (-len(value) % 4))


def new_key(options: str, private: PrivateKey | None = None, **rest: Any) -> Key:
    """A key for what `navigator.credentials.create` is asked for."""
    handle = binary(json.loads(options)["user"]["id"])
    return Key(os.urandom(32), private or ec.generate_private_key(ec.SECP256R1()), handle, **rest)


def _cose(private: PrivateKey) -> dict[int, object]:
    if isinstance(private, ec.EllipticCurvePrivateKey):
        numbers = private.public_key().public_numbers()
        size = (private.curve.key_size + 7) // 8
        curve, algorithm = (1, -7) if private.curve.name == "secp256r1" else (2, -35)
        x, y = numbers.x.to_bytes(size, "big"), numbers.y.to_bytes(size, "big")
        return {1: 2, 3: algorithm, -1: curve, -2: x, -3: y}
    if isinstance(private, rsa.RSAPrivateKey):
        public = private.public_key().public_numbers()
        return {1: 3, 3: -257, -1: public.n.to_bytes((public.n.bit_length() + 7) // 8, "big"), -2: b"\x01\x00\x01"}
    return {1: 1, 3: -8, -1: 6, -2: private.public_key().public_bytes_raw()}


async def begin(house: AuthHouse, who: Caller, kind: str = "") -> str:
    """The options for a new key."""
    answer = await house.call(who, house.passkeys.BeginPasskey, passkey_pb2.BeginPasskeyRequest(kind=kind))
    assert isinstance(answer, passkey_pb2.BeginPasskeyResponse)
    return answer.options


async def add(house: AuthHouse, who: Caller, answer: str, name: str = "My laptop") -> passkey_pb2.AddPasskeyResponse:
    request = passkey_pb2.AddPasskeyRequest(name=name, credential=answer)
    added = await house.call(who, house.passkeys.AddPasskey, request)
    assert isinstance(added, passkey_pb2.AddPasskeyResponse)
    return added


async def with_passkey(
    house: AuthHouse, publisher: Publisher | None = None, *, kind: str = "passkey", **rest: Any
) -> tuple[Reader, Key]:
    """A reader with a key, whose session is `aal2`."""
    someone = await reader(house, publisher)
    options = await begin(house, someone.caller, kind)
    key = new_key(options, **rest)
    added = await add(house, someone.caller, key.made(options, Forged(verified=kind == "passkey")))
    return replace(someone, caller=await someone.as_caller(added.tokens)), key


async def begin_sign_in(house: AuthHouse, account: UUID, email: str = "") -> str:
    """The options for a reader's passkey."""
    request = passkey_pb2.BeginPasskeySignInRequest(email=email)
    answer = await house.call(house.page(account), house.passkeys.BeginPasskeySignIn, request)
    assert isinstance(answer, passkey_pb2.BeginPasskeySignInResponse)
    return answer.options


async def sign_in(house: AuthHouse, account: UUID, answer: str) -> session_pb2.Tokens:
    request = passkey_pb2.SignInWithPasskeyRequest(credential=answer)
    tokens = await house.call(house.page(account), house.passkeys.SignInWithPasskey, request)
    assert isinstance(tokens, session_pb2.Tokens)
    return tokens


async def begin_staff(house: AuthHouse, email: str = "") -> str:
    """The options for a person's passkey."""
    request = passkey_pb2.BeginStaffPasskeySignInRequest(email=email)
    answer = await house.call(house.anonymous(), house.passkeys.BeginStaffPasskeySignIn, request)
    assert isinstance(answer, passkey_pb2.BeginStaffPasskeySignInResponse)
    return answer.options


async def sign_in_staff(house: AuthHouse, answer: str, account: UUID | None = None) -> session_pb2.Tokens:
    account_id = ids.encode("acct", account) if account else ""
    request = passkey_pb2.SignInStaffWithPasskeyRequest(credential=answer, account_id=account_id)
    tokens = await house.call(house.anonymous(), house.passkeys.SignInStaffWithPasskey, request)
    assert isinstance(tokens, session_pb2.Tokens)
    return tokens


async def begin_proof(house: AuthHouse, waiting: session_pb2.Tokens, method: str = "") -> str:
    """The options for a sign-in that waits."""
    request = passkey_pb2.BeginPasskeyProofRequest(pending_token=waiting.pending.token, method=method)
    answer = await house.call(house.anonymous(), house.passkeys.BeginPasskeyProof, request)
    assert isinstance(answer, passkey_pb2.BeginPasskeyProofResponse)
    return answer.options


async def complete(
    house: AuthHouse, waiting: session_pb2.Tokens, answer: str, method: str = "passkey"
) -> session_pb2.Tokens:
    request = session_pb2.CompleteSignInRequest(pending_token=waiting.pending.token, method=method, credential=answer)
    tokens = await house.call(house.anonymous(), house.sessions.CompleteSignIn, request)
    assert isinstance(tokens, session_pb2.Tokens)
    return tokens
