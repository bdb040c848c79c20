"""Owns the packed forms: entries of a list, a whole version, and the bundle that gateways enforce of it."""

import hashlib
import zlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from uuid import UUID

from gatefold.gateway.v1 import bundle_pb2
from google.protobuf.message import DecodeError

from libs import errors
from libs.errors import GatefoldError
from services.gateway.domain.bundle import Bundle
from services.gateway.domain.entries import Entry
from services.gateway.domain.register import MOST_LISTS, Contents, Identity
from services.gateway.usecases import present

MOST_UNPACKED_BYTES = 64 * 1024 * 1024
"""Of one list's entries; 200,000 of the longest have less."""
_LEVEL = 3


def packed(entries: Sequence[Entry]) -> bundle_pb2.PackedSet:
    """Returns entries, which come in the order of their texts, in their packed form."""
    ends = [int(end.timestamp()) if end else 0 for _, end in entries]
    said = bundle_pb2.EntrySet(texts=[text for text, _ in entries], ends=ends if any(ends) else ())
    plain = said.SerializeToString(deterministic=True)
    return bundle_pb2.PackedSet(digest=hashlib.sha256(plain).digest(), packed=zlib.compress(plain, _LEVEL))


def unpacked(digest: bytes, data: bytes) -> tuple[Entry, ...]:
    """Returns entries from their packed form; raises `invalid("bundle_damaged")` for anything else."""
    reader = zlib.decompressobj()
    try:
        plain = reader.decompress(data, MOST_UNPACKED_BYTES)
        if reader.unconsumed_tail or not reader.eof or hashlib.sha256(plain).digest() != digest:
            raise damaged()
        said = bundle_pb2.EntrySet.FromString(plain)
    except (zlib.error, DecodeError):
        raise damaged() from None
    if not said.ends:
        return tuple((text, None) for text in said.texts)
    if len(said.ends) != len(said.texts):
        raise damaged()
    try:
        return tuple(
            (text, datetime.fromtimestamp(end, UTC) if end else None)
            for text, end in zip(said.texts, said.ends, strict=True)
        )
    except (ValueError, OverflowError, OSError):
        raise damaged() from None


class EntrySets:
    """Entries by digest: what several versions share is unpacked once."""

    def __init__(self) -> None:
        self._held: dict[bytes, tuple[bytes, tuple[Entry, ...]]] = {}

    def lacking(self, digests: Collection[bytes]) -> list[bytes]:
        """Returns which of these are not held."""
        return [digest for digest in dict.fromkeys(digests) if digest not in self._held]

    def held(self) -> Collection[bytes]:
        """Returns the digests of all that is held."""
        return tuple(self._held)

    def take(self, sets: Mapping[bytes, bytes]) -> None:
        """Unpacks and holds; raises `invalid("bundle_damaged")`."""
        for digest, data in sets.items():
            if digest not in self._held:
                self._held[digest] = (data, unpacked(digest, data))

    def of(self, digest: bytes) -> tuple[Entry, ...]:
        """Returns entries that are held; raises `invalid("bundle_damaged")` for others."""
        if digest not in self._held:
            raise damaged()
        return self._held[digest][1]

    def packed(self, digest: bytes) -> bytes:
        """Returns the packed form of entries that are held."""
        return self._held[digest][0]

    def keep(self, digests: Collection[bytes]) -> None:
        """Lets go of all others."""
        wanted = set(digests)
        self._held = {digest: held for digest, held in self._held.items() if digest in wanted}


@dataclass(frozen=True)
class Opened:
    """A version that was read and is whole."""

    identity: Identity
    bundle: Bundle
    digests: tuple[bytes, ...]


def serialised(contents: Contents) -> bytes:
    """Returns the form whose digest names a version's content."""
    return present.contents(contents).SerializeToString(deterministic=True)


def bundle_of(number: int, made_at: datetime | None, contents: Contents, sets: EntrySets) -> Bundle:
    """Returns what gateways enforce of a version; all its entries are held."""
    return Bundle(
        version=number,
        rules=tuple(held.rule for held in contents.rules),
        lists=tuple(replace(held.list, entries=sets.of(held.digest)) for held in contents.lists),
        quotas=tuple(held.quota for held in contents.quotas),
        overrides=tuple(held.override for held in contents.overrides),
        made_at=made_at,
    )


def opened(snapshot: bundle_pb2.Snapshot, sets: EntrySets) -> Opened:
    """Returns what a snapshot says, together with entries that are held already.

    Raises `invalid("bundle_damaged")` for one that is not whole, or is not what its digest says.
    """
    if hashlib.sha256(snapshot.content).digest() != snapshot.digest or len(snapshot.lineage) != 16:
        raise damaged()
    if snapshot.version < 1 or len(snapshot.sets) > MOST_LISTS:
        raise damaged()
    try:
        content = bundle_pb2.Content.FromString(snapshot.content)
        contents = present.held_contents(content)
        made_at = snapshot.made_at.ToDatetime(tzinfo=UTC)
    except (DecodeError, GatefoldError, ValueError, OverflowError):
        raise damaged() from None
    sets.take({each.digest: each.packed for each in snapshot.sets})
    return Opened(
        Identity(UUID(bytes=snapshot.lineage), snapshot.version, snapshot.digest),
        bundle_of(snapshot.version, made_at, contents, sets),
        tuple(held.digest for held in contents.lists),
    )


def damaged() -> GatefoldError:
    """Returns the refusal of what is not as it was written."""
    return errors.invalid("bundle_damaged", "This version is not whole.")
