"""Passwords against hashes of other systems, made by their own means where there are any."""

import base64
import hashlib

import argon2
import bcrypt
import pytest

from libs.errors import GatefoldError
from services.auth.domain import foreign_hash
from services.auth.domain.password import StoredPassword, work
from services.auth.usecases import foreign_hashes
from services.auth.usecases.passwords import PasswordHasher, WorkMeter

PASSWORD = "Grüße, correct horse"


def django(algorithm: str, iterations: int) -> str:
    digest = hashlib.pbkdf2_hmac(algorithm, PASSWORD.encode(), b"c0ffee", iterations)
    return f"pbkdf2_{algorithm}${iterations}$c0ffee${base64.b64encode(digest).decode()}"


def modular(algorithm: str, iterations: int) -> str:
    def text(raw: bytes) -> str:
        return base64.b64encode(raw).decode().rstrip("=").replace("+", ".")

    digest = hashlib.pbkdf2_hmac(algorithm, PASSWORD.encode(), b"\xfb\xef\xbe" * 5, iterations)
    name = "" if algorithm == "sha1" else f"-{algorithm}"
    return f"$pbkdf2{name}${iterations}${text(b'%c%c%c' % (0xFB, 0xEF, 0xBE) * 5)}${text(digest)}"


HASHES = {
    "bcrypt 2b": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode(),
    "bcrypt 2a": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4, prefix=b"2a")).decode(),
    "bcrypt 2y": bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode().replace("$2b$", "$2y$"),
    "django sha1": django("sha1", 1000),
    "django sha256": django("sha256", 1000),
    "django sha512": django("sha512", 1000),
    "modular sha1": modular("sha1", 1000),
    "modular sha256": modular("sha256", 1000),
    "modular sha512": modular("sha512", 1000),
    "argon2id": argon2.PasswordHasher(time_cost=1, memory_cost=256, parallelism=1).hash(PASSWORD),
}


@pytest.mark.parametrize("name", HASHES)
def test_a_password_is_right_by_the_hash_of_another_system(name: str) -> None:
    stored = foreign_hash.parse(HASHES[name])
    assert foreign_hashes.matches(PASSWORD, stored)
    for wrong in ("", PASSWORD.upper(), PASSWORD + "\0", PASSWORD + " ", "x" * 1024, "\U0001f600" * 1024):
        assert not foreign_hashes.matches(wrong, stored)


# Of the reference implementation (openwall.com/phpass, test.php).
@pytest.mark.parametrize("text", ["$P$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0", "$H$9IQRaTwmfeRo7ud9Fh4E2PdI0S3r.L0"])
def test_a_portable_hash_of_phpass_is_read(text: str) -> None:
    stored = foreign_hash.parse(text)
    assert foreign_hashes.matches("test12345", stored)
    assert not foreign_hashes.matches("test1234", stored)


def test_what_bcrypt_elsewhere_cut_off_is_cut_off_here_too() -> None:
    long = "a" * 72
    stored = foreign_hash.parse(bcrypt.hashpw(long.encode(), bcrypt.gensalt(4)).decode())
    assert foreign_hashes.matches(long + "whatever", stored)


def hasher(cost: int, highest: int = 0) -> tuple[PasswordHasher, WorkMeter]:
    meter = WorkMeter()
    peppers = {"2": b"the newer pepper", "1": b"the older pepper"}
    made = PasswordHasher(peppers, cost=cost, highest_cost=highest, cores=1, queue=8, meter=meter)
    return made, meter


@pytest.mark.parametrize("name", HASHES)
async def test_a_failure_costs_the_same_whoever_hashed_it(name: str) -> None:
    made, meter = hasher(6)
    stored = made.keep(HASHES[name])
    assert HASHES[name] not in str(vars(stored))
    assert HASHES[name][-20:] not in base64.b64decode(stored.hash).decode("latin1")
    assert not (await made.verify("wrong", stored)).matches
    assert meter.units == work(6)
    verdict = await made.verify(PASSWORD, stored)
    assert (verdict.matches, verdict.stale) == (True, True)
    made.close()


async def test_a_hash_that_takes_more_work_than_any_other_failure_is_refused() -> None:
    dear = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(6)).decode()
    made, _ = hasher(5)
    with pytest.raises(GatefoldError, match="hash_too_costly"):
        made.keep(dear)
    raised, meter = hasher(5, highest=6)
    assert not (await raised.verify("wrong", raised.keep(dear))).matches
    assert meter.units == work(6)
    made.close()
    raised.close()


async def test_a_hash_sealed_with_a_pepper_that_is_gone_is_right_for_no_password_at_the_same_work() -> None:
    made, meter = hasher(4)
    stored = made.keep(HASHES["bcrypt 2b"])
    gone = StoredPassword(stored.scheme, stored.params, "0", stored.hash)
    assert not (await made.verify(PASSWORD, gone)).matches
    assert meter.units == work(4)
    made.close()
