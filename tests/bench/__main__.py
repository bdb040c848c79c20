"""Runs benchmarks and prints one table: `python -m tests.bench [CASE]` runs the modules whose name begins with CASE."""

import asyncio
import importlib
import pkgutil
import sys
from pathlib import Path

import tests.bench
from tests.bench.harness import Bench


async def main(wanted: str) -> int:
    """Runs each module's `measure(bench)`; answers 1 when a stated goal was missed."""
    bench = Bench(Path("build/bench"))
    names = [
        module.name
        for module in pkgutil.iter_modules(tests.bench.__path__)
        if module.name not in ("harness", "__main__")
    ]
    chosen = [name for name in names if name.replace("_", "-").startswith(wanted.replace("_", "-"))]
    if not chosen:
        sys.stderr.write(f"no such case: {wanted}; there are {', '.join(names)}\n")
        return 2
    for name in chosen:
        await importlib.import_module(f"tests.bench.{name}").measure(bench)
    sys.stdout.write(bench.table())
    return 1 if any(not result.met for result in bench.results) else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "")))
