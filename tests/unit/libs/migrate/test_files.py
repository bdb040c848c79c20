"""The rules that migration files keep among themselves."""

from pathlib import Path

import pytest

from libs.migrate import Component, MigrationError, components_of, keys_components, read
from libs.migrate.files import ROOT, shared_components

EXPAND = "-- kind: expand\n-- min_compatible_code: 1\nCREATE TABLE {0} (id integer);\n"
CONTRACT = "-- kind: contract\n-- min_compatible_code: 2\nDROP TABLE one;\n"


@pytest.fixture
def component(tmp_path: Path) -> Component:
    return Component("billing", tmp_path)


def write(component: Component, name: str, text: str) -> None:
    (component.folder / name).write_text(text)


def test_files_are_read_in_the_order_of_their_numbers(component: Component) -> None:
    write(component, "0002_drop_one.sql", CONTRACT)
    write(component, "0001_create_one.sql", EXPAND.format("one"))
    first, second = read(component)
    assert (first.title, first.kind, first.min_compatible_code) == ("billing/0001_create_one", "expand", 1)
    assert (second.title, second.kind, second.min_compatible_code) == ("billing/0002_drop_one", "contract", 2)
    assert first.sha256 != second.sha256


def test_line_ends_do_not_change_the_checksum(component: Component) -> None:
    write(component, "0001_create_one.sql", EXPAND.format("one"))
    (before,) = read(component)
    (component.folder / "0001_create_one.sql").write_bytes(EXPAND.format("one").replace("\n", "\r\n").encode())
    (after,) = read(component)
    assert after.sha256 == before.sha256
    assert after.kind == "expand"


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("1_create_one.sql", EXPAND, "is named NNNN_verb_noun.sql"),
        ("0001_Create.sql", EXPAND, "is named NNNN_verb_noun.sql"),
        ("0002_create_one.sql", EXPAND, "number 0001 is missing"),
        ("0001_create_one.sql", "-- min_compatible_code: 1\n", "kind: expand"),
        ("0001_create_one.sql", "-- kind: extend\n-- min_compatible_code: 1\n", "kind: expand"),
        ("0001_create_one.sql", "-- kind: expand\n", "min_compatible_code: N"),
        ("0001_create_one.sql", "-- kind: expand\n-- min_compatible_code: 0\n", "min_compatible_code: N"),
        ("0001_create_one.sql", "-- kind: expand\n-- min_compatible_code: 2\n", "only a contract migration raises"),
        ("0001_create_one.sql", EXPAND + "COMMIT;\n", "runs in one transaction"),
        ("0001_create_one.sql", EXPAND + "begin ;\n", "runs in one transaction"),
    ],
)
def test_a_file_that_breaks_a_rule_is_named(component: Component, name: str, text: str, message: str) -> None:
    write(component, name, text.replace("{0}", "one"))
    with pytest.raises(MigrationError, match=message):
        read(component)


def test_a_number_is_given_once(component: Component) -> None:
    write(component, "0001_create_one.sql", EXPAND.format("one"))
    write(component, "0001_create_two.sql", EXPAND.format("two"))
    with pytest.raises(MigrationError, match="given twice"):
        read(component)


def test_min_compatible_code_never_falls(component: Component) -> None:
    write(component, "0001_drop_one.sql", CONTRACT)
    write(component, "0002_create_two.sql", EXPAND.format("two"))
    with pytest.raises(MigrationError, match="falls from 2"):
        read(component)


def test_a_function_body_may_begin_and_end_blocks(component: Component) -> None:
    body = "DO $$\nBEGIN\n    PERFORM 1;\nEND\n$$;\n"
    write(component, "0001_create_one.sql", EXPAND.format("one") + body)
    assert len(read(component)) == 1


def test_an_unknown_service_is_refused() -> None:
    with pytest.raises(MigrationError, match="has no folder services/nothing/migrations"):
        components_of("nothing")


def test_the_projects_own_migrations_keep_the_rules() -> None:
    services = sorted(path.parent.name for path in (ROOT / "services").glob("*/migrations"))
    components = [*shared_components(), *keys_components(), *(components_of(service)[-1] for service in services)]
    for component in components:
        assert read(component), component.name
