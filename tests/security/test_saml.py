"""Attacks on signing in by SAML: forged, wrapped, replayed, redirected and poisoned responses."""

import asyncio
import copy
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from gatefold.auth.v1 import saml_pb2, team_pb2
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.signer import XMLSigner

from infra.local.valkey import ValkeyServer
from libs import ids
from libs.clock import FixedClock
from libs.config import Secret
from libs.errors import GatefoldError, Kind
from services.auth.domain import roles
from tests.conftest import ServiceDb
from tests.support.auth import AuthHouse, running
from tests.support.factors import begin, confirm
from tests.support.saml_provider import (
    DSIG,
    EMAIL,
    NAMESPACES,
    SAML,
    SAMLP,
    Connected,
    SamlProvider,
    Visit,
    connect,
    key,
)
from tests.support.waiting import blocked

ASSERTION, SIGNATURE = "saml:Assertion", "ds:Signature"


@pytest.fixture(scope="module")
async def house(
    service_db: ServiceDb,
    keys_dsn: Secret,
    valkey_server: ValkeyServer,
    key_file: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[AuthHouse]:
    database, folder = await service_db("auth"), tmp_path_factory.mktemp("auth")
    url = valkey_server.url().reveal()
    async with running(database, keys_dsn.reveal(), url, key_file, folder, FixedClock()) as found:
        yield found


@pytest.fixture(scope="module")
async def site(house: AuthHouse) -> Connected:
    """An account whose identity provider is good; tests ask it for a response and do worse to it."""
    return await connect(house, await house.publisher())


@pytest.fixture
async def visit(site: Connected) -> Visit:
    return await site.begin()


def find(root: Any, path: str) -> Any:
    found = root.find(path, NAMESPACES)
    assert found is not None
    return found


async def still_works(site: Connected, visit: Visit) -> None:
    """What was refused spent nothing: the genuine response is taken."""
    assert await site.post(site.provider.response(site.said(visit)), visit.request.relay_state)


# --- signatures


@pytest.mark.case("auth-65")
async def test_an_unsigned_response_is_refused(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit), sign="none")
    assert await site.refusal(root, visit.request.relay_state) == "unsigned"
    await still_works(site, visit)


@pytest.mark.case("auth-65")
@pytest.mark.parametrize("signed", ["assertion", "response", "both"])
@pytest.mark.parametrize(
    "path", ["saml:Subject/saml:NameID", "saml:Conditions/saml:AudienceRestriction/saml:Audience", "saml:Issuer"]
)
async def test_nothing_that_was_signed_can_be_changed(site: Connected, visit: Visit, signed: str, path: str) -> None:
    root = site.provider.response(site.said(visit), sign=signed)
    find(root, f"{ASSERTION}/{path}").text += "x"
    assert await site.refusal(root, visit.request.relay_state) == "signature"


@pytest.mark.case("auth-65")
async def test_a_signature_that_was_taken_off_leaves_the_other_to_hold(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit), sign="both")
    find(root, f"{ASSERTION}/saml:Subject/saml:NameID").text = "mallory"
    assertion = find(root, ASSERTION)
    assertion.remove(find(assertion, SIGNATURE))
    assert await site.refusal(root, visit.request.relay_state) == "signature"
    root.remove(find(root, SIGNATURE))
    assert await site.refusal(root, visit.request.relay_state) == "unsigned"


def evil(root: Any) -> tuple[Any, Any]:
    """Returns the genuine assertion, and a copy of another identity and ID that nobody signed."""
    genuine = find(root, ASSERTION)
    forged = copy.deepcopy(genuine)
    forged.set("ID", "_forged")
    forged.remove(find(forged, SIGNATURE))
    find(forged, "saml:Subject/saml:NameID").text = "the-owner"
    return genuine, forged


def wrapped_1(root: Any) -> Any:
    """The signed response lies in the signature of a forged one."""
    signed = copy.deepcopy(root)
    root.set("ID", "_evil")
    find(root, f"{ASSERTION}/saml:Subject/saml:NameID").text = "the-owner"
    signature = find(root, SIGNATURE)
    inner = find(signed, SIGNATURE)
    signed.remove(inner)
    signature.append(signed)
    return root


def wrapped_2(root: Any) -> Any:
    """As the first, with the signed response beside its signature."""
    signed = copy.deepcopy(root)
    signed.remove(find(signed, SIGNATURE))
    root.set("ID", "_evil")
    find(root, f"{ASSERTION}/saml:Subject/saml:NameID").text = "the-owner"
    signature = find(root, SIGNATURE)
    root.insert(list(root).index(signature), signed)
    return root


def wrapped_3(root: Any) -> Any:
    """The forged assertion stands before the signed one."""
    genuine, forged = evil(root)
    genuine.addprevious(forged)
    return root


def wrapped_4(root: Any) -> Any:
    """The forged assertion holds the signed one."""
    genuine, forged = evil(root)
    root.replace(genuine, forged)
    forged.append(genuine)
    return root


def wrapped_5(root: Any) -> Any:
    """The forged assertion has the signature, and the signed one comes after it."""
    genuine, forged = evil(root)
    signature = find(genuine, SIGNATURE)
    genuine.addprevious(forged)
    forged.insert(1, signature)
    return root


def wrapped_6(root: Any) -> Any:
    """The signature in the forged assertion holds the signed one."""
    genuine, forged = evil(root)
    signature = find(genuine, SIGNATURE)
    root.replace(genuine, forged)
    forged.insert(1, signature)
    signature.append(genuine)
    return root


def wrapped_7(root: Any) -> Any:
    """The forged assertion lies in an extension before the signed one."""
    genuine, forged = evil(root)
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    extensions.append(forged)
    genuine.addprevious(extensions)
    return root


def wrapped_8(root: Any) -> Any:
    """The signed assertion lies in an object of the signature in the forged one."""
    genuine, forged = evil(root)
    signature = find(genuine, SIGNATURE)
    root.replace(genuine, forged)
    forged.insert(1, signature)
    etree.SubElement(signature, f"{{{DSIG}}}Object").append(genuine)
    return root


def hidden(root: Any) -> Any:
    """The signed assertion hides in another namespace's element, by its own ID, where only a search finds it."""
    genuine, forged = evil(root)
    signature = find(genuine, SIGNATURE)
    root.replace(genuine, forged)
    forged.insert(1, signature)
    genuine.tag = "{urn:example}Assertion"
    etree.SubElement(root, "{urn:example}Hidden").append(genuine)
    return root


def same_id(root: Any) -> Any:
    """Both assertions have the ID that was signed."""
    genuine, forged = evil(root)
    forged.set("ID", genuine.get("ID"))
    genuine.addprevious(forged)
    return root


WRAPPED: list[tuple[Callable[[Any], Any], str, str]] = [
    (wrapped_1, "response", "structure"),
    (wrapped_2, "response", "structure"),
    (wrapped_3, "assertion", "structure"),
    (wrapped_4, "assertion", "structure"),
    (wrapped_5, "assertion", "structure"),
    (wrapped_6, "assertion", "structure"),
    (wrapped_7, "assertion", "structure"),
    (wrapped_8, "assertion", "structure"),
    (same_id, "assertion", "structure"),
    (hidden, "assertion", "reference"),
]


@pytest.mark.case("auth-65")
@pytest.mark.parametrize(("wrap", "signed", "rule"), WRAPPED)
async def test_a_wrapped_signature_is_refused(
    site: Connected, visit: Visit, wrap: Callable[[Any], Any], signed: str, rule: str
) -> None:
    root = wrap(site.provider.response(site.said(visit), sign=signed))
    assert await site.refusal(root, visit.request.relay_state) == rule
    await still_works(site, visit)


@pytest.mark.case("auth-65")
async def test_a_signature_of_the_very_id_does_not_pass_for_another_assertion(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit))
    genuine, forged = evil(root)
    forged.set("ID", genuine.get("ID"))
    forged.insert(1, find(genuine, SIGNATURE))
    root.replace(genuine, forged)
    assert await site.refusal(root, visit.request.relay_state) == "signature"


@pytest.mark.case("auth-65")
@pytest.mark.parametrize("uri", ["", "#_other", "https://evil.example/x.xml", "file:///etc/passwd", "#xpointer(/)"])
async def test_a_signature_is_of_the_element_that_it_stands_in(site: Connected, visit: Visit, uri: str) -> None:
    root = site.provider.response(site.said(visit))
    find(root, f"{ASSERTION}/{SIGNATURE}/ds:SignedInfo/ds:Reference").set("URI", uri)
    assert await site.refusal(root, visit.request.relay_state) == "reference"


@pytest.mark.case("auth-65")
async def test_a_second_reference_or_signature_is_refused(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit))
    reference = find(root, f"{ASSERTION}/{SIGNATURE}/ds:SignedInfo/ds:Reference")
    reference.addnext(copy.deepcopy(reference))
    assert await site.refusal(root, visit.request.relay_state) == "structure"
    root = site.provider.response(site.said(visit))
    signature = find(root, f"{ASSERTION}/{SIGNATURE}")
    signature.addnext(copy.deepcopy(signature))
    assert await site.refusal(root, visit.request.relay_state) == "structure"


@pytest.mark.case("auth-65")
async def test_only_the_connections_certificate_counts_whatever_the_response_brings(
    site: Connected, visit: Visit
) -> None:
    mallory = key(7)
    for shown in (mallory, site.provider.signs_with):
        root = site.provider.response(site.said(visit, name_id="the-owner"), sign="none")
        site.provider.sign(find(root, ASSERTION), key=mallory, shown=shown)
        assert await site.refusal(root, visit.request.relay_state) == "signature"
    # The other way round: a certificate in the response is not even looked at.
    root = site.provider.response(site.said(visit), sign="none")
    site.provider.sign(find(root, ASSERTION), shown=mallory)
    assert await site.post(root, visit.request.relay_state)


@pytest.mark.case("auth-65")
@pytest.mark.parametrize(
    "way",
    [
        {"method": SignatureMethod.RSA_SHA1},
        {"digest": DigestAlgorithm.SHA1},
        {"method": SignatureMethod.RSA_SHA224},
        {"digest": DigestAlgorithm.SHA3_256},
    ],
)
async def test_weak_and_odd_algorithms_are_refused(site: Connected, visit: Visit, way: dict[str, Any]) -> None:
    root = site.provider.response(site.said(visit), sign="none")
    site.provider.sign(find(root, ASSERTION), **way)
    assert await site.refusal(root, visit.request.relay_state) == "algorithm"


@pytest.mark.case("auth-65")
async def test_an_hmac_keyed_with_the_public_certificate_is_refused(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit, name_id="the-owner"), sign="none")
    assertion = find(root, ASSERTION)
    signer = XMLSigner(
        signature_algorithm=SignatureMethod.HMAC_SHA256,
        c14n_algorithm=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
    )
    alone = etree.fromstring(etree.tostring(assertion, with_tail=False))
    signed = signer.sign(alone, key=site.provider.signs_with.pem, reference_uri=assertion.get("ID"), id_attribute="ID")
    assertion.insert(1, find(signed, SIGNATURE))
    assert await site.refusal(root, visit.request.relay_state) == "algorithm"


@pytest.mark.case("auth-65")
async def test_ways_of_writing_xml_that_leave_something_out_are_refused(site: Connected, visit: Visit) -> None:
    for c14n in CanonicalizationMethod:
        if c14n is CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0:
            continue
        root = site.provider.response(site.said(visit), sign="none")
        site.provider.sign(find(root, ASSERTION), c14n=c14n)
        assert await site.refusal(root, visit.request.relay_state) == "transforms"
    root = site.provider.response(site.said(visit))
    transforms = find(root, f"{ASSERTION}/{SIGNATURE}/ds:SignedInfo/ds:Reference/ds:Transforms")
    etree.SubElement(transforms, f"{{{DSIG}}}Transform", Algorithm="http://www.w3.org/TR/1999/REC-xslt-19991116")
    assert await site.refusal(root, visit.request.relay_state) == "structure"
    etree.strip_elements(transforms, "{*}Transform")
    for algorithm in (f"{DSIG}enveloped-signature", "http://www.w3.org/TR/1999/REC-xslt-19991116"):
        etree.SubElement(transforms, f"{{{DSIG}}}Transform", Algorithm=algorithm)
    assert await site.refusal(root, visit.request.relay_state) == "transforms"


@pytest.mark.case("auth-65")
async def test_a_certificate_that_has_ended_signs_nobody_in(house: AuthHouse) -> None:
    old, new = key(11, begins=2015, ends=2025), key(12)
    provider = SamlProvider(signs_with=old, published=(old, new))
    site = await connect(house, await house.publisher(), provider)
    visit = await site.begin()
    assert await site.refusal(provider.response(site.said(visit)), visit.request.relay_state) == "signature"
    # The one that follows it does: both are known while one takes over from the other.
    fresh = replace(provider, signs_with=new).response(site.said(visit))
    assert await site.post(fresh, visit.request.relay_state)


# --- what the XML may do to its reader


@pytest.mark.case("auth-65")
@pytest.mark.parametrize(
    "document_type",
    [
        '<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>',
        '<!DOCTYPE x [<!ENTITY e SYSTEM "http://127.0.0.1:1/">]>',
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:1/"> %p;]>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:1/x.dtd">',
        "<!DOCTYPE x [" + "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9)) + "]>",
        '<!DOCTYPE x [<!ENTITY e "the-owner">]>',
        "<!DOCTYPE x>",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
async def test_a_document_type_is_refused_before_anything_in_it_is_read(
    site: Connected, visit: Visit, document_type: str, encoding: str
) -> None:
    written = site.said(visit, name_id="&e;" if "ENTITY e " in document_type else "x").xml()
    text = f'<?xml version="1.0" encoding="{encoding}"?>{document_type}{written}'
    assert await site.refusal(text.encode(encoding), visit.request.relay_state) == "xml"


@pytest.mark.case("auth-65")
async def test_a_document_type_does_not_hide_in_another_encoding(site: Connected, visit: Visit) -> None:
    text = "<!DOCTYPE x>" + site.said(visit).xml()
    hidden = '<?xml version="1.0" encoding="UTF-7"?>' + text.replace("<!", "+ADwAIQ-")
    assert etree.fromstring(hidden.encode()).getroottree().docinfo.doctype, "a parser finds it"
    assert await site.refusal(hidden.encode(), visit.request.relay_state) == "xml"


@pytest.mark.case("auth-65")
@pytest.mark.parametrize("split", ["<!-- -->", "<?x y?>"])
async def test_a_comment_does_not_cut_a_name_short(site: Connected, visit: Visit, split: str) -> None:
    said = site.said(visit, name_id="ada@example.com.mallory.example", name_id_format=EMAIL)
    root = etree.tostring(site.provider.response(said))
    cut = root.replace(b"ada@example.com.", b"ada@example.com" + split.encode() + b".")
    assert cut != root
    assert await site.refusal(cut, visit.request.relay_state) == "xml"


@pytest.mark.case("auth-65")
async def test_nothing_is_included_and_a_name_has_no_parts(site: Connected, visit: Visit) -> None:
    include = '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/hostname" parse="text"/>'
    for inner in (include, "<b xmlns='urn:x'>the</b>-owner", f"ada{include}", ""):
        root = site.provider.response(site.said(visit, name_id="", name_id_xml=inner))
        assert await site.refusal(root, visit.request.relay_state) == "name_id"


@pytest.mark.case("auth-65")
async def test_what_is_no_response_is_refused(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit))
    deep = b"<a>" * 5_000 + b"</a>" * 5_000
    for raw in (b"", b"<", b"\x00\xff", deep, b"<a/>" * 2, etree.tostring(root)[:-9]):
        assert await site.refusal(raw, visit.request.relay_state) == "xml"
    for other in (b"<a/>", etree.tostring(find(root, ASSERTION))):
        assert await site.refusal(other, visit.request.relay_state) == "structure"


@pytest.mark.case("auth-65")
async def test_an_encrypted_assertion_is_refused(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit), sign="none")
    root.replace(find(root, ASSERTION), etree.Element(f"{{{SAML}}}EncryptedAssertion"))
    assert await site.refusal(root, visit.request.relay_state) == "encrypted"


# --- what is said, to whom, when, in answer to what


HOUR = timedelta(hours=1)
SAID: list[tuple[str, dict[str, Any]]] = [
    ("audience", {"audience": "https://other.example/metadata"}),
    ("confirmation", {"recipient": "https://other.example/acs"}),
    ("destination", {"destination": "https://other.example/acs"}),
    ("issuer", {"issuer": "https://evil.example/metadata"}),
    ("issuer", {"response_issuer": "https://evil.example/metadata"}),
    ("conditions", {"not_on_or_after": -HOUR}),
    ("conditions", {"not_before": HOUR}),
    ("conditions", {"conditions_xml": "<saml:Condition xmlns:x='urn:x' />"}),
    ("confirmation", {"confirmed_until": -HOUR}),
    ("confirmation", {"confirmed_until": None}),
    ("confirmation", {"method": "urn:oasis:names:tc:SAML:2.0:cm:sender-vouches"}),
    ("confirmation", {"method": "urn:oasis:names:tc:SAML:2.0:cm:holder-of-key"}),
    ("in_response_to", {"in_response_to": "_another"}),
    ("in_response_to", {"response_in_response_to": "_another"}),
    ("confirmation", {"in_response_to": None}),
    ("status", {"status": "urn:oasis:names:tc:SAML:2.0:status:Responder"}),
    ("statement", {"authn_statement": False}),
    ("statement", {"session_until": -HOUR}),
    ("name_id", {"name_id_format": "urn:oasis:names:tc:SAML:2.0:nameid-format:transient"}),
    ("name_id", {"name_id_format": "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"}),
    ("name_id", {"name_id": " ada-1"}),
    ("name_id", {"name_id_attributes": ' NameQualifier="https://other.example"'}),
    ("name_id", {"name_id_attributes": ' SPNameQualifier="https://other.example"'}),
    ("attribute", {"attributes": {"mail": ("ada@example.com", "owner@example.com")}}),
]


@pytest.mark.case("auth-65")
@pytest.mark.parametrize(("rule", "parts"), SAID)
@pytest.mark.parametrize("signed", ["assertion", "response"])
async def test_what_is_signed_must_be_for_us_for_now_and_for_this_request(
    site: Connected, visit: Visit, rule: str, parts: dict[str, Any], signed: str
) -> None:
    root = site.provider.response(site.said(visit, **parts), sign=signed)
    assert await site.refusal(root, visit.request.relay_state) == rule


@pytest.mark.case("auth-65")
async def test_a_signed_response_says_where_it_goes(site: Connected, visit: Visit) -> None:
    for signed, rule in (("response", "destination"), ("assertion", None)):
        root = site.provider.response(site.said(visit), sign="none")
        del root.attrib["Destination"]
        site.provider.sign(root if signed == "response" else find(root, ASSERTION))
        if rule is None:
            assert await site.post(root, visit.request.relay_state)
        else:
            assert await site.refusal(root, visit.request.relay_state) == rule


@pytest.mark.case("auth-65")
async def test_a_response_is_taken_a_little_early_or_late_and_no_more(site: Connected) -> None:
    for seconds, taken in ((59, True), (61, False)):
        for parts in (
            {"not_before": timedelta(seconds=seconds)},
            {"not_on_or_after": timedelta(seconds=1 - seconds)},
            {"confirmed_until": timedelta(seconds=1 - seconds)},
        ):
            visit = await site.begin()
            root = site.provider.response(site.said(visit, **parts))
            if taken:
                assert await site.post(root, visit.request.relay_state)
            else:
                assert await site.refusal(root, visit.request.relay_state) in ("conditions", "confirmation")


# --- once, in the browser that began, for the account that asked


@pytest.mark.case("auth-65")
async def test_a_response_is_taken_once(site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit))
    assert await site.post(root, visit.request.relay_state)
    assert await site.refusal(root, visit.request.relay_state) == "relay_state"
    # Nor does it answer the next request, and the state of that one does not help an older response.
    following = await site.begin()
    assert await site.refusal(root, following.request.relay_state) == "in_response_to"
    again = site.provider.response(site.said(following, assertion_id=find(root, ASSERTION).get("ID")))
    assert await site.refusal(again, following.request.relay_state) == "replayed"
    await still_works(site, following)


@pytest.mark.case("auth-65")
async def test_of_responses_at_once_one_is_taken(house: AuthHouse, site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.said(visit))
    answers = await asyncio.gather(
        *(site.post(root, visit.request.relay_state) for _ in range(6)), return_exceptions=True
    )
    assert sum(isinstance(answer, str) for answer in answers) == 1
    assert {one.metadata["rule"] for one in answers if isinstance(one, GatefoldError)} == {"relay_state"}
    open_site = await connect(house, await house.publisher(), unsolicited=True)
    unasked = open_site.provider.response(open_site.unasked())
    answers = await asyncio.gather(*(open_site.post(unasked, "") for _ in range(6)), return_exceptions=True)
    assert sum(isinstance(answer, str) for answer in answers) == 1
    assert {one.metadata["rule"] for one in answers if isinstance(one, GatefoldError)} == {"replayed"}


@pytest.mark.case("auth-65")
async def test_an_assertion_is_remembered_for_as_long_as_it_could_be_taken(house: AuthHouse) -> None:
    site = await connect(house, await house.publisher(), unsolicited=True)
    root = site.provider.response(site.unasked())
    assert await site.post(root, "")
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(minutes=5, seconds=59))
    async with house.database.jobs.transaction("sweep") as conn:
        await conn.execute("DELETE FROM saml_assertion WHERE expires_at < $1", house.clock.wall())
    assert await site.refusal(root, "") == "replayed"
    house.clock.advance(timedelta(seconds=2))
    assert await site.refusal(root, "") == "conditions"


@pytest.mark.case("auth-65")
async def test_nobody_comes_unasked_unless_the_owner_lets_them(house: AuthHouse, site: Connected, visit: Visit) -> None:
    root = site.provider.response(site.unasked())
    for relay_state in ("", "https://staff.gatefold.example/"):
        assert await site.refusal(root, relay_state) == "relay_state"
    # An answer to a request is not taken as one that nobody asked for, either.
    assert await site.refusal(root, visit.request.relay_state) == "confirmation"
    open_site = await connect(house, await house.publisher(), unsolicited=True)
    begun = await open_site.begin()
    answered = open_site.provider.response(open_site.said(begun))
    assert await open_site.refusal(answered, "") == "in_response_to"


@pytest.mark.case("auth-65")
async def test_only_the_browser_that_began_finishes(site: Connected, visit: Visit) -> None:
    token = await site.post(site.provider.response(site.said(visit)), visit.request.relay_state)
    other = await site.begin()
    for secret in (other.secret, "", visit.secret[:-2], token):
        with pytest.raises(GatefoldError) as raised:
            await site.finish(token, secret)
        assert (raised.value.kind, raised.value.reason) == (Kind.NOT_FOUND, "token_invalid")
    # Nor does a browser's own state carry somebody else's response: they would be signed in as another.
    response = site.provider.response(site.said(await site.begin()))
    assert await site.refusal(response, other.request.relay_state) == "in_response_to"


@pytest.mark.case("auth-65")
async def test_a_token_to_finish_with_ends_after_two_minutes_and_a_sign_in_after_ten(
    house: AuthHouse, site: Connected, visit: Visit
) -> None:
    token = await site.post(site.provider.response(site.said(visit)), visit.request.relay_state)
    waiting = await site.begin()
    assert isinstance(house.clock, FixedClock)
    house.clock.advance(timedelta(minutes=2))
    with pytest.raises(GatefoldError, match="token_invalid"):
        await site.finish(token, visit.secret)
    house.clock.advance(timedelta(minutes=8))
    root = site.provider.response(site.said(waiting))
    assert await site.refusal(root, waiting.request.relay_state) == "relay_state"


@pytest.mark.case("auth-65")
async def test_a_response_for_one_account_opens_no_other_even_of_the_same_provider(
    house: AuthHouse, site: Connected, visit: Visit
) -> None:
    other = await connect(house, await house.publisher())
    theirs = await other.begin()
    # As it is, at the other's door; and with the other's request, audience or address in part.
    root = site.provider.response(site.said(visit))
    assert await other.refusal(root, theirs.request.relay_state) == "destination"
    assert await other.refusal(root, visit.request.relay_state) == "relay_state"
    said = replace(site.said(visit), in_response_to=theirs.request.id, destination=theirs.request.acs_url)
    root = site.provider.response(said)
    assert await other.refusal(root, theirs.request.relay_state) == "audience"
    root = site.provider.response(replace(said, audience=theirs.request.issuer, recipient=visit.request.acs_url))
    assert await other.refusal(root, theirs.request.relay_state) == "confirmation"


@pytest.mark.case("auth-65")
async def test_another_connections_key_signs_for_its_own_account_alone(
    house: AuthHouse, site: Connected, visit: Visit
) -> None:
    mallory = await connect(house, await house.publisher(), SamlProvider(signs_with=key(7)))
    forged = mallory.provider.response(site.said(visit, name_id="the-owner"))
    assert await site.refusal(forged, visit.request.relay_state) == "signature"


@pytest.mark.case("auth-65")
async def test_a_connection_that_is_off_or_gone_takes_nothing(house: AuthHouse) -> None:
    for ended in ("off", "gone"):
        site = await connect(house, await house.publisher())
        visit, answered = await site.begin(), await site.begin()
        token = await site.post(site.provider.response(site.said(answered)), answered.request.relay_state)
        owner, rpc = house.staff(site.publisher.live), house.saml_connections
        if ended == "off":
            update = saml_pb2.UpdateSamlConnectionRequest(id=site.connection.id, enabled=False)
            await house.call(owner, rpc.UpdateSamlConnection, update)
        else:
            delete = saml_pb2.DeleteSamlConnectionRequest(id=site.connection.id)
            await house.call(owner, rpc.DeleteSamlConnection, delete)
        for attempt in (
            site.begin(),
            site.post(site.provider.response(site.said(visit)), visit.request.relay_state),
        ):
            with pytest.raises(GatefoldError, match="saml_connection_not_found"):
                await attempt
        with pytest.raises(GatefoldError, match=r"saml_connection_not_found|token_invalid"):
            await site.finish(token, answered.secret)


@pytest.mark.case("auth-65")
@pytest.mark.parametrize("step", ["response", "page"])
async def test_who_is_on_the_way_while_the_connection_is_switched_off_stays_out(house: AuthHouse, step: str) -> None:
    site = await connect(house, await house.publisher(), default_role=team_pb2.ROLE_SUPPORT)
    visit = await site.begin()
    root = site.provider.response(site.said(visit, attributes={"mail": (house.fresh(),)}))
    if step == "response":
        attempt = site.post(root, visit.request.relay_state)
    else:
        attempt = site.finish(await site.post(root, visit.request.relay_state), visit.secret)
    async with house.app.tenant(site.publisher.live, "switch_off") as conn:
        await conn.execute("UPDATE saml_connection SET enabled = false")
        waiting = asyncio.ensure_future(attempt)
        await blocked(conn, 1)
    with pytest.raises(GatefoldError, match="saml_connection_not_found"):
        await waiting


@pytest.mark.case("auth-65")
async def test_another_provider_of_the_account_answers_no_request_that_it_was_not_asked(
    house: AuthHouse, site: Connected, visit: Visit
) -> None:
    other = await connect(house, site.publisher, SamlProvider("https://second.example", signs_with=key(7)))
    ours = replace(visit.request, issuer=other.connection.entity_id, acs_url=other.connection.acs_url)
    root = other.provider.response(other.said(Visit(ours, visit.secret)))
    assert await other.refusal(root, visit.request.relay_state) == "relay_state"


@pytest.mark.case("auth-65")
async def test_nobody_adds_an_identity_that_they_did_not_ask_for(house: AuthHouse) -> None:
    site, other = [await connect(house, await house.publisher(), unsolicited=True) for _ in range(2)]
    attributes = {"mail": ("ada@example.com",)}
    unasked = await site.post(site.provider.response(site.unasked(attributes=attributes)), "")
    visit = await site.begin()
    asked = await site.post(site.provider.response(site.said(visit)), visit.request.relay_state)
    for publisher, token, secret in (
        (site.publisher, unasked, "gfbs_any"),
        (site.publisher, asked, "gfbs_another"),
        (other.publisher, asked, visit.secret),
    ):
        tokens = await house.sign_in_staff(publisher.owner_email)
        own = await house.person("per", tokens, account=publisher.live)
        request = saml_pb2.LinkSamlIdentityRequest(token=token, browser_secret=secret)
        with pytest.raises(GatefoldError, match="token_invalid"):
            await house.call(own, house.saml.LinkSamlIdentity, request)


@pytest.mark.case("auth-65")
async def test_whoever_has_a_second_factor_adds_an_identity_with_it(house: AuthHouse) -> None:
    publisher = await house.publisher()
    site = await connect(house, publisher)
    weak = await house.person("per", await house.sign_in_staff(publisher.owner_email), account=publisher.live)
    tokens = await confirm(house, weak, await begin(house, weak))
    attributes = {"mail": (publisher.owner_email,)}
    visit = await site.begin()
    token = await site.post(site.provider.response(site.said(visit, attributes=attributes)), visit.request.relay_state)
    request = saml_pb2.LinkSamlIdentityRequest(token=token, browser_secret=visit.secret)
    with pytest.raises(GatefoldError, match="authentication_insufficient"):
        await house.call(weak, house.saml.LinkSamlIdentity, request)
    await house.call(await house.person("per", tokens, account=publisher.live), house.saml.LinkSamlIdentity, request)


# --- who may say whom to believe


async def test_owners_alone_say_whom_the_account_believes(house: AuthHouse, site: Connected) -> None:
    """An administrator with an identity provider would come in as an owner."""
    create = saml_pb2.CreateSamlConnectionRequest(
        name="Mine", idp_metadata=SamlProvider("https://m.example").metadata()
    )
    update = saml_pb2.UpdateSamlConnectionRequest(
        id=site.connection.id, idp_metadata=SamlProvider(signs_with=key(7)).metadata()
    )
    delete = saml_pb2.DeleteSamlConnectionRequest(id=site.connection.id)
    rpc, live = house.saml_connections, site.publisher.live
    stranger = (await house.publisher()).live
    for request, method in (
        (create, rpc.CreateSamlConnection),
        (update, rpc.UpdateSamlConnection),
        (delete, rpc.DeleteSamlConnection),
    ):
        with pytest.raises(GatefoldError, match="role_above_own"):
            await house.call(house.staff(live, roles.ADMIN), method, request)
        with pytest.raises(GatefoldError, match="scope_missing"):
            await house.call(house.staff(live, roles.DEVELOPER), method, request)
        with pytest.raises(GatefoldError, match="team_is_live"):
            await house.call(house.staff(site.publisher.test, live=False), method, request)
        if request is not create:
            with pytest.raises(GatefoldError, match="saml_connection_not_found"):
                await house.call(house.staff(stranger), method, request)
    visit = await site.begin()
    await still_works(site, visit)


async def test_an_unknown_account_and_an_unknown_connection_are_answered_alike(
    house: AuthHouse, site: Connected
) -> None:
    other = await house.publisher()
    for account, connection in (
        (other.live, site.connection.id),
        (site.publisher.live, ids.encode("saml", other.live)),
        (other.member, site.connection.id),
    ):
        request = saml_pb2.BeginSamlSignInRequest(account_id=ids.encode("acct", account), connection_id=connection)
        with pytest.raises(GatefoldError, match="saml_connection_not_found"):
            await house.call(house.anonymous(), house.saml.BeginSamlSignIn, request)


async def test_what_was_said_is_not_readable_in_the_database(house: AuthHouse, site: Connected, visit: Visit) -> None:
    said = site.said(visit, attributes={"mail": ("ada@example.com",), "displayName": ("Ada Lovelace",)})
    await site.post(site.provider.response(said), visit.request.relay_state)
    async with house.app.tenant(site.publisher.live, "look") as conn:
        row = await conn.fetchrow("SELECT * FROM saml_sign_in WHERE handover_hash IS NOT NULL ORDER BY id DESC LIMIT 1")
    assert row is not None
    assert not any(word in bytes(row["statement_sealed"]) for word in (b"ada", b"Ada", b"Lovelace"))
