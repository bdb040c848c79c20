"""Each import contract is seen to fail on a planted violation, and to hold on the code as it is."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLANTED = {
    "libs-know-no-service": ("libs/money.py", "import services.billing.domain"),
    "services-meet-through-stubs": ("services/notify/usecases.py", "import services.billing.usecases"),
    "layers": ("services/notify/domain.py", "import services.notify.repository"),
    "domain-is-pure": ("services/notify/domain.py", "import grpc"),
    "sql-lives-in-repositories": ("services/notify/usecases.py", "import asyncpg"),
    "config-is-read-once": ("services/notify/usecases.py", "import services.notify.config"),
}


def lint(folder: Path, *contracts: str) -> subprocess.CompletedProcess[str]:
    command = [
        str(Path(sys.executable).parent / "lint-imports"),
        "--no-cache",
        *(f"--contract={name}" for name in contracts),
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("contracts")
    for name in ("libs", "services", "infra"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_all_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("contract", PLANTED)
def test_a_planted_import_breaks_its_contract(copy: Path, contract: str) -> None:
    name, line = PLANTED[contract]
    path = copy / name
    before = path.read_text()
    path.write_text(f"{before}\n{line}\n")
    try:
        done = lint(copy, contract)
    finally:
        path.write_text(before)
    assert done.returncode == 1, done.stdout
    assert "BROKEN" in done.stdout


def test_a_planted_file_outside_the_layers_breaks_their_contract(copy: Path) -> None:
    stray = copy / "services/notify/misplaced.py"
    stray.write_text('"""Stands nowhere."""\n')
    try:
        done = lint(copy, "layers")
    finally:
        stray.unlink()
    assert done.returncode == 1, done.stdout
