"""Which password hashes of other systems are read, and what each costs."""

import pytest

from libs.errors import GatefoldError
from services.auth.domain import foreign_hash

B64 = "A" * 43


@pytest.mark.parametrize(
    ("text", "scheme", "params", "units"),
    [
        ("$2y$10$" + "a" * 53, "bcrypt", "cost=10", 1024),
        ("$2a$04$" + "a" * 53, "bcrypt", "cost=4", 16),
        ("$P$B" + "a" * 8 + "b" * 22, "phpass", "rounds=13", 112),
        ("$H$9" + "a" * 8 + "b" * 22, "phpass", "rounds=11", 32),
        (f"pbkdf2_sha256$600000$salt${B64}=", "pbkdf2-sha256", "i=600000", 2400),
        (f"$pbkdf2-sha256$29000$saltsalt${B64}", "pbkdf2-sha256", "i=29000", 112),
        (f"$pbkdf2$i=1000$saltsalt${'a' * 27}", "pbkdf2-sha1", "i=1000", 16),
        (f"$pbkdf2-sha512$i=210000,l=64$saltsalt${'a' * 86}", "pbkdf2-sha512", "i=210000", 2464),
        (f"$argon2id$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ${B64}", "argon2id", "m=65536,t=3,p=4", 3280),
        (f"argon2$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ${B64}", "argon2id", "m=19456,t=2,p=1", 656),
    ],
)
def test_hashes_of_other_systems_are_read_with_their_work(text: str, scheme: str, params: str, units: int) -> None:
    read = foreign_hash.parse(text)
    assert (read.scheme, read.params, read.units) == (scheme, params, units)
    assert read.units % 16 == 0


@pytest.mark.parametrize(
    "text",
    [
        "$2y$15$" + "a" * 53,
        "$2b$31$" + "a" * 53,
        "$P$S" + "a" * 8 + "b" * 22,
        f"pbkdf2_sha256$999999999$salt${B64}=",
        f"$pbkdf2-sha512$2000001$saltsalt${'a' * 86}",
        f"$argon2id$v=19$m=4194304,t=3,p=4$c2FsdHNhbHQ${B64}",
        f"$argon2id$v=19$m=65536,t=999,p=4$c2FsdHNhbHQ${B64}",
        f"$argon2id$v=19$m=65536,t=3,p=255$c2FsdHNhbHQ${B64}",
    ],
)
def test_a_hash_whose_parameters_ask_for_too_much_is_refused(text: str) -> None:
    with pytest.raises(GatefoldError, match="hash_too_costly"):
        foreign_hash.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "hunter2",
        "5f4dcc3b5aa765d61d8327deb882cf99",
        "$2x$10$" + "a" * 53,
        "$2b$03$" + "a" * 53,
        "$2b$99$" + "a" * 53,
        "$2b$10$" + "a" * 53 + "\n",
        "$P$0" + "a" * 8 + "b" * 22,
        f"pbkdf2_sha256$0$salt${B64}=",
        f"pbkdf2_sha256$1000$salt${'A' * 60}",
        f"pbkdf2_md5$1000$salt${B64}=",
        "pbkdf2_sha256$1000$salt$not base 64 at all!!",
        f"$argon2i$v=19$m=65536,t=3,p=4$c2FsdHNhbHQ${B64}",
        f"$argon2id$v=16$m=65536,t=3,p=4$c2FsdHNhbHQ${B64}",
        f"$argon2id$v=19$m=8,t=3,p=4$c2FsdHNhbHQ${B64}",
        f"$argon2id$v=19$m=65536,t=0,p=4$c2FsdHNhbHQ${B64}",
        "x" * 10_000,
    ],
)
def test_what_is_none_of_these_is_refused(text: str) -> None:
    with pytest.raises(GatefoldError, match="hash_unknown"):
        foreign_hash.parse(text)


@pytest.mark.parametrize("units", [16, 32, 112, 1024, 2400, 3280, 4080])
def test_the_rest_makes_exactly_the_work_of_any_other_failure(units: int) -> None:
    costs = foreign_hash.remaining(units, 4096)
    assert units + sum(1 << cost for cost in costs) == 4096
    assert all(cost >= 4 for cost in costs), "bcrypt has no lower cost"
    assert foreign_hash.remaining(4096, 4096) == []
