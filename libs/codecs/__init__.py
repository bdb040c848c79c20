"""Owns the codecs between JSON and protobuf: one generated Python function per message type and direction.

They follow proto3's JSON mapping (google.protobuf.json_format is the reference in their tests) except that:

- names are the proto's own (snake_case), in both directions;
- an enum value is its lower-case name without the type's prefix (`month` for INTERVAL_MONTH); the zero value
  `…_UNSPECIFIED` is null and cannot be sent;
- 64-bit integers are written as numbers while their magnitude is below 2^53, and as texts beyond; both are read;
- every field is written; what is absent (messages, `optional` fields, members of a oneof) is written as null;
- texts with U+0000 are refused, numbers in a text must be plain decimals, base64 must be well formed.
"""

from libs.codecs.json_to_proto import MAX_VIOLATIONS, RequestCodecs, RequestParser
from libs.codecs.proto_to_json import ResponseCodecs, ResponseRenderer
from libs.codecs.shapes import UnsupportedMessageError

__all__ = [
    "MAX_VIOLATIONS",
    "RequestCodecs",
    "RequestParser",
    "ResponseCodecs",
    "ResponseRenderer",
    "UnsupportedMessageError",
]
