"""Reading detectors: what is not understood is refused with file and key, and all that stand there are whole."""

import re
from pathlib import Path

import pytest

from services.abuse.domain.detector import Action, Mode, SignalKind
from services.abuse.engine.catalogue import Catalogue, CatalogueError, read

GOOD = """
title = "Too many"
family = "too_many"
sees = "Too many wrong passwords."
scope = "address"
events = ["sign_in.password"]
prior = -2.0

[signals.failures]
kind = "count"
key = ["address"]
where = { status = { least = 400, most = 499 }, device = true, caller = ["ANONYMOUS"], route = { not = "/v1/me" } }
window_seconds = 60
steps = [[3, 2.0], [9, 4.0]]

[signals.tries]
kind = "count"
key = ["address"]
given = { failures = { least = 1, most = 9 } }
window_seconds = 60

[signals.share]
kind = "ratio"
of = "failures"
over = "tries"
least = 3
steps = [[0.5, 1.0]]

[[ladder]]
action = "tag"
confidence = 0.7
seconds = 60

[[ladder]]
action = "block"
confidence = 0.9
strikes = 1
seconds = 600
"""

BAD = {
    # what is changed, into what, and what the error names
    "unknown key": ('title = "Too many"', 'title = "x"\ncolour = "red"', r"d\.toml: colour: unknown key"),
    "missing key": ('title = "Too many"', "", r"d\.toml: title: is missing"),
    "no TOML": ('title = "Too many"', "title =", r"d\.toml: "),
    "unknown scope": ('scope = "address"', 'scope = "planet"', r"d\.toml: scope: is one of address"),
    "no event": ('events = ["sign_in.password"]', "events = []", r"d\.toml: events"),
    "unknown kind": ('kind = "ratio"', 'kind = "guess"', r"d\.toml: signals\.share\.kind"),
    "unknown signal": ('over = "tries"', 'over = "trials"', r"d\.toml: signals\.share\.over: names a signal above"),
    "unknown field of key": ('key = ["address"]', 'key = ["colour"]', r"d\.toml: signals\.failures\.key: .*'colour'"),
    "unknown field of where": ("device = true", "colour = true", r"d\.toml: signals\.failures\.where\.colour"),
    "value of a hash": ("device = true", 'device = "abc"', r"where\.device: a keyed hash is there"),
    "text for a number": ("{ least = 400, most = 499 }", '"401"', r"where\.status: one or more of type int"),
    "range of a text": ('{ not = "/v1/me" }', "{ least = 3 }", r"where\.route: only numbers have a range"),
    "unknown range": ("{ least = 400, most = 499 }", "{ from = 400 }", r"where\.status\.from: unknown key"),
    "foreign key of a kind": (
        "least = 3\n",
        "window_seconds = 60\n",
        r"signals\.share\.window_seconds: a signal of kind",
    ),
    "given an unknown signal": (
        "given = { failures",
        "given = { share",
        r"signals\.tries\.given\.share: names a signal above",
    ),
    "given an unknown bound": ("{ least = 1, most = 9 }", "{ from = 1 }", r"tries\.given\.failures\.from: unknown key"),
    "given a text": ("{ least = 1, most = 9 }", '{ least = "1" }', r"tries\.given\.failures: is a number"),
    "given no bound": ("{ least = 1, most = 9 }", "{}", r"tries\.given\.failures: has least or most"),
    "ratio of given": (
        'over = "tries"\n',
        'over = "tries"\ngiven = {}\n',
        r"signals\.share\.given: a signal of kind ratio",
    ),
    "falling steps": ("[[3, 2.0], [9, 4.0]]", "[[9, 2.0], [3, 4.0]]", r"signals\.failures\.steps: thresholds rise"),
    "step of three": ("[[3, 2.0], [9, 4.0]]", "[[9, 2.0, 1]]", r"signals\.failures\.steps"),
    "step of text": ("[[3, 2.0], [9, 4.0]]", '[["a", 2.0]]', r"signals\.failures\.steps: is a number"),
    "endless number": ("prior = -2.0", "prior = inf", r"d\.toml: prior: is a number"),
    "no window": ("window_seconds = 60\nsteps", "window_seconds = 0\nsteps", r"signals\.failures\.window_seconds"),
    "unsure rung": ("confidence = 0.7", "confidence = 0.2", r"ladder\[0\]\.confidence"),
    "falling ladder": ('action = "block"', 'action = "tag"', r"ladder: each rung is harder"),
    "unknown action": ('action = "block"', 'action = "smile"', r"ladder\[1\]\.action"),
    "unknown rung key": ("strikes = 1", "strike = 1", r"ladder\[1\]\.strike: unknown key"),
    "huge table": ('scope = "address"', 'scope = "address"\nslots = 99999999', r"d\.toml: slots: is from 8"),
    "unknown mode": ('scope = "address"', 'scope = "address"\nmode = "maybe"', r"d\.toml: mode: is one of off"),
}


def test_a_whole_detector_is_read() -> None:
    detector = read("d", "d.toml", GOOD)
    assert [signal.kind for signal in detector.signals] == [SignalKind.COUNT, SignalKind.COUNT, SignalKind.RATIO]
    assert detector.signals[0].steps == ((3.0, 2.0), (9.0, 4.0))
    assert [rung.action for rung in detector.ladder] == [Action.TAG, Action.BLOCK]
    assert detector.mode is Mode.ENFORCE
    assert detector.most is Action.BLOCK


@pytest.mark.parametrize("case", BAD)
def test_what_is_not_understood_is_refused_with_its_place(case: str) -> None:
    before, after, told = BAD[case]
    assert before in GOOD
    with pytest.raises(CatalogueError) as refused:
        read("d", "d.toml", GOOD.replace(before, after, 1))
    assert re.search(told, str(refused.value)), str(refused.value)
    assert "\n" not in str(refused.value)


def test_nothing_without_steps_or_ladder_is_a_detector() -> None:
    without_steps = re.sub(r"^steps.*$", "", GOOD, flags=re.MULTILINE)
    with pytest.raises(CatalogueError, match="none of them has steps"):
        read("d", "d.toml", without_steps)
    without_ladder = GOOD[: GOOD.index("[[ladder]]")].replace("prior", "ladder = []\nprior")
    with pytest.raises(CatalogueError, match="ladder: has a rung"):
        read("d", "d.toml", without_ladder)


def test_staff_change_thresholds_and_mode_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "d.toml").write_text(GOOD)
    [before] = Catalogue.load(tmp_path).detectors
    changed = {"d": {"mode": "shadow", "steps": {"failures": [[5, 3.0]]}}}
    [after] = Catalogue.load(tmp_path, changed).detectors
    assert after.mode is Mode.SHADOW
    assert after.signals[0].steps == ((5.0, 3.0),)
    assert after.version != before.version
    for wrong, told in (
        ({"d": {"ladder": []}}, "override ladder: only mode and steps"),
        ({"d": {"steps": {"nothing": []}}}, r"override steps\.nothing"),
        ({"d": {"steps": {"failures": [[5]]}}}, r"signals\.failures\.steps"),
        ({"d": {"steps": {"failures": 5}}}, r"signals\.failures\.steps"),
        ({"d": {"steps": 5}}, "override steps"),
        ({"e": {"mode": "off"}}, "overrides: e: there is no such detector"),
    ):
        with pytest.raises(CatalogueError, match=told):
            Catalogue.load(tmp_path, wrong)


def test_a_version_tells_what_a_detector_says() -> None:
    assert read("d", "d.toml", GOOD).version == read("d", "d.toml", GOOD + "\n# a remark\n").version
    assert read("d", "d.toml", GOOD).version != read("d", "d.toml", GOOD.replace("-2.0", "-2.5")).version


@pytest.mark.case("edge-15")
def test_the_catalogue_has_every_family_and_keeps_to_its_rules() -> None:
    detectors = Catalogue.load().detectors
    assert {detector.family for detector in detectors} == {
        "account_sharing",
        "account_takeover",
        "api_key_leak",
        "brute_force",
        "card_testing",
        "code_guessing",
        "content_scraping",
        "credential_stuffing",
        "id_enumeration",
        "impossible_travel",
        "meter_evasion",
        "refund_abuse",
        "trial_abuse",
    }
    for detector in detectors:
        # What was never seen to be abuse is not accused, and what shuts nobody else out comes first.
        assert detector.prior < 0
        assert detector.title
        assert detector.sees.endswith(".")
        seconds = [rung.seconds for rung in detector.ladder]
        assert min(seconds) >= 600
        if detector.scope.value in ("target", "user_agent", "network"):
            # Nobody is shut out by what others try on them, nor for where they are or what they use.
            assert Action.BLOCK not in {rung.action for rung in detector.ladder} or detector.family == "trial_abuse"
