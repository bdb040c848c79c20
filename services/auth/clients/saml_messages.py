"""Owns the XML of SAML: reading what identity providers write, and believing nothing but what they signed (ADR 19)."""

import base64
import binascii
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit
from zlib import compress

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from lxml import etree
from saml2 import md, saml, samlp
from saml2.validate import NotValid
from signxml.algorithms import DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, VerifyResult, XMLVerifier

from libs import errors
from services.auth.domain import saml as rules
from services.auth.domain.saml import Assertion, Confirmation, Ourselves, Provider, Response, refused

LONGEST = 256 * 1024
"""Characters of a message; what is longer ends there, and is none."""
LEAST_RSA_BITS = 2048
MOST_CERTIFICATES = 4

_ASSERTION = "{urn:oasis:names:tc:SAML:2.0:assertion}"
_PROTOCOL = "{urn:oasis:names:tc:SAML:2.0:protocol}"
_DSIG = "{http://www.w3.org/2000/09/xmldsig#}"
_REDIRECT_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
_POST_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
_EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
_ENVELOPED = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"

_SIGNATURES = frozenset(
    {
        SignatureMethod.RSA_SHA256,
        SignatureMethod.RSA_SHA384,
        SignatureMethod.RSA_SHA512,
        SignatureMethod.SHA256_RSA_MGF1,
        SignatureMethod.SHA384_RSA_MGF1,
        SignatureMethod.SHA512_RSA_MGF1,
        SignatureMethod.ECDSA_SHA256,
        SignatureMethod.ECDSA_SHA384,
        SignatureMethod.ECDSA_SHA512,
    }
)
_DIGESTS = frozenset({DigestAlgorithm.SHA256, DigestAlgorithm.SHA384, DigestAlgorithm.SHA512})
_SHAPE = [
    (0, "Signature"),
    (1, "SignedInfo"),
    (2, "CanonicalizationMethod"),
    (2, "SignatureMethod"),
    (2, "Reference"),
    (3, "Transforms"),
    (4, "Transform"),
    (4, "Transform"),
    (3, "DigestMethod"),
    (3, "DigestValue"),
    (1, "SignatureValue"),
]
"""Depth and name of all that a signature holds, in order, without the key."""
_UNUSABLE = (SignXMLException, UnsupportedAlgorithm, etree.LxmlError, ValueError, TypeError)
"""What the libraries raise at a signature that does not hold, or is none."""
_UNREADABLE = (NotValid, etree.LxmlError, ValueError, TypeError, AttributeError, KeyError, OverflowError, SyntaxError)
"""What the libraries raise at XML that is not SAML's; `SyntaxError` is ElementTree's."""


def authn_request(
    identifier: str, ourselves: Ourselves, provider: Provider, relay_state: str, issued_at: datetime
) -> str:
    """Returns where to send the browser (HTTP-Redirect binding); unsigned, for there is nothing in it to forge."""
    message = samlp.AuthnRequest(
        id=identifier,
        version="2.0",
        issue_instant=issued_at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        destination=provider.sso_url,
        protocol_binding=_POST_BINDING,
        assertion_consumer_service_url=ourselves.acs_url,
        issuer=saml.Issuer(text=ourselves.entity_id),
    )
    # Without zlib's two bytes of head and four of checksum it is DEFLATE (bindings 3.4.4.1).
    deflated = compress(message.to_string())[2:-4]
    return rules.redirect(
        provider.sso_url, {"SAMLRequest": base64.b64encode(deflated).decode(), "RelayState": relay_state}
    )


def own_metadata(ourselves: Ourselves) -> bytes:
    """Returns what an identity provider has to know of us."""
    role = md.SPSSODescriptor(
        protocol_support_enumeration=samlp.NAMESPACE,
        authn_requests_signed="false",
        want_assertions_signed="true",
        name_id_format=[md.NameIDFormat(text=one) for one in rules.NAME_IDS],
        assertion_consumer_service=[
            md.AssertionConsumerService(binding=_POST_BINDING, location=ourselves.acs_url, index="0", is_default="true")
        ],
    )
    entity = md.EntityDescriptor(entity_id=ourselves.entity_id, spsso_descriptor=[role])
    written: bytes = entity.to_string()
    return written


def read_metadata(text: str, now: datetime) -> Provider:
    """Returns what an identity provider's metadata says of it; raises `invalid("saml_metadata_invalid")`.

    A signature on it is not looked at: whoever brings it answers for it.
    """
    try:
        root = _parsed(text[:LONGEST].encode(), comments=True)
        return _provider(md.entity_descriptor_from_string(etree.tostring(root, encoding="UTF-8")), now)
    except _UNREADABLE:
        raise _metadata_invalid("This is no SAML 2.0 metadata of one entity.") from None


def read_response(encoded: str, provider: Provider, now: datetime) -> Response:
    """Returns what a response says, taken from what one of the provider's certificates signed.

    Raises `malformed("saml_response_refused")`.
    """
    try:
        root = _parsed(base64.b64decode("".join(encoded[:LONGEST].split()), validate=True))
    except (binascii.Error, etree.LxmlError, ValueError):
        raise refused("xml", "The response cannot be read.") from None
    if root.tag != f"{_PROTOCOL}Response":
        raise refused("structure", "This is no response.")
    _judge_structure(root)
    signed = _signature_of(root) is not None
    if signed:
        root = _verified(root, provider, now)
        _judge_structure(root)
    (assertion,) = root.iterchildren(f"{_ASSERTION}Assertion")
    if _signature_of(assertion) is not None:
        assertion = _verified(assertion, provider, now)
    elif not signed:
        raise refused("unsigned", "Neither the response nor the assertion is signed.")
    issuer = root.find(f"{_ASSERTION}Issuer")
    return Response(
        assertion=_assertion(assertion),
        signed=signed,
        issuer=None if issuer is None else "".join(issuer.itertext()).strip(),
        destination=root.get("Destination"),
        in_response_to=root.get("InResponseTo"),
    )


def _parsed(raw: bytes, *, comments: bool = False) -> Any:
    """Returns the root of a document without entities and document type; comments are refused, or let go."""
    # UTF-16 and its like would hide a document type from here; nothing of one is processed, but nobody needs one.
    if b"\0" in raw or b"<!DOCTYPE" in raw or b"<!ENTITY" in raw:
        raise ValueError("a document type")
    parser = etree.XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False, remove_comments=comments
    )
    root = etree.fromstring(raw, parser)
    information = root.getroottree().docinfo
    if information.doctype or information.internalDTD is not None:
        raise ValueError("a document type")
    # A comment within a name would let two readers see two names (CVE-2017-11427), an instruction as well.
    if any(not isinstance(node.tag, str) for node in root.iter()):
        raise ValueError("comments or processing instructions")
    return root


def _judge_structure(root: Any) -> None:
    """Raises unless somebody signed in, and there is one assertion, in its place, and no place to hide another."""
    codes = [one.get("Value") for one in root.iterfind(f"{_PROTOCOL}Status/{_PROTOCOL}StatusCode")]
    if codes != [rules.SUCCESS]:
        raise refused("status", "The identity provider signed nobody in.")
    children = list(root.iterchildren(f"{_ASSERTION}Assertion"))
    if next(root.iter(f"{_ASSERTION}EncryptedAssertion", f"{_ASSERTION}EncryptedID"), None) is not None:
        raise refused("encrypted", "Encrypted assertions are not taken; the connection is encrypted already.")
    if len(children) != 1 or len(list(root.iter(f"{_ASSERTION}Assertion"))) != 1:
        raise refused("structure", "A response has one assertion.")
    if len(list(root.iter(f"{_PROTOCOL}Response"))) != 1:
        raise refused("structure", "A response holds no other.")
    identifiers = [
        value
        for node in root.iter()
        for name, value in node.attrib.items()
        if etree.QName(name).localname.lower() == "id"
    ]
    if len(identifiers) != len(set(identifiers)):
        raise refused("structure", "An ID comes twice.")
    for signature in root.iter(f"{_DSIG}Signature"):
        if signature.getparent() is not root and signature.getparent() is not children[0]:
            raise refused("structure", "A signature stands where none belongs.")


def _signature_of(element: Any) -> Any:
    found = list(element.iterchildren(f"{_DSIG}Signature"))
    if len(found) > 1:
        raise refused("structure", "An element has one signature.")
    return found[0] if found else None


def _verified(element: Any, provider: Provider, now: datetime) -> Any:
    """Returns the element as its signature covers it, read anew from the signed bytes; raises for any other."""
    # A document of its own: the reference can lead nowhere else, and nothing around it is taken with it.
    alone = _parsed(etree.tostring(element, encoding="UTF-8", with_tail=False))
    signature = _signature_of(alone)
    for info in signature.findall(f"{_DSIG}KeyInfo"):
        # Whoever forges a response brings a key that fits it: only the connection's certificates count.
        signature.remove(info)
    _judge_signature(alone, signature)
    written = etree.tostring(alone, encoding="UTF-8")
    for certificate in provider.certificates:
        try:
            result = XMLVerifier().verify(
                written,
                x509_cert=x509.load_der_x509_certificate(certificate),
                id_attribute="ID",
                # The schema knows no InclusiveNamespaces, which most identity providers write; the shape was judged.
                validate_schema=False,
                expect_config=SignatureConfiguration(
                    location="./",
                    expect_references=1,
                    signature_methods=_SIGNATURES,
                    digest_algorithms=_DIGESTS,
                    verification_time=now,
                ),
            )
            assert isinstance(result, VerifyResult)
            covered = _parsed(result.signed_data)
        except _UNUSABLE:
            continue
        if (covered.tag, covered.get("ID")) == (element.tag, element.get("ID")):
            return covered
    raise refused("signature", "No certificate of the connection made this signature.")


def _judge_signature(element: Any, signature: Any) -> None:
    """Raises unless the signature covers its parent, whole, by the one way of writing XML that hides nothing."""
    top = len(list(signature.iterancestors()))
    shape = [
        (len(list(node.iterancestors())) - top, node.tag.removeprefix(_DSIG))
        for node in signature.iter()
        if node.tag != f"{{{_EXCLUSIVE}}}InclusiveNamespaces" or len(node)
    ]
    if shape != _SHAPE:
        raise refused("structure", "The signature is not as SAML has it: one reference, and nothing beside it.")
    identifier, (written, method, reference) = element.get("ID"), signature[0]
    transforms, digest, _ = reference
    if not identifier or reference.get("URI") != f"#{identifier}":
        raise refused("reference", "The signature is not of the element that it stands in.")
    if [one.get("Algorithm") for one in (*transforms, written)] != [_ENVELOPED, _EXCLUSIVE, _EXCLUSIVE]:
        raise refused("transforms", "The signature must be enveloped, with exclusive canonicalisation.")
    if method.get("Algorithm") not in _values(_SIGNATURES) or digest.get("Algorithm") not in _values(_DIGESTS):
        raise refused("algorithm", "The signature must be RSA or ECDSA with SHA-256 or better.")


def _values(algorithms: Iterable[SignatureMethod | DigestAlgorithm]) -> set[str]:
    return {one.value for one in algorithms}


def _provider(entity: Any, now: datetime) -> Provider:
    found = [
        role
        for role in (entity.idpsso_descriptor if entity is not None else ())
        if samlp.NAMESPACE in (role.protocol_support_enumeration or "").split()
    ]
    if len(found) != 1 or not 0 < len(entity.entity_id or "") <= 1024:
        raise _metadata_invalid("The metadata must be of one identity provider.")
    services = [one.location or "" for one in found[0].single_sign_on_service if one.binding == _REDIRECT_BINDING]
    if not services or not _https(services[0]):
        raise _metadata_invalid("The identity provider needs an HTTP-Redirect address with https.")
    return Provider(entity.entity_id, services[0], tuple(_certificates(found[0].key_descriptor, now)))


def _assertion(element: Any) -> Assertion:
    try:
        said = saml.assertion_from_string(etree.tostring(element, encoding="UTF-8", with_tail=False))
        said.verify()
        return _said(said)
    except _UNREADABLE:
        raise refused("assertion", "The assertion is not as SAML 2.0 has it.") from None


def _said(said: Any) -> Assertion:
    if said.version != "2.0":
        raise ValueError("another version")
    name, conditions = said.subject.name_id, said.conditions
    if conditions.condition or conditions.extension_elements:
        raise refused("conditions", "The assertion has a condition that is not understood.")
    ends = [one.session_not_on_or_after for one in said.authn_statement if one.session_not_on_or_after]
    return Assertion(
        id=said.id,
        issuer=(_words(said.issuer) or "").strip(),
        name_id=_words(name) or "",
        name_id_format=name.format or "",
        name_qualifier=name.name_qualifier,
        sp_name_qualifier=name.sp_name_qualifier,
        not_before=_time(conditions.not_before),
        not_on_or_after=_time(conditions.not_on_or_after),
        restrictions=tuple(
            frozenset((_words(audience) or "").strip() for audience in one.audience)
            for one in conditions.audience_restriction
        ),
        confirmations=tuple(_confirmation(one) for one in said.subject.subject_confirmation),
        authenticated=bool(said.authn_statement),
        session_ends_at=_time(min(ends)) if ends else None,
        attributes={
            attribute.name: tuple(_words(value) or "" for value in attribute.attribute_value)
            for statement in said.attribute_statement
            for attribute in statement.attribute
        },
    )


def _confirmation(one: Any) -> Confirmation:
    data = one.subject_confirmation_data
    if data is None:
        return Confirmation(one.method)
    return Confirmation(
        one.method, data.recipient, data.in_response_to, _time(data.not_before), _time(data.not_on_or_after)
    )


def _time(text: str | None) -> datetime | None:
    """Returns a time (xs:dateTime); raises ValueError for one without its zone."""
    if text is None:
        return None
    found = datetime.fromisoformat(text.strip())
    if found.tzinfo is None:
        raise ValueError("a time without a zone")
    return found.astimezone(UTC)


def _words(element: Any) -> str | None:
    """Returns the text of an element that has nothing else in it; None where there is more than text."""
    text: str | None = None if element.extension_elements else element.text
    return text


def _https(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme == "https" and bool(parts.hostname) and "@" not in parts.netloc and not parts.fragment


def _certificates(keys: Iterable[Any], now: datetime) -> Iterable[bytes]:
    """Returns the certificates to sign with, DER, each once; raises when none can be used."""
    found: dict[bytes, bool] = {}
    texts = [
        data.x509_certificate.text or ""
        for key in keys
        if key.use in (None, "signing")
        for data in key.key_info.x509_data
    ]
    for text in texts:
        try:
            raw = base64.b64decode("".join(text.split()), validate=True)
            certificate = x509.load_der_x509_certificate(raw)
            public = certificate.public_key()
        except (binascii.Error, ValueError, UnsupportedAlgorithm):
            raise _metadata_invalid("A certificate cannot be read.") from None
        strong = (isinstance(public, rsa.RSAPublicKey) and public.key_size >= LEAST_RSA_BITS) or (
            isinstance(public, ec.EllipticCurvePublicKey) and public.key_size >= 256
        )
        if not strong:
            raise _metadata_invalid(f"A certificate's key must be RSA of {LEAST_RSA_BITS} bits, or ECDSA.")
        found[raw] = now < certificate.not_valid_after_utc
    if not any(found.values()) or len(found) > MOST_CERTIFICATES:
        raise _metadata_invalid(f"The metadata needs one to {MOST_CERTIFICATES} certificates, one of them valid.")
    return found


def _metadata_invalid(detail: str) -> errors.GatefoldError:
    return errors.invalid("saml_metadata_invalid", detail, field="idp_metadata")
