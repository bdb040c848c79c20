"""`python -m tests.chaos`: enumerates the journey's kill points, then walks them; one summary line, an exit code."""

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from tests.chaos.walk import Walk, walk

REPORT = Path("build/chaos/report.json")


async def main(arguments: argparse.Namespace) -> int:
    """Walks every point, or a share of them; writes build/chaos/report.json."""
    with tempfile.TemporaryDirectory(prefix="gatefold-chaos-", ignore_cleanup_errors=True) as folder:
        root = Path(folder)
        root.chmod(0o711)
        first = await walk(root / "enumerate")
        if first.problems:
            sys.stderr.write("the journey fails without a kill:\n" + "\n".join(first.problems) + "\n")
            return 1
        points = [point for point in sorted(set(first.passed)) if arguments.only in point]
        chosen = points[arguments.offset :: arguments.every]
        sys.stdout.write(f"{len(points)} kill points, {len(chosen)} to walk\n")
        walks: list[Walk] = []
        places = asyncio.Semaphore(arguments.jobs)

        async def one(number: int, point: str) -> None:
            async with places:
                done = await walk(root / f"w{number}", point)
                walks.append(done)
                said = "ok" if not done.problems else "FAILED"
                met = "" if done.killed else " (not met)"
                sys.stdout.write(f"{len(walks):>4}/{len(chosen)} {point}: {said}{met}\n")
                for problem in done.problems:
                    sys.stdout.write(f"       {problem}\n")
                sys.stdout.flush()

        await asyncio.gather(*(one(number, point) for number, point in enumerate(chosen)))
    failed = [done.point for done in walks if done.problems]
    missed = [done.point for done in walks if not done.killed]
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps({"points": points, "walked": chosen, "failed": failed, "not_met": missed}, indent=1))
    sys.stdout.write(
        f"chaos: {len(chosen)} of {len(points)} kill points walked, {len(failed)} failed, {len(missed)} not met\n"
    )
    return 1 if failed or len(missed) * 5 > len(chosen) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--every", type=int, default=1, help="walk every Nth point only")
    parser.add_argument("--offset", type=int, default=0, help="begin with this point")
    parser.add_argument("--only", default="", help="points whose name holds this")
    parser.add_argument("--jobs", type=int, default=2, help="stacks at the same time")
    sys.exit(asyncio.run(main(parser.parse_args())))
