"""Cases at a terminal: listed, shown and decided, by whoever runs the platform."""

import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from uuid import UUID

import pytest

from libs import ids
from libs.clock import SystemClock
from libs.config import Secret
from libs.errors import GatefoldError
from services.abuse.__main__ import main, review
from services.abuse.domain.finding import Scope
from services.abuse.servicer import terminal
from tests.support.abuse import Desk, person
from tests.support.activities import hashed
from tests.support.stores import role_dsn

ROOT = Path(__file__).resolve().parents[4]

pytestmark = pytest.mark.case("edge-18")


def environ(desk: Desk) -> dict[str, str]:
    dsn = role_dsn(desk.database.owner_dsn, "abuse_app").reveal()
    return {"GATEFOLD_POSTGRES_APP_DSN": dsn, "GATEFOLD_POSTGRES_JOBS_DSN": dsn}


async def ask(desk: Desk, *arguments: str) -> str:
    return await review(terminal.parse(["cases", *arguments]), environ(desk))


async def test_cases_are_listed_in_columns(desk: Desk, account: UUID) -> None:
    case = ids.encode("case", await desk.case_of(account, "attacker"))
    lines = (await ask(desk, "--account", ids.encode("acct", account))).splitlines()
    assert lines[0].split() == ["case", "opened", "sev", "scope", "entity", "conf", "state", "reasons"]
    [row] = lines[1:]
    assert row.startswith(case)
    assert row.endswith("open   credential_stuffing, targets")
    assert row.index("address") == lines[0].index("scope")


async def test_a_case_is_shown_with_its_evidence_and_decided(desk: Desk, account: UUID) -> None:
    case = ids.encode("case", await desk.case_of(account, "attacker", seen={"user_agent": "program"}))
    own = ("--account", ids.encode("acct", account))
    shown = await ask(desk, *own, "show", case)
    assert "stuffing-address.targets" in shown
    assert "linked  user_agent" in shown
    assert await ask(desk, *own, "decide", case, "legit", "--note", "Our office.") == f"{case}  legit"
    assert "decided legit  terminal" in await ask(desk, *own, "show", case)
    assert len((await ask(desk, *own)).splitlines()) == 1
    assert len((await ask(desk, *own, "list", "--state", "decided")).splitlines()) == 2


async def test_json_is_what_the_api_answers(desk: Desk, account: UUID) -> None:
    case = ids.encode("case", await desk.case_of(account, "attacker"))
    own = ("--json", "--account", ids.encode("acct", account))
    assert json.loads(await ask(desk, *own))["data"][0]["id"] == case
    assert json.loads(await ask(desk, *own, "show", case))["case"]["severity"] == 3
    assert json.loads(await ask(desk, *own, "decide", case, "abuse"))["judgement"] == "JUDGEMENT_ABUSE"


async def test_without_an_account_the_platforms_own_are_shown(desk: Desk, account: UUID) -> None:
    mine = ids.encode("case", await desk.case_of(account, "attacker"))
    with pytest.raises(GatefoldError, match="case_not_found"):
        await ask(desk, "show", mine)
    with pytest.raises(GatefoldError, match="id_malformed"):
        await ask(desk, "--account", "acct_x")


async def states(desk: Desk, account: UUID, name: str) -> list[str]:
    async with desk.database.app.tenant(account, "look", read_only=True) as conn:
        rows = await conn.fetch(
            "SELECT action, state FROM verdict WHERE account_id = $1 AND entity_hash = $2 ORDER BY decided_at, id",
            account,
            hashed("actor", name),
        )
    return [f"{row['action']} {row['state']}" for row in rows]


@pytest.fixture
def present(desk: Desk) -> None:
    """What was decided is in force: the command reads the machine's clock."""
    desk.clock.set(SystemClock().wall())


@pytest.mark.usefixtures("present")
async def test_what_is_done_is_lifted_and_blocked_and_taken_back(desk: Desk, account: UUID) -> None:
    case = ids.encode("case", await desk.case_of(account, "somebody", scope=Scope.ACTOR))
    own = ("--account", ids.encode("acct", account))
    lifted = await ask(desk, *own, "lift", case)
    assert re.fullmatch(r"cact_\w+  lift done", lifted)
    assert await states(desk, account, "somebody") == ["block revoked"]
    assert await ask(desk, *own, "undo", case, lifted.split()[0]) == f"{lifted.split()[0]}  undone"
    assert await states(desk, account, "somebody") == ["block active"]
    blocked = await ask(desk, *own, "block", case, "--hours", "2")
    assert blocked.endswith("block done")
    assert await states(desk, account, "somebody") == ["block active", "block active"]
    assert "action_taken block  terminal" in await ask(desk, *own, "show", case)
    # Whoever enforces is told by the service, of each change.
    while await desk.verdicts.announce():
        pass
    told = [verdict for verdict in await desk.told() if verdict.account_id == own[1]]
    assert [verdict.revoked for verdict in told][-2:] == [False, False]


@pytest.mark.usefixtures("present")
@pytest.mark.parametrize("what", [("revoke",), ("block", "--hours", "169")])
async def test_what_needs_two_people_is_asked_for_in_ones_name_and_agreed_to_by_another(
    desk: Desk, account: UUID, what: tuple[str, ...]
) -> None:
    found = await desk.case_of(account, "thief", scope=Scope.ACTOR)
    case, (kind, *more) = ids.encode("case", found), what
    own, ada = ("--account", ids.encode("acct", account)), person("ada")
    with pytest.raises(GatefoldError, match="person_required"):
        await ask(desk, *own, kind, case, *more)
    with pytest.raises(GatefoldError, match="id_malformed"):
        await ask(desk, *own, kind, case, *more, "--as", "ada")
    asked = await ask(desk, *own, kind, case, *more, "--as", ada)
    name = asked.split()[0]
    assert asked.endswith(f"POST /v1/abuse/cases/{case}/actions/{name}/approve")
    assert await states(desk, account, "thief") == ["block active"]
    # Asked for again it is the same; and the person who asked cannot be the other.
    assert (await ask(desk, *own, kind, case, *more, "--as", ada)).split()[0] == name
    action = ids.decode("cact", name)
    with pytest.raises(GatefoldError, match="approval_own"):
        await desk.actions.approve(desk.who(account, "ada"), found, action)
    assert await states(desk, account, "thief") == ["block active"]
    await desk.actions.approve(desk.who(account, "bob"), found, action)
    assert await states(desk, account, "thief") == ["block active", f"{kind} active"]


async def test_a_platforms_action_is_agreed_to_on_its_own_plane(desk: Desk) -> None:
    desk.clock.set(SystemClock().wall())
    name = desk.ids.new().hex
    case = ids.encode("case", await desk.case_of(None, name, scope=Scope.ACTOR))
    asked = await ask(desk, "revoke", case, "--as", person("olga"))
    assert f"POST /v1/platform/abuse/cases/{case}/actions/" in asked
    answer = json.loads(await ask(desk, "--json", "lift", case))
    assert (answer["kind"], answer["state"]) == ("ACTION_KIND_LIFT", "ACTION_STATE_DONE")


async def test_what_nobody_can_be_asked_for_is_refused(desk: Desk, account: UUID) -> None:
    case = ids.encode("case", await desk.case_of(account, "attacker"))
    own = ("--account", ids.encode("acct", account))
    for reason, words in {
        "action_scope": ("revoke", case, "--as", person("ada")),
        "action_seconds": ("block", case, "--hours", "0"),
        "case_action_not_found": ("undo", case, ids.encode("cact", desk.ids.new())),
        "case_not_found": ("lift", ids.encode("case", desk.ids.new())),
    }.items():
        with pytest.raises(GatefoldError, match=reason):
            await ask(desk, *own, *words)


def test_a_real_terminal_shows_a_fault_and_its_code() -> None:
    away = "postgresql://abuse_app@127.0.0.1:1/none"
    command = [sys.executable, "-m", "services.abuse", "cases", "lift", ids.encode("case", UUID(int=7))]
    environ = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": os.pathsep.join(sys.path),
        "GATEFOLD_POSTGRES_APP_DSN": away,
        "GATEFOLD_POSTGRES_JOBS_DSN": away,
    }
    code, shown = at_a_terminal(command, environ)
    assert code == 1
    assert shown.startswith("abuse: database_unavailable")
    code, shown = at_a_terminal([*command[:4], "lift"], environ)
    assert code == 2
    assert "the following arguments are required: case" in shown


def at_a_terminal(command: list[str], environ: dict[str, str]) -> tuple[int, str]:
    """Returns the exit code and all that a pseudo-terminal showed."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen(command, env=environ, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 4096):
            shown += chunk
    except OSError:
        # How Linux says that nobody holds the other end any more.
        pass
    finally:
        os.close(ours)
    return running.wait(60), shown.decode()


def test_a_database_that_is_away_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    away = Secret("postgresql://abuse_app@127.0.0.1:1/none").reveal()
    code = main({"GATEFOLD_POSTGRES_APP_DSN": away, "GATEFOLD_POSTGRES_JOBS_DSN": away}, ["cases"])
    assert code == 1
    assert "database_unavailable" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments", [["nothing"], ["cases", "decide", "case_x", "perhaps"], ["cases", "list", "--state", "x"]]
)
def test_a_command_that_cannot_be_read_is_refused(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main({}, arguments)
    assert caught.value.code == 2
