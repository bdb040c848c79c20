"""Owns the generated request functions: JSON values are checked and put into a message in one pass."""

import keyword
import re
from collections.abc import Callable

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from libs import errors
from libs.codecs import values
from libs.codecs.shapes import (
    MAX_KEY_LENGTH,
    Field,
    Kind,
    Shape,
    UnsupportedMessageError,
    enum_names,
    fields_of,
)
from libs.codecs.source import Source

MAX_VIOLATIONS = 20
"""Violations that one problem lists."""
MAX_DEPTH = 64
"""Messages within messages."""

RequestParser = Callable[[object], Message]
Fill = Callable[[Message, object, list[list[str]], int], None]

_RUNTIME = {
    function.__name__: function
    for function in (
        values.to_integer,
        values.to_double,
        values.to_float,
        values.to_bytes,
        values.to_timestamp,
        values.to_duration,
        values.to_bool_key,
        values.is_email,
        values.is_uri,
        values.within,
        values.unknown_fields,
    )
}


class RequestCodecs:
    """Makes parsers, one per message type, and the types within it."""

    def __init__(self) -> None:
        self._source = Source(_RUNTIME)
        self._fills: dict[str, str] = {}

    def parser(self, descriptor: Descriptor) -> RequestParser:
        """Returns a function from a decoded JSON value to a message of this type.

        The function raises `invalid("request_invalid")` with up to 20 violations. Raises UnsupportedMessageError.
        """
        name = self._fill(descriptor)
        self._source.run(descriptor.full_name)
        fill: Fill = self._source.namespace[name]
        new = GetMessageClass(descriptor)

        def parse(value: object) -> Message:
            message = new()
            violations: list[list[str]] = []
            fill(message, value, violations, 0)
            if violations:
                raise refused(violations)
            return message

        return parse

    def _fill(self, descriptor: Descriptor) -> str:
        name = self._fills.get(descriptor.full_name)
        if name is not None:
            return name
        name = self._fills[descriptor.full_name] = f"fill_{descriptor.full_name.replace('.', '_')}"
        fields = [field for field in fields_of(descriptor) if field.shape.kind is not Kind.RAW]
        # Functions of the types within are written first: a function is not opened within another.
        for field in fields:
            if field.shape.kind is Kind.MESSAGE and field.shape.message is not None:
                self._fill(field.shape.message)
        source = self._source
        known = source.constant(frozenset(field.name for field in fields))
        with source.block(f"def {name}(message, value, out, depth):"):
            with source.block("if type(value) is not dict:"):
                source.line("out.append(['', 'type', 'This must be an object.'])")
                source.line("return")
            with source.block(f"if depth > {MAX_DEPTH}:"):
                source.line("out.append(['', 'depth', 'This is nested too deeply.'])")
                source.line("return")
            with source.block(f"if not {known}.issuperset(value):"):
                source.line(f"unknown_fields(value, {known}, out)")
            self._oneofs(fields)
            for field in fields:
                self._field(field)
        return name

    def _oneofs(self, fields: list[Field]) -> None:
        groups: dict[str, list[str]] = {}
        for field in fields:
            if field.oneof:
                groups.setdefault(field.oneof, []).append(field.name)
        for members in groups.values():
            given = " + ".join(f"(value.get({name!r}) is not None)" for name in members)
            with self._source.block(f"if {given} > 1:"):
                self._violation(repr(members[0]), "oneof", f"Only one of {', '.join(members)} may be given.")

    def _field(self, field: Field) -> None:
        source = self._source
        source.line(f"v = value.get({field.name!r})")
        with source.block("if v is None:"):
            if field.required:
                self._violation(repr(field.name), "required", "This is required.")
            else:
                source.line("pass")
        if field.repeated:
            self._list(field)
        elif field.key is not None:
            self._map(field, field.key)
        else:
            with source.block("else:"):
                self._value(field, field.shape, repr(field.name), _assigning(field))

    def _list(self, field: Field) -> None:
        source = self._source
        at, target = repr(field.name), _member(field)
        with source.block("elif type(v) is not list:"):
            self._violation(at, "type", "This must be a list.")
        self._item_counts(field, at)
        with source.block("else:"):
            source.line(f"target = {target}")
            with source.block("for i, v in enumerate(v):"):
                self._value(field, field.shape, f"f'{field.name}[{{i}}]'", _appending(field.shape))
            if field.rule.unique:
                if field.shape.kind in (Kind.MESSAGE, Kind.TIMESTAMP, Kind.DURATION):
                    raise UnsupportedMessageError(f"{field.descriptor.full_name}: unique is not for messages")
                with source.block("if len(set(target)) != len(target):"):
                    self._violation(at, "unique", "No item may come twice.")

    def _map(self, field: Field, key: Shape) -> None:
        source = self._source
        at = repr(field.name)
        with source.block("elif type(v) is not dict:"):
            self._violation(at, "type", "This must be an object.")
        self._item_counts(field, at)
        with source.block("else:"):
            source.line(f"target = {_member(field)}")
            with source.block("for text, v in v.items():"):
                source.line(f"at = f'{field.name}.{{text[:100]}}'")
                with source.block(f"if len(text) > {MAX_KEY_LENGTH} or '\\0' in text:"):
                    self._violation("at", "key", f"A key has at most {MAX_KEY_LENGTH} characters, none of them NUL.")
                    source.line("continue")
                source.line("k = text")
                if key.kind is not Kind.TEXT:
                    convert = "to_bool_key" if key.kind is Kind.BOOL else "to_integer"
                    source.line(f"k = {convert}(text)")
                    bounds = "" if key.kind is Kind.BOOL else f" or not {key.low} <= k <= {key.high}"
                    with source.block(f"if k is None{bounds}:"):
                        self._violation("at", "key", "The key is not of the map's type.")
                        source.line("continue")
                self._value(field, field.shape, "at", _putting(field.shape))

    def _item_counts(self, field: Field, at: str) -> None:
        with self._source.block(f"elif len(v) > {field.max_items}:"):
            self._violation(at, "max_items", f"This has at most {field.max_items} items.")
        if field.min_items:
            with self._source.block(f"elif len(v) < {field.min_items}:"):
                self._violation(at, "min_items", f"This has at least {field.min_items} items.")

    def _value(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        write = {
            Kind.TEXT: self._text,
            Kind.BYTES: self._bytes,
            Kind.BOOL: self._bool,
            Kind.INTEGER: self._integer,
            Kind.FLOAT: self._number,
            Kind.DOUBLE: self._number,
            Kind.ENUM: self._enum,
            Kind.TIMESTAMP: self._time,
            Kind.DURATION: self._time,
            Kind.MESSAGE: self._message,
        }.get(shape.kind)
        if write is None:
            raise UnsupportedMessageError(f"{field.descriptor.full_name}: a raw body cannot be repeated")
        write(field, shape, at, store)

    def _text(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        source, rule = self._source, field.rule
        self._when("if type(v) is not str:", at, "type", "This must be a text.")
        if field.skips_default:
            with source.block("elif not v:"):
                source.line("pass")
        longest, shortest = field.max_length, field.min_length
        self._when(f"elif len(v) > {longest}:", at, "max_len", f"This has at most {longest} characters.")
        if shortest:
            detail = f"This has at least {shortest} characters." if shortest > 1 else "This must not be empty."
            self._when(f"elif len(v) < {shortest}:", at, "min_len", detail)
        self._when("elif '\\0' in v:", at, "characters", "This must not contain the character U+0000.")
        if rule.pattern:
            pattern = source.constant(re.compile(rule.pattern))
            self._when(f"elif not {pattern}.fullmatch(v):", at, "pattern", f"This must match {rule.pattern}")
        if rule.id_prefix:
            pattern = source.constant(re.compile(values.id_pattern(rule.id_prefix)))
            detail = f"This must be an identifier that starts with {rule.id_prefix}_."
            self._when(f"elif not {pattern}.fullmatch(v):", at, "id_prefix", detail)
        if allowed := list(getattr(rule, "in")):
            name = source.constant(frozenset(allowed))
            self._when(f"elif v not in {name}:", at, "in", f"This must be one of {', '.join(allowed)}.")
        if rule.email:
            self._when("elif not is_email(v):", at, "email", "This must be an e-mail address.")
        if rule.uri:
            self._when("elif not is_uri(v):", at, "uri", "This must be an absolute http or https address.")
        self._else(store)

    def _bytes(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        self._source.line("v = to_bytes(v)")
        self._when("if v is None:", at, "type", "This must be bytes in base64.")
        if longest := field.max_length:
            self._when(f"elif len(v) > {longest}:", at, "max_len", f"This has at most {longest} bytes.")
        if shortest := field.min_length:
            detail = f"This has at least {shortest} bytes."
            self._when(f"elif len(v) < {shortest}:", at, "min_len", detail)
        self._else(store)

    def _bool(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        self._when("if v is not True and v is not False:", at, "type", "This must be true or false.")
        self._else(store)

    def _integer(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        source = self._source
        with source.block("if type(v) is not int:"):
            source.line("v = to_integer(v)")
        self._when("if v is None:", at, "type", "This must be a whole number.")
        detail = f"This must be a whole number from {shape.low} to {shape.high}."
        self._when(f"elif not {shape.low} <= v <= {shape.high}:", at, "range", detail)
        self._bounds(field, at)
        self._else(store)

    def _number(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        self._source.line("v = to_float(v)" if shape.kind is Kind.FLOAT else "v = to_double(v)")
        self._when("if v is None:", at, "type", "This must be a number.")
        self._bounds(field, at)
        self._else(store)

    def _bounds(self, field: Field, at: str) -> None:
        rule = field.rule
        if field.skips_default and (rule.HasField("gte") or rule.HasField("lte")):
            with self._source.block("elif v == 0:"):
                for line in _assigning(field):
                    self._source.line(line)
        # Written as what is allowed, so that NaN is not.
        if rule.HasField("gte"):
            self._when(f"elif not v >= {rule.gte}:", at, "gte", f"This must be at least {rule.gte}.")
        if rule.HasField("lte"):
            self._when(f"elif not v <= {rule.lte}:", at, "lte", f"This must be at most {rule.lte}.")

    def _enum(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        if shape.enum is None:
            raise UnsupportedMessageError(f"{field.descriptor.full_name}: no enum")
        numbers = {name: number for number, name in enum_names(shape.enum).items()}
        table = self._source.constant(numbers)
        self._source.line(f"v = {table}.get(v) if type(v) is str else None")
        self._when("if v is None:", at, "in", f"This must be one of {', '.join(numbers)}.")
        self._else(store)

    def _time(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        if shape.kind is Kind.TIMESTAMP:
            convert, detail = "to_timestamp", "This must be an RFC 3339 time, for example 2026-11-01T09:00:00Z."
        else:
            convert, detail = "to_duration", "This must be a duration in seconds, for example 3.5s."
        self._source.line(f"v = {convert}(v)")
        self._when("if v is None:", at, shape.kind.value, detail)
        self._else(store)

    def _message(self, field: Field, shape: Shape, at: str, store: list[str]) -> None:
        if shape.message is None:
            raise UnsupportedMessageError(f"{field.descriptor.full_name}: no message")
        source = self._source
        for line in store:
            source.line(line)
        source.line("n = len(out)")
        source.line(f"{self._fills[shape.message.full_name]}(inner, v, out, depth + 1)")
        with source.block("if len(out) != n:"):
            source.line(f"within(out, n, {at})")

    def _when(self, opening: str, at: str, rule: str, detail: str) -> None:
        with self._source.block(opening):
            self._violation(at, rule, detail)

    def _else(self, store: list[str]) -> None:
        with self._source.block("else:"):
            for line in store:
                self._source.line(line)

    def _violation(self, at: str, rule: str, detail: str) -> None:
        self._source.line(f"out.append([{at}, {rule!r}, {detail!r}])")


def refused(violations: list[list[str]]) -> errors.GatefoldError:
    """Returns the error for a request with these violations (field, rule, detail)."""
    return errors.invalid(
        "request_invalid",
        "The request has fields that break a rule; each is listed in `errors`.",
        violations=[errors.Violation(*violation) for violation in violations[:MAX_VIOLATIONS]],
    )


_TIMES = (Kind.TIMESTAMP, Kind.DURATION)


def _assigning(field: Field) -> list[str]:
    if field.shape.kind is Kind.MESSAGE:
        return [f"inner = {_member(field)}", "inner.SetInParent()"]
    if field.shape.kind in _TIMES:
        return [f"inner = {_member(field)}", "inner.SetInParent()", "inner.seconds, inner.nanos = v"]
    if keyword.iskeyword(field.name):
        return [f"setattr(message, {field.name!r}, v)"]
    return [f"message.{field.name} = v"]


def _member(field: Field) -> str:
    return f"getattr(message, {field.name!r})" if keyword.iskeyword(field.name) else f"message.{field.name}"


def _appending(shape: Shape) -> list[str]:
    if shape.kind is Kind.MESSAGE:
        return ["inner = target.add()"]
    if shape.kind in _TIMES:
        return ["inner = target.add()", "inner.seconds, inner.nanos = v"]
    return ["target.append(v)"]


def _putting(shape: Shape) -> list[str]:
    if shape.kind is Kind.MESSAGE:
        return ["inner = target[k]"]
    if shape.kind in _TIMES:
        return ["inner = target[k]", "inner.seconds, inner.nanos = v"]
    return ["target[k] = v"]
