"""Owns the generated response functions: a message becomes a plain dict, which orjson writes."""

import keyword
from collections.abc import Callable
from typing import cast

import orjson
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message

from libs.codecs import values
from libs.codecs.shapes import Field, Kind, Shape, UnsupportedMessageError, enum_names, fields_of
from libs.codecs.source import Source

ResponseRenderer = Callable[[Message], bytes]

_RUNTIME = {
    function.__name__: function
    for function in (
        values.first,
        values.from_double,
        values.from_float,
        values.from_integer,
        values.from_bytes,
        values.from_timestamp,
        values.from_duration,
        values.map_key,
    )
}


class ResponseCodecs:
    """Makes renderers, one per message type, and the types within it."""

    def __init__(self) -> None:
        self._source = Source(_RUNTIME)
        self._renders: dict[str, str] = {}
        self._enums: dict[str, str] = {}
        self._renderers: dict[str, ResponseRenderer] = {}

    def renderer(self, descriptor: Descriptor) -> ResponseRenderer:
        """Returns a function from a message of this type to JSON; raises UnsupportedMessageError."""
        made = self._renderers.get(descriptor.full_name)
        if made is not None:
            return made
        name = self._render(descriptor)
        self._source.run(descriptor.full_name)
        render: Callable[[Message], dict[str, object]] = self._source.namespace[name]

        def write(message: Message) -> bytes:
            return orjson.dumps(render(message))

        self._renderers[descriptor.full_name] = write
        return write

    def json(self, message: Message) -> bytes:
        """Returns a message as JSON."""
        # The stubs' own descriptor and the runtime's are one at run time.
        return self.renderer(cast("Descriptor", message.DESCRIPTOR))(message)

    def _render(self, descriptor: Descriptor) -> str:
        name = self._renders.get(descriptor.full_name)
        if name is not None:
            return name
        name = self._renders[descriptor.full_name] = f"render_{descriptor.full_name.replace('.', '_')}"
        fields = [field for field in fields_of(descriptor) if field.shape.kind is not Kind.RAW]
        for field in fields:
            if field.shape.message is not None and field.shape.kind is Kind.MESSAGE:
                self._render(field.shape.message)
        with self._source.block(f"def {name}(m):"), self._source.block("return {"):
            for field in fields:
                self._source.line(f"{field.name!r}: {self._field(field)},")
            self._source.line("}")
        return name

    def _field(self, field: Field) -> str:
        value = f"getattr(m, {field.name!r})" if keyword.iskeyword(field.name) else f"m.{field.name}"
        if field.key is not None:
            key = "k" if field.key.kind is Kind.TEXT else "map_key(k)"
            # The order of a map is not defined; that of an answer is.
            return f"{{{key}: {self._value(field.shape, 'x')} for k, x in sorted({value}.items(), key=first)}}"
        if field.repeated:
            if field.shape.kind in (Kind.TEXT, Kind.BOOL) or (
                field.shape.kind is Kind.INTEGER and not field.shape.wide
            ):
                return f"list({value})"
            return f"[{self._value(field.shape, 'x')} for x in {value}]"
        written = self._value(field.shape, value)
        return f"{written} if m.HasField({field.name!r}) else None" if field.presence else written

    def _value(self, shape: Shape, value: str) -> str:
        match shape.kind:
            case Kind.TEXT | Kind.BOOL:
                return value
            case Kind.INTEGER:
                return f"from_integer({value})" if shape.wide else value
            case Kind.BYTES | Kind.DOUBLE | Kind.FLOAT | Kind.TIMESTAMP | Kind.DURATION:
                return f"from_{shape.kind.value}({value})"
            case Kind.ENUM:
                return f"{self._enum(shape)}.get({value}, {value})"
            case Kind.MESSAGE if shape.message is not None:
                return f"{self._renders[shape.message.full_name]}({value})"
        raise UnsupportedMessageError(f"{shape.kind.value} cannot stand within an answer")

    def _enum(self, shape: Shape) -> str:
        if shape.enum is None:
            raise UnsupportedMessageError("no enum")
        name = self._enums.get(shape.enum.full_name)
        if name is None:
            names: dict[int, str | None] = dict(enum_names(shape.enum))
            names.setdefault(0, None)
            name = self._enums[shape.enum.full_name] = self._source.constant(names)
        return name
