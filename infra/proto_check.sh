#!/bin/sh
# Lints the contracts and refuses a breaking change since the last release; the rules are first seen to fail on planted violations.
set -eu
cd "$(dirname "$0")/.."
tools=${XDG_CACHE_HOME:-$HOME/.cache}/gatefold/buf
buf=$tools/node_modules/.bin/buf
if [ ! -x "$buf" ]; then
    mkdir -p "$tools"
    npm install --silent --no-fund --no-audit --prefix "$tools" @bufbuild/buf@1.75.0
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

.venv/bin/python - gen/descriptors.binpb "$work" <<'PY'
import sys
from google.protobuf.descriptor_pb2 import FileDescriptorSet

good = FileDescriptorSet.FromString(open(sys.argv[1], "rb").read())
bad = FileDescriptorSet()
bad.CopyFrom(good)
file = next(file for file in bad.file if file.name == "gatefold/money/v1/money.proto")
file.message_type[0].field[0].name = "amountMinor"
open(sys.argv[2] + "/style.binpb", "wb").write(bad.SerializeToString())
bad.CopyFrom(good)
file = next(file for file in bad.file if file.name == "gatefold/money/v1/money.proto")
file.message_type[0].field[0].number = 9
open(sys.argv[2] + "/breaking.binpb", "wb").write(bad.SerializeToString())
PY
if "$buf" lint "$work/style.binpb" --config buf.yaml >/dev/null; then
    echo "proto-check: the lint rules let a planted violation pass" >&2
    exit 1
fi
if "$buf" breaking "$work/breaking.binpb" --against gen/descriptors.binpb --config buf.yaml >/dev/null; then
    echo "proto-check: the breaking rules let a planted violation pass" >&2
    exit 1
fi
"$buf" lint gen/descriptors.binpb --config buf.yaml
release=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || true)
if [ -n "$release" ]; then
    mkdir "$work/release"
    git archive "$release" protos infra/protos.py | tar -x -C "$work/release"
    .venv/bin/python "$work/release/infra/protos.py"
    "$buf" breaking gen/descriptors.binpb --against "$work/release/gen/descriptors.binpb" --config buf.yaml
fi
echo "proto-check: contracts hold${release:+ against $release}"
