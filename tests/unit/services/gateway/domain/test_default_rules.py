"""The rules that every installation begins with: what they catch, and whom they leave alone."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from libs import ids
from libs.patterns import Patterns
from services.gateway.domain.bundle import Bundle, Mode
from services.gateway.domain.default_rules import default_rules
from services.gateway.domain.firewall import Facts, Phase, Ruleset, compile_bundle
from services.gateway.http.contracts import Contracts

ROOT = Path(__file__).resolve().parents[5]
BROWSER: dict[str, Any] = {
    "client_address": "192.0.2.1",
    "request_user_agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/126.0 Safari/537.36",
    "request_headers": {"accept-language": "de", "accept": "application/json"},
    "caller_kind": "SUBSCRIBER",
}
NAMES = {rule.id: rule.name for rule in default_rules()}


@pytest.fixture(scope="module")
def rules() -> Ruleset:
    return compile_bundle(Bundle(rules=default_rules()), Patterns())


def caught(rules: Ruleset, **facts: Any) -> list[str]:
    asked = Facts(**{**BROWSER, **facts})
    found = [rules.judge(asked, phase, 0.0) for phase in Phase]
    assert not any(outcome.matched or outcome.action for outcome in found)
    return [NAMES[rule] for outcome in found for rule in outcome.shadow]


def test_all_are_in_shadow_and_known_by_the_same_ids_everywhere() -> None:
    assert all(rule.mode is Mode.SHADOW and rule.description for rule in default_rules())
    assert default_rules() == default_rules()
    assert len({ids.encode("rule", rule.id) for rule in default_rules()}) == len(default_rules())


@pytest.mark.parametrize(
    ("name", "facts"),
    [
        ("paths of other software", {"request_path": "/.env"}),
        ("paths of other software", {"request_path": "/app/.git/config"}),
        ("paths of other software", {"request_path": "/wp-login.php"}),
        ("paths of other software", {"request_path": "/blog/WP-Admin/"}),
        ("paths of other software", {"request_path": "/index.php"}),
        ("paths of other software", {"request_path": "/v1/../../etc/passwd"}),
        ("attacks in queries", {"request_query": "q=1+UNION+SELECT+password"}),
        ("attacks in queries", {"request_query": "q=%3Cscript%3E"}),
        ("attacks in queries", {"request_query": "x=${jndi:ldap://x}"}),
        ("scanners by name", {"request_user_agent": "sqlmap/1.8"}),
        ("scanners by name", {"request_user_agent": "Mozilla/5.0 (Nikto/2.1)"}),
        ("methods nobody needs", {"request_method": "TRACE"}),
        (
            "bodies of no known type",
            {
                "request_method": "POST",
                "request_route": "/v1/products",
                "request_size": 9,
                "request_content_type": "text/xml",
            },
        ),
        ("false crawlers", {"client_crawler": "impostor"}),
        ("sign-in by scripts", {"request_method": "POST", "request_route": "/v1/sessions", "request_headers": {}}),
        ("sign-in by scripts", {"request_method": "POST", "request_route": "/v1/sessions", "request_user_agent": ""}),
        (
            "suspects pay after a proof",
            {"request_method": "POST", "request_route": "/v1/checkouts", "verdict_action": "throttle"},
        ),
        ("few checkouts from one browser", {"request_method": "POST", "request_route": "/v1/checkouts"}),
    ],
)
def test_each_catches_what_it_is_for(rules: Ruleset, name: str, facts: dict[str, Any]) -> None:
    assert name in caught(rules, **facts)


def test_no_endpoint_of_ours_is_caught(rules: Ruleset) -> None:
    contracts = Contracts.load(ROOT / "gen" / "descriptors.binpb")
    pages = ["/", "/docs", "/docs/swagger-ui-bundle.js", "/openapi.json", "/problems/rate_limited", "/favicon.ico"]
    pages += ["/.well-known/openid-configuration", "/challenge", "/challenge/worker.js", "/oauth2/authorize"]
    for path in pages:
        assert caught(rules, request_path=path) == []
    for endpoint in contracts.endpoints:
        path = endpoint.template.replace("{", "").replace("}", "")
        body = {"request_content_type": "application/json", "request_size": 10} if endpoint.verb != "GET" else {}
        found = caught(
            rules,
            request_path=path,
            request_query="limit=10&cursor=abc",
            request_method=endpoint.verb,
            request_route=endpoint.template,
            **body,
        )
        expected = ["few checkouts from one browser"] if endpoint.template == "/v1/checkouts" else []
        assert found == expected, endpoint.template


def test_routes_that_rules_name_exist() -> None:
    contracts = Contracts.load(ROOT / "gen" / "descriptors.binpb")
    known = {f'"{endpoint.template}"' for endpoint in contracts.endpoints}
    for rule in default_rules():
        named = {word.strip("[],()") for word in rule.expression.split() if word.strip("[],()").startswith('"/')}
        assert named <= known, rule.name


def test_switched_on_they_act() -> None:
    enforced = tuple(replace(rule, mode=Mode.ENFORCE) for rule in default_rules())
    rules = compile_bundle(Bundle(rules=enforced), Patterns())

    assert rules.judge(Facts(request_path="/.env"), Phase.BEFORE, 0.0).action is not None
