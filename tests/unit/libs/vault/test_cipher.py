"""The ciphertext format: what opens, and what must not."""

import os
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from libs.vault.cipher import OVERHEAD_BYTES, Cipher, DamagedError, KeyDestroyed

ACCOUNT, OTHER_ACCOUNT = UUID(int=1), UUID(int=2)
KEY = AESGCM(b"k" * 32)
UUIDS = st.integers(min_value=0, max_value=2**128 - 1).map(lambda number: UUID(int=number))
NUMBERS = st.integers(min_value=1, max_value=2**16 - 1)


def a_cipher(account: UUID = ACCOUNT, versions: tuple[int, ...] = (1,)) -> Cipher:
    return Cipher(account, dict.fromkeys(versions, KEY), os.urandom)


@given(NUMBERS, NUMBERS, UUIDS, st.binary(max_size=2_000))
def test_what_was_sealed_opens_at_its_place(table: int, field: int, row: UUID, plaintext: bytes) -> None:
    sealed = a_cipher().seal(table, field, row, plaintext)
    assert a_cipher().open(table, field, row, sealed) == plaintext
    assert len(sealed) == len(plaintext) + OVERHEAD_BYTES


Place = tuple[UUID, int, int, UUID]
PLACES = st.tuples(st.sampled_from([ACCOUNT, OTHER_ACCOUNT]), NUMBERS, NUMBERS, UUIDS)


@given(PLACES, PLACES)
def test_what_was_sealed_opens_nowhere_else(here: Place, there: Place) -> None:
    sealed = a_cipher(here[0]).seal(*here[1:], b"reader@example.com")
    if here == there:
        return
    with pytest.raises(DamagedError):
        a_cipher(there[0]).open(*there[1:], sealed)


@given(st.data())
def test_a_flipped_bit_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(a_cipher().seal(201, 1, UUID(int=9), b"reader@example.com"))
    bit = data.draw(st.integers(min_value=0, max_value=len(sealed) * 8 - 1))
    sealed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DamagedError):
        a_cipher(versions=(1, 2, 3, 5)).open(201, 1, UUID(int=9), bytes(sealed))


@given(st.binary(min_size=1, max_size=100))
def test_bytes_that_were_never_sealed_do_not_open(garbage: bytes) -> None:
    with pytest.raises(DamagedError):
        a_cipher().open(201, 1, UUID(int=9), garbage)


def test_the_same_value_is_never_sealed_to_the_same_bytes() -> None:
    cipher = a_cipher()
    sealed = {cipher.seal(201, 1, UUID(int=9), b"same") for _ in range(100)}
    assert len(sealed) == 100


def test_values_of_older_key_versions_still_open_and_new_ones_take_the_newest() -> None:
    older = a_cipher(versions=(1,)).seal(201, 1, UUID(int=9), b"old")
    both = a_cipher(versions=(1, 2))
    assert both.open(201, 1, UUID(int=9), older) == b"old"
    newer = both.seal(201, 1, UUID(int=9), b"new")
    with pytest.raises(DamagedError):
        a_cipher(versions=(1,)).open(201, 1, UUID(int=9), newer)


def test_an_emptied_value_says_that_the_person_was_erased() -> None:
    with pytest.raises(KeyDestroyed) as erased:
        a_cipher().open(201, 1, UUID(int=9), b"")
    assert erased.value.reason == "subject_erased"
