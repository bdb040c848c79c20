"""Registration and sign-in of readers, over gRPC on real stores."""

import asyncio
from uuid import UUID

import pytest
from gatefold.auth.v1 import subscriber_session_pb2

from libs import idempotency, ids
from libs.errors import GatefoldError, Kind
from tests.support.auth import PASSWORD, AuthHouse


async def test_a_reader_registers_proves_the_mailbox_and_signs_in(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.register(publisher.live, email, name="Rita Reader")
    challenge = await house.newest_challenge(publisher.live)
    letter = await house.describe(challenge)
    assert (letter.email, letter.name, letter.publication) == (email, "", "The Daily")
    assert letter.link.startswith("https://daily.example/welcome?from=mail&token=gfct_")
    assert letter == await house.describe(challenge)

    subject = await house.verify(publisher.live, await house.token(publisher.live, "verify_registration"))
    assert house.subscriber.subjects[(publisher.live, email)] == ids.encode("subj", subject)
    asked = house.subscriber.asked[-1]
    assert (asked.actor, asked.account, asked.live) == ("service:auth", publisher.live, True)
    tokens = await house.sign_in(publisher.live, email)
    claims = await house.claims(tokens.access_token)
    assert claims["sub"] == ids.encode("subj", subject) == tokens.principal_id
    assert claims["account"] == ids.encode("acct", publisher.live) == tokens.account_id
    assert (claims["kind"], claims["scope"], claims["acr"], claims["live"]) == ("SUBSCRIBER", "", "aal1", True)
    assert (tokens.token_type, tokens.expires_in) == ("Bearer", 600)
    assert claims["exp"] - claims["iat"] == 600  # type: ignore[operator]
    assert await house.events(publisher.live) == [
        "challenge.requested",
        "account.created",
        "challenge.requested",
        "subscriber.registered",
        "session.started",
    ]


async def test_an_address_that_subscriber_knows_keeps_its_subject(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email, imported = house.fresh(), ids.encode("subj", UUID(int=41))
    house.subscriber.subjects[(publisher.live, email)] = imported
    assert await house.reader(publisher.live, email) == ids.decode("subj", imported)
    assert (await house.sign_in(publisher.live, email)).principal_id == imported


async def test_a_repetition_under_its_key_sends_no_second_mail(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    for _ in range(2):
        await house.register(publisher.live, email, key="registration-1")
    assert (await house.events(publisher.live)).count("challenge.requested") == 2, "the owner's and the reader's"
    with pytest.raises(GatefoldError, match="idempotency_key_reused"):
        await house.register(publisher.live, email, "another password here", key="registration-1")
    await house.register(publisher.live, email, key="registration-2")
    assert (await house.events(publisher.live)).count("challenge.requested") == 3


async def test_what_is_kept_of_a_repetition_does_not_let_the_password_be_guessed(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.register(publisher.live, email, PASSWORD, "Rita", key="registration-1")
    guess = subscriber_session_pb2.RegisterRequest(email=email, password=PASSWORD, name="Rita")
    who = house.page(publisher.live, key="registration-1")
    async with house.database.app.tenant(publisher.live, "guess") as conn:
        with pytest.raises(GatefoldError, match="idempotency_key_reused"):
            await idempotency.claim(conn, who, "Register", guess, clock=house.clock)


@pytest.mark.case("auth-18")
async def test_a_known_address_gets_another_mail_and_the_same_answer_and_work(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    before = house.units()
    subject = await house.reader(publisher.live, email)
    new = house.units() - before
    await house.register(publisher.live, email.upper().replace("EXAMPLE.COM", "Example.com"), "another password here")
    assert house.units() - before == 2 * new
    letter = await house.describe(await house.newest_challenge(publisher.live))
    assert (letter.purpose, letter.link) == ("already_registered", "")
    assert letter.email.lower() == email
    # Nothing changed for who is known.
    assert (await house.sign_in(publisher.live, email)).principal_id == ids.encode("subj", subject)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, "another password here")


async def test_the_same_address_is_another_reader_at_another_publisher(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    email = house.fresh()
    first = await house.reader(one.live, email)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(other.live, email)
    assert await house.reader(other.live, email) != first


async def test_a_token_of_another_account_is_not_valid(house: AuthHouse) -> None:
    one, other = await house.publisher(), await house.publisher()
    await house.register(one.live, house.fresh())
    token = await house.token(one.live, "verify_registration")
    with pytest.raises(GatefoldError) as raised:
        await house.verify(other.live, token)
    assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "token_invalid")
    await house.verify(one.live, token)


async def test_a_token_spent_twice_at_once_makes_one_credential(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.register(publisher.live, house.fresh())
    token = await house.token(publisher.live, "verify_registration")
    held = house.subscriber.hold()
    calls = [asyncio.create_task(house.verify(publisher.live, token)) for _ in range(4)]
    try:
        for _ in calls:
            await asyncio.wait_for(house.subscriber.arrivals.get(), 10)
    finally:
        house.subscriber.release(held)
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert len([answer for answer in answers if isinstance(answer, UUID)]) == 1
    refused = [answer for answer in answers if isinstance(answer, GatefoldError)]
    assert [(error.kind, error.reason) for error in refused] == [(Kind.NOT_FOUND, "token_spent")] * 3
    assert (await house.events(publisher.live)).count("subscriber.registered") == 1


async def test_a_repeat_of_the_same_request_is_answered_as_it_was(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.register(publisher.live, house.fresh())
    token = await house.token(publisher.live, "verify_registration")
    subject = await house.verify(publisher.live, token, request_id="req_lost")
    assert await house.verify(publisher.live, token, request_id="req_lost") == subject
    with pytest.raises(GatefoldError, match="token_spent"):
        await house.verify(publisher.live, token)


async def test_a_verification_cut_off_after_the_other_service_answered_is_finished_by_a_retry(
    house: AuthHouse,
) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.register(publisher.live, email)
    token = await house.token(publisher.live, "verify_registration")
    held = house.subscriber.hold()
    cut = asyncio.create_task(house.verify(publisher.live, token))
    await asyncio.wait_for(house.subscriber.arrivals.get(), 10)
    cut.cancel()
    await asyncio.gather(cut, return_exceptions=True)
    house.subscriber.release(held)
    subject = await house.verify(publisher.live, token)
    assert house.subscriber.subjects[(publisher.live, email)] == ids.encode("subj", subject)
    assert (await house.events(publisher.live)).count("subscriber.registered") == 1


async def test_proving_the_mailbox_ends_other_registrations_of_the_address(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email = house.fresh()
    await house.register(publisher.live, email, "the password of a stranger")
    stranger = await house.token(publisher.live, "verify_registration")
    await house.reader(publisher.live, email)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.verify(publisher.live, stranger)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email, "the password of a stranger")
    await house.sign_in(publisher.live, email)


async def test_what_a_spent_challenge_held_of_a_person_is_gone(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.reader(publisher.live, house.fresh())
    challenge = await house.newest_challenge(publisher.live)
    async with house.app.tenant(publisher.live, "read_challenge") as conn:
        row = await conn.fetchrow(
            "SELECT email_index, email_sealed, name_sealed, password_hash FROM challenge WHERE id = $1", challenge
        )
    assert row is not None
    assert (row["email_index"], row["email_sealed"], row["name_sealed"], row["password_hash"]) == (None, b"", b"", None)
    with pytest.raises(GatefoldError, match="challenge_over"):
        await house.describe(challenge)


@pytest.mark.parametrize("token", ["", "gfct_", "gfct_" + "a" * 43, "x" * 199])
async def test_an_invented_token_is_not_valid(house: AuthHouse, token: str) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError) as raised:
        await house.verify(publisher.live, token)
    assert raised.value.kind is Kind.NOT_FOUND


async def test_an_invitation_does_not_verify_a_registration(house: AuthHouse) -> None:
    account = ids.decode("acct", (await house.create_account()).id)
    with pytest.raises(GatefoldError, match="token_invalid"):
        await house.verify(account, await house.token(account, "invite_member"))


@pytest.mark.parametrize("email", ["", "nobody", "a@b", "a b@example.com", "@example.com", f"{'a' * 250}@example.com"])
async def test_what_is_no_address_is_refused(house: AuthHouse, email: str) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError) as raised:
        await house.register(publisher.live, email)
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "email_invalid")


async def test_a_name_with_a_line_break_is_refused(house: AuthHouse) -> None:
    publisher = await house.publisher()
    with pytest.raises(GatefoldError, match="name_invalid"):
        await house.register(publisher.live, house.fresh(), PASSWORD, "Rita\r\nBcc: all@example.com")


async def test_a_reader_whose_address_changed_proves_the_new_one_and_the_old_credential_ends(house: AuthHouse) -> None:
    publisher = await house.publisher()
    former, present = house.fresh("former"), house.fresh("present")
    subject = await house.reader(publisher.live, former)
    tokens = await house.sign_in(publisher.live, former)
    # Staff changed the address in the profile: subscriber answers the same subject for the new one.
    house.subscriber.subjects[(publisher.live, present)] = ids.encode("subj", subject)
    assert await house.reader(publisher.live, present, "another password here") == subject
    for email, password in ((former, PASSWORD), (former, "another password here"), (present, PASSWORD)):
        with pytest.raises(GatefoldError, match="credentials_invalid"):
            await house.sign_in(publisher.live, email, password)
    await house.sign_in(publisher.live, present, "another password here")
    with pytest.raises(GatefoldError, match="invalid_grant"):
        await house.refresh(tokens.refresh_token)


async def test_an_erased_reader_is_not_brought_back_by_a_late_verification(house: AuthHouse) -> None:
    publisher = await house.publisher()
    email, subject = house.fresh(), UUID(int=77)
    house.subscriber.subjects[(publisher.live, email)] = ids.encode("subj", subject)
    await house.register(publisher.live, email)
    token = await house.token(publisher.live, "verify_registration")
    async with house.app.tenant(publisher.live, "erase") as conn:
        await conn.execute(
            "INSERT INTO erased_subject (account_id, subject_id, erased_at) VALUES ($1, $2, $3)",
            publisher.live,
            subject,
            house.clock.wall(),
        )
    with pytest.raises(GatefoldError, match="subject_erased"):
        await house.verify(publisher.live, token)
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await house.sign_in(publisher.live, email)


async def test_an_address_that_became_another_readers_meanwhile_is_taken(house: AuthHouse) -> None:
    publisher = await house.publisher()
    await house.reader(publisher.live, house.fresh())
    await house.register(publisher.live, house.fresh())
    token = await house.token(publisher.live, "verify_registration")
    async with house.app.tenant(publisher.live, "meanwhile") as conn:
        await conn.execute(
            "UPDATE credential SET email_index ="
            " (SELECT email_index FROM challenge WHERE spent_at IS NULL AND purpose = 'verify_registration')"
        )
    with pytest.raises(GatefoldError) as raised:
        await house.verify(publisher.live, token)
    assert (raised.value.kind, raised.value.reason) == (Kind.PRECONDITION, "email_taken")
