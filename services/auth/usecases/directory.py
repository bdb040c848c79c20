"""Owns a team as its staff directory keeps it, over SCIM: users are members, groups are roles."""

import asyncio
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar
from uuid import UUID

import orjson

from libs import caller, errors, ids
from libs.clock import WallClock
from libs.errors import GatefoldError
from libs.postgres import Connection, Database, as_tenant
from libs.vault import Cipher, Vault
from services.auth.domain import challenge, directory, roles
from services.auth.domain.directory import Document, Query, Standing
from services.auth.domain.team import Membership
from services.auth.repository import DIRECTORY_ENTRY_TABLE, api_keys, directory_entries, disabled_sign_ins, people
from services.auth.repository.directory_entries import DirectoryEntry
from services.auth.usecases import addresses, scim_documents
from services.auth.usecases.challenges import Challenges
from services.auth.usecases.members import Members, places_of
from services.auth.usecases.team import Invitation, Team

T = TypeVar("T")

_SAID_FIELD = 1
_BY_NAME = re.compile(r'\s*userName\s+eq\s+"([^"\\]{1,300})"\s*', re.IGNORECASE)

Change = Callable[[Any], Any]
"""Makes of a resource what it is to become."""


class Directory:
    """What a directory does to the team of the account whose key it holds."""

    def __init__(
        self,
        db: Database,
        vault: Vault,
        team: Team,
        members: Members,
        challenges: Challenges,
        issuer: str,
        clock: WallClock,
    ) -> None:
        self._db = db
        self._vault = vault
        self._team = team
        self._members = members
        self._challenges = challenges
        self._base = f"{issuer.rstrip('/')}/scim/v2"
        self._clock = clock
        # One for all accounts: what takes seconds takes them from nobody who signs in.
        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="scim")

    def config(self) -> Document:
        """Returns what is served."""
        return scim_documents.config(self._base)

    def resource_types(self) -> Document:
        """Returns the kinds of resources."""
        return scim_documents.resource_types(self._base)

    def schemas(self) -> Document:
        """Returns the schemas."""
        return scim_documents.schemas(self._base)

    async def users(self, query: Query) -> Document:
        """Lists members; raises `malformed("scim_invalid")` for a filter that is none."""
        account = _account()
        named = _BY_NAME.fullmatch(query.filter)
        async with self._db.tenant(account, "read_team", read_only=True) as conn:
            found = None if named else await people.everyone(conn, account, most=directory.MOST_MEMBERS)
        if found is None:
            found = await self._with_address(account, named[1] if named else "")
        standings = await self._standings(account, found)

        def show() -> Document:
            shown = [scim_documents.user_of(one, self._base) for one in standings]
            return scim_documents.listed(scim_documents.USERS, shown, query)

        return await self._aside(show)

    async def user(self, member: str, query: Query) -> Document:
        """Reads a member; raises `not_found("scim_user_not_found")`."""
        account = _account()
        async with self._db.tenant(account, "read_member", read_only=True) as conn:
            held = await people.find_membership(conn, account, _member_id(member))
        if held is None:
            raise _no_user()
        (standing,) = await self._standings(account, [held])
        return scim_documents.document(scim_documents.user_of(standing, self._base), query)

    async def create(self, body: bytes) -> Document:
        """Invites a member, by mail unless they come inactive.

        Raises `conflict("scim_user_exists")` for an address of the team, `forbidden("role_above_own")` for an owner.
        """
        account = _account()
        user = scim_documents.read_user(body, new=True)
        address = _address(user.user_name)
        role = scim_documents.wanted_role(user) or directory.GIVEN
        _check_role(None, role)
        active = user.active is not False
        ready = await self._team.prepare_invitation(account, address, role)
        entry = await self._entry(account, ready.membership.id, user, wanted=active)
        async with self._db.tenant(account, "create_directory_user") as conn:
            if await people.invited(conn, account, ready.email_index):
                raise _user_exists()
            stored = await people.invite(conn, account, ready.membership, ready.email_index)
            if stored is None or stored.id != ready.membership.id:
                raise _user_exists()
            if active:
                await self._challenges.store(conn, account, ready.challenge, live=True)
            await directory_entries.put(conn, account, entry)
        return await self.user(ids.encode("mem", stored.id), _EVERYTHING)

    async def replace(self, member: str, body: bytes, if_match: str) -> Document:
        """Replaces what is said of a member. Raises as `change`."""
        sent = scim_documents.read_user(body, new=False)

        def become(before: Any) -> Any:
            sent.id = before.id
            # What is left out and nobody can be without stays.
            sent.user_name = sent.user_name or before.user_name
            sent.active = before.active if sent.active is None else sent.active
            sent.roles = sent.roles or before.roles
            return sent

        return await self._change(member, become, if_match)

    async def patch(self, member: str, body: bytes, if_match: str) -> Document:
        """Changes what is said of a member.

        Raises `not_found("scim_user_not_found")`, `precondition("version_mismatch")` when `if_match` is of another
        version, `malformed("scim_invalid")`, `malformed("scim_immutable")` for another address, since that is the
        person's own, `forbidden("role_above_own")` and `precondition("last_owner")`.
        """
        return await self._change(member, lambda before: scim_documents.patched_user(before, body), if_match)

    async def delete(self, member: str, if_match: str) -> None:
        """Removes a member, whose sessions and keys end. Raises as `patch`, for an owner `forbidden` as well."""
        account = _account()
        key = _member_id(member)
        _, standing = await self._standing(account, key)
        async with self._members.changing(account, "delete_directory_user") as conn:
            held = await _locked(conn, account, key)
            await self._check_version(conn, account, standing, held, if_match)
            # Whoever is removed loses their role.
            _check_role(held.role, directory.GIVEN)
            if held.person is not None:
                await self._end_keys(conn, account, held.person)
            await self._members.take_out(conn, account, held)

    async def groups(self, query: Query) -> Document:
        """Lists roles with their members."""
        standings = await self._everyone()

        def show() -> Document:
            shown = [scim_documents.group_of(role, standings, self._base) for role in roles.ROLES]
            return scim_documents.listed(scim_documents.GROUPS, shown, query)

        return await self._aside(show)

    async def group(self, role: str, query: Query) -> Document:
        """Reads a role with its members; raises `not_found("scim_group_not_found")`."""
        _check_group(role)
        standings = await self._everyone()

        def show() -> Document:
            return scim_documents.document(scim_documents.group_of(role, standings, self._base), query)

        return await self._aside(show)

    async def replace_group(self, role: str, body: bytes, if_match: str) -> Document:
        """Gives a role to exactly those listed. Raises as `patch_group`."""
        sent = scim_documents.read_group(body)

        def become(before: Any) -> Any:
            sent.id, sent.display_name = before.id, before.display_name
            return sent

        return await self._change_group(role, become, if_match)

    async def patch_group(self, role: str, body: bytes, if_match: str) -> Document:
        """Gives a role to some and takes it from others, who may read only then.

        Raises `not_found("scim_group_not_found")`, `not_found("scim_user_not_found")` for a member who is none, and as
        `patch`.
        """
        return await self._change_group(role, lambda before: scim_documents.patched(before, body), if_match)

    async def _change_group(self, role: str, become: Change, if_match: str) -> Document:
        _check_group(role)
        account = _account()
        standings = await self._everyone()
        before = await self._aside(lambda: scim_documents.group_of(role, standings, self._base))
        _match(if_match, before)
        after = await self._aside(lambda: become(before))
        if (after.display_name or role) != role:
            raise _immutable("A role keeps its name.")
        held, wanted = _members_of(before), _members_of(after)
        async with self._members.changing(account, "change_directory_group") as conn:
            team = {one.id: one for one in await people.everyone(conn, account, most=directory.MOST_MEMBERS, lock=True)}
            if if_match and {one.id for one in team.values() if one.role == role} != held:
                raise _version_mismatch()
            if not wanted <= team.keys():
                raise _no_user()
            for key in wanted - held:
                await self._give(conn, account, team[key], role)
            for key in held - wanted:
                if key in team and team[key].role == role:
                    await self._give(conn, account, team[key], directory.GIVEN)
        return await self.group(role, _EVERYTHING)

    async def _change(self, member: str, become: Change, if_match: str) -> Document:
        account, key = _account(), _member_id(member)
        found, standing = await self._standing(account, key)
        before = scim_documents.user_of(standing, self._base)
        _match(if_match, before)
        after = await self._aside(lambda: become(before))
        if _address(after.user_name).lower() != _address(before.user_name).lower():
            raise _immutable("The address is the person's own, and changed by them.")
        role = scim_documents.wanted_role(after) or standing.role
        # To say nothing of it, or null, lets nobody in.
        active = standing.active if after.active is None else after.active
        entry = await self._entry(account, key, after, wanted=active)
        again = None
        if active and not standing.active and found.person is None:
            again = await self._team.prepare_invitation(account, standing.email, role, found)
        async with self._members.changing(account, "change_directory_user") as conn:
            held = await _locked(conn, account, key)
            await self._check_version(conn, account, standing, held, if_match)
            # What was read may have changed since: nobody gets back a role or a way in that was not asked for.
            if role != standing.role:
                held = await self._give(conn, account, held, role)
            if active == standing.active:
                kept = (await directory_entries.of(conn, account, [key])).get(key)
                entry = replace(entry, wanted=kept.wanted) if kept else entry
            if held.person is None:
                await self._want(conn, account, held, again, active=active)
            elif active and not standing.active:
                await self._members.let_in(conn, account, held, held.person)
            elif not active:
                await self._end_keys(conn, account, held.person)
                await self._members.keep_out(conn, account, held, held.person)
            await directory_entries.put(conn, account, entry)
        return await self.user(member, _EVERYTHING)

    async def _aside(self, work: Callable[[], T]) -> T:
        """Returns what `work` returns, which takes seconds for a large team, a long filter or a long PATCH."""
        return await asyncio.get_running_loop().run_in_executor(self._beside, work)

    async def _give(self, conn: Connection, account: UUID, held: Membership, role: str) -> Membership:
        _check_role(held.role, role)
        return await self._members.give_role(conn, account, held, role)

    async def _want(
        self, conn: Connection, account: UUID, held: Membership, again: Invitation | None, *, active: bool
    ) -> None:
        """Withdraws the mail of an invitation that is wanted no more, or sends one anew."""
        if not active:
            await self._challenges.void_of(conn, account, held.id, (challenge.INVITE_MEMBER,))
        elif again is not None:
            await self._challenges.store(conn, account, again.challenge, live=True)

    async def _end_keys(self, conn: Connection, account: UUID, person: UUID) -> None:
        for place in await places_of(conn, account):
            async with as_tenant(conn, place):
                await api_keys.revoke_made_by(conn, place, person, self._clock.wall())

    async def _check_version(
        self, conn: Connection, account: UUID, standing: Standing, held: Membership, if_match: str
    ) -> None:
        """Compares once more while nobody else can change the member: of two with one version the second is refused."""
        if if_match:
            now = await self._stands(conn, account, [held], {held.id: standing.email}, await self._cipher(account))
            _match(if_match, scim_documents.user_of(now[0], self._base))

    async def _with_address(self, account: UUID, name: str) -> list[Membership]:
        index = await self._vault.blind_index(account, "email", name)
        async with self._db.tenant(account, "find_member", read_only=True) as conn:
            held = await people.invited(conn, account, index)
        return [held] if held else []

    async def _everyone(self) -> list[Standing]:
        account = _account()
        async with self._db.tenant(account, "read_team", read_only=True) as conn:
            found = await people.everyone(conn, account, most=directory.MOST_MEMBERS)
        return await self._standings(account, found)

    async def _standing(self, account: UUID, key: UUID) -> tuple[Membership, Standing]:
        async with self._db.tenant(account, "read_member", read_only=True) as conn:
            held = await people.find_membership(conn, account, key)
        if held is None:
            raise _no_user()
        return held, (await self._standings(account, [held]))[0]

    async def _standings(self, account: UUID, memberships: list[Membership]) -> list[Standing]:
        shown = await self._team.shown_all(account, memberships)
        emails = {one.membership.id: one.email for one in shown}
        cipher = await self._cipher(account)
        async with self._db.tenant(account, "read_directory", read_only=True) as conn:
            return await self._stands(conn, account, memberships, emails, cipher)

    async def _stands(
        self,
        conn: Connection,
        account: UUID,
        memberships: list[Membership],
        emails: dict[UUID, str],
        cipher: Cipher,
    ) -> list[Standing]:
        entries = await directory_entries.of(conn, account, [one.id for one in memberships])
        disabled = await disabled_sign_ins.since(conn, account, [one.person for one in memberships if one.person])
        standings = []
        for one in memberships:
            entry = entries.get(one.id)
            said = cipher.open(DIRECTORY_ENTRY_TABLE, _SAID_FIELD, one.id, entry.attributes_sealed) if entry else b"{}"
            standings.append(
                Standing(
                    id=ids.encode("mem", one.id),
                    email=emails[one.id],
                    role=one.role,
                    active=one.person not in disabled if one.person else entry is None or entry.wanted,
                    created_at=one.invited_at,
                    updated_at=entry.updated_at if entry else one.accepted_at or one.invited_at,
                    said=orjson.loads(said),
                )
            )
        return standings

    async def _entry(self, account: UUID, key: UUID, user: Any, *, wanted: bool) -> DirectoryEntry:
        cipher = await self._cipher(account)
        sealed = cipher.seal(DIRECTORY_ENTRY_TABLE, _SAID_FIELD, key, scim_documents.said(user))
        return DirectoryEntry(key, sealed, wanted, self._clock.wall())

    async def _cipher(self, account: UUID) -> Cipher:
        return await self._vault.account_cipher(account)


_EVERYTHING = Query("", "", "", 1, None, "", "")


def _account() -> UUID:
    return caller.current().require_account()


def _member_id(text: str) -> UUID:
    try:
        return ids.decode("mem", text)
    except GatefoldError:
        raise _no_user() from None


def _address(name: object) -> str:
    try:
        return addresses.checked(str(name or ""))
    except GatefoldError as error:
        raise errors.malformed(
            "scim_invalid", "A userName is an e-mail address.", metadata={"scim_type": "invalidValue"}
        ) from error


def _check_role(before: str | None, role: str) -> None:
    if role not in roles.ROLES:
        known = ", ".join(roles.ROLES)
        raise errors.malformed(
            "scim_invalid", f"There is no such role; roles are {known}.", metadata={"scim_type": "invalidValue"}
        )
    if not directory.may_give(before, role):
        raise errors.forbidden(
            "role_above_own", "Only an owner makes and unmakes owners, and nobody raises themselves."
        )


def _check_group(role: str) -> None:
    if role not in roles.ROLES:
        raise errors.not_found("scim_group_not_found", "There is no such group; the groups are the roles.")


def _members_of(group: Any) -> set[UUID]:
    return {_member_id(str(one.value)) for one in group.members or ()}


def _match(if_match: str, resource: Any) -> None:
    if if_match not in ("", "*", resource.meta.version):
        raise _version_mismatch()


async def _locked(conn: Connection, account: UUID, key: UUID) -> Membership:
    held = await people.lock_membership(conn, account, membership=key)
    if held is None:
        raise _no_user()
    return held


def _version_mismatch() -> GatefoldError:
    return errors.precondition("version_mismatch", "This was changed in the meantime; read it again.")


def _no_user() -> GatefoldError:
    return errors.not_found("scim_user_not_found", "There is no such user.")


def _user_exists() -> GatefoldError:
    return errors.conflict("scim_user_exists", "There is such a user already.", metadata={"scim_type": "uniqueness"})


def _immutable(detail: str) -> GatefoldError:
    return errors.malformed("scim_immutable", detail, metadata={"scim_type": "mutability"})
