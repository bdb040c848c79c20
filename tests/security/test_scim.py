"""A staff directory over SCIM, through a real gateway: what it may do, and what a stolen key of one may not."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from gatefold.auth.v1 import api_key_pb2, team_pb2

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError
from libs.vault import Vault
from services.auth.domain import roles
from services.auth.repository import DIRECTORY_ENTRY_TABLE
from services.auth.usecases import scim_documents
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, Publisher, running
from tests.support.edge import Edge, running_edge, until_refused
from tests.support.gateway import Answer
from tests.support.waiting import blocked, until

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
SCIM = "application/scim+json"


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock()) as found:
        yield found


@pytest.fixture(scope="module")
async def edge(house: AuthHouse) -> AsyncIterator[Edge]:
    async with running_edge(house) as found:
        yield found


class Client:
    """A directory, with the key of an account."""

    def __init__(self, edge: Edge, house: AuthHouse, publisher: Publisher, key: str) -> None:
        self.edge = edge
        self.house = house
        self.publisher = publisher
        self.key = key

    async def ask(self, verb: str, path: str, body: object = None, **headers: str) -> Answer:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        data = None
        if body is not None:
            sent.setdefault("Content-Type", SCIM)
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.edge.ask(verb, f"/scim/v2{path}", credential=self.key, headers=sent, data=data)

    async def create(self, email: str | None = None, **more: object) -> dict[str, Any]:
        body = {"schemas": [USER], "userName": email or self.house.fresh("staff"), **more}
        answer = await self.ask("POST", "/Users", body)
        assert answer.status == 201, answer.body
        return answer.json

    async def member(self, role: str = "support") -> tuple[dict[str, Any], str]:
        """Returns a user who has accepted, and the address."""
        email = self.house.fresh("staff")
        user = await self.create(email, roles=[{"value": role}])
        await self.house.accept(await self.house.token(self.publisher.live, "invite_member"))
        return (await self.ask("GET", f"/Users/{user['id']}")).json, email

    async def patch(self, user: str, *operations: dict[str, object], **headers: str) -> Answer:
        return await self.ask("PATCH", f"/Users/{user}", {"schemas": [PATCH], "Operations": operations}, **headers)

    async def patch_group(self, role: str, *operations: dict[str, object]) -> Answer:
        return await self.ask("PATCH", f"/Groups/{role}", {"schemas": [PATCH], "Operations": operations})


async def key_of(
    house: AuthHouse, account: UUID, role: str = roles.OWNER, kind: int = api_key_pb2.API_KEY_KIND_SCIM, **more: Any
) -> str:
    who = replace(house.staff(account, role), **more)
    request = api_key_pb2.CreateApiKeyRequest(kind=kind, name="Directory")  # type: ignore[arg-type]
    answer = await house.call(who, house.api_keys.CreateApiKey, request)
    assert isinstance(answer, api_key_pb2.CreateApiKeyResponse)
    return answer.secret


@pytest.fixture
async def client(house: AuthHouse, edge: Edge) -> Client:
    publisher = await house.publisher()
    return Client(edge, house, publisher, await key_of(house, publisher.live))


def scim_error(answer: Answer, status: int, kind: str | None = None) -> str:
    assert answer.status == status, answer.body
    assert answer.headers["Content-Type"] == SCIM
    body = answer.json
    assert (body["schemas"], body["status"], body.get("scimType")) == ([ERROR], str(status), kind)
    return str(body["detail"])


# What it is for.


async def test_a_user_is_invited_read_found_changed_and_removed(client: Client) -> None:
    email = client.house.fresh("Ada.Directory")
    enterprise = {"department": "News", "employeeNumber": "7"}
    sent = {"externalId": "00u1", "name": {"givenName": "Ada", "familyName": "L"}, "roles": [{"value": "Finance"}]}
    body = {"schemas": [USER, ENTERPRISE], "userName": email, ENTERPRISE: enterprise, **sent}
    made = await client.ask("POST", "/Users", body)
    assert (made.status, made.headers["Content-Type"]) == (201, SCIM)
    user = made.json
    assert made.headers["Location"] == user["meta"]["location"]
    assert made.headers["Location"].endswith(f"/scim/v2/Users/{user['id']}")
    assert (user["active"], user["externalId"], user[ENTERPRISE]) == (True, "00u1", enterprise)
    assert [role["value"] for role in user["roles"]] == ["finance"]
    await client.house.accept(await client.house.token(client.publisher.live, "invite_member"))
    claims = await client.house.claims((await client.house.sign_in_staff(email)).access_token)
    assert "ledger:read" in str(claims["scope"])
    read = await client.ask("GET", f"/Users/{user['id']}?attributes=userName,active")
    assert set(read.json) == {"schemas", "id", "userName", "active"}
    for text in (
        f'userName eq "{email.upper()}"',
        'externalId eq "00u1" and active eq true',
        'name.familyName sw "L" and not (userName co "nobody")',
        f'{ENTERPRISE}:department eq "news"',
    ):
        listed = (await client.ask("GET", f"/Users?filter={quote(text)}")).json
        assert [one["id"] for one in listed["Resources"]] == [user["id"]], text
    assert (await client.ask("DELETE", f"/Users/{user['id']}")).status == 204
    scim_error(await client.ask("GET", f"/Users/{user['id']}"), 404)
    with pytest.raises(GatefoldError, match=r"account_not_found|credentials_invalid"):
        await client.house.sign_in_staff(email, account=client.publisher.live)


async def test_what_okta_and_entra_send_is_understood(client: Client) -> None:
    user, _ = await client.member()
    told = await client.patch(user["id"], {"op": "Replace", "path": "active", "value": "False"})
    assert told.json["active"] is False
    told = await client.patch(user["id"], {"op": "replace", "value": {"active": True, "name.familyName": "Byron"}})
    assert (told.json["active"], told.json["name"]["familyName"]) == (True, "Byron")
    work = 'emails[type eq "work"].value'
    told = await client.patch(user["id"], {"op": "Add", "path": work, "value": "other@daily.example"})
    assert [one["value"] for one in told.json["emails"]] == ["other@daily.example"]
    # The mailbox that mails go to is the person's own all the same.
    told = await client.patch(user["id"], {"op": "remove", "path": "name"}, {"op": "add", "path": "x:y", "value": 1})
    assert told.status == 400
    put = {**user, "displayName": "Ada", "vendorThing": 1, "password": "a password of the directory"}
    told = await client.ask("PUT", f"/Users/{user['id']}", put)
    assert told.json["displayName"] == "Ada"
    assert "password" not in told.json
    assert "emails" in told.json
    with pytest.raises(GatefoldError, match="credentials_invalid"):
        await client.house.sign_in_staff(user["userName"], "a password of the directory")


async def test_groups_are_the_roles(client: Client) -> None:
    user, _ = await client.member("support")
    other, _ = await client.member("sales")
    listed = (await client.ask("GET", '/Groups?filter=displayName%20eq%20"finance"')).json
    assert [one["id"] for one in listed["Resources"]] == ["finance"]
    told = await client.patch_group(
        "finance", {"op": "add", "path": "members", "value": [{"value": user["id"]}, {"value": other["id"]}]}
    )
    assert {one["value"] for one in told.json["members"]} == {user["id"], other["id"]}
    told = await client.patch_group("finance", {"op": "remove", "path": f'members[value eq "{user["id"]}"]'})
    assert [one["value"] for one in told.json["members"]] == [other["id"]]
    told = await client.patch_group("finance", {"op": "Remove", "path": "members", "value": [{"value": other["id"]}]})
    assert "members" not in told.json
    assert (await client.ask("GET", f"/Users/{user['id']}")).json["roles"][0]["value"] == "read_only"
    put = {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "sales"}
    told = await client.ask("PUT", "/Groups/sales", {**put, "members": [{"value": user["id"]}]})
    assert [one["value"] for one in told.json["members"]] == [user["id"]]
    events = await client.house.events(client.publisher.live)
    assert events.count("member.role_changed") == 5


async def test_what_is_served_is_described(client: Client) -> None:
    config = (await client.ask("GET", "/ServiceProviderConfig")).json
    assert (config["patch"]["supported"], config["bulk"]["supported"], config["etag"]["supported"]) == (
        True,
        False,
        True,
    )
    kinds = (await client.ask("GET", "/ResourceTypes")).json["Resources"]
    assert {one["endpoint"] for one in kinds} == {"/Users", "/Groups"}
    described = (await client.ask("GET", "/Schemas")).json["Resources"]
    assert {one["id"] for one in described} >= {USER, ENTERPRISE}


async def test_lists_come_in_pages(client: Client) -> None:
    for _ in range(3):
        await client.create()
    page = (await client.ask("GET", "/Users?startIndex=2&count=2&sortBy=userName&sortOrder=descending")).json
    assert (page["totalResults"], page["startIndex"], page["itemsPerPage"]) == (4, 2, 2)
    assert page["Resources"][0]["userName"] > page["Resources"][1]["userName"]
    assert (await client.ask("GET", "/Users?count=0")).json.get("Resources", []) == []


# Whoever leaves.


async def refused(client: Client, key: str) -> bool:
    """Whether a key is refused; the gateway believes it for 0.9 seconds."""
    return (await client.edge.ask("GET", "/v1/subscribers/me-not", credential=key)).status == 401


@pytest.mark.case("auth-66")
@pytest.mark.parametrize("way", ["deactivate", "delete"])
async def test_whoever_is_deactivated_loses_sessions_and_the_keys_they_made(client: Client, way: str) -> None:
    user, email = await client.member("admin")
    house, publisher = client.house, client.publisher
    tokens = [await house.sign_in_staff(email, account=place) for place in (publisher.live, publisher.test)]
    person = (await house.person("per", tokens[0])).person
    made = [
        await key_of(house, place, kind=api_key_pb2.API_KEY_KIND_SECRET, person=person, live=place == publisher.live)
        for place in (publisher.live, publisher.test)
    ]
    others = await key_of(house, publisher.live, kind=api_key_pb2.API_KEY_KIND_SECRET)
    for key in (*made, others):
        assert (await client.edge.ask("GET", "/v1/subscribers/me-not", credential=key)).status != 401
    for pair in tokens:
        assert (await client.edge.devices(pair.access_token)).status == 200
    if way == "delete":
        assert (await client.ask("DELETE", f"/Users/{user['id']}")).status == 204
    else:
        told = await client.patch(user["id"], {"op": "replace", "path": "active", "value": False})
        assert told.json["active"] is False
    for pair in tokens:
        with pytest.raises(GatefoldError, match="invalid_grant"):
            await house.refresh(pair.refresh_token)
        await until_refused(client.edge, pair.access_token)
    for key in made:
        await until(partial(refused, client, key))
    assert (await client.edge.ask("GET", "/v1/subscribers/me-not", credential=others)).status != 401
    if way == "deactivate":
        await client.patch(user["id"], {"op": "replace", "path": "active", "value": True})
        await house.sign_in_staff(email, account=publisher.live)
        assert (await client.edge.ask("GET", "/v1/subscribers/me-not", credential=made[0])).status == 401


async def test_the_last_owner_stays(client: Client) -> None:
    owner = ids.encode("mem", client.publisher.member)
    scim_error(await client.patch(owner, {"op": "replace", "path": "active", "value": False}), 409)


@pytest.mark.case("auth-66")
@pytest.mark.parametrize("change", [{"op": "remove", "path": "active"}, {"op": "replace", "value": {"active": None}}])
async def test_nobody_comes_in_again_because_nothing_is_said_of_it(client: Client, change: dict[str, object]) -> None:
    user, _ = await client.member()
    await client.patch(user["id"], {"op": "replace", "path": "active", "value": False})
    assert (await client.patch(user["id"], change)).json["active"] is False


async def test_an_invitation_that_is_wanted_no_more_cannot_be_accepted_until_it_is_again(client: Client) -> None:
    house, account = client.house, client.publisher.live
    user = await client.create()
    token = await house.token(account, "invite_member")
    assert (await client.patch(user["id"], {"op": "replace", "path": "active", "value": False})).json["active"] is False
    with pytest.raises(GatefoldError, match="token_"):
        await house.accept(token)
    assert (await client.patch(user["id"], {"op": "replace", "path": "active", "value": True})).json["active"] is True
    await house.accept(await house.token(account, "invite_member"))


async def test_whoever_comes_inactive_gets_no_mail(client: Client) -> None:
    before = await client.house.events(client.publisher.live)
    user = await client.create(active=False)
    assert user["active"] is False
    assert await client.house.events(client.publisher.live) == before


# What a directory, or a stolen key of one, may not do.


@pytest.mark.case("auth-66")
async def test_a_key_reaches_its_own_account_alone(client: Client, house: AuthHouse, edge: Edge) -> None:
    user, _ = await client.member()
    other = await house.publisher()
    stranger = Client(edge, house, other, await key_of(house, other.live))
    scim_error(await stranger.ask("GET", f"/Users/{user['id']}"), 404)
    scim_error(await stranger.patch(user["id"], {"op": "replace", "path": "active", "value": False}), 404)
    scim_error(await stranger.ask("DELETE", f"/Users/{user['id']}"), 404)
    add = {"op": "add", "path": "members", "value": [{"value": user["id"]}]}
    scim_error(await stranger.patch_group("admin", add), 404)
    listed = (await stranger.ask("GET", "/Users")).json
    assert [one["id"] for one in listed["Resources"]] == [ids.encode("mem", other.member)]


@pytest.mark.case("auth-66")
async def test_a_key_reaches_nothing_but_scim_and_nothing_else_reaches_scim(client: Client) -> None:
    for path in ("/v1/members", "/v1/subscribers", "/v1/api_keys", "/v1/session/devices"):
        answer = await client.edge.ask("GET", path, credential=client.key)
        assert (answer.status, answer.reason) == (403, "caller_kind_not_allowed"), path
    secret = await key_of(client.house, client.publisher.live, kind=api_key_pb2.API_KEY_KIND_SECRET)
    public = await key_of(client.house, client.publisher.live, kind=api_key_pb2.API_KEY_KIND_PUBLISHABLE)
    tokens = await client.house.sign_in_staff(client.publisher.owner_email, account=client.publisher.live)
    for credential in (secret, public, tokens.access_token):
        scim_error(await client.edge.ask("GET", "/scim/v2/Users", credential=credential), 403)
    assert (await client.edge.ask("GET", "/scim/v2/Users")).status == 401


@pytest.mark.case("auth-66")
async def test_owners_alone_make_replace_and_repeat_a_key_that_keeps_owners_out(house: AuthHouse) -> None:
    publisher = await house.publisher()
    for role in (roles.ADMIN, roles.DEVELOPER):
        with pytest.raises(GatefoldError, match="role_above_own"):
            await key_of(house, publisher.live, role)
    with pytest.raises(GatefoldError, match="team_is_live"):
        await key_of(house, publisher.test, live=False)
    await key_of(house, publisher.live)
    listed = await house.call(house.staff(publisher.live), house.api_keys.ListApiKeys, api_key_pb2.ListApiKeysRequest())
    assert isinstance(listed, api_key_pb2.ListApiKeysResponse)
    request = api_key_pb2.RotateApiKeyRequest(id=listed.data[0].id)
    for role in (roles.ADMIN, roles.DEVELOPER):
        with pytest.raises(GatefoldError, match="role_above_own"):
            await house.call(house.staff(publisher.live, role), house.api_keys.RotateApiKey, request)


@pytest.mark.case("auth-66")
@pytest.mark.parametrize(
    "added",
    [
        {"op": "add", "path": "roles", "value": [{"value": "support"}]},
        {"op": "add", "path": "roles", "value": {"value": "support", "primary": False}},
        {"op": "add", "value": {"roles": [{"value": "support"}]}},
        {"op": "add", "path": 'roles[primary eq "True"].value', "value": "support"},
    ],
)
async def test_a_role_that_is_added_takes_the_place_of_the_one_that_was_there(
    client: Client, added: dict[str, object]
) -> None:
    user, _ = await client.member("finance")
    answer = await client.patch(user["id"], added)
    assert answer.status == 200
    assert [one["value"] for one in answer.json["roles"]] == ["support"]
    again = await client.patch(user["id"], {"op": "add", "path": "roles", "value": [{"value": "support"}]})
    assert [one["value"] for one in again.json["roles"]] == ["support"], "the same once more changes nothing"
    await client.patch(user["id"], {"op": "replace", "path": "displayName", "value": "Ada"})
    both: list[dict[str, object]] = [{"value": "finance"}, {"value": "sales"}]
    scim_error(await client.patch(user["id"], {"op": "add", "path": "roles", "value": both}), 400, "invalidValue")
    both[1]["primary"] = True
    assert (await client.patch(user["id"], {"op": "add", "path": "roles", "value": both})).json["roles"][0] == {
        "value": "sales",
        "primary": True,
    }


@pytest.mark.case("auth-66")
async def test_nobody_is_made_or_unmade_an_owner(client: Client) -> None:
    body = {"schemas": [USER], "userName": client.house.fresh("staff"), "roles": [{"value": "owner"}]}
    scim_error(await client.ask("POST", "/Users", body), 403)
    user, _ = await client.member()
    scim_error(await client.patch(user["id"], {"op": "replace", "path": "roles", "value": [{"value": "owner"}]}), 403)
    add = {"op": "add", "path": "members", "value": [{"value": user["id"]}]}
    scim_error(await client.patch_group("owner", add), 403)
    owner = ids.encode("mem", client.publisher.member)
    scim_error(await client.patch_group("owner", {"op": "remove", "path": "members"}), 403)
    scim_error(await client.patch_group("support", {"op": "add", "path": "members", "value": [{"value": owner}]}), 403)
    scim_error(await client.patch(owner, {"op": "replace", "path": "roles", "value": [{"value": "admin"}]}), 403)
    # Nor where another owner is left: whoever makes keys need not be one.
    second, _ = await client.member()
    team = client.house.team
    request = team_pb2.ChangeRoleRequest(id=second["id"], role=team_pb2.ROLE_OWNER)
    await client.house.call(client.house.staff(client.publisher.live), team.ChangeRole, request)
    scim_error(await client.ask("DELETE", f"/Users/{owner}"), 403)
    assert (await client.ask("GET", f"/Users/{owner}")).json["roles"][0]["value"] == "owner"


async def test_a_directory_that_names_somebody_elses_address_gains_nothing_of_theirs(
    client: Client, house: AuthHouse
) -> None:
    victim = await house.publisher()
    user = await client.create(victim.owner_email, name={"givenName": "Mallory"}, password="a password of mine")
    # The person goes on as before, elsewhere, and is no member here until they accept.
    await house.sign_in_staff(victim.owner_email, account=victim.live)
    with pytest.raises(GatefoldError, match="account_not_found"):
        await house.sign_in_staff(victim.owner_email, account=client.publisher.live)
    new = {"op": "replace", "path": "userName", "value": house.fresh("mallory")}
    scim_error(await client.patch(user["id"], new), 400, "mutability")
    await client.ask("DELETE", f"/Users/{user['id']}")
    await house.sign_in_staff(victim.owner_email, account=victim.live)
    listed = await house.call(house.staff(victim.live), house.team.ListMembers, team_pb2.ListMembersRequest())
    assert isinstance(listed, team_pb2.ListMembersResponse)
    assert [one.name for one in listed.data] == ["Ada Owner"]


@pytest.mark.case("auth-66")
@pytest.mark.parametrize(
    "text",
    [
        "userName eq",
        'userName eq "x" or 1=1 --',
        "userName eq \"'; DROP TABLE membership; --",
        "userName eq 'x'",
        'userName gt true and "',
        'nothing.at.all pr "x"',
    ],
)
async def test_a_filter_that_is_none_is_refused(client: Client, text: str) -> None:
    scim_error(await client.ask("GET", f"/Users?filter={quote(text)}"), 400, "invalidFilter")


@pytest.mark.case("auth-66")
async def test_a_filter_is_compared_and_never_run(client: Client) -> None:
    await client.create()
    for text in ("x' OR '1'='1", "%", "_%", '\\" or userName pr or userName eq \\"'):
        asked = quote(f'userName eq "{text}"')
        listed = (await client.ask("GET", f"/Users?filter={asked}")).json
        assert listed["totalResults"] == 0


@pytest.mark.case("auth-66")
@pytest.mark.parametrize("group", [True, False])
async def test_a_long_patch_keeps_no_other_request_waiting(
    client: Client, monkeypatch: pytest.MonkeyPatch, *, group: bool
) -> None:
    user, _ = await client.member()
    worked: list[threading.Thread] = []
    real = scim_documents.patched

    def noted(resource: Any, body: bytes) -> Any:
        worked.append(threading.current_thread())
        return real(resource, body)

    monkeypatch.setattr(scim_documents, "patched", noted)
    if group:
        member = [{"value": user["id"]}]
        assert (await client.patch_group("sales", {"op": "add", "path": "members", "value": member})).status == 200
    else:
        assert (await client.patch(user["id"], {"op": "add", "path": "displayName", "value": "Ada"})).status == 200
    assert len(worked) == 1
    assert threading.main_thread() not in worked


@pytest.mark.case("auth-66")
async def test_a_long_filter_is_read_once_and_keeps_no_other_request_waiting(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await client.create()
    read: list[threading.Thread] = []
    real: Any = scim_documents.ScimFilter

    class Noted:
        def __class_getitem__(cls, kind: Any) -> Any:
            read.append(threading.current_thread())
            return real[kind]

    monkeypatch.setattr(scim_documents, "ScimFilter", Noted)
    asked = quote(" or ".join(['userName co "x"'] * 100))
    for path in (f"/Users?filter={asked}", "/Groups?filter=displayName%20pr"):
        assert (await client.ask("GET", path)).status == 200
    assert len(read) == 2
    assert threading.main_thread() not in read


@pytest.mark.case("auth-66")
@pytest.mark.parametrize(
    ("operation", "kind"),
    [
        ({"op": "replace", "path": "id", "value": "mem_x"}, "mutability"),
        ({"op": "replace", "path": "__class__", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "meta.version", "value": "x"}, "mutability"),
        ({"op": "launch", "path": "active", "value": True}, None),
        ({"op": "replace", "path": 'emails[type eq "work" or', "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "active", "value": {"deep": "x"}}, "invalidValue"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "replace", "path": "roles", "value": [{"value": "root"}]}, "invalidValue"),
        ({"op": "replace", "path": "userName", "value": "no address"}, "invalidValue"),
    ],
)
async def test_a_patch_that_is_none_is_refused_and_changes_nothing(
    client: Client, operation: dict[str, object], kind: str | None
) -> None:
    user = await client.create()
    answer = await client.patch(user["id"], {"op": "replace", "path": "displayName", "value": "changed"}, operation)
    assert answer.status == 400, answer.body
    if kind:
        assert answer.json["scimType"] == kind
    assert (await client.ask("GET", f"/Users/{user['id']}")).json.get("displayName") is None


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        (b"{", 400, "invalidSyntax"),
        (b"[]", 400, "invalidSyntax"),
        (b'{"schemas":[]}', 400, "invalidValue"),
        (b"[" * 5000 + b"]" * 5000, 400, "invalidSyntax"),
        (b'{"userName":"' + b"x" * 70_000 + b'"}', 413, None),
    ],
)
async def test_a_body_that_is_no_user_is_refused(client: Client, body: bytes, status: int, kind: str | None) -> None:
    scim_error(await client.ask("POST", "/Users", body), status, kind)


async def test_an_endless_patch_is_refused(client: Client) -> None:
    user = await client.create()
    one = {"op": "add", "path": "title", "value": "x"}
    scim_error(await client.patch(user["id"], *[one] * 101), 413)


# Versions.


@pytest.mark.case("auth-66")
async def test_of_two_changes_of_one_version_the_second_is_refused(client: Client) -> None:
    user, _ = await client.member()
    read = await client.ask("GET", f"/Users/{user['id']}")
    tag = read.headers["ETag"]
    assert tag == read.json["meta"]["version"]
    assert (await client.ask("GET", f"/Users/{user['id']}", If_None_Match=tag)).status == 304
    changes = [{"op": "replace", "path": "displayName", "value": f"name {number}"} for number in range(6)]
    answers = await asyncio.gather(*(client.patch(user["id"], change, If_Match=tag) for change in changes))
    assert sorted(answer.status for answer in answers) == [200, 412, 412, 412, 412, 412]
    fresh = (await client.ask("GET", f"/Users/{user['id']}")).headers["ETag"]
    assert fresh != tag
    scim_error(await client.ask("DELETE", f"/Users/{user['id']}", If_Match=tag), 412)
    assert (await client.ask("DELETE", f"/Users/{user['id']}", If_Match=fresh)).status == 204


@pytest.mark.case("auth-66")
async def test_two_changes_that_have_read_one_version_do_not_both_count(client: Client) -> None:
    user, _ = await client.member()
    tag = (await client.ask("GET", f"/Users/{user['id']}")).headers["ETag"]
    changes = [{"op": "replace", "path": "displayName", "value": f"name {number}"} for number in range(2)]
    async with client.house.app.tenant(client.publisher.live, "test") as conn:
        await conn.execute("SELECT FROM membership FOR UPDATE")
        asked = [asyncio.create_task(client.patch(user["id"], change, If_Match=tag)) for change in changes]
        # Both have compared their version by the time they wait for the row.
        await blocked(conn, 2)
    assert sorted(answer.status for answer in await asyncio.gather(*asked)) == [200, 412]


@pytest.mark.case("auth-66")
@pytest.mark.parametrize("accepted", [True, False])
async def test_a_change_of_something_else_takes_back_nothing_that_was_done_meanwhile(
    client: Client, *, accepted: bool
) -> None:
    user = (await client.member("admin"))[0] if accepted else await client.create(roles=[{"value": "admin"}])
    key = ids.decode("mem", user["id"])
    async with client.house.app.tenant(client.publisher.live, "test") as conn:
        await conn.execute("SELECT FROM membership FOR UPDATE")
        change = {"op": "replace", "path": "displayName", "value": "Ada"}
        asked = asyncio.create_task(client.patch(user["id"], change))
        await blocked(conn, 1)
        # It has read an active admin; the row comes free as what it is by now.
        await conn.execute("UPDATE membership SET role = 'read_only' WHERE id = $1", key)
        await conn.execute("UPDATE directory_entry SET wanted = false WHERE id = $1", key)
        await conn.execute(
            """
            INSERT INTO disabled_sign_in (account_id, id, person_id, disabled_at)
            SELECT account_id, id, person_id, now() FROM membership WHERE id = $1 AND person_id IS NOT NULL
            """,
            key,
        )
    told = (await asked).json
    assert (told["displayName"], told["active"], told["roles"][0]["value"]) == ("Ada", False, "read_only")


async def test_an_address_is_taken_once(client: Client) -> None:
    email = client.house.fresh("staff")
    bodies = [{"schemas": [USER], "userName": email} for _ in range(4)]
    answers = await asyncio.gather(*(client.ask("POST", "/Users", body) for body in bodies))
    assert sorted(answer.status for answer in answers) == [201, 409, 409, 409]
    scim_error(await client.ask("POST", "/Users", bodies[0]), 409, "uniqueness")


async def test_what_a_directory_says_of_people_lies_sealed_and_a_password_nowhere(client: Client, vault: Vault) -> None:
    account = client.publisher.live
    await client.create(name={"givenName": "Sealed-Given-Name"}, password="a password of the directory")
    async with client.house.app.tenant(account, "test") as conn:
        (row,) = await conn.fetch(
            "SELECT id, attributes_sealed, to_jsonb(directory_entry)::text AS row FROM directory_entry"
        )
    assert "ealed-" not in row["row"]
    cipher = await vault.account_cipher(account)
    opened = cipher.open(DIRECTORY_ENTRY_TABLE, 1, row["id"], row["attributes_sealed"]).decode()
    assert "Sealed-Given-Name" in opened
    assert "password" not in opened


async def test_a_key_in_a_url_is_refused_and_told(client: Client) -> None:
    answer = await client.edge.ask("GET", f"/scim/v2/Users?filter={client.key}")
    assert (answer.status, answer.reason) == (403, "secret_key_exposed")
