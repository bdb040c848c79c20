"""Runs a command and says how long it took: `python -m infra.timed LABEL COMMAND…`."""

import subprocess
import sys
import time


def main(label: str, command: list[str]) -> int:
    """Runs `command` in the foreground and prints one line with its minutes; its exit code is returned."""
    began = time.monotonic()
    code = subprocess.run(command, check=False).returncode
    minutes = (time.monotonic() - began) / 60
    sys.stdout.write(f"{label}: {'passed' if code == 0 else 'FAILED'} in {minutes:.1f} minutes\n")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
