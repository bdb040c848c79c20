"""Owns finding the endpoint of a path: a tree of segments, made once from the contracts' templates."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from urllib.parse import unquote

from libs import errors
from services.gateway.http.contracts import Endpoint

_LONGEST_PATH = 2000
_MOST_KNOWN = 1024


@dataclass
class _Node:
    literals: "dict[str, _Node]" = field(default_factory=dict)
    variable: "_Node | None" = None
    endpoints: dict[str, Endpoint] = field(default_factory=dict)


@dataclass(frozen=True)
class Match:
    """What a path leads to: endpoints by HTTP method, and the texts of its variables."""

    endpoints: Mapping[str, Endpoint]
    values: tuple[str, ...]
    template: str
    """Of the path."""

    @property
    def allow(self) -> str:
        """Value of the Allow header (RFC 9110 section 10.2.1)."""
        methods = {*self.endpoints, "OPTIONS"} | ({"HEAD"} if "GET" in self.endpoints else set())
        return ", ".join(sorted(methods))

    def endpoint(self, verb: str) -> Endpoint:
        """Returns the endpoint of an HTTP method; raises `method_not_allowed("method_not_allowed")`."""
        found = self.endpoints.get("GET" if verb == "HEAD" else verb)
        if found is None:
            raise errors.method_not_allowed(
                "method_not_allowed", f"This path allows {self.allow}.", metadata={"allow": self.allow}
            )
        return found


class Routes:
    """All paths of the API."""

    def __init__(self, endpoints: Iterable[Endpoint]) -> None:
        self._fixed: dict[str, Match] = {}
        self._root = _Node()
        # Many ask for the same.
        self._known = lru_cache(_MOST_KNOWN)(self._walked)
        for endpoint in endpoints:
            self._add(endpoint)

    def find(self, path: str) -> Match | None:
        """Returns what a path, as it was sent, leads to; None where that is nothing.

        A literal segment is preferred to a variable. Segments are percent-decoded after the path was split, so that
        an encoded slash stays within its segment. A trailing slash makes another path.
        """
        return self._fixed.get(path) or (self._known(path) if len(path) <= _LONGEST_PATH else None)

    def _walked(self, path: str) -> Match | None:
        values: list[str] = []
        if path.startswith("/"):
            node = _walk(self._root, path[1:].split("/"), 0, values)
            if node is not None and values:
                return _match(node, values)
        return None

    def _add(self, endpoint: Endpoint) -> None:
        node = self._root
        for part in endpoint.template[1:].split("/"):
            if part.startswith("{"):
                node.variable = node.variable or _Node()
                node = node.variable
            else:
                node = node.literals.setdefault(part, _Node())
        node.endpoints[endpoint.verb] = endpoint
        if not endpoint.variables:
            self._fixed[endpoint.template] = _match(node, ())


def _match(node: _Node, values: Iterable[str]) -> Match:
    template = next(endpoint.template for endpoint in node.endpoints.values())
    return Match(node.endpoints, tuple(values), template)


def _walk(node: _Node, parts: list[str], at: int, values: list[str]) -> _Node | None:
    if at == len(parts):
        return node if node.endpoints else None
    literal = node.literals.get(parts[at])
    if literal is not None and (found := _walk(literal, parts, at + 1, values)) is not None:
        return found
    if node.variable is None or (value := _decoded(parts[at])) is None:
        return None
    values.append(value)
    found = _walk(node.variable, parts, at + 1, values)
    if found is None:
        values.pop()
    return found


def _decoded(segment: str) -> str | None:
    if not segment:
        return None
    try:
        return unquote(segment, errors="strict") if "%" in segment else segment
    except UnicodeDecodeError:
        return None
