"""Owns a message with everything in it that JSON and protobuf write differently."""

from google.protobuf.descriptor import Descriptor

from tests.support.messages import compiled, pool_of

SOURCE = """
syntax = "proto3";
package gatefold.torture.v1;
import "gatefold/edge/v1/policy.proto";
import "google/api/field_behavior.proto";
import "google/protobuf/duration.proto";
import "google/protobuf/timestamp.proto";

enum Colour { COLOUR_UNSPECIFIED = 0; COLOUR_RED = 1; COLOUR_DEEP_BLUE = 2; }
enum Plain { ZERO = 0; ONE = 1; NEGATIVE = -7; }

message Torture {
  double a_double = 1; float a_float = 2;
  int32 an_int32 = 3; int64 an_int64 = 4; uint32 a_uint32 = 5; uint64 a_uint64 = 6;
  sint32 a_sint32 = 7; sint64 a_sint64 = 8;
  fixed32 a_fixed32 = 9; fixed64 a_fixed64 = 10; sfixed32 an_sfixed32 = 11; sfixed64 an_sfixed64 = 12;
  bool a_bool = 13; string a_text = 14; bytes some_bytes = 15; Colour colour = 16; Plain plain = 17;
  google.protobuf.Timestamp at = 18; google.protobuf.Duration lasting = 19; Torture inner = 20;

  optional double maybe_double = 21; optional int32 maybe_int = 22; optional int64 maybe_int64 = 23;
  optional bool maybe_bool = 24; optional string maybe_text = 25; optional bytes maybe_bytes = 26;
  optional Colour maybe_colour = 27;

  repeated double doubles = 31; repeated int32 ints = 32; repeated int64 int64s = 33; repeated bool bools = 34;
  repeated string texts = 35; repeated bytes chunks = 36; repeated Plain plains = 37;
  repeated google.protobuf.Timestamp times = 38; repeated google.protobuf.Duration durations = 39;
  repeated Torture inners = 40; repeated float floats = 41;

  map<string, string> texts_by_text = 51; map<int32, string> texts_by_int = 52;
  map<uint64, int64> int64s_by_uint64 = 53;
  map<bool, Plain> plains_by_bool = 54; map<string, Torture> inners_by_text = 55;
  map<string, google.protobuf.Timestamp> times_by_text = 56; map<string, bytes> bytes_by_text = 57;
  map<string, double> doubles_by_text = 58; map<sint64, google.protobuf.Duration> durations_by_int = 59;

  oneof either { string this_text = 61; int64 that_number = 62; Torture other_torture = 63; }

  string from = 71; int32 in = 72; repeated string class = 73; map<string, string> import = 74;
  optional int64 lambda = 75; google.protobuf.Timestamp while = 76; Torture with = 77;
}

message Ruled {
  string name = 1 [(google.api.field_behavior) = REQUIRED, (gatefold.edge.v1.rule) = { min_len: 2 max_len: 4 }];
  string code = 2 [(gatefold.edge.v1.rule) = { pattern: "[a-z]+" }];
  int32 limit = 3 [(gatefold.edge.v1.rule) = { gte: 1 lte: 10 }];
  optional int32 exact = 4 [(gatefold.edge.v1.rule) = { gte: 1 lte: 10 }];
  repeated string tags = 5 [(gatefold.edge.v1.rule) = { min_items: 1 max_items: 3 unique: true max_len: 5 }];
  string colour = 6 [(gatefold.edge.v1.rule) = { in: ["red", "blue"] }];
  string mail = 7 [(gatefold.edge.v1.rule) = { email: true }];
  string site = 8 [(gatefold.edge.v1.rule) = { uri: true }];
  string id = 9 [(gatefold.edge.v1.rule) = { id_prefix: "sub" }];
  map<string, string> metadata = 10 [(gatefold.edge.v1.rule) = { max_items: 2 max_len: 3 }];
  bytes secret = 11 [(gatefold.edge.v1.rule) = { min_len: 2 max_len: 4 }];
  repeated Part parts = 12;
  Part part = 13 [(google.api.field_behavior) = REQUIRED];
  repeated int64 numbers = 14 [(gatefold.edge.v1.rule) = { lte: 5 }];
  double ratio = 15 [(gatefold.edge.v1.rule) = { gte: 0 lte: 1 }];
  oneof either { string left = 16; string right = 17; }
  Colour paint = 18;
  bool flag = 19;
}

message Part { int64 amount = 1 [(google.api.field_behavior) = REQUIRED, (gatefold.edge.v1.rule) = { gte: 1 }]; }
"""


def message(name: str) -> Descriptor:
    """Returns a message's descriptor."""
    return pool_of(compiled(SOURCE)).FindMessageTypeByName(f"gatefold.torture.v1.{name}")
