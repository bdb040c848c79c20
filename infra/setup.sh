#!/bin/sh
# Makes the virtual environment from a hashed lock file: setup.sh LOCK VENV. Needs Python 3.11 or newer, nothing else.
set -eu
lock=$1
venv=$2
root=$(cd "$(dirname "$0")/.." && pwd)

find_python() {
    for name in ${PYTHON:-} python3.11 python3.12 python3.13 python3.14 python3; do
        if command -v "$name" >/dev/null 2>&1 &&
            "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then
            command -v "$name"
            return 0
        fi
    done
    echo "setup: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3" >&2
    return 1
}

if [ ! -x "$venv/bin/python" ]; then
    python=$(find_python)
    echo "setup: virtual environment with $("$python" --version)"
    if ! "$python" -m venv "$venv" >/dev/null 2>&1; then
        # Debian splits ensurepip off into python3-venv; a pip from elsewhere can serve the environment as well.
        rm -rf "$venv"
        if ! "$python" -m pip --version >/dev/null 2>&1; then
            echo "setup: $python has neither ensurepip nor pip; install the package python3-venv (or python3-pip)" >&2
            exit 1
        fi
        "$python" -m venv --without-pip "$venv"
    fi
fi
if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
    pip="$venv/bin/python -m pip"
else
    pip="$(find_python) -m pip --python $venv/bin/python"
fi
echo "setup: $(grep -c '==' "$root/$lock") packages from $lock"
# The lock names everything, so nothing is resolved: what has come out since must not be looked at. A pipe ends with its
# last command's status, so pip's own is kept in a file.
status=$(mktemp)
trap 'rm -f "$status"' EXIT
{
    $pip install --disable-pip-version-check --require-hashes --no-deps --progress-bar off -r "$root/$lock" || echo failed >"$status"
} | awk '/^Collecting/ { n++; if (n % 10 == 0) printf "setup: %d collected\n", n; fflush() } /^Installing collected/ { print "setup: installing"; fflush() }'
if [ -s "$status" ]; then
    echo "setup: the packages of $lock could not be installed; pip says why above" >&2
    exit 1
fi
site=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
printf '%s\n%s\n' "$root" "$root/gen" >"$site/gatefold.pth"
echo "setup: ready"
