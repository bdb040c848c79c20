"""Owns remembering every secret that went over the wire, and finding it where it may not be."""

from collections.abc import Iterator

from gatefold.edge.v1 import policy_pb2
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

LEAST_LENGTH = 12
"""Shorter ones, codes of six or eight digits, stand in times and counts by chance."""


class Secrecy:
    """The values of fields that the contracts mark `secret`."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()

    def note(self, message: Message) -> None:
        """Remembers what is secret in a request or an answer."""
        self._secrets.update(value for value in _secrets(message) if len(value) >= LEAST_LENGTH)

    def check(self, text: str, place: str) -> None:
        """Raises AssertionError, without the secret, when one of them stands in a text."""
        found = sum(secret in text for secret in self._secrets)
        assert not found, f"{found} secrets stand in {place}"


def _secrets(message: Message) -> Iterator[str]:
    for field, value in message.ListFields():
        values = list(value) if field.is_repeated else [value]
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            if field.message_type.GetOptions().map_entry:
                continue
            for each in values:
                yield from _secrets(each)
        elif field.GetOptions().Extensions[policy_pb2.rule].secret:
            yield from (each for each in values if isinstance(each, str))
