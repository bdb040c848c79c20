"""The one-machine stack: started, looked at, hurt, stopped and started again."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.local.secrets import SERVICES
from infra.local.settings import ROOT, Place, kept_ports
from infra.local.stack import forget
from tests.support.stack import StackProcess

PROGRAMS = {"postgres", "valkey", "stripe", "mail", *SERVICES}


@pytest.fixture(scope="module")
def stack(run_directory: Path) -> Iterator[StackProcess]:
    stack = StackProcess(run_directory / "own")
    yield stack.start()
    stack.stop()
    forget(Place(stack.place.state))


def command(stack: StackProcess, *words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "infra.local", "--state", str(stack.place.state), *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def get(url: str) -> int:
    with urllib.request.urlopen(url, timeout=10) as response:
        return int(response.status)


def call(url: str, key: str) -> Any:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    with urllib.request.urlopen(request, timeout=10) as response:
        return json.load(response)


def test_everything_runs_as_a_process_of_its_own(stack: StackProcess) -> None:
    programs = stack.programs()
    assert set(programs) == PROGRAMS
    assert {run["state"] for run in programs.values()} == {"running"}
    assert len({run["pid"] for run in programs.values()}) == len(PROGRAMS)
    assert get(stack.endpoints["gateway"] + "/healthz") == 200


def test_only_loopback_is_listened_on(stack: StackProcess) -> None:
    for run in stack.programs().values():
        process = psutil.Process(run["pid"])
        for tree in (process, *process.children(recursive=True)):
            listening = [item.laddr.ip for item in tree.net_connections("inet") if item.status == psutil.CONN_LISTEN]
            assert set(listening) <= {"127.0.0.1"}


def test_sockets_and_secrets_are_closed_to_others(stack: StackProcess) -> None:
    place = stack.place
    assert place.run.stat().st_mode & 0o077 == 0
    for file in (place.secrets, place.key_file, place.bootstrap_token, place.endpoints):
        assert file.stat().st_mode & 0o077 == 0


def test_no_service_sees_anothers_secrets_in_its_environment(stack: StackProcess) -> None:
    secrets = set(json.loads(stack.place.secrets.read_text()).values())
    for run in stack.programs().values():
        assert not secrets & set(psutil.Process(run["pid"]).environ().values())


@pytest.mark.parametrize("program", ["billing", "postgres", "valkey"])
async def test_killed_program_comes_back_and_everything_is_ready_again(stack: StackProcess, program: str) -> None:
    killed = stack.kill(program)
    stack.until_back(program, killed)
    assert f"{program} ended (killed by SIGKILL)" in stack.output
    await stack.until_ready()
    assert get(stack.endpoints["gateway"] + "/readyz") == 200


def test_status_shows_every_program(stack: StackProcess) -> None:
    shown = command(stack, "status")
    assert shown.returncode == 0
    for program in PROGRAMS:
        assert program in shown.stdout
    assert stack.endpoints["gateway"] in shown.stdout


def test_logs_are_shown_by_service(stack: StackProcess) -> None:
    assert "ready" in command(stack, "logs", "billing").stdout
    unknown = command(stack, "logs", "tea")
    assert unknown.returncode == 1
    assert "billing" in unknown.stderr


def test_second_stack_on_the_same_state_is_refused(stack: StackProcess) -> None:
    refused = command(stack, "serve")
    assert refused.returncode == 1
    assert "running already" in refused.stderr


def test_stack_finds_its_data_and_ports_again_and_down_stops_it(stack: StackProcess) -> None:
    before, secrets = dict(stack.endpoints), stack.place.secrets.read_text()
    assert command(stack, "down").stdout == "stopped\n"
    assert stack.stop() == 0
    assert command(stack, "down").stdout == "nothing runs\n"
    assert command(stack, "status").returncode == 1
    stack.start()
    assert stack.place.secrets.read_text() == secrets
    assert {name: stack.endpoints[name] for name in ("gateway", "stripe", "mail")} == {
        name: before[name] for name in ("gateway", "stripe", "mail")
    }
    assert "databases: up to date" in stack.output


def test_failed_start_says_which_service_why_and_its_last_lines(run_directory: Path) -> None:
    broken = StackProcess(run_directory / "broken", extra={"billing": {"GATEFOLD_BILLING_GRACE_DAYS": "-1"}})
    process = broken.begin()
    try:
        assert process.wait(90) == 1
        assert "billing is not ready" in broken.output
        assert "billing_grace_days must not be negative" in broken.output
        assert not [run for run in broken.programs().values() if run["pid"] is not None]
    finally:
        forget(Place(broken.place.state))


def test_port_that_is_taken_is_replaced_and_said(run_directory: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        moved = StackProcess(run_directory / "moved", settings={"http_port": str(taken)})
        try:
            moved.start()
            assert not moved.endpoints["gateway"].endswith(f":{taken}")
            assert f"port {taken} is taken" in moved.output
        finally:
            moved.stop()
            assert command(moved, "reset").stdout.endswith("forgotten\n")
    assert not moved.place.state.exists()


def test_publication_is_seeded_once_and_found_again_where_the_gateway_has_moved(run_directory: Path) -> None:
    stack = StackProcess(run_directory / "up")
    try:
        first = stack.up()
        seeded = json.loads(stack.place.publication.read_text())
        assert seeded["secret_key"] in first
        assert not stack.place.bootstrap_token.exists()
        assert stack.stop(signal.SIGINT) == 0
        with socket.create_server(("127.0.0.1", kept_ports(stack.place).http)):
            again = stack.up()
        assert seeded["secret_key"] not in again
        gateway = kept_ports(stack.place).gateway_url
        assert gateway in again
        assert gateway not in first
        offers = call(f"{gateway}/v1/offers", seeded["publishable_key"])["data"]
        assert sorted(offer["plan"]["interval"] for offer in offers) == ["month", "year"]
        endpoints = call(f"{kept_ports(stack.place).stripe_url}/v1/webhook_endpoints", seeded["stripe_secret_key"])[
            "data"
        ]
        assert [endpoint["url"] for endpoint in endpoints] == [f"{gateway}/v1/webhooks/stripe/{seeded['connection']}"]
    finally:
        stack.stop()
        forget(Place(stack.place.state))


def test_first_start_that_was_cut_short_begins_anew(run_directory: Path) -> None:
    stack = StackProcess(run_directory / "cut")
    try:
        stack.start()
        assert stack.stop() == 0
        # A stack without a publication is what an interrupted first start leaves.
        assert "starting over" in stack.up()
        assert stack.place.publication.exists()
    finally:
        stack.stop()
        forget(Place(stack.place.state))


def test_interrupted_start_drains(run_directory: Path) -> None:
    stack = StackProcess(run_directory / "interrupted")
    process = stack.begin()
    try:
        while "services:" not in stack.output:
            assert process.poll() is None
        assert stack.stop(signal.SIGINT) == 0
        assert "draining" in stack.output
        assert not [run for run in stack.programs().values() if run["pid"] is not None]
    finally:
        stack.stop()
        forget(Place(stack.place.state))


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells children that their parent died")
def test_killed_supervisor_leaves_nothing_that_hinders_the_next(run_directory: Path) -> None:
    stack = StackProcess(run_directory / "killed").start()
    try:
        os.kill(int(stack.place.lock.read_text()), signal.SIGKILL)
        assert stack.stop() == -signal.SIGKILL
        stack.start()
        assert get(stack.endpoints["gateway"] + "/healthz") == 200
    finally:
        stack.stop()
        forget(Place(stack.place.state))
