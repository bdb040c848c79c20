#!/bin/sh
# Everything that must hold before a change lands; installs the tools it needs (as root) and leaves nothing out.
set -eu
cd "$(dirname "$0")/.."
began=$(date +%s)
step() {
    printf '\n=== %s (%ss)\n' "$1" "$(($(date +%s) - began))"
    shift
    "$@"
}
need() {
    command -v "$1" >/dev/null 2>&1 && return 0
    [ -n "${updated:-}" ] || { apt-get update -qq && updated=1; }
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$2" >/dev/null
}
echo "make ci: ruff, mypy, import-linter, buf, helm, pytest (unit, integration, e2e, security, architecture, browser); left to their own targets: bench, chaos"
need chromium chromium
need npm npm
step "set-up" make --no-print-directory .venv/.ci setup
step "lint" make --no-print-directory lint
step "types" make --no-print-directory types
step "contracts" make --no-print-directory contracts
step "protos" make --no-print-directory proto-check
step "chart" make --no-print-directory chart-check
step "browser" make --no-print-directory browser
step "make test" make --no-print-directory test
printf '\nmake ci: passed in %s s\n' "$(($(date +%s) - began))"
