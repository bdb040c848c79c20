"""Owns the rules that every installation begins with, in shadow until an operator switches them on."""

from uuid import UUID

from services.gateway.domain.bundle import Action, Mode, Rule

_NAMESPACE = 0x01930000_0000_7000_8000_00000F17E000
"""Before the number of a rule, so that each has the same id everywhere."""

_BAD_PATHS = (
    r"(?i)(^|/)\.(env|git|svn|hg|aws|ssh|htaccess|htpasswd|ds_store|vscode|idea|npmrc|docker)"
    r"|(^|/)(wp-(admin|login|content|includes|json|config)|xmlrpc\.php|phpmyadmin|pma|phpunit|cgi-bin|actuator"
    r"|server-status|solr|jenkins|boaform|hnap1|owa|ecp|autodiscover|telescope|_ignition|druid|geoserver)(/|$|\.)"
    r"|\.(php[3-8]?|phtml|aspx?|jspx?|cgi|cfm|bak|sql|old|swp)$"
    r"|(^|/)\.\.(/|$)|\\|\x00"
)
_BAD_QUERIES = (
    r"(?i)(union(\+|%20|/\*.*\*/)+(all(\+|%20)+)?select|(%3c|<)script|\.\.(/|%2f)|/etc/passwd|\$(\{|%7b)jndi:"
    r"|(sleep|benchmark|pg_sleep|waitfor)(\(|%28)|information_schema)"
)
_BAD_AGENTS = (
    r"(?i)(sqlmap|nikto|nmap|masscan|zgrab|nuclei|wpscan|dirbuster|gobuster|feroxbuster|ffuf|wfuzz|acunetix|netsparker"
    r"|nessus|openvas|havij|w3af|jorgee|arachni|hydra|commix|xsser|whatweb|zmeu|morfeus|fimap|(^|[^a-z])(jaeles|xray))"
)
_SIGN_INS = (
    '["/v1/sessions", "/v1/sessions/code", "/v1/sessions/passkey", "/v1/staff/sessions", "/v1/staff/sessions/passkey", '
    '"/v1/registrations", "/v1/magic_links", "/v1/password_resets", "/v1/staff/password_resets", '
    '"/v1/oauth2/authorizations/sign_in"]'
)
_MEDIA_TYPES = (
    '["application/json", "application/scim+json", "application/x-www-form-urlencoded", "text/csv", '
    '"application/octet-stream"]'
)

_RULES: tuple[tuple[str, Action, str, str, str], ...] = (
    (
        "paths of other software",
        Action.BLOCK,
        "",
        f'request.path.matches(r"{_BAD_PATHS}")',
        "Configuration files, consoles and scripts that scanners ask every host for. There are none here.",
    ),
    (
        "attacks in queries",
        Action.BLOCK,
        "",
        f'request.query.matches(r"{_BAD_QUERIES}")',
        "SQL, scripts and paths where a value should be. Texts that people search for may look like it: see the count.",
    ),
    (
        "scanners by name",
        Action.BLOCK,
        "",
        f'request.user_agent.matches(r"{_BAD_AGENTS}")',
        "Tools that say what they are.",
    ),
    (
        "methods nobody needs",
        Action.BLOCK,
        "",
        '!(request.method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])',
        "TRACE, CONNECT, PROPFIND and the like.",
    ),
    (
        "bodies of no known type",
        Action.BLOCK,
        "",
        'request.route != "" && request.route != "/v1/webhooks/stripe/{connection_id}" && request.size != 0 && '
        f'request.method in ["POST", "PUT", "PATCH"] && !(request.content_type in {_MEDIA_TYPES})',
        "No endpoint takes a body of another type; webhooks of vendors are left alone.",
    ),
    (
        "false crawlers",
        Action.BLOCK,
        "",
        'client.crawler == "impostor"',
        "Clients that name themselves after a search engine's crawler from an address that is not its owner's.",
    ),
    (
        "sign-in by scripts",
        Action.CHALLENGE,
        "",
        f'request.route in {_SIGN_INS} && request.method == "POST" && '
        '(request.user_agent == "" || !("accept-language" in request.headers))',
        "Every browser says which languages its owner reads. Apps of your own should send Accept-Language.",
    ),
    (
        "suspects pay after a proof",
        Action.CHALLENGE,
        "",
        'request.route == "/v1/checkouts" && request.method == "POST" && verdict.action != ""',
        "Whoever the abuse detection has its doubts about makes a proof of work before a card is tried.",
    ),
    (
        "few checkouts from one browser",
        Action.RATE,
        "bulk",
        'request.route == "/v1/checkouts" && request.method == "POST" && caller.kind != "SECRET_KEY"',
        "A reader pays once or twice; who tests stolen cards does it again and again. Secret keys are exempt.",
    ),
)


def default_rules() -> tuple[Rule, ...]:
    """Returns the rules; an operator may change each, and none comes back once deleted."""
    return tuple(
        Rule(
            id=UUID(int=_NAMESPACE + number),
            name=name,
            expression=expression,
            action=action,
            parameter=parameter,
            priority=10_000 + number,
            mode=Mode.SHADOW,
            description=description,
        )
        for number, (name, action, parameter, expression, description) in enumerate(_RULES, 1)
    )
