"""Cases at a terminal: listed, shown and decided, by whoever runs the platform."""

import json
from uuid import UUID

import pytest

from libs import ids
from libs.config import Secret
from libs.errors import GatefoldError
from services.abuse.__main__ import main, review
from services.abuse.servicer import terminal
from tests.support.abuse import Desk
from tests.support.stores import role_dsn

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
