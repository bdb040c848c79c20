"""Builds auth and runs it, or one of its commands, which are named at the end."""

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from gatefold.auth.v1.account_pb2_grpc import add_AccountServiceServicer_to_server
from gatefold.auth.v1.api_key_pb2_grpc import add_ApiKeyServiceServicer_to_server
from gatefold.auth.v1.credential_pb2_grpc import add_CredentialServiceServicer_to_server
from gatefold.auth.v1.device_pb2_grpc import add_DeviceServiceServicer_to_server
from gatefold.auth.v1.factor_pb2_grpc import add_FactorServiceServicer_to_server
from gatefold.auth.v1.federated_session_pb2_grpc import add_FederatedSessionServiceServicer_to_server
from gatefold.auth.v1.identity_provider_pb2_grpc import add_IdentityProviderServiceServicer_to_server
from gatefold.auth.v1.oauth_client_pb2_grpc import add_OAuthClientServiceServicer_to_server
from gatefold.auth.v1.oauth_pb2_grpc import add_OAuthServiceServicer_to_server
from gatefold.auth.v1.passkey_pb2_grpc import add_PasskeyServiceServicer_to_server
from gatefold.auth.v1.password_pb2_grpc import add_PasswordServiceServicer_to_server
from gatefold.auth.v1.recovery_pb2_grpc import add_RecoveryServiceServicer_to_server
from gatefold.auth.v1.saml_pb2_grpc import (
    add_SamlConnectionServiceServicer_to_server,
    add_SamlSignInServiceServicer_to_server,
)
from gatefold.auth.v1.scim_pb2_grpc import add_ScimServiceServicer_to_server
from gatefold.auth.v1.session_pb2_grpc import add_SessionServiceServicer_to_server
from gatefold.auth.v1.sign_in_pb2_grpc import add_SubscriberSignInServiceServicer_to_server
from gatefold.auth.v1.subscriber_session_pb2_grpc import add_SubscriberSessionServiceServicer_to_server
from gatefold.auth.v1.team_pb2_grpc import add_TeamServiceServicer_to_server

from libs import config, outbox, process
from libs.account_clock import AccountClocks
from libs.activity import ActivityStream, Pseudonyms
from libs.clock import SystemClock
from libs.config import ConfigError
from libs.errors import GatefoldError
from libs.ids import IdMaker
from libs.postgres import Database
from libs.privacy import SubjectTable
from libs.process import Process
from libs.service import Service
from libs.vault import Vault
from services.auth import servicer, worker
from services.auth.clients.attempt_store import AttemptStore
from services.auth.clients.breach_corpus import BreachCorpus
from services.auth.clients.breach_range import RangeSource, SourceAwayError
from services.auth.clients.openid import OpenIdProviders
from services.auth.clients.peers import PeerClock, Subjects
from services.auth.clients.places import Places
from services.auth.clients.provider_http import ProviderHttp
from services.auth.clients.session_feed import SessionFeed
from services.auth.config import BootstrapConfig, BreachConfig, Config, RotationConfig, SyncConfig
from services.auth.domain import session
from services.auth.domain.account import PROVIDER_ONLY, SecurityPolicy
from services.auth.domain.attempts import Rule
from services.auth.domain.sign_in import EMAIL_CODE, PASSKEY, RECOVERY_CODE, SECURITY_KEY, TOTP, Door, Standing
from services.auth.repository import (
    CHALLENGE_TABLE,
    CREDENTIAL_TABLE,
    DEVICE_SIGHT_TABLE,
    DISABLED_SIGN_IN_TABLE,
    FACTOR_ATTEMPT_TABLE,
    FACTOR_TABLE,
    IDENTITY_TABLE,
    IMPORTED_PASSWORD_TABLE,
    KNOWN_NETWORK_TABLE,
    OAUTH_AUTHORIZATION_TABLE,
    OAUTH_CONSENT_TABLE,
    PASSKEY_TABLE,
    RECOVERY_CODE_TABLE,
    SESSION_TABLE,
)
from services.auth.usecases.access_tokens import AccessTokens
from services.auth.usecases.accounts import Accounts
from services.auth.usecases.api_keys import ApiKeys
from services.auth.usecases.attempts import Attempts, Limits, Offer
from services.auth.usecases.authenticators import Authenticators
from services.auth.usecases.breach_sync import BreachSync
from services.auth.usecases.breached_passwords import BreachedPasswords
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.devices import Devices
from services.auth.usecases.email_changes import EmailChanges
from services.auth.usecases.email_codes import EmailCodes
from services.auth.usecases.enrolment import Enrolment
from services.auth.usecases.expiry import Expiry
from services.auth.usecases.factor_access import FactorAccess
from services.auth.usecases.factor_attempts import FactorAttempts
from services.auth.usecases.factors import Factors
from services.auth.usecases.facts import Facts
from services.auth.usecases.federated_sign_ins import FederatedSignIns
from services.auth.usecases.federation import Federation
from services.auth.usecases.identities import Identities
from services.auth.usecases.identity_providers import IdentityProviders
from services.auth.usecases.imported_passwords import ImportedPasswords
from services.auth.usecases.magic_links import MagicLinks
from services.auth.usecases.members import Members
from services.auth.usecases.new_devices import NewDevices
from services.auth.usecases.oauth import OAuth
from services.auth.usecases.oauth_clients import OAuthClients
from services.auth.usecases.oauth_tokens import OAuthTokens
from services.auth.usecases.own_password import OwnPassword
from services.auth.usecases.passkey_proofs import PasskeyMethod, PasskeyProofs
from services.auth.usecases.passkey_sign_in import PasskeySignIn
from services.auth.usecases.passkeys import Passkeys
from services.auth.usecases.password_policy import Breaches, PasswordPolicy
from services.auth.usecases.passwords import PasswordHasher, WorkMeter
from services.auth.usecases.recovery import Recovery
from services.auth.usecases.recovery_codes import RecoveryCodes
from services.auth.usecases.registration import Registration
from services.auth.usecases.saml_connections import SamlConnections
from services.auth.usecases.saml_sign_in import SamlSignIn
from services.auth.usecases.second_factors import Method, SecondFactors, set_up
from services.auth.usecases.secrets import TokenSecrets
from services.auth.usecases.security_policies import SecurityPolicies
from services.auth.usecases.session_ends import SessionEnds
from services.auth.usecases.sessions import Sessions
from services.auth.usecases.sign_in import SignIn
from services.auth.usecases.signing_keys import SigningKeys
from services.auth.usecases.staff import People, Staff, issue_bootstrap_token
from services.auth.usecases.step_up import StepUp
from services.auth.usecases.subscriber_sign_ins import SubscriberSignIns
from services.auth.usecases.team import Team
from services.auth.usecases.test_clock import TestClock
from services.auth.usecases.totp import Totp
from services.auth.usecases.unlocks import Unlocks
from services.auth.usecases.verdicts import Verdicts

if TYPE_CHECKING:
    from services.auth.usecases.directory import Directory

SYNC_SECONDS = 30.0
CLOCK_PEERS = ("subscriber", "billing", "notify")
PERSONAL_TABLES = (
    SubjectTable("oauth_authorization", number=OAUTH_AUTHORIZATION_TABLE),
    SubjectTable("oauth_consent", number=OAUTH_CONSENT_TABLE),
    SubjectTable("session", number=SESSION_TABLE),
    SubjectTable("challenge", number=CHALLENGE_TABLE),
    SubjectTable("passkey", number=PASSKEY_TABLE),
    SubjectTable("factor", number=FACTOR_TABLE),
    SubjectTable("recovery_code", number=RECOVERY_CODE_TABLE),
    SubjectTable("factor_attempt", number=FACTOR_ATTEMPT_TABLE),
    SubjectTable("identity", number=IDENTITY_TABLE),
    SubjectTable("known_network", number=KNOWN_NETWORK_TABLE),
    SubjectTable("device_sight", number=DEVICE_SIGHT_TABLE),
    SubjectTable("disabled_sign_in", number=DISABLED_SIGN_IN_TABLE),
    SubjectTable("imported_password", number=IMPORTED_PASSWORD_TABLE),
    SubjectTable("credential", number=CREDENTIAL_TABLE),
)


async def compose(process: Process, environ: Mapping[str, str] | None) -> None:
    """Opens the parts and puts them together."""
    settings = config.load(Config, environ)
    service = await Service.open(process, settings.service)
    db, vault, clock, make = service.app, service.vault, service.clock, service.ids
    secrets = TokenSecrets.derive(settings.secrets.challenge_secret.reveal())
    hasher = _hasher(settings, process)
    facts = Facts(clock, make, service.telemetry)
    keys = SigningKeys(db, vault, clock, make)
    await keys.ensure()

    tokens = AccessTokens(settings.issuer, keys, clock, make)
    persons = People(db, vault, hasher, clock, make)
    challenges = Challenges(db, vault, secrets, clock, make, facts, persons.contacts, settings.public_url)
    policies = SecurityPolicies(db, clock)
    sessions = Sessions(
        db, vault, tokens, secrets, clock, make, facts, challenges, policies.of, os.urandom, service.telemetry
    )
    policy = PasswordPolicy(_breaches(settings.breaches, process))
    places = Places(settings.places_database)
    process.on_drain(places.close)
    guard = _guard(settings, service, secrets, challenges.offer_unlock, places)
    team = Team(db, vault, persons, policy, challenges, guard, clock, make)
    members = Members(db, clock, make, facts, guard.release)
    methods: dict[str, Method] = {}

    async def standing(door: Door) -> Standing:
        staff = door.kind == session.STAFF
        asked = await policies.of(door.account) if staff else SecurityPolicy()
        return Standing(
            factors=await set_up(methods, door),
            factor_required=staff and asked.require_staff_factor,
            provider_required=staff and asked.staff_sign_in == PROVIDER_ONLY,
        )

    new_devices = NewDevices(db, vault, challenges, places, secrets, clock, make, service.telemetry)
    sign_in = SignIn(db, sessions, standing, guard.remember, new_devices, secrets, clock, make)
    accounts = Accounts(db, team, challenges, clock, make, facts)
    subjects = Subjects(service.channels)
    enrolment = Enrolment(vault, subjects, clock, make, facts)
    imported = ImportedPasswords(db, vault, hasher, challenges, subjects, secrets, clock, make)
    breached = BreachedPasswords(challenges, facts, make)
    registration = Registration(
        db, vault, hasher, policy, challenges, sign_in, enrolment, imported, breached, secrets, clock, make, guard
    )
    pepper = settings.secrets.key_pepper.reveal().encode()
    api_keys = ApiKeys(db, vault, pepper, policies.of, clock, make, facts, os.urandom)
    peers = [PeerClock(service.channels, peer) for peer in CLOCK_PEERS]
    test_clock = TestClock(clock, db, AccountClocks(db), peers, _waiting(service))

    service.add(add_AccountServiceServicer_to_server, servicer.AccountServicer(accounts, policies, test_clock))
    service.add(add_ApiKeyServiceServicer_to_server, servicer.ApiKeyServicer(api_keys))
    service.add(add_TeamServiceServicer_to_server, servicer.TeamServicer(team, members))

    def directory() -> "Directory":
        # Its library takes as long to load as half of auth, and most processes never need it.
        from services.auth.usecases.directory import Directory

        return Directory(db, vault, team, members, challenges, settings.issuer, clock)

    service.add(add_ScimServiceServicer_to_server, servicer.ScimServicer(directory))
    staff = Staff(db, persons, policy, breached, sign_in, guard, clock)
    own_password = OwnPassword(db, hasher, policy, challenges, standing, sign_in, guard, clock)
    service.add(add_PasswordServiceServicer_to_server, servicer.PasswordServicer(own_password))
    access, attempts = FactorAccess(db, clock), FactorAttempts(db, clock)
    totp = Totp(db, vault, clock, os.urandom)
    email_codes = EmailCodes(db, challenges, sign_in, secrets, clock)
    recovery_codes = RecoveryCodes(db, challenges, access, clock, os.urandom)
    authenticators = Authenticators(settings.relying_party())
    proofs = PasskeyProofs(db, authenticators, challenges, access, clock, os.urandom, service.telemetry)
    keyed = {kind: PasskeyMethod(db, proofs, sign_in, kind) for kind in (PASSKEY, SECURITY_KEY)}
    methods.update({**keyed, TOTP: totp, EMAIL_CODE: email_codes, RECOVERY_CODE: recovery_codes})
    second_factors = SecondFactors(methods, sign_in, attempts, challenges, access, recovery_codes.left)
    factors = Factors(db, totp, access, attempts, challenges, sessions, standing, clock, make)
    passkeys = servicer.PasskeyServicer(
        Passkeys(db, authenticators, access, factors, challenges, sessions, clock, make, os.urandom),
        keyed,
        PasskeySignIn(db, vault, proofs, sign_in, staff, guard, secrets, make),
    )
    service.add(add_PasskeyServiceServicer_to_server, passkeys)
    step_up = StepUp(own_password, attempts, second_factors, sign_in)
    own_factors = servicer.FactorServicer(factors, recovery_codes, email_codes, step_up)
    service.add(add_FactorServiceServicer_to_server, own_factors)
    ends = SessionEnds(db, service.jobs, SessionFeed(service.store), clock, service.kill_points)
    signing_in = servicer.SessionServicer(staff, second_factors, sessions, ends, keys)
    service.add(add_SessionServiceServicer_to_server, signing_in)
    service.background("session ends", worker.Announcing(ends, service.telemetry).run)
    service.add(add_DeviceServiceServicer_to_server, servicer.DeviceServicer(Devices(db, vault, challenges, clock)))
    service.add(add_CredentialServiceServicer_to_server, servicer.CredentialServicer(imported))
    readers = servicer.SubscriberSessionServicer(registration, challenges)
    service.add(add_SubscriberSessionServiceServicer_to_server, readers)
    own_sign_ins = servicer.SubscriberSignInServicer(SubscriberSignIns(db, clock, make, facts, guard.release))
    service.add(add_SubscriberSignInServiceServicer_to_server, own_sign_ins)
    oauth_clients = OAuthClients(db, pepper, clock, make, os.urandom)
    service.add(add_OAuthClientServiceServicer_to_server, servicer.OAuthClientServicer(oauth_clients))
    issuer = settings.issuer
    oauth_tokens = OAuthTokens(
        db, oauth_clients, keys, challenges, subjects, secrets, issuer, clock, make, service.telemetry
    )
    oauth = OAuth(db, oauth_clients, oauth_tokens, registration, challenges, issuer, clock, make, os.urandom)
    service.add(add_OAuthServiceServicer_to_server, servicer.OAuthServicer(oauth, oauth_tokens, issuer))
    unlocks = Unlocks(db, challenges, [guard.lift, attempts.lift])
    recovery = servicer.RecoveryServicer(
        Recovery(db, hasher, policy, standing, challenges, unlocks, enrolment, guard.remember, clock),
        MagicLinks(challenges, sign_in, os.urandom),
        EmailChanges(db, vault, challenges, subjects, own_password, attempts, secrets, clock),
        unlocks,
    )
    service.add(add_RecoveryServiceServicer_to_server, recovery)
    http = ProviderHttp(seconds=settings.federation.federation_seconds, private=settings.federation.federation_private)
    process.on_drain(http.close)
    others = OpenIdProviders(http, clock)
    federation = Federation(db, vault, sign_in, challenges, access, subjects, persons, clock, make, facts)
    providers = IdentityProviders(db, vault, others, federation, clock, make)
    service.add(add_IdentityProviderServiceServicer_to_server, servicer.IdentityProviderServicer(providers))
    away = FederatedSignIns(
        db, providers, others, federation, access, secrets, clock, make, os.urandom, settings.issuer
    )
    identities = Identities(db, challenges, access, standing, methods, clock)
    service.add(add_FederatedSessionServiceServicer_to_server, servicer.FederatedSessionServicer(away, identities))
    connections = SamlConnections(db, federation, clock, make, settings.issuer)
    by_saml = SamlSignIn(
        db, connections, federation, access, clock, make, os.urandom, service.telemetry, settings.public_url
    )
    service.add(add_SamlConnectionServiceServicer_to_server, servicer.SamlConnectionServicer(connections))
    service.add(add_SamlSignInServiceServicer_to_server, servicer.SamlSignInServicer(connections, by_saml))
    verdicts = Verdicts(db, Pseudonyms(settings.secrets.key_pepper.reveal()), clock, service.telemetry)
    service.follow_verdicts(verdicts.obey, verdicts.forget)
    service.background("housekeeping", worker.Housekeeping(keys, Expiry(service.jobs, clock)).run)
    service.holds_personal_data(PERSONAL_TABLES)
    await service.serve()


def _guard(settings: Config, service: Service, secrets: TokenSecrets, offer: Offer, places: Places) -> Attempts:
    chosen = settings.attempts
    waits = (chosen.attempts_wait_seconds * 1000, chosen.attempts_longest_wait_seconds * 1000)
    forget = chosen.attempts_forget_seconds * 1000
    limits = Limits(
        Rule(chosen.attempts_free, chosen.attempts_most, *waits, forget),
        # An address is many people's: it waits ever longer, and is never shut for good.
        Rule(chosen.attempts_address_free, sys.maxsize, *waits, waits[1]),
        chosen.alarm_seconds,
        chosen.alarm_accounts,
        chosen.alarm_network_accounts,
        chosen.attempts_store_seconds,
    )
    stream = ActivityStream(service.store, service.telemetry)
    service.background("activities", stream.run)
    pseudonyms = Pseudonyms(settings.secrets.key_pepper.reveal())
    store = AttemptStore(service.store)
    return Attempts(
        service.app,
        store,
        limits,
        secrets,
        stream,
        offer,
        pseudonyms,
        places.of,
        service.clock,
        service.ids,
        service.telemetry,
    )


def _hasher(settings: Config, process: Process) -> PasswordHasher:
    units = process.telemetry.counter("password_hash_units", "Work of password hashing: a run of cost c is 2^c.")
    hasher = PasswordHasher(
        settings.secrets.peppers(),
        cost=settings.passwords.bcrypt_cost,
        highest_cost=settings.passwords.bcrypt_highest_cost,
        cores=os.cpu_count() or 1,
        queue=settings.passwords.hash_queue,
        meter=WorkMeter(units.inc),
    )

    async def close() -> None:
        hasher.close()

    process.on_drain(close)
    return hasher


def _breaches(settings: BreachConfig, process: Process) -> Breaches:
    away = process.telemetry.counter("breach_source_failures", "Look-ups of breached passwords that were not answered.")
    folders = [BreachCorpus(settings.breach_folder)] if settings.breach_folder else []
    remote = RangeSource(settings.breach_range_url, settings.breach_seconds) if settings.breach_range_url else None
    if remote is not None:
        process.on_drain(remote.close)
    return Breaches(
        [BreachCorpus(settings.breach_corpus), *folders], remote, fail_closed=settings.breach_fail_closed, away=away.inc
    )


def _waiting(service: Service) -> Callable[[UUID], Awaitable[int]]:
    async def waiting(account: UUID) -> int:
        service.relay.wake()
        return await outbox.outbox_waiting(service.jobs, account)

    return waiting


async def bootstrap_operator(environ: Mapping[str, str] | None = None) -> str:
    """Returns a new one-time token that makes an operator; for the command, and for a stack that sets itself up."""
    settings = config.load(BootstrapConfig, environ)
    clock = SystemClock()
    db = await Database.open(settings.postgres.postgres_app_dsn, service="auth", role="app", pool_size=1)
    try:
        return await issue_bootstrap_token(db, clock, IdMaker(clock, os.urandom), os.urandom)
    finally:
        await db.close()


async def rotate_signing_key(environ: Mapping[str, str] | None = None) -> str:
    """Hands over to the next signing key now; returns what is to be told."""
    settings = config.load(RotationConfig, environ)
    clock = SystemClock()
    db = await Database.open(settings.postgres.postgres_app_dsn, service="auth", role="app", pool_size=1)
    vault = await Vault.open(settings.vault, clock)
    try:
        done = await SigningKeys(db, vault, clock, IdMaker(clock, os.urandom)).rotate(even_if_young=True)
    finally:
        await vault.close()
        await db.close()
    return "The next signing key is in use." if done else "Another process rotated at this moment."


async def sync_breached_passwords(environ: Mapping[str, str] | None = None) -> str:
    """Mirrors the list of breached passwords by range; run again, it fetches what has changed or is missing."""
    settings = config.load(SyncConfig, environ)
    source = RangeSource(settings.breach_range_url, SYNC_SECONDS)

    def progress(done: int, of: int, entries: int) -> None:
        sys.stderr.write(f"\rsegment {done} of {of}, {entries:,} passwords")

    try:
        entries = await BreachSync(source, settings.breach_folder, progress).run()
    finally:
        await source.close()
    return f"\n{entries:,} breached passwords in {settings.breach_folder}"


_COMMANDS = {
    "bootstrap-operator": bootstrap_operator,
    "rotate-signing-key": rotate_signing_key,
    "sync-breached-passwords": sync_breached_passwords,
}


def main(environ: Mapping[str, str] | None = None, arguments: Sequence[str] = ()) -> int:
    """Runs auth, or the command that is named; returns the exit code."""
    if not arguments:
        return process.run("auth", compose, environ)
    command = _COMMANDS.get(arguments[0])
    if command is None or len(arguments) > 1:
        sys.stderr.write(f"usage: python -m services.auth [{' | '.join(_COMMANDS)}]\n")
        return 2
    try:
        sys.stdout.write(asyncio.run(command(environ)) + "\n")
    except (ConfigError, GatefoldError, SourceAwayError) as error:
        sys.stderr.write(f"auth: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(arguments=sys.argv[1:]))
