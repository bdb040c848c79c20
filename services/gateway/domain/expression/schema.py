"""Owns which fields rules may read, and their types."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType


class Kind(Enum):
    """Types of the language."""

    BOOL = "bool"
    INT = "int"
    STRING = "string"
    ADDRESS = "address"
    """An IP address; equal to a string literal that is one."""
    STRINGS = "list of strings"
    INTS = "list of ints"
    BOOLS = "list of bools"
    ENTRIES = "map of strings"
    EMPTY_LIST = "empty list"

    @property
    def element(self) -> "Kind | None":
        """The type of a list's elements."""
        return _ELEMENTS.get(self.name)


_ELEMENTS = {"STRINGS": Kind.STRING, "INTS": Kind.INT, "BOOLS": Kind.BOOL}
LISTS = {element: kind for kind in Kind if (element := kind.element) is not None}


@dataclass(frozen=True, slots=True)
class Field:
    """One thing that rules know of a request."""

    name: str
    kind: Kind
    rank: int
    """How well a test of it picks few requests, the lower the better; cheap fields before those that are looked up."""
    recurs: bool = True
    """Whether the same values come again and again, so that what was found out of one is worth keeping."""
    changes: bool = False
    """Whether it may change while rules are being looked at."""
    costly: bool = False
    """Whether it is looked up, so that it is asked for only where a rule gets as far as that."""
    known_later: bool = False
    """Whether it is known only once the caller is."""
    description: str = ""

    @property
    def attribute(self) -> str:
        """What it is called where a request's fields are kept."""
        return self.name.replace(".", "_")


FIELDS: tuple[Field, ...] = (
    Field("client.address", Kind.ADDRESS, 1, description="Address of the client."),
    Field("client.country", Kind.STRING, 4, costly=True, description="ISO 3166 code, `DE`; empty where none is known."),
    Field(
        "client.asn", Kind.INT, 3, costly=True, description="Number of the network's operator; 0 where none is known."
    ),
    Field(
        "client.crawler",
        Kind.STRING,
        4,
        recurs=False,
        costly=True,
        description="Of a client that says it is a search engine's crawler: `pending` until that was looked up, then "
        "`verified` or `impostor`; empty for all others.",
    ),
    Field(
        "client.verified_crawler",
        Kind.BOOL,
        4,
        recurs=False,
        costly=True,
        description='Whether it is one; the same as `client.crawler == "verified"`.',
    ),
    Field("request.method", Kind.STRING, 7, description="`GET`."),
    Field("request.path", Kind.STRING, 2, description="As it was sent, without the query."),
    Field("request.query", Kind.STRING, 5, description="As it was sent, without the question mark."),
    Field(
        "request.headers",
        Kind.ENTRIES,
        5,
        recurs=False,
        description="Header fields by their names in lower case; one that came repeatedly is joined by `, `.",
    ),
    Field("request.user_agent", Kind.STRING, 3, description="The `User-Agent` header; empty where none was sent."),
    Field("request.content_type", Kind.STRING, 6, description="Media type of the body, in lower case, alone."),
    Field(
        "request.size", Kind.INT, 6, recurs=False, description="Bytes of the body as stated; 0 without, -1 unstated."
    ),
    Field(
        "request.route", Kind.STRING, 3, description="Template of the endpoint, `/v1/prices/{id}`; empty without one."
    ),
    Field("tags", Kind.STRINGS, 5, changes=True, description="What earlier rules have tagged the request with."),
    Field(
        "verdict.action",
        Kind.STRING,
        4,
        recurs=False,
        costly=True,
        description="What the abuse detection has decided on the client: `block`, `challenge`, `throttle`, `revoke`, "
        "or nothing.",
    ),
    Field("verdict.reasons", Kind.STRINGS, 5, recurs=False, description="Why it has."),
    Field("caller.kind", Kind.STRING, 6, known_later=True, description="`SECRET_KEY`, `SUBSCRIBER`, `ANONYMOUS` …"),
    Field("caller.key", Kind.STRING, 1, known_later=True, description="`key_…` of an API key; empty for others."),
    Field("caller.account", Kind.STRING, 2, known_later=True, description="`acct_…`; empty where none is known."),
    Field("caller.actor", Kind.STRING, 1, known_later=True, description="`key_…`, `per_…`, `subj_…`, `anonymous` …"),
)


@dataclass(frozen=True)
class Schema:
    """What an expression may name."""

    lists: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Kinds of the lists, by name: `networks`, `countries`, `asns`, `user_agents`, `email_domains`."""
    fields: Mapping[str, Field] = field(
        default_factory=lambda: MappingProxyType({known.name: known for known in FIELDS})
    )
