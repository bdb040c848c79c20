"""Every gateway comes to enforce the newest version, whole, whatever store is away; a bad one is refused whole."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from gatefold.gateway.v1 import bundle_pb2, firewall_pb2

from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from libs.ids import IdMaker
from libs.kill_points import KillPoints
from libs.postgres import Database, Role
from libs.redis_client import RedisConfig, Store, connect
from services.gateway.clients.bundle_feed import FIELD, STREAM
from services.gateway.domain.bundle import Action, Bundle, Mode, Rule
from services.gateway.usecases import changes
from services.gateway.worker.following import ASK_SECONDS, SWEEP_SECONDS
from tests.conftest import ServiceDb
from tests.support.rules import POISON, Gateway, Moments, Register, acting
from tests.support.stores import ServiceDatabase
from tests.support.waiting import until


@pytest.fixture
async def database(service_db: ServiceDb) -> ServiceDatabase:
    """The module's database, as if it were new."""
    opened = await service_db("gateway")
    await as_owner(
        opened,
        "TRUNCATE rule, entry_list, entry_set, list_entry, quota, quota_override, version, rule_hit, introduced_rule,"
        " idempotency_key",
        "UPDATE head SET version = 0, lineage = gen_random_uuid()",
    )
    return opened


@pytest.fixture
def register(database: ServiceDatabase, redis: Store, clock: FixedClock, ids: IdMaker) -> Register:
    return Register(database.app, database.jobs, redis, clock, ids)


@pytest.fixture
def nowhere() -> Store:
    """A store that is away."""
    return connect(RedisConfig(Secret("redis://127.0.0.1:1")))


async def as_owner(database: ServiceDatabase, *statements: str) -> None:
    """Does to the tables what only their owner can."""
    owner = await asyncpg.connect(database.owner_dsn.reveal())
    try:
        for statement in statements:
            await owner.execute(statement)
    finally:
        await owner.close()


class Running:
    """Gateways whose loops run."""

    def __init__(self, *gateways: Gateway) -> None:
        self._gateways = gateways
        self._stop = asyncio.Event()

    async def __aenter__(self) -> "Running":
        self._tasks = [asyncio.create_task(gateway.loop.run(self._stop)) for gateway in self._gateways]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        await asyncio.gather(*self._tasks)


class TestSpreading:
    @pytest.mark.case("edge-5")
    async def test_a_changed_limit_reaches_every_gateway_by_the_stream_alone(self, register: Register) -> None:
        gateways = [register.gateway(database=False) for _ in range(3)]
        await register.set_quota(7)
        assert register.woken == 1
        async with Running(*gateways):
            assert await register.announcements.announce()
            await until(lambda: all(gateway.version == 1 for gateway in gateways))
        assert [gateway.applied[-1].quotas[0].amount for gateway in gateways] == [7, 7, 7]
        assert not await register.announcements.announce()

    @pytest.mark.case("edge-5")
    async def test_a_changed_limit_reaches_a_gateway_whose_stream_is_away(
        self, register: Register, nowhere: Store
    ) -> None:
        assert ASK_SECONDS < 1
        moments = Moments()
        gateway = register.gateway(store=nowhere, monotonic=moments)
        async with Running(gateway):
            await until(lambda: gateway.fetches)
            await register.set_quota(7)
            moments.now += ASK_SECONDS
            await until(lambda: gateway.version == 1)
        assert gateway.metric("gatefold_gateway_bundle_failures_total", part="stream") > 0

    async def test_what_the_stream_lost_is_asked_for(self, register: Register, redis: Store) -> None:
        moments = Moments()
        gateway = register.gateway(monotonic=moments)
        async with Running(gateway):
            await until(lambda: gateway.fetches)
            await register.set_quota(7)
            await register.announcements.announce()
            await redis.flushall()
            moments.now += SWEEP_SECONDS
            await until(lambda: gateway.version == 1)

    async def test_entries_that_did_not_change_are_not_sent_again(self, register: Register) -> None:
        await register.add_list("networks", "192.0.2.0/24")
        gateway = register.gateway()
        await gateway.following.ask()
        await register.add_rule("rule")
        snapshot = await register.versions.newest(gateway.following.held, gateway.following.digests)
        assert snapshot is not None
        assert len(snapshot.sets) == 0
        await gateway.following.ask()
        assert [text for text, _ in gateway.applied[-1].lists[0].entries] == ["192.0.2.0/24"]

    async def test_entries_come_with_their_ends(self, register: Register, clock: FixedClock) -> None:
        await register.add_list("networks", "192.0.2.0/24", lasts=timedelta(hours=1))
        await register.announcements.announce()
        gateway = register.gateway(database=False)
        await gateway.loop.begin()
        assert gateway.applied[-1].lists[0].entries == (("192.0.2.0/24", clock.wall() + timedelta(hours=1)),)

    async def test_ended_entries_go_with_the_next_change_of_their_list(
        self, register: Register, clock: FixedClock
    ) -> None:
        held = await register.add_list("networks", "192.0.2.0/24", lasts=timedelta(hours=1))
        clock.advance(timedelta(hours=2))
        held = await register.add_entries(held, "198.51.100.0/24")
        assert held.size == 1


class TestRefusal:
    @pytest.mark.case("edge-10")
    async def test_a_bad_rule_makes_no_version(self, register: Register) -> None:
        await register.add_rule("good")
        with pytest.raises(GatefoldError) as refused:
            await register.add_rule("bad", POISON)
        assert (refused.value.kind, refused.value.reason) == (Kind.INVALID, "expression_invalid")
        assert await register.versions.newest_number() == 1
        assert [held.rule.name for held in (await register.rules.list_all())[0]] == ["good"]
        assert register.woken == 1

    @pytest.mark.case("edge-10")
    async def test_a_version_that_a_gateway_cannot_enforce_is_refused_whole_and_the_old_one_stays(
        self, database: ServiceDatabase, redis: Store, clock: FixedClock, ids: IdMaker
    ) -> None:
        # Made by code that takes what this gateway does not, as in the middle of a roll-out.
        register = Register(database.app, database.jobs, redis, clock, ids, check=lambda bundle: None)
        gateway = register.gateway()
        await register.add_rule("good")
        await gateway.following.ask()
        await register.set_quota(7)
        bad = await register.add_rule("bad", POISON)
        for _ in range(3):
            await gateway.following.ask()
        assert gateway.version == 1
        status = gateway.following.status("gw", "1")
        assert (status.version, status.refused_version, status.refused_reason) == (1, 3, "expression_invalid")
        # Told of once, however often it is asked for.
        assert gateway.metric("gatefold_gateway_bundles_refused_total", source="database") == 1
        with acting():
            await register.rules.delete(bad.rule.id, bundle_pb2.Content(), 0)
        await gateway.following.ask()
        assert (gateway.version, gateway.applied[-1].quotas[0].amount) == (4, 7)
        assert gateway.following.status("gw", "1").refused_version == 0

    async def test_a_fault_of_the_compiler_is_a_refusal_too(self, register: Register) -> None:
        def breaks(bundle: Bundle) -> None:
            raise ZeroDivisionError

        await register.add_rule("good")
        gateway = register.gateway(prepare=breaks)
        await gateway.following.ask()
        assert gateway.version == 0
        assert gateway.following.status("gw", "1").refused_reason == "ZeroDivisionError"


class TestHistories:
    async def test_older_versions_of_the_stream_are_passed_over(self, register: Register) -> None:
        await register.set_quota(1)
        await register.announcements.announce()
        await register.set_quota(2)
        gateway = register.gateway()
        await gateway.following.ask()
        await gateway.loop.begin()
        assert [bundle.version for bundle in gateway.applied] == [2]

    async def test_versions_of_another_platform_are_passed_over(self, register: Register, redis: Store) -> None:
        await register.set_quota(1)
        gateway = register.gateway(database=False)
        await register.announcements.announce()
        await gateway.loop.begin()
        newest = await stored(register)
        newest.version, newest.lineage = 99, UUID(int=1).bytes
        assert not await gateway.following.take(newest, "stream")
        assert gateway.version == 1

    async def test_a_database_that_was_put_back_counts_although_its_number_is_lower(
        self, register: Register, database: ServiceDatabase
    ) -> None:
        await register.set_quota(1)
        await register.set_quota(2)
        gateway = register.gateway()
        await gateway.following.ask()
        await as_owner(database, "DELETE FROM version WHERE number = 2", "UPDATE head SET version = 1")
        await gateway.following.ask()
        assert (gateway.version, gateway.applied[-1].quotas[0].amount) == (1, 1)

    async def test_another_version_of_the_same_number_is_taken_from_the_database(
        self, register: Register, database: ServiceDatabase
    ) -> None:
        await register.set_quota(1)
        await register.set_quota(2)
        gateway = register.gateway()
        await gateway.following.ask()
        await as_owner(database, "DELETE FROM version WHERE number = 2", "UPDATE head SET version = 1")
        await register.set_quota(3)
        await gateway.following.ask()
        assert (gateway.version, gateway.applied[-1].quotas[0].amount) == (2, 3)


async def stored(register: Register) -> bundle_pb2.Snapshot:
    """Returns the newest version as a gateway gets it."""
    gateway = register.gateway()
    snapshot = await register.versions.newest(gateway.following.held, ())
    assert snapshot is not None
    return snapshot


class TestDamage:
    @pytest.mark.parametrize(
        "spoil",
        [
            lambda snapshot: setattr(snapshot, "content", snapshot.content[:-1]),
            lambda snapshot: setattr(snapshot, "digest", b"d" * 32),
            lambda snapshot: setattr(snapshot, "lineage", b"short"),
            lambda snapshot: setattr(snapshot, "version", -1),
            lambda snapshot: setattr(snapshot.sets[0], "packed", snapshot.sets[0].packed[:-1]),
            lambda snapshot: setattr(snapshot.sets[0], "digest", b"d" * 32),
            lambda snapshot: snapshot.sets.pop(),
        ],
        ids=["content", "digest", "lineage", "number", "entries", "other entries", "no entries"],
    )
    async def test_what_is_not_whole_is_refused(
        self, register: Register, spoil: Callable[[bundle_pb2.Snapshot], object]
    ) -> None:
        await register.add_list("networks", "192.0.2.0/24")
        snapshot = await stored(register)
        spoil(snapshot)
        gateway = register.gateway()
        assert not await gateway.following.take(snapshot, "stream")
        assert (gateway.version, gateway.following.refused and gateway.following.refused.reason) == (
            0,
            "bundle_damaged",
        )
        # And the whole one is taken after it.
        assert await gateway.following.take(await stored(register), "stream")

    async def test_rubbish_in_the_stream_is_counted_and_passed_over(self, register: Register, redis: Store) -> None:
        await redis.xadd(STREAM, {FIELD: b"\xff\xff\xff"})
        await redis.xadd(STREAM, {b"other": b"x"})
        await register.set_quota(1)
        await register.announcements.announce()
        gateway = register.gateway(database=False)
        await gateway.loop.begin()
        assert gateway.version == 1
        assert gateway.metric("gatefold_gateway_bundle_failures_total", part="stream") == 1


class TestLastKnownGood:
    async def test_a_gateway_starts_from_its_file_when_no_store_is_there(
        self, register: Register, nowhere: Store, tmp_path: Path
    ) -> None:
        file = tmp_path / "own" / "bundle"
        await register.add_list("networks", "192.0.2.0/24")
        await register.gateway(file=file).following.ask()
        assert file.stat().st_mode & 0o777 == 0o600
        gateway = register.gateway(database=False, store=nowhere, file=file)
        await gateway.loop.begin()
        assert (gateway.version, gateway.following.source) == (2, "file")
        assert [text for text, _ in gateway.applied[-1].lists[0].entries] == ["192.0.2.0/24"]
        assert [left.name for left in file.parent.iterdir()] == ["bundle"]

    async def test_the_file_holds_all_entries_also_after_a_version_that_shared_some(
        self, register: Register, nowhere: Store, tmp_path: Path
    ) -> None:
        file = tmp_path / "bundle"
        held = register.gateway(file=file)
        await register.add_list("networks", "192.0.2.0/24")
        await held.following.ask()
        await register.add_rule("rule")
        await held.following.ask()
        gateway = register.gateway(database=False, store=nowhere, file=file)
        await gateway.loop.begin()
        assert gateway.version == 3

    async def test_a_store_that_is_there_counts_more_than_the_file(self, register: Register, tmp_path: Path) -> None:
        file = tmp_path / "bundle"
        await register.set_quota(1)
        await register.gateway(file=file).following.ask()
        await register.set_quota(2)
        gateway = register.gateway(file=file)
        await gateway.loop.begin()
        assert (gateway.version, gateway.following.source) == (2, "database")

    @pytest.mark.parametrize("spoil", ["cut", "changed", "open to others", "a link", "empty"])
    async def test_a_file_that_cannot_be_trusted_is_left_alone(
        self, register: Register, nowhere: Store, tmp_path: Path, spoil: str
    ) -> None:
        file = tmp_path / "bundle"
        await register.set_quota(1)
        await register.gateway(file=file).following.ask()
        content = file.read_bytes()
        if spoil == "cut":
            file.write_bytes(content[:-1])
        elif spoil == "changed":
            file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif spoil == "open to others":
            file.chmod(0o640)
        elif spoil == "a link":
            file.rename(tmp_path / "elsewhere")
            file.symlink_to(tmp_path / "elsewhere")
        else:
            file.write_bytes(b"")
        gateway = register.gateway(database=False, store=nowhere, file=file)
        await gateway.loop.begin()
        assert gateway.version == 0
        assert gateway.metric("gatefold_gateway_bundle_failures_total", part="file") == 1

    async def test_a_gateway_without_anything_starts_all_the_same(self, register: Register, nowhere: Store) -> None:
        gateway = register.gateway(database=False, store=nowhere)
        await gateway.loop.begin()
        assert gateway.version == 0


class Died(BaseException):
    """Ends a process of the test."""


def die() -> None:
    raise Died


class TestKills:
    @pytest.mark.parametrize(
        "point",
        [
            "before-commit:change_firewall",
            "after-commit:change_firewall",
            "before-publish:announce_version",
            "after-publish:announce_version",
            "before-commit:announce_version",
            "after-commit:announce_version",
        ],
    )
    async def test_a_death_at_any_point_loses_nothing_and_doubles_nothing(
        self, database: ServiceDatabase, redis: Store, clock: FixedClock, ids: IdMaker, tmp_path: Path, point: str
    ) -> None:
        points = KillPoints("gateway", kill_at=f"gateway:{point}", kill_log=tmp_path / "log", die=die)
        dsn = database.owner_dsn.reveal()

        async def opened(role: Role) -> Database:
            own = Secret(dsn.replace("gateway_owner", f"gateway_{role}"))
            return await Database.open(own, service="gateway", role=role, kill_points=points)

        app, jobs = await opened("app"), await opened("jobs")
        deaths = 0
        try:
            while True:
                # Each round is a process; the operator repeats the request under the same key.
                register = Register(app, jobs, redis, clock, ids, kill_points=points)
                try:
                    await register.add_rule("rule", key="a-key")
                    while await register.announcements.announce():
                        pass
                    break
                except Died:
                    deaths += 1
            gateway = register.gateway(database=False)
            await gateway.loop.begin()
            assert (deaths, gateway.version) == (1, 1)
            assert [rule.name for rule in gateway.applied[-1].rules] == ["rule"]
            assert await register.versions.newest_number() == 1
        finally:
            await app.close()
            await jobs.close()


class TestWhatComesWithTheSoftware:
    async def test_rules_are_added_once_and_do_not_come_back(self, register: Register, ids: IdMaker) -> None:
        defaults = [Rule(ids.new(), name, "true", Action.BLOCK) for name in ("default one", "default two")]
        with acting():
            assert await register.rules.introduce(defaults) == 2
            assert await register.rules.introduce(defaults) == 0
            await register.rules.delete(defaults[0].id, firewall_pb2.DeleteRuleRequest(), 0)
            newer = [*defaults, Rule(ids.new(), "default three", "true", Action.BLOCK)]
            assert await register.rules.introduce(newer) == 1
        held, version = await register.rules.list_all()
        assert [each.rule.name for each in held] == ["default two", "default three"]
        assert {each.rule.mode for each in held} == {Mode.SHADOW}
        assert version == 3

    async def test_gateways_that_start_together_add_them_once(self, register: Register, ids: IdMaker) -> None:
        defaults = [Rule(ids.new(), "default one", "true", Action.BLOCK)]
        with acting():
            done = await asyncio.gather(*(register.rules.introduce(defaults) for _ in range(4)))
        assert sorted(done) == [0, 0, 0, 1]
        assert await register.versions.newest_number() == 1

    async def test_a_name_that_is_taken_and_rules_that_are_refused_keep_nobody_from_starting(
        self, register: Register, ids: IdMaker
    ) -> None:
        await register.add_rule("mine")
        with acting():
            assert await register.rules.introduce([Rule(ids.new(), "mine", "false", Action.BLOCK)]) == 0
            assert await register.rules.introduce([Rule(ids.new(), "bad", POISON, Action.BLOCK)]) == 0
        assert [(held.rule.name, held.rule.expression) for held in (await register.rules.list_all())[0]] == [
            ("mine", "true")
        ]


class TestTheDatabase:
    async def test_operators_at_the_same_time_make_versions_one_after_the_other(self, register: Register) -> None:
        await asyncio.gather(*(register.add_rule(f"rule-{number}") for number in range(8)))
        held = await register.versions.page(1 << 62, 100)
        assert [version.number for version in held] == list(range(8, 0, -1))
        for version in held:
            _, contents = await register.versions.get(version.number)
            assert len(contents.rules) == version.number

    async def test_of_those_who_expect_the_same_version_one_gets_through(self, register: Register) -> None:
        await register.add_rule("first")
        done = await asyncio.gather(
            *(register.add_rule(f"rule-{number}", expected=1) for number in range(5)), return_exceptions=True
        )
        refused = [error for error in done if isinstance(error, GatefoldError)]
        assert [error.reason for error in refused] == ["firewall_changed"] * 4

    async def test_a_version_cannot_be_left_out_rewritten_or_taken_back(
        self, register: Register, database: ServiceDatabase
    ) -> None:
        await register.set_quota(1)
        for statement, refusal in (
            (
                "INSERT INTO version (number, made_at, made_by, change, about, digest, content, sets)"
                " SELECT 3, made_at, made_by, change, about, digest, content, sets FROM version",
                asyncpg.IntegrityConstraintViolationError,
            ),
            ("UPDATE version SET made_by = 'somebody'", asyncpg.InsufficientPrivilegeError),
            ("DELETE FROM version", asyncpg.InsufficientPrivilegeError),
            ("UPDATE head SET lineage = gen_random_uuid()", asyncpg.InsufficientPrivilegeError),
            ("INSERT INTO head (id) VALUES (true)", asyncpg.InsufficientPrivilegeError),
            ("UPDATE entry_set SET packed = ''", asyncpg.InsufficientPrivilegeError),
        ):
            with pytest.raises(refusal):
                async with database.app.transaction("tamper") as conn:
                    await conn.execute(statement)

    async def test_what_old_versions_held_is_let_go(
        self, register: Register, database: ServiceDatabase, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(changes, "KEPT_VERSIONS", 2)
        held = await register.add_list("networks", "192.0.2.0/24")
        await register.add_entries(held, "198.51.100.0/24")
        await register.set_quota(1)
        kept = [(version.number, version.kept) for version in await register.versions.page(1 << 62, 100)]
        assert kept == [(4, True), (3, True), (2, False), (1, False)]
        async with database.app.transaction("count", read_only=True) as conn:
            assert await conn.fetchval("SELECT count(*) FROM entry_set") == 1
        with acting(), pytest.raises(GatefoldError) as refused:
            await register.versions.restore(2, bundle_pb2.Content(), 0)
        assert refused.value.reason == "version_not_kept"
        # Whatever a gateway holds, it gets what it lacks.
        gateway = register.gateway()
        await gateway.following.ask()
        assert len(gateway.applied[-1].lists[0].entries) == 2
