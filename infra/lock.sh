#!/bin/sh
# Writes the three lock files from pyproject.toml with one resolution; no index address goes into them.
set -eu
cd "$(dirname "$0")/.."
pin() {
    uv pip compile -q --no-header --no-annotate --universal --generate-hashes --python-version 3.11 pyproject.toml "$@"
}
pin --extra saml --extra local --extra test --extra ci -o requirements-ci.lock
pin --extra saml --extra local --extra test -c requirements-ci.lock -o requirements-dev.lock
pin --extra saml -c requirements-ci.lock -o requirements.lock
