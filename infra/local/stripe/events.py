"""Owns the list of events."""

import fnmatch

from infra.local.stripe.engine import Call, Engine
from infra.local.stripe.problems import Json

_PAGING = frozenset({"created", "ending_before", "expand", "limit", "starting_after"})


def retrieve(engine: Engine, call: Call, event_id: str) -> Json:
    """GET /v1/events/:id."""
    call.params.only({"expand"})
    return engine.render(call, engine.load(call, "event", event_id))


def index(engine: Engine, call: Call) -> Json:
    """GET /v1/events; `type` may end in `*`, `types[]` names several."""
    call.params.only(_PAGING | {"type", "types"})
    wanted = call.params.texts("types") or [call.params.text("type") or "*"]

    def keep(body: Json) -> bool:
        return any(fnmatch.fnmatchcase(body["type"], pattern) for pattern in wanted)

    return engine.page(call, "event", "/v1/events", keep)
