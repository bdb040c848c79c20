"""Owns the JSON schemas (2020-12) of messages: one for what is sent, one for what is answered."""

from collections.abc import Sequence
from typing import Any

from google.protobuf.descriptor import Descriptor

from libs.codecs import values
from libs.codecs.shapes import MAX_KEY_LENGTH, Field, Kind, Shape, enum_names, fields_of
from services.gateway.http.contracts import Endpoint
from services.gateway.http.openapi.comments import Comments

Schema = dict[str, Any]


class Schemas:
    """Collects the schemas that operations refer to."""

    def __init__(self, comments: Comments, endpoints: Sequence[Endpoint]) -> None:
        self._comments = comments
        self._answered = _closure(endpoint.response for endpoint in endpoints if not endpoint.raw_response)
        self.components: dict[str, Schema] = {}

    def answer(self, message: Descriptor) -> Schema:
        """Returns a reference to the schema of a message in an answer: every field is there."""
        name = message.name
        if name not in self.components:
            self.components[name] = {}
            fields = [field for field in fields_of(message) if field.shape.kind is not Kind.RAW]
            self.components[name] = self._object(
                message, {field.name: self._answered_field(field) for field in fields}, [f.name for f in fields]
            )
        return _reference(name)

    def sent(self, message: Descriptor) -> Schema:
        """Returns a reference to the schema of a message within a request."""
        name = f"{message.name}Input" if message.full_name in self._answered else message.name
        if name not in self.components:
            self.components[name] = {}
            self.components[name] = self._sent_object(message, fields_of(message))
        return _reference(name)

    def body(self, endpoint: Endpoint) -> Schema:
        """Returns a reference to the schema of an endpoint's JSON body."""
        if endpoint.body != "*":
            return self.sent_field(endpoint.field(endpoint.body))
        name = endpoint.request.name
        self.components[name] = self._sent_object(endpoint.request, endpoint.body_fields)
        return _reference(name)

    def sent_field(self, field: Field) -> Schema:
        """Returns the schema of a field in a request."""
        schema = self._collected(field, self._ruled(field))
        if field.rule.secret:
            schema["writeOnly"] = True
        return self._described(field, schema)

    def _sent_object(self, message: Descriptor, fields: Sequence[Field]) -> Schema:
        usable = [field for field in fields if field.shape.kind is not Kind.RAW]
        required = [field.name for field in usable if field.required]
        schema = self._object(message, {field.name: self.sent_field(field) for field in usable}, required)
        schema["additionalProperties"] = False
        return schema

    def _object(self, message: Descriptor, properties: Schema, required: list[str]) -> Schema:
        schema: Schema = {"type": "object"}
        if text := self._comments.of(message.full_name):
            schema["description"] = text
        schema["properties"] = properties
        if required:
            schema["required"] = required
        return schema

    def _answered_field(self, field: Field) -> Schema:
        schema = self._value(field.shape, self.answer)
        if field.repeated:
            schema = {"type": "array", "items": schema}
        elif field.key is not None:
            schema = {"type": "object", "additionalProperties": schema}
        elif field.presence or (field.shape.enum is not None and 0 not in enum_names(field.shape.enum)):
            schema = _nullable(schema)
        return self._described(field, schema)

    def _ruled(self, field: Field) -> Schema:
        """Returns the schema of a field's value, or of each of its items, with the rule that it must satisfy."""
        schema, rule = self._value(field.shape, self.sent), field.rule
        if field.shape.kind is Kind.TEXT:
            if field.min_length:
                schema["minLength"] = field.min_length
            schema["maxLength"] = field.max_length
            pattern = rule.pattern or (values.id_pattern(rule.id_prefix) if rule.id_prefix else "")
            if pattern:
                # A text may be empty where that counts as not given.
                schema["pattern"] = f"^(?:{pattern})?$" if field.skips_default else f"^(?:{pattern})$"
            if rule.id_prefix:
                schema["examples"] = [f"{rule.id_prefix}_01h455vb4pex5vsknk084sn02q"]
            if allowed := list(getattr(rule, "in")):
                schema["enum"] = allowed
            if rule.email or rule.uri:
                schema["format"] = "email" if rule.email else "uri"
        if rule.HasField("gte"):
            schema["minimum"] = rule.gte
        if rule.HasField("lte"):
            schema["maximum"] = rule.lte
        return schema

    def _collected(self, field: Field, item: Schema) -> Schema:
        if field.repeated:
            schema: Schema = {"type": "array", "items": item, "maxItems": field.max_items}
            if field.min_items:
                schema["minItems"] = field.min_items
            if field.rule.unique:
                schema["uniqueItems"] = True
            return schema
        if field.key is not None:
            return {
                "type": "object",
                "additionalProperties": item,
                "propertyNames": {"maxLength": MAX_KEY_LENGTH},
                "maxProperties": field.max_items,
            }
        return item

    def _described(self, field: Field, schema: Schema) -> Schema:
        text = self._comments.of(field.descriptor.full_name)
        if field.shape.enum is not None:
            values_text = self._values_text(field)
            text = f"{text}\n\n{values_text}" if values_text else text
        if text:
            schema["description"] = text
        return schema

    def _values_text(self, field: Field) -> str:
        enum = field.shape.enum
        if enum is None:
            return ""
        names = enum_names(enum)
        return "\n".join(
            f"- `{names[value.number]}`: {self._comments.of(f'{enum.full_name}.{value.name}')}"
            for value in enum.values
            if value.number in names
        )

    def _value(self, shape: Shape, reference: Any) -> Schema:
        match shape.kind:
            case Kind.TEXT:
                return {"type": "string"}
            case Kind.BOOL:
                return {"type": "boolean"}
            case Kind.INTEGER:
                return {"type": "integer", "format": "int64" if shape.wide else "int32"}
            case Kind.FLOAT | Kind.DOUBLE:
                return {"type": "number", "format": shape.kind.value}
            case Kind.BYTES:
                return {"type": "string", "contentEncoding": "base64"}
            case Kind.TIMESTAMP:
                return {"type": "string", "format": "date-time"}
            case Kind.DURATION:
                return {"type": "string", "pattern": r"^-?\d{1,12}(\.\d{1,9})?s$"}
            case Kind.ENUM if shape.enum is not None:
                return {"type": "string", "enum": list(enum_names(shape.enum).values())}
        schema: Schema = reference(shape.message)
        return schema


def _nullable(schema: Schema) -> Schema:
    if "$ref" in schema:
        return {"anyOf": [schema, {"type": "null"}]}
    nullable = {**schema, "type": [schema["type"], "null"]}
    if "enum" in schema:
        nullable["enum"] = [*schema["enum"], None]
    return nullable


def _reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _closure(messages: Any) -> frozenset[str]:
    """Returns the full names of messages and of all within them."""
    found: set[str] = set()
    waiting = list(messages)
    while waiting:
        message = waiting.pop()
        if message.full_name not in found:
            found.add(message.full_name)
            waiting += [
                field.shape.message
                for field in fields_of(message)
                if field.shape.kind is Kind.MESSAGE and field.shape.message is not None
            ]
    return frozenset(found)
