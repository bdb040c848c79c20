"""Owns the comments of the contracts, which are the text of the API reference."""

from collections.abc import Iterable, Iterator

from google.protobuf import descriptor_pb2

# Field numbers within descriptor.proto, of which source locations' paths are made.
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_MESSAGE_FIELDS, _MESSAGE_MESSAGES, _MESSAGE_ENUMS = 2, 3, 4
_ENUM_VALUES = 2
_SERVICE_METHODS = 2

Path = tuple[int, ...]


class Comments:
    """Leading comments by full name."""

    def __init__(self, files: descriptor_pb2.FileDescriptorSet) -> None:
        self._comments: dict[str, str] = {}
        for file in files.file:
            texts = {tuple(place.path): place.leading_comments for place in file.source_code_info.location}
            for name, path in _names(file):
                if text := texts.get(path):
                    self._comments[name] = " ".join(line.strip() for line in text.strip().splitlines()).strip()

    def of(self, full_name: str) -> str:
        """Returns the comment of a message, field, enum, value, service or method; empty when there is none."""
        return self._comments.get(full_name, "")


def _names(file: descriptor_pb2.FileDescriptorProto) -> Iterator[tuple[str, Path]]:
    yield from _messages(file.package, (_FILE_MESSAGES,), file.message_type)
    yield from _enums(file.package, (_FILE_ENUMS,), file.enum_type)
    for index, service in enumerate(file.service):
        name = f"{file.package}.{service.name}"
        yield name, (_FILE_SERVICES, index)
        for at, method in enumerate(service.method):
            yield f"{name}.{method.name}", (_FILE_SERVICES, index, _SERVICE_METHODS, at)


def _messages(scope: str, path: Path, messages: Iterable[descriptor_pb2.DescriptorProto]) -> Iterator[tuple[str, Path]]:
    for index, message in enumerate(messages):
        name, own = f"{scope}.{message.name}", (*path, index)
        yield name, own
        for at, field in enumerate(message.field):
            yield f"{name}.{field.name}", (*own, _MESSAGE_FIELDS, at)
        yield from _messages(name, (*own, _MESSAGE_MESSAGES), message.nested_type)
        yield from _enums(name, (*own, _MESSAGE_ENUMS), message.enum_type)


def _enums(scope: str, path: Path, enums: Iterable[descriptor_pb2.EnumDescriptorProto]) -> Iterator[tuple[str, Path]]:
    for index, enum in enumerate(enums):
        name, own = f"{scope}.{enum.name}", (*path, index)
        yield name, own
        for at, value in enumerate(enum.value):
            # A value's full name does not hold its enum's; told apart here by it.
            yield f"{name}.{value.name}", (*own, _ENUM_VALUES, at)
