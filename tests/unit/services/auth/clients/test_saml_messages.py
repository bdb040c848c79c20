"""The XML of SAML: metadata that is no use, algorithms, and that nothing of a signed response can be changed."""

import base64
import copy
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from lxml import etree
from signxml.algorithms import DigestAlgorithm, SignatureMethod

from libs.errors import GatefoldError, Kind
from services.auth.clients import saml_messages
from services.auth.domain.saml import Ourselves, Provider, Response
from tests.support.saml_provider import (
    DSIG,
    NAMESPACES,
    SAML,
    SAMLP,
    Key,
    Request,
    Said,
    SamlProvider,
    key,
    posted,
    read,
)

NOW = datetime(2026, 5, 1, 12, tzinfo=UTC)
OURSELVES = Ourselves("https://us.example/metadata", "https://us.example/acs")
REQUEST = Request("_1", OURSELVES.entity_id, OURSELVES.acs_url, "", "")
PROVIDER = SamlProvider()
XS = "http://www.w3.org/2001/XMLSchema"
KNOWN = Provider(PROVIDER.entity_id, PROVIDER.sso_url, (key().der,))


def said(**parts: Any) -> Said:
    return PROVIDER.answer(REQUEST, NOW, attributes={"mail": ("ada@example.com",)}, **parts)


def taken(root: Any, known: Provider = KNOWN) -> Response:
    return saml_messages.read_response(posted(root), known, NOW)


def refusal(root: Any, known: Provider = KNOWN) -> str:
    with pytest.raises(GatefoldError, match="saml_response_refused") as raised:
        taken(root, known)
    return raised.value.metadata["rule"]


# --- responses


@pytest.mark.parametrize("sign", ["assertion", "response", "both"])
def test_what_was_signed_is_read(sign: str) -> None:
    found = taken(PROVIDER.response(said(), sign=sign))
    assert found.signed == (sign != "assertion")
    assert (found.destination, found.in_response_to) == (OURSELVES.acs_url, "_1")
    assertion = found.assertion
    assert (assertion.name_id, assertion.issuer) == ("ada-1", PROVIDER.entity_id)
    assert assertion.attributes == {"mail": ("ada@example.com",)}
    assert assertion.restrictions == (frozenset({OURSELVES.entity_id}),)
    assert assertion.confirmations[0].recipient == OURSELVES.acs_url


@pytest.mark.parametrize("kind", ["rsa", "ec"])
@pytest.mark.parametrize(
    ("method", "digest"),
    [("SHA256", DigestAlgorithm.SHA256), ("SHA384", DigestAlgorithm.SHA384), ("SHA512", DigestAlgorithm.SHA512)],
)
def test_good_algorithms_are_taken(kind: str, method: str, digest: DigestAlgorithm) -> None:
    used = key(20, kind)
    names = [f"ECDSA_{method}"] if kind == "ec" else [f"RSA_{method}", f"{method}_RSA_MGF1"]
    for name in names:
        root = PROVIDER.response(said(), sign="none")
        assertion = root.find("saml:Assertion", NAMESPACES)
        PROVIDER.sign(assertion, key=used, method=SignatureMethod[name], digest=digest)
        assert taken(root, replace(KNOWN, certificates=(key().der, used.der))).assertion.name_id == "ada-1"


def changes(root: Any) -> Iterator[tuple[str, Any]]:
    """Returns the response changed in each way at each place."""
    outside = set(root.findall(".//ds:KeyInfo", NAMESPACES))
    places = [
        number for number, node in enumerate(root.iter()) if not outside.intersection([node, *node.iterancestors()])
    ]
    for place in places:
        for way in ("drop", "double", "rename", "text", "tail", *list(list(root.iter())[place].attrib)):
            changed = copy.deepcopy(root)
            node = list(changed.iter())[place]
            parent = node.getparent()
            if way == "drop" and parent is not None:
                parent.remove(node)
            elif way == "double" and parent is not None:
                node.addnext(copy.deepcopy(node))
            elif way == "rename":
                node.tag += "X"
            elif way == "text":
                node.text = (node.text or "") + "x"
            elif way == "tail" and parent is not None:
                node.tail = (node.tail or "") + "x"
            elif way in node.attrib:
                node.set(way, node.get(way) + "x")
            else:
                continue
            yield f"{way} {node.tag}", changed


def outcome(root: Any) -> Response | None:
    """What is read; None for what is refused."""
    try:
        return taken(root)
    except GatefoldError as error:
        if error.reason != "saml_response_refused":
            raise
        return None


@pytest.mark.case("auth-65")
def test_nothing_of_a_signed_response_can_be_changed() -> None:
    root = PROVIDER.response(said(), sign="response")
    genuine, tried = taken(root), list(changes(root))
    assert len(tried) > 150
    for what, changed in tried:
        found = outcome(changed)
        # Text beside a signature's own numbers says nothing; everything else is refused.
        assert found is None or (found == genuine and "xmldsig#" in what), what


@pytest.mark.case("auth-65")
def test_nothing_of_a_signed_assertion_can_be_changed() -> None:
    root = PROVIDER.response(said(), sign="assertion")
    genuine = taken(root).assertion
    for what, changed in changes(root):
        found = outcome(changed)
        assert found is None or found.assertion == genuine, what


def test_responses_as_others_write_them_are_read() -> None:
    """Typed values whose prefix is declared far outside (Okta), and no prefixes at all (Entra ID)."""
    plain = etree.tostring(PROVIDER.response(said(), sign="none")).decode()
    typed = plain.replace("<samlp:Response", f'<samlp:Response xmlns:xs="{XS}" xmlns:xsi="{XS}-instance"', 1)
    typed = typed.replace("<saml:AttributeValue>", '<saml:AttributeValue xsi:type="xs:string">')
    bare = plain.replace("saml:", "").replace("<Assertion", f'<Assertion xmlns="{SAML}"')
    bare = bare.replace("<Issuer", f'<Issuer xmlns="{SAML}"', 1)
    for text, prefixes in ((typed, ["xs"]), (typed, None), (bare, None)):
        for path in ("saml:Assertion", "."):
            root = etree.fromstring(text)
            element = root.find(path, NAMESPACES) if path != "." else root
            PROVIDER.sign(element, prefixes=prefixes)
            assert taken(root).assertion.attributes == {"mail": ("ada@example.com",)}


def extended(root: Any, *within: Any) -> Any:
    """A response with an extension, which nobody signed."""
    extensions = etree.Element(f"{{{SAMLP}}}Extensions")
    extensions.extend(within)
    root.insert(1, extensions)
    return root


@pytest.mark.case("auth-65")
def test_there_is_no_place_to_hide_anything() -> None:
    """Beside an assertion that is good: each of these is refused by itself, whatever else would refuse it."""
    good = PROVIDER.response(said())
    assertion = good.find("saml:Assertion", NAMESPACES)
    assert taken(extended(copy.deepcopy(good), etree.Element("{urn:x}other")))
    for hidden in (
        extended(copy.deepcopy(good), etree.Element(f"{{{SAMLP}}}Response")),
        extended(copy.deepcopy(good), etree.Element(f"{{{SAML}}}Assertion")),
        extended(copy.deepcopy(good), etree.Element("{urn:x}other", {"id": assertion.get("ID")})),
        extended(copy.deepcopy(good), etree.Element("{urn:x}other", {"{urn:x}Id": assertion.get("ID")})),
        extended(copy.deepcopy(good), copy.deepcopy(assertion.find("ds:Signature", NAMESPACES))),
    ):
        assert refusal(hidden) == "structure"
    moved = copy.deepcopy(good)
    inner = moved.find("saml:Assertion", NAMESPACES)
    assert refusal(extended(moved, inner)) == "structure"
    for name in ("Object", "Manifest"):
        root = copy.deepcopy(good)
        etree.SubElement(root.find("saml:Assertion/ds:Signature", NAMESPACES), f"{{{DSIG}}}{name}")
        assert refusal(root) == "structure"


def test_the_signature_itself_is_written_by_the_same_canonicalisation() -> None:
    root = PROVIDER.response(said())
    method = root.find(".//ds:CanonicalizationMethod", NAMESPACES)
    method.set("Algorithm", method.get("Algorithm") + "WithComments")
    assert refusal(root) == "transforms"


def test_text_that_is_cut_up_is_never_half_read() -> None:
    plain = etree.tostring(PROVIDER.response(said(name_id="ada.mallory"), sign="none"))
    root = etree.fromstring(plain.replace(b"ada.mallory", b"ada<![CDATA[.mal]]>lory"))
    PROVIDER.sign(root.find("saml:Assertion", NAMESPACES))
    assert taken(root).assertion.name_id == "ada.mallory"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'Version="2.0" IssueInstant', b'Version="1.1" IssueInstant'),
        (b'NotOnOrAfter="2026', b'NotOnOrAfter="x2026'),
        (b":00.000Z", b":00.000"),
        (b'NotOnOrAfter="2026-05-01T12:05:00.000Z"', b'NotOnOrAfter="9999-12-31T23:59:59-12:00"'),
        (b"<saml:NameID", b"<saml:NameIDX"),
        (b"<saml:Conditions", b"<saml:ConditionsX"),
    ],
)
def test_an_assertion_that_is_none_is_refused_though_it_was_signed(old: bytes, new: bytes) -> None:
    plain = etree.tostring(PROVIDER.response(said(), sign="none"))
    if b"X" in new:
        closing = old.replace(b"<", b"</")
        plain = plain.replace(closing, new.replace(b"<", b"</"))
    assert old in plain
    head, assertion = plain.split(b"<saml:Assertion", 1)
    root = etree.fromstring(head + b"<saml:Assertion" + assertion.replace(old, new))
    PROVIDER.sign(root.find("saml:Assertion", NAMESPACES))
    assert refusal(root) in ("assertion", "xml")


def test_times_as_they_are_written_are_read() -> None:
    plain = etree.tostring(PROVIDER.response(said(), sign="none")).replace(b":00.000Z", b":00.1234567Z")
    root = etree.fromstring(plain)
    PROVIDER.sign(root.find("saml:Assertion", NAMESPACES))
    bound = taken(root).assertion.not_before
    assert bound is not None
    assert bound.utcoffset() is not None


@pytest.mark.parametrize("text", ["", "not base64!", "ü", base64.b64encode(b"<a/>" * 100_000).decode()])
def test_what_is_no_base64_or_too_long_is_refused(text: str) -> None:
    with pytest.raises(GatefoldError) as raised:
        saml_messages.read_response(text, KNOWN, NOW)
    assert raised.value.metadata["rule"] == "xml"


# --- metadata


def test_metadata_is_read_with_what_others_write_into_it() -> None:
    provider = SamlProvider(published=(key(), key(12), key()))
    text = provider.metadata().replace("<md:IDPSSO", "<!-- ours --><md:IDPSSO", 1)
    found = saml_messages.read_metadata(text, NOW)
    assert (found.entity_id, found.sso_url) == (provider.entity_id, provider.sso_url)
    assert found.certificates == (key().der, key(12).der)


def published(one: Key) -> str:
    return replace(PROVIDER, published=(one,)).metadata()


GOOD = PROVIDER.metadata()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<a/>",
        "not xml",
        '<!DOCTYPE a [<!ENTITY e SYSTEM "file:///etc/passwd">]>' + GOOD.partition("?>")[2],
        GOOD.replace("IDPSSODescriptor", "SPSSODescriptor"),
        GOOD.replace("EntityDescriptor", "EntitiesDescriptor"),
        GOOD.replace("urn:oasis:names:tc:SAML:2.0:protocol", "urn:oasis:names:tc:SAML:1.1:protocol"),
        GOOD.replace('entityID="https://idp.example/metadata"', 'entityID=""'),
        GOOD.replace('entityID="https://idp.example/metadata"', f'entityID="{"x" * 1025}"'),
        GOOD.replace("https://idp.example/sso", "http://idp.example/sso"),
        GOOD.replace("https://idp.example/sso", "https://user@idp.example/sso"),
        GOOD.replace("https://idp.example/sso", "javascript:alert(1)"),
        GOOD.replace("https://idp.example/sso", "https://[idp"),
        GOOD.replace("bindings:HTTP-Redirect", "bindings:HTTP-Artifact"),
        GOOD.replace('use="signing"', 'use="encryption"'),
        GOOD.replace("X509Certificate", "X509SKI"),
        GOOD.replace("ds:X509Data", "ds:Other"),
        GOOD.replace("ds:KeyInfo", "ds:Other"),
        GOOD.replace("<ds:X509Certificate>", "<ds:X509Certificate>AAAA"),
        published(key(13, "small")),
        published(key(14, "rsa", 2015, 2025)),
        replace(PROVIDER, published=tuple(key(number) for number in range(30, 35))).metadata(),
    ],
)
def test_metadata_that_is_no_use_is_refused(text: str) -> None:
    with pytest.raises(GatefoldError) as raised:
        saml_messages.read_metadata(text, NOW)
    assert (raised.value.kind, raised.value.reason) == (Kind.INVALID, "saml_metadata_invalid")


def test_a_request_says_who_asks_and_where_to_answer() -> None:
    url = saml_messages.authn_request("_1", OURSELVES, KNOWN, "relay", NOW)
    assert read(url) == Request("_1", OURSELVES.entity_id, OURSELVES.acs_url, PROVIDER.sso_url, "relay")
