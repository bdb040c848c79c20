"""Owns Stripe's form encoding: `a[b][]=c` to nested values, and typed reading of them."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl

from infra.local.stripe.problems import Json, bad_param, missing

_DEEPEST = 8


def parse(text: str) -> Json:
    """Returns the nested values of a form body or query; values are texts, lists come from `[]` or `[0]`."""
    tree: Json = {}
    for name, value in parse_qsl(text, keep_blank_values=True, max_num_fields=1000):
        _put(tree, _path(name), value)
    return {key: _lists(value) for key, value in tree.items()}


def _path(name: str) -> list[str]:
    head, bracket, rest = name.partition("[")
    if not bracket:
        return [name]
    if not head or not rest.endswith("]"):
        raise bad_param(f"Invalid parameter name: {name}", name, "parameter_unknown")
    path = [head, *rest[:-1].split("][")]
    if len(path) > _DEEPEST:
        raise bad_param(f"Too deep: {name}", head, "parameter_unknown")
    return path


def _put(tree: Any, path: list[str], value: str) -> None:
    for depth, step in enumerate(path[:-1]):
        key = step or str(len(tree))
        tree = tree.setdefault(key, {})
        if not isinstance(tree, dict):
            name = path[0]
            raise bad_param(f"Invalid value at depth {depth} of {name}", name, "parameter_unknown")
    tree[path[-1] or str(len(tree))] = value


def _lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {key: _lists(item) for key, item in value.items()}
    if inner and all(key.isdigit() for key in inner):
        return [inner[key] for key in sorted(inner, key=int)]
    return inner


class Params:
    """The parameters of one call, read by type; whatever is not read as it should be is a 400."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def only(self, names: Collection[str]) -> None:
        """Refuses parameters that the call does not know."""
        for name in self.values:
            if name not in names:
                raise bad_param(f"Received unknown parameter: {name}", name, "parameter_unknown")

    def text(self, name: str) -> str | None:
        """Returns a text; None when absent or empty (an empty value unsets)."""
        value = self.values.get(name)
        if isinstance(value, dict | list):
            raise bad_param(f"Invalid string: {name}", name, "parameter_invalid_string_blank")
        return value or None

    def required(self, name: str) -> str:
        """Returns a text that must be there."""
        value = self.text(name)
        if value is None:
            raise missing(name)
        return value

    def integer(self, name: str) -> int | None:
        """Returns a whole number."""
        value = self.text(name)
        if value is None:
            return None
        if not value.removeprefix("-").isdigit() or len(value) > 18:
            raise bad_param(f"Invalid integer: {value}", name, "parameter_invalid_integer")
        return int(value)

    def boolean(self, name: str) -> bool | None:
        """Returns a truth value."""
        value = self.text(name)
        if value is None:
            return None
        if value not in ("true", "false"):
            raise bad_param(f"Invalid boolean: {value}", name, "parameter_invalid_boolean")
        return value == "true"

    def mapping(self, name: str) -> Json:
        """Returns nested values; empty when absent."""
        value = self.values.get(name) or {}
        if not isinstance(value, dict):
            raise bad_param(f"Invalid object: {name}", name, "parameter_invalid_empty")
        return value

    def texts(self, name: str) -> list[str]:
        """Returns a list of texts; empty when absent."""
        value = self.values.get(name) or []
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise bad_param(f"Invalid array: {name}", name, "parameter_invalid_empty")
        return value

    def choice(self, name: str, choices: Iterable[str]) -> str | None:
        """Returns one of the texts that are allowed."""
        value = self.text(name)
        allowed = list(choices)
        if value is not None and value not in allowed:
            raise bad_param(f"Invalid {name}: must be one of {', '.join(allowed)}", name, "parameter_unknown")
        return value

    def metadata(self, before: Mapping[str, str]) -> dict[str, str]:
        """Returns the metadata after this call: named keys are set, empty ones unset, others stay."""
        if self.values.get("metadata") == "":
            return {}
        given = self.mapping("metadata")
        if any(not isinstance(value, str) or len(value) > 500 or len(key) > 40 for key, value in given.items()):
            raise bad_param("Invalid metadata", "metadata", "parameter_invalid_string_blank")
        merged = {**before, **given}
        kept = {key: value for key, value in merged.items() if value != ""}
        if len(kept) > 50:
            raise bad_param("Metadata can have at most 50 keys", "metadata", "parameter_invalid_empty")
        return kept
