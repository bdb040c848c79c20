"""Builds gen/: Python stubs, their .pyi files and the descriptor set, from protos/."""

import importlib.resources
import os
import shutil
import sys
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent


def build(out: Path) -> None:
    """Writes stubs and `descriptors.binpb` (with imports and source comments) into `out`, replacing what is there."""
    protos = ROOT / "protos"
    well_known = str(importlib.resources.files("grpc_tools") / "_proto")
    google_apis = str(Path(str(importlib.resources.files("google.api").joinpath("annotations.proto"))).parents[2])
    sources = sorted(str(path) for path in protos.rglob("*.proto"))
    fresh = out.with_name(out.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    status = protoc.main(
        [
            "protoc",
            f"-I{protos}",
            f"-I{well_known}",
            f"-I{google_apis}",
            f"--python_out={fresh}",
            f"--mypy_out=quiet:{fresh}",
            f"--grpc_python_out={fresh}",
            f"--mypy_grpc_out=quiet:{fresh}",
            f"--descriptor_set_out={fresh / 'descriptors.binpb'}",
            "--include_imports",
            "--include_source_info",
            *sources,
        ]
    )
    if status != 0:
        raise SystemExit(status)
    shutil.rmtree(out, ignore_errors=True)
    fresh.rename(out)


if __name__ == "__main__":
    build(ROOT / "gen")
    sys.stdout.write("gen/ built\n")
