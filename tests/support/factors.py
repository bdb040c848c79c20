"""Owns second factors as tests use them: people who have them, their phones and their mailboxes."""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import pyotp
from gatefold.auth.v1 import factor_pb2, session_pb2

from libs.caller import Caller
from libs.clock import FixedClock
from services.auth.domain import factor as rules
from tests.support.auth import AuthHouse, Publisher


@dataclass(frozen=True)
class Phone:
    """An authenticator app."""

    house: AuthHouse
    id: str
    secret: str

    def code(self, offset: int = 0) -> str:
        """The code that it shows now, or so many steps from now."""
        return pyotp.TOTP(self.secret).generate_otp(rules.step_at(self.house.clock.wall()) + offset)

    def next_code(self) -> str:
        """The code of the next step, once that has come."""
        later(self.house, timedelta(seconds=30))
        return self.code()

    def wrong(self) -> str:
        """A code that it shows at no time around now."""
        near = {self.code(offset) for offset in range(-3, 4)}
        return next(text for text in (f"{number:06}" for number in range(10)) if text not in near)


@dataclass(frozen=True)
class Reader:
    """A reader who is signed in, freshly."""

    house: AuthHouse
    publisher: Publisher
    email: str
    subject: UUID
    tokens: session_pb2.Tokens
    caller: Caller

    async def sign_in(self) -> session_pb2.Tokens:
        return await self.house.sign_in(self.publisher.live, self.email)

    async def as_caller(self, tokens: session_pb2.Tokens) -> Caller:
        return await self.house.person("subj", tokens, account=self.publisher.live)


def later(house: AuthHouse, time: timedelta) -> None:
    """Lets time pass."""
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(time)


async def reader(house: AuthHouse, publisher: Publisher | None = None) -> Reader:
    """Registers a reader and signs them in."""
    where = publisher or await house.publisher()
    email = house.fresh()
    subject = await house.reader(where.live, email)
    tokens = await house.sign_in(where.live, email)
    who = await house.person("subj", tokens, account=where.live)
    return Reader(house, where, email, subject, tokens, who)


async def begin(house: AuthHouse, who: Caller, name: str = "My phone") -> Phone:
    """Begins to add an app."""
    answer = await house.call(who, house.factors.BeginTotp, factor_pb2.BeginTotpRequest(name=name))
    assert isinstance(answer, factor_pb2.BeginTotpResponse)
    return Phone(house, answer.id, answer.secret)


async def confirm(house: AuthHouse, who: Caller, phone: Phone, code: str | None = None) -> session_pb2.Tokens:
    """Confirms an app; returns the session's new tokens."""
    request = factor_pb2.ConfirmTotpRequest(id=phone.id, code=phone.code() if code is None else code)
    answer = await house.call(who, house.factors.ConfirmTotp, request)
    assert isinstance(answer, factor_pb2.ConfirmTotpResponse)
    return answer.tokens


async def with_phone(house: AuthHouse, publisher: Publisher | None = None) -> tuple[Reader, Phone]:
    """A reader with an app, whose session is `aal2`."""
    someone = await reader(house, publisher)
    phone = await begin(house, someone.caller)
    tokens = await confirm(house, someone.caller, phone)
    later(house, timedelta(seconds=60))
    return replace(someone, caller=await someone.as_caller(tokens)), phone


async def complete(
    house: AuthHouse, waiting: session_pb2.Tokens, code: str, method: str = "totp"
) -> session_pb2.Tokens:
    """Goes on with a sign-in."""
    request = session_pb2.CompleteSignInRequest(pending_token=waiting.pending.token, method=method, code=code)
    answer = await house.call(house.anonymous(), house.sessions.CompleteSignIn, request)
    assert isinstance(answer, session_pb2.Tokens)
    return answer


async def listed(house: AuthHouse, who: Caller) -> factor_pb2.ListFactorsResponse:
    answer = await house.call(who, house.factors.ListFactors, factor_pb2.ListFactorsRequest())
    assert isinstance(answer, factor_pb2.ListFactorsResponse)
    return answer


async def remove(house: AuthHouse, who: Caller, factor: str) -> None:
    await house.call(who, house.factors.RemoveFactor, factor_pb2.RemoveFactorRequest(id=factor))


async def recovery_codes(house: AuthHouse, who: Caller) -> list[str]:
    request = factor_pb2.RegenerateRecoveryCodesRequest()
    answer = await house.call(who, house.factors.RegenerateRecoveryCodes, request)
    assert isinstance(answer, factor_pb2.RegenerateRecoveryCodesResponse)
    return list(answer.codes)


async def step_up(
    house: AuthHouse, who: Caller, *, password: str = "", method: str = "", code: str = ""
) -> session_pb2.Tokens:
    request = factor_pb2.StepUpRequest(password=password, method=method, code=code)
    answer = await house.call(who, house.factors.StepUp, request)
    assert isinstance(answer, session_pb2.Tokens)
    return answer


async def send_code(house: AuthHouse, waiting: session_pb2.Tokens) -> None:
    request = factor_pb2.SendSignInCodeRequest(pending_token=waiting.pending.token)
    await house.call(house.anonymous(), house.factors.SendSignInCode, request)


async def with_mailbox(house: AuthHouse) -> Reader:
    """A reader whose sign-ins ask for a code by mail."""
    someone = await reader(house)
    await house.call(someone.caller, house.factors.EnableEmailCodes, factor_pb2.EnableEmailCodesRequest())
    return someone


async def mailed(house: AuthHouse, someone: Reader) -> str:
    """The code in the newest mail."""
    letter = await house.describe(await house.newest_challenge(someone.publisher.live))
    assert (letter.purpose, letter.email, letter.link) == ("email_code", someone.email, "")
    return letter.code


async def purposes(house: AuthHouse, someone: Reader) -> list[str]:
    """The mails to a reader, oldest first."""
    async with house.app.tenant(someone.publisher.live, "read_mails", read_only=True) as conn:
        rows = await conn.fetch("SELECT purpose FROM challenge WHERE subject_id = $1 ORDER BY id", someone.subject)
    return [row["purpose"] for row in rows]
