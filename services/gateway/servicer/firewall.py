"""Owns gatefold.gateway.v1.FirewallService at the wire."""

from datetime import timedelta
from uuid import UUID

from gatefold.gateway.v1 import firewall_pb2, firewall_pb2_grpc

from libs import ids
from services.gateway.domain import cursor
from services.gateway.domain.bundle import EntryList, Mode, Override, Quota, Rule
from services.gateway.usecases import present
from services.gateway.usecases.back_tests import BackTests
from services.gateway.usecases.fleet import Fleet
from services.gateway.usecases.hits import HitCounts
from services.gateway.usecases.lists import EntryLists
from services.gateway.usecases.quotas import RateLimits
from services.gateway.usecases.rules import Rules
from services.gateway.usecases.versions import Versions

_NEW = UUID(int=0)
"""Stands where the use case gives an id."""
_BEYOND = 1 << 62
_MOST_PAGE, _MOST_LONG_PAGE = 100, 1000


class FirewallServicer(firewall_pb2_grpc.FirewallServiceServicer):
    """What all gateways enforce."""

    def __init__(
        self,
        rules: Rules,
        lists: EntryLists,
        rate_limits: RateLimits,
        versions: Versions,
        hits: HitCounts,
        back_tests: BackTests,
        fleet: Fleet,
    ) -> None:
        self._rules = rules
        self._lists = lists
        self._rate_limits = rate_limits
        self._versions = versions
        self._hits = hits
        self._back_tests = back_tests
        self._fleet = fleet

    async def CreateRule(self, request: firewall_pb2.CreateRuleRequest, context: object) -> firewall_pb2.Rule:
        """Adds a rule."""
        held = await self._rules.create(_rule(request, _NEW), request.owner, request, request.expected_version)
        return present.rule(held)

    async def ListRules(
        self, request: firewall_pb2.ListRulesRequest, context: object
    ) -> firewall_pb2.ListRulesResponse:
        """Lists rules."""
        found, version = await self._rules.list_all()
        return firewall_pb2.ListRulesResponse(data=[present.rule(held) for held in found], version=version)

    async def GetRule(self, request: firewall_pb2.GetRuleRequest, context: object) -> firewall_pb2.Rule:
        """Reads a rule."""
        return present.rule(await self._rules.get(ids.decode("rule", request.id)))

    async def UpdateRule(self, request: firewall_pb2.UpdateRuleRequest, context: object) -> firewall_pb2.Rule:
        """Replaces a rule."""
        wanted = _rule(request, ids.decode("rule", request.id))
        return present.rule(await self._rules.update(wanted, request.owner, request, request.expected_version))

    async def SetRuleMode(self, request: firewall_pb2.SetRuleModeRequest, context: object) -> firewall_pb2.Rule:
        """Puts a rule into force, into shadow, or switches it off."""
        mode = present.stated_mode(request.mode)
        key = ids.decode("rule", request.id)
        return present.rule(await self._rules.set_mode(key, mode, request, request.expected_version))

    async def DeleteRule(self, request: firewall_pb2.DeleteRuleRequest, context: object) -> firewall_pb2.Change:
        """Removes a rule."""
        made = await self._rules.delete(ids.decode("rule", request.id), request, request.expected_version)
        return firewall_pb2.Change(version=made.number)

    async def ListRuleHits(
        self, request: firewall_pb2.ListRuleHitsRequest, context: object
    ) -> firewall_pb2.ListRuleHitsResponse:
        """Shows a rule's hits."""
        key = ids.decode("rule", request.id)
        await self._rules.get(key)
        found = await self._hits.of_rule(key, request.hours)
        return firewall_pb2.ListRuleHitsResponse(
            data=[
                firewall_pb2.HourOfHits(
                    hour=present.timestamp(hour), enforced=hits.enforced, shadow=hits.shadow, failed=hits.failed
                )
                for hour, hits in found
            ]
        )

    async def SumHits(self, request: firewall_pb2.SumHitsRequest, context: object) -> firewall_pb2.SumHitsResponse:
        """Shows all rules' hits."""
        return firewall_pb2.SumHitsResponse(
            data=[
                firewall_pb2.RuleHits(
                    rule_id=ids.encode("rule", rule),
                    enforced=hits.enforced,
                    shadow=hits.shadow,
                    failed=hits.failed,
                    last_hour=present.timestamp(last),
                )
                for rule, hits, last in await self._hits.summed(request.hours)
            ]
        )

    async def BackTest(self, request: firewall_pb2.BackTestRequest, context: object) -> firewall_pb2.BackTestResponse:
        """Tries an expression."""
        found = await self._back_tests.run(request.expression)
        return firewall_pb2.BackTestResponse(
            seen=found.trial.seen,
            sampled=found.trial.sampled,
            matched=found.trial.matched,
            estimated=found.trial.estimated,
            since=present.timestamp(found.trial.since),
            gateways=found.gateways,
            answered=found.answered,
        )

    async def CreateEntryList(
        self, request: firewall_pb2.CreateEntryListRequest, context: object
    ) -> firewall_pb2.EntryList:
        """Adds a list."""
        wanted = EntryList(_NEW, request.name, present.kind_of(request.kind), allows=request.allows)
        held = await self._lists.create(wanted, request.description, request, request.expected_version)
        return present.entry_list(held)

    async def ListEntryLists(
        self, request: firewall_pb2.ListEntryListsRequest, context: object
    ) -> firewall_pb2.ListEntryListsResponse:
        """Lists lists."""
        found, version = await self._lists.list_all()
        return firewall_pb2.ListEntryListsResponse(data=[present.entry_list(held) for held in found], version=version)

    async def GetEntryList(self, request: firewall_pb2.GetEntryListRequest, context: object) -> firewall_pb2.EntryList:
        """Reads a list."""
        return present.entry_list(await self._lists.get(ids.decode("list", request.id)))

    async def UpdateEntryList(
        self, request: firewall_pb2.UpdateEntryListRequest, context: object
    ) -> firewall_pb2.EntryList:
        """Replaces what is said of a list."""
        held = await self._lists.update(
            ids.decode("list", request.id),
            request.name,
            request.description,
            request,
            request.expected_version,
            allows=request.allows,
        )
        return present.entry_list(held)

    async def DeleteEntryList(
        self, request: firewall_pb2.DeleteEntryListRequest, context: object
    ) -> firewall_pb2.Change:
        """Removes a list."""
        made = await self._lists.delete(ids.decode("list", request.id), request, request.expected_version)
        return firewall_pb2.Change(version=made.number)

    async def ListEntries(
        self, request: firewall_pb2.ListEntriesRequest, context: object
    ) -> firewall_pb2.ListEntriesResponse:
        """Lists entries."""
        limit = cursor.page_limit(request.limit, _MOST_LONG_PAGE)
        found = await self._lists.page(ids.decode("list", request.id), cursor.read(request.cursor), limit + 1)
        following = cursor.after(found[limit - 1][0]) if len(found) > limit else ""
        return firewall_pb2.ListEntriesResponse(data=present.entries(found[:limit]), next_cursor=following)

    async def AddEntries(self, request: firewall_pb2.AddEntriesRequest, context: object) -> firewall_pb2.EntryList:
        """Adds entries."""
        added = [(entry.text, present.moment(entry, "expires_at")) for entry in request.entries]
        held = await self._lists.add(ids.decode("list", request.id), added, request, request.expected_version)
        return present.entry_list(held)

    async def RemoveEntries(
        self, request: firewall_pb2.RemoveEntriesRequest, context: object
    ) -> firewall_pb2.EntryList:
        """Removes entries."""
        key = ids.decode("list", request.id)
        return present.entry_list(await self._lists.remove(key, request.texts, request, request.expected_version))

    async def ImportEntries(
        self, request: firewall_pb2.ImportEntriesRequest, context: object
    ) -> firewall_pb2.ImportEntriesResponse:
        """Imports lines."""
        held, read = await self._lists.import_lines(
            ids.decode("list", request.id),
            request.file.data,
            request.file.content_type,
            request,
            request.expected_version,
            lasts=timedelta(seconds=request.expires_in_seconds) or None,
            replaces=request.replace,
        )
        return firewall_pb2.ImportEntriesResponse(
            list=present.entry_list(held), lines=read.lines, duplicates=read.lines - len(read.entries)
        )

    async def ListQuotas(
        self, request: firewall_pb2.ListQuotasRequest, context: object
    ) -> firewall_pb2.ListQuotasResponse:
        """Lists quotas."""
        found, version = await self._rate_limits.list_quotas()
        return firewall_pb2.ListQuotasResponse(data=[present.quota(held) for held in found], version=version)

    async def GetQuota(self, request: firewall_pb2.GetQuotaRequest, context: object) -> firewall_pb2.Quota:
        """Reads a quota."""
        return present.quota(await self._rate_limits.get_quota(request.name))

    async def SetQuota(self, request: firewall_pb2.SetQuotaRequest, context: object) -> firewall_pb2.Quota:
        """Sets a quota."""
        held = await self._rate_limits.set_quota(_quota(request), request, request.expected_version)
        return present.quota(held)

    async def RemoveQuota(self, request: firewall_pb2.RemoveQuotaRequest, context: object) -> firewall_pb2.Change:
        """Goes back to a default."""
        made = await self._rate_limits.remove_quota(request.name, request, request.expected_version)
        return firewall_pb2.Change(version=made.number)

    async def ListOverrides(
        self, request: firewall_pb2.ListOverridesRequest, context: object
    ) -> firewall_pb2.ListOverridesResponse:
        """Lists accounts' own quotas."""
        limit = cursor.page_limit(request.limit, _MOST_LONG_PAGE)
        account = ids.decode("acct", request.account_id, field="account_id") if request.account_id else None
        found = await self._rate_limits.list_overrides(account, _place(request.cursor), limit + 1)
        shown = [present.override(held) for held in found[:limit]]
        following = f"{shown[-1].account_id} {shown[-1].quota.name}" if len(found) > limit else ""
        return firewall_pb2.ListOverridesResponse(data=shown, next_cursor=cursor.after(following))

    async def SetOverride(self, request: firewall_pb2.SetOverrideRequest, context: object) -> firewall_pb2.Override:
        """Gives an account a quota of its own."""
        account = ids.decode("acct", request.account_id, field="account_id")
        wanted = Override(account, _quota(request), present.moment(request, "expires_at"))
        return present.override(await self._rate_limits.set_override(wanted, request, request.expected_version))

    async def RemoveOverride(self, request: firewall_pb2.RemoveOverrideRequest, context: object) -> firewall_pb2.Change:
        """Takes an account's own quota away."""
        account = ids.decode("acct", request.account_id, field="account_id")
        made = await self._rate_limits.remove_override(account, request.name, request, request.expected_version)
        return firewall_pb2.Change(version=made.number)

    async def ListVersions(
        self, request: firewall_pb2.ListVersionsRequest, context: object
    ) -> firewall_pb2.ListVersionsResponse:
        """Lists versions."""
        limit = cursor.page_limit(request.limit, _MOST_PAGE)
        found = await self._versions.page(_number(request.cursor), limit + 1)
        following = cursor.after(str(found[limit - 1].number)) if len(found) > limit else ""
        return firewall_pb2.ListVersionsResponse(
            data=[present.version(held) for held in found[:limit]], next_cursor=following
        )

    async def GetVersion(
        self, request: firewall_pb2.GetVersionRequest, context: object
    ) -> firewall_pb2.GetVersionResponse:
        """Reads a version."""
        held, contents = await self._versions.get(request.number)
        return firewall_pb2.GetVersionResponse(
            version=present.version(held),
            rules=[present.rule(each) for each in contents.rules],
            lists=[present.entry_list(each) for each in contents.lists],
            quotas=[present.quota(each) for each in contents.quotas],
            overrides=[present.override(each) for each in contents.overrides],
        )

    async def RestoreVersion(
        self, request: firewall_pb2.RestoreVersionRequest, context: object
    ) -> firewall_pb2.Version:
        """Brings a version back."""
        held = await self._versions.restore(request.number, request, request.expected_version)
        return present.version(held)

    async def GetStatus(
        self, request: firewall_pb2.GetStatusRequest, context: object
    ) -> firewall_pb2.GetStatusResponse:
        """Shows who enforces what."""
        newest, gateways = await self._fleet.status()
        settled = all(gateway.version == newest for gateway in gateways)
        return firewall_pb2.GetStatusResponse(version=newest, gateways=gateways, settled=settled)


def _rule(request: firewall_pb2.CreateRuleRequest | firewall_pb2.UpdateRuleRequest, key: UUID) -> Rule:
    return Rule(
        id=key,
        name=request.name,
        expression=request.expression,
        action=present.action_of(request.action),
        parameter=request.parameter,
        priority=request.priority,
        mode=present.mode_of(request.mode, Mode.SHADOW),
        expires_at=present.moment(request, "expires_at"),
        description=request.description,
    )


def _quota(request: firewall_pb2.SetQuotaRequest | firewall_pb2.SetOverrideRequest) -> Quota:
    return Quota(request.name, request.amount, request.seconds, present.mode_of(request.mode, Mode.ENFORCE))


def _place(text: str) -> tuple[UUID, str] | None:
    if not text:
        return None
    account, blank, name = cursor.read(text).partition(" ")
    if not blank:
        raise cursor.malformed()
    return ids.decode("acct", account, field="cursor"), name


def _number(text: str) -> int:
    if not text:
        return _BEYOND
    number = cursor.read(text)
    if not (number.isascii() and number.isdecimal() and len(number) < 19):
        raise cursor.malformed()
    return int(number)
