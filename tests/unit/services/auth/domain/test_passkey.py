"""Where passkeys work, and decoys for who has none."""

from collections import Counter
from uuid import UUID

import pytest

from services.auth.domain.passkey import MOST, RelyingParty, decoys

SECRET = b"s" * 32
ACCOUNT = UUID(int=1)


def test_passkeys_work_on_the_public_url_unless_the_settings_say_otherwise() -> None:
    assert RelyingParty.of("https://id.example.com:8443/x", "", ()) == RelyingParty(
        "id.example.com", ("https://id.example.com:8443",)
    )
    several = ("https://id.example.com", "https://example.com")
    assert RelyingParty.of("https://id.example.com", "example.com", several) == RelyingParty("example.com", several)
    assert RelyingParty.of("http://localhost:8080", "", ()).id == "localhost"


@pytest.mark.parametrize(
    ("url", "chosen", "origins"),
    [
        ("http://id.example.com", "", ()),
        ("https://id.example.com", "other.example", ()),
        ("https://id.example.com", "ample.com", ()),
        ("https://id.example.com", "", ("https://id.example.com/path",)),
        ("https://id.example.com", "", ("https://evil.example",)),
        ("https://id.example.com", "", ("id.example.com",)),
        ("nothing", "", ()),
    ],
)
def test_settings_under_which_no_passkey_would_work_are_refused(
    url: str, chosen: str, origins: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match="passkey_origins"):
        RelyingParty.of(url, chosen, origins)


@pytest.mark.case("auth-21")
def test_decoys_stay_the_same_and_look_like_what_people_have() -> None:
    numbers: Counter[int] = Counter()
    shapes: Counter[tuple[int, tuple[str, ...]]] = Counter()
    for number in range(2000):
        index = number.to_bytes(32, "big")
        found = decoys(SECRET, ACCOUNT, index)
        assert found == decoys(SECRET, ACCOUNT, index)
        assert found != decoys(SECRET, UUID(int=2), index)
        assert found != decoys(b"t" * 32, ACCOUNT, index)
        assert len({one.credential_id for one in found}) == len(found) <= MOST
        numbers[len(found)] += 1
        shapes.update((len(one.credential_id), one.transports) for one in found)
    # Half have one, a quarter two, and any number that somebody may have is somebody's.
    assert 900 < numbers[1] < 1100
    assert 400 < numbers[2] < 600
    assert max(numbers) > 6
    assert {length for length, _ in shapes} == {16, 20, 32, 48, 64}
