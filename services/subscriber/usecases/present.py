"""Owns the API's messages of what the use cases return."""

from collections.abc import Iterable
from datetime import UTC, datetime

from gatefold.subscriber.v1 import entitlement_pb2, import_pb2, site_pb2, subscriber_pb2

from libs import ids
from services.subscriber.domain.entitlement import Decision, Entitlement
from services.subscriber.domain.import_job import ImportJob
from services.subscriber.domain.member_record import DETAILS, Problem
from services.subscriber.domain.profile import Profile
from services.subscriber.domain.site import Site

_STATES = {
    # A file that is still on its way waits for a worker as well, as far as anyone outside can tell.
    "receiving": import_pb2.IMPORT_STATE_QUEUED,
    "queued": import_pb2.IMPORT_STATE_QUEUED,
    "running": import_pb2.IMPORT_STATE_RUNNING,
    "done": import_pb2.IMPORT_STATE_DONE,
    "failed": import_pb2.IMPORT_STATE_FAILED,
}


def subscriber(profile: Profile, features: Iterable[str]) -> subscriber_pb2.Subscriber:
    """Returns a reader with the features they may use now."""
    message = subscriber_pb2.Subscriber(
        id=ids.encode("subj", profile.subject_id),
        email=profile.email,
        name=profile.name,
        note=profile.note,
        subscribed_to_emails=profile.subscribed_to_emails,
        complimentary=profile.complimentary,
        labels=profile.labels,
        external_id=profile.external_id or "",
        metadata=profile.metadata,
        source=profile.source,
        features=features,
    )
    message.created_at.FromDatetime(profile.created_at)
    return message


def entitlement(right: Entitlement, active: bool) -> entitlement_pb2.Entitlement:
    """Returns one right."""
    source = "complimentary" if right.subscription_id is None else ids.encode("sub", right.subscription_id)
    message = entitlement_pb2.Entitlement(feature=right.feature, source=source, active=active)
    message.active_from.FromDatetime(right.active_from)
    if right.active_until is not None:
        message.active_until.FromDatetime(right.active_until)
    return message


def decision(made: Decision) -> entitlement_pb2.DecideAccessResponse:
    """Returns the paywall's answer."""
    message = entitlement_pb2.DecideAccessResponse(allowed=made.allowed, reason=made.reason, soft_wall=made.soft_wall)
    if made.until is not None:
        message.until.FromDatetime(made.until)
    return message


def site(found: Site) -> site_pb2.Site:
    """Returns a site."""
    message = site_pb2.Site(id=ids.encode("site", found.id), name=found.name, origin=found.origin)
    message.created_at.FromDatetime(found.created_at)
    return message


def read_site(serialized: bytes) -> Site:
    """Returns the site of a message that was kept."""
    message = site_pb2.Site.FromString(serialized)
    created_at: datetime = message.created_at.ToDatetime(tzinfo=UTC)
    return Site(ids.decode("site", message.id), message.name, message.origin, created_at)


def import_job(job: ImportJob) -> import_pb2.Import:
    """Returns an import."""
    message = import_pb2.Import(
        id=ids.encode("imp", job.id),
        state=_STATES[job.state],
        total=job.total,
        created=job.counts.created,
        updated=job.counts.updated,
        unchanged=job.counts.unchanged,
        duplicates=job.counts.duplicates,
        refused=job.counts.refused,
        refused_by_reason=job.counts.refused_by_reason,
        failure=job.failure,
        ignored_columns=job.ignored_columns,
    )
    message.created_at.FromDatetime(job.created_at)
    if job.finished_at is not None:
        message.finished_at.FromDatetime(job.finished_at)
    return message


def problem(found: Problem) -> import_pb2.ImportProblem:
    """Returns why a record was not taken."""
    return import_pb2.ImportProblem(
        line=found.line, reason=found.reason, column=found.column, detail=DETAILS[found.reason]
    )
