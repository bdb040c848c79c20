"""Owns the messages of rules, lists, quotas and versions, and what is read from them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, TypeVar

from gatefold.gateway.v1 import bundle_pb2, firewall_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from libs import errors, ids
from services.gateway.domain.bundle import Action, EntryList, ListKind, Mode, Override, Quota, Rule
from services.gateway.domain.register import Contents, HeldList, HeldOverride, HeldQuota, HeldRule, Version

_Member = TypeVar("_Member", bound=Enum)

_MODES = {
    firewall_pb2.RULE_MODE_OFF: Mode.OFF,
    firewall_pb2.RULE_MODE_SHADOW: Mode.SHADOW,
    firewall_pb2.RULE_MODE_ENFORCE: Mode.ENFORCE,
}
_ACTIONS = {
    firewall_pb2.RULE_ACTION_LOG: Action.LOG,
    firewall_pb2.RULE_ACTION_TAG: Action.TAG,
    firewall_pb2.RULE_ACTION_SKIP: Action.SKIP,
    firewall_pb2.RULE_ACTION_RATE: Action.RATE,
    firewall_pb2.RULE_ACTION_CHALLENGE: Action.CHALLENGE,
    firewall_pb2.RULE_ACTION_BLOCK: Action.BLOCK,
}
_KINDS = {
    firewall_pb2.ENTRY_KIND_NETWORKS: ListKind.NETWORKS,
    firewall_pb2.ENTRY_KIND_COUNTRIES: ListKind.COUNTRIES,
    firewall_pb2.ENTRY_KIND_ASNS: ListKind.ASNS,
    firewall_pb2.ENTRY_KIND_USER_AGENTS: ListKind.USER_AGENTS,
    firewall_pb2.ENTRY_KIND_EMAIL_DOMAINS: ListKind.EMAIL_DOMAINS,
}
_MODE_NUMBERS = {mode: number for number, mode in _MODES.items()}
_ACTION_NUMBERS = {action: number for number, action in _ACTIONS.items()}
_KIND_NUMBERS = {kind: number for number, kind in _KINDS.items()}


def mode_of(number: Any, usual: Mode) -> Mode:
    """Returns a mode; the usual one where none is stated. Raises `invalid("value_unknown")`."""
    return usual if number == firewall_pb2.RULE_MODE_UNSPECIFIED else _member(_MODES, number, "mode")


def stated_mode(number: Any) -> Mode:
    """Returns a mode that must be stated; raises `invalid("value_unknown")`."""
    return _member(_MODES, number, "mode")


def action_of(number: Any) -> Action:
    """Returns an action; raises `invalid("value_unknown")`."""
    return _member(_ACTIONS, number, "action")


def kind_of(number: Any) -> ListKind:
    """Returns a list's kind; raises `invalid("value_unknown")`."""
    return _member(_KINDS, number, "kind")


def moment(message: Any, field: str) -> datetime | None:
    """Returns a time of a message; None where it has none. Raises `invalid("time_invalid")`."""
    if not message.HasField(field):
        return None
    try:
        at: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise errors.invalid("time_invalid", "This is no time.", field=field) from None
    return at


def timestamp(at: datetime | None) -> Timestamp | None:
    """Returns a time as a message has it."""
    if at is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(at)
    return stamp


def rule(held: HeldRule) -> firewall_pb2.Rule:
    """Returns a rule's message."""
    said = held.rule
    return firewall_pb2.Rule(
        id=ids.encode("rule", said.id),
        name=said.name,
        expression=said.expression,
        action=_ACTION_NUMBERS[said.action],
        parameter=said.parameter,
        priority=said.priority,
        mode=_MODE_NUMBERS[said.mode],
        expires_at=timestamp(said.expires_at),
        description=said.description,
        owner=held.owner,
        created_at=timestamp(held.created_at),
        changed_in=held.changed_in,
    )


def held_rule(message: firewall_pb2.Rule) -> HeldRule:
    """Returns what a rule's message says."""
    said = Rule(
        id=ids.decode("rule", message.id),
        name=message.name,
        expression=message.expression,
        action=action_of(message.action),
        parameter=message.parameter,
        priority=message.priority,
        mode=mode_of(message.mode, Mode.SHADOW),
        expires_at=moment(message, "expires_at"),
        description=message.description,
    )
    return HeldRule(said, message.owner, message.created_at.ToDatetime(tzinfo=UTC), message.changed_in)


def entry_list(held: HeldList) -> firewall_pb2.EntryList:
    """Returns a list's message."""
    return firewall_pb2.EntryList(
        id=ids.encode("list", held.list.id),
        name=held.list.name,
        kind=_KIND_NUMBERS[held.list.kind],
        allows=held.list.allows,
        description=held.description,
        size=held.size,
        created_at=timestamp(held.created_at),
        changed_in=held.changed_in,
    )


def held_list(message: firewall_pb2.EntryList, digest: bytes) -> HeldList:
    """Returns what a list's message says."""
    described = EntryList(ids.decode("list", message.id), message.name, kind_of(message.kind), allows=message.allows)
    return HeldList(
        described,
        message.description,
        message.size,
        digest,
        message.created_at.ToDatetime(tzinfo=UTC),
        message.changed_in,
    )


def quota(held: HeldQuota) -> firewall_pb2.Quota:
    """Returns a quota's message."""
    message = _quota(held.quota, held.changed_in)
    # Every version that replaces one has a number.
    message.is_default = not held.changed_in
    return message


def held_quota(message: firewall_pb2.Quota) -> HeldQuota:
    """Returns what a quota's message says."""
    return HeldQuota(_read_quota(message), message.changed_in)


def override(held: HeldOverride) -> firewall_pb2.Override:
    """Returns the message of an account's own quota."""
    return firewall_pb2.Override(
        account_id=ids.encode("acct", held.override.account),
        quota=_quota(held.override.quota, held.changed_in),
        expires_at=timestamp(held.override.expires_at),
    )


def held_override(message: firewall_pb2.Override) -> HeldOverride:
    """Returns what the message of an account's own quota says."""
    said = Override(
        ids.decode("acct", message.account_id, field="account_id"),
        _read_quota(message.quota),
        moment(message, "expires_at"),
    )
    return HeldOverride(said, message.quota.changed_in)


def contents(held: Contents) -> bundle_pb2.Content:
    """Returns the message of all that a version holds."""
    return bundle_pb2.Content(
        rules=[rule(each) for each in held.rules],
        lists=[bundle_pb2.ListContent(list=entry_list(each), digest=each.digest) for each in held.lists],
        quotas=[quota(each) for each in held.quotas],
        overrides=[override(each) for each in held.overrides],
    )


def held_contents(message: bundle_pb2.Content) -> Contents:
    """Returns what the message of a version's content says; raises GatefoldError for one that was tampered with."""
    return Contents(
        tuple(held_rule(each) for each in message.rules),
        tuple(held_list(each.list, each.digest) for each in message.lists),
        tuple(held_quota(each) for each in message.quotas),
        tuple(held_override(each) for each in message.overrides),
    )


def version(held: Version) -> firewall_pb2.Version:
    """Returns a version's message."""
    return firewall_pb2.Version(
        number=held.number,
        made_at=timestamp(held.made_at),
        made_by=held.made_by,
        change=held.change,
        about=held.about,
        restored_from=held.restored_from or 0,
        kept=held.kept,
        digest=held.digest.hex(),
    )


def entries(found: Sequence[tuple[str, datetime | None]]) -> list[firewall_pb2.Entry]:
    """Returns the messages of entries."""
    return [firewall_pb2.Entry(text=text, expires_at=timestamp(end)) for text, end in found]


def _quota(said: Quota, changed_in: int) -> firewall_pb2.Quota:
    return firewall_pb2.Quota(
        name=said.name,
        amount=said.amount,
        seconds=said.seconds,
        mode=_MODE_NUMBERS[said.mode],
        changed_in=changed_in,
    )


def _read_quota(message: firewall_pb2.Quota) -> Quota:
    return Quota(message.name, message.amount, message.seconds, mode_of(message.mode, Mode.ENFORCE))


def _member(members: "dict[Any, _Member]", number: Any, field: str) -> _Member:
    if number not in members:
        raise errors.invalid("value_unknown", "This value is not known here.", field=field)
    return members[number]
