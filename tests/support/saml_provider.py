"""Owns an identity provider as SAML attacks need it: its responses are really signed, and every part can be forged."""

import base64
import zlib
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any
from urllib.parse import parse_qs, urlsplit
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from gatefold.auth.v1 import saml_pb2, session_pb2
from gatefold.edge.v1 import redirect_pb2
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.signer import SignatureReference, XMLSigner

from libs import ids
from libs.errors import GatefoldError, Kind
from tests.support.auth import AuthHouse, Publisher

SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
DSIG = "http://www.w3.org/2000/09/xmldsig#"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
PERSISTENT = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
EMAIL = "urn:oasis:names:tc:SAML:1.1:nameid-format:emailAddress"
NAMESPACES = {"saml": SAML, "samlp": SAMLP, "ds": DSIG}

_NAME = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "idp.example")])


@dataclass(frozen=True)
class Key:
    """A signing key with its certificate."""

    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(serialization.Encoding.PEM).decode()

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(serialization.Encoding.DER)


@cache
def key(number: int = 0, kind: str = "rsa", begins: int = 2020, ends: int = 2040) -> Key:
    """Returns one of the keys that tests share; making one takes a while."""
    private: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey
    bits = {"rsa": 2048, "small": 1024}.get(kind)
    private = rsa.generate_private_key(65537, bits) if bits else ec.generate_private_key(ec.SECP256R1())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(_NAME)
        .issuer_name(_NAME)
        .public_key(private.public_key())
        .serial_number(number + 1)
        .not_valid_before(datetime(begins, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(ends, 1, 1, tzinfo=UTC))
        .sign(private, hashes.SHA256())
    )
    return Key(private, certificate)


@dataclass(frozen=True)
class Request:
    """An AuthnRequest, as an identity provider reads it from the redirect."""

    id: str
    issuer: str
    acs_url: str
    destination: str
    relay_state: str


def read(redirect_url: str) -> Request:
    """Reads the redirect that a sign-in begins with."""
    query = parse_qs(urlsplit(redirect_url).query)
    root = etree.fromstring(zlib.decompress(base64.b64decode(query["SAMLRequest"][0]), -15))
    return Request(
        root.get("ID"),
        root.findtext("saml:Issuer", namespaces=NAMESPACES),
        root.get("AssertionConsumerServiceURL"),
        root.get("Destination"),
        query["RelayState"][0],
    )


@dataclass(frozen=True)
class Said:
    """What a response says; each part can be another."""

    audience: str
    acs_url: str
    in_response_to: str | None
    now: datetime
    name_id: str = "ada-1"
    name_id_format: str = PERSISTENT
    name_id_xml: str = ""
    """In place of the name, as XML."""
    attributes: dict[str, tuple[str, ...]] = field(default_factory=dict)
    issuer: str = "https://idp.example/metadata"
    response_issuer: str | None = "https://idp.example/metadata"
    recipient: str | None = None
    destination: str | None = None
    response_in_response_to: str | None = None
    """None says what the assertion says."""
    not_before: timedelta = timedelta(minutes=-1)
    not_on_or_after: timedelta = timedelta(minutes=5)
    confirmed_until: timedelta | None = timedelta(minutes=5)
    method: str = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
    status: str = "urn:oasis:names:tc:SAML:2.0:status:Success"
    assertion_id: str = ""
    session_until: timedelta | None = None
    authn_statement: bool = True
    conditions_xml: str = ""
    name_id_attributes: str = ""

    def xml(self) -> str:
        """Returns the response, unsigned."""
        identifier = self.assertion_id or f"_{uuid4().hex}"
        answered = self.response_in_response_to or self.in_response_to
        name = self.name_id_xml or self.name_id
        attributes = "".join(
            f'<saml:Attribute Name="{name}">'
            + "".join(f"<saml:AttributeValue>{value}</saml:AttributeValue>" for value in values)
            + "</saml:Attribute>"
            for name, values in self.attributes.items()
        )
        session = f' SessionNotOnOrAfter="{self._at(self.session_until)}"' if self.session_until is not None else ""
        authn = f"""<saml:AuthnStatement AuthnInstant="{self._at(timedelta())}"{session}><saml:AuthnContext>
            <saml:AuthnContextClassRef>urn:oasis:names:tc:SAML:2.0:ac:classes:PasswordProtectedTransport</saml:AuthnContextClassRef>
        </saml:AuthnContext></saml:AuthnStatement>"""
        until = f' NotOnOrAfter="{self._at(self.confirmed_until)}"' if self.confirmed_until is not None else ""
        asked = f' InResponseTo="{self.in_response_to}"' if self.in_response_to else ""
        return f"""<samlp:Response xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}" ID="_{uuid4().hex}" Version="2.0"
            IssueInstant="{self._at(timedelta())}" {f'Destination="{self.destination or self.acs_url}"'}
            {f'InResponseTo="{answered}"' if answered else ""}>
            {f"<saml:Issuer>{self.response_issuer}</saml:Issuer>" if self.response_issuer else ""}
            <samlp:Status><samlp:StatusCode Value="{self.status}"/></samlp:Status>
            <saml:Assertion ID="{identifier}" Version="2.0" IssueInstant="{self._at(timedelta())}">
                <saml:Issuer>{self.issuer}</saml:Issuer>
                <saml:Subject>
                    <saml:NameID Format="{self.name_id_format}"{self.name_id_attributes}>{name}</saml:NameID>
                    <saml:SubjectConfirmation Method="{self.method}"><saml:SubjectConfirmationData
                        Recipient="{self.recipient or self.acs_url}"{asked}{until}/></saml:SubjectConfirmation>
                </saml:Subject>
                <saml:Conditions NotBefore="{self._at(self.not_before)}"
                    NotOnOrAfter="{self._at(self.not_on_or_after)}">{self.conditions_xml}
                    <saml:AudienceRestriction><saml:Audience>{self.audience}</saml:Audience></saml:AudienceRestriction>
                </saml:Conditions>
                {authn if self.authn_statement else ""}
                {f"<saml:AttributeStatement>{attributes}</saml:AttributeStatement>" if attributes else ""}
            </saml:Assertion>
        </samlp:Response>"""

    def _at(self, delta: timedelta) -> str:
        return (self.now + delta).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Signer(XMLSigner):
    """Signs as identity providers do, also by what nobody should sign by any more."""

    def check_deprecated_methods(self) -> None:
        """Lets SHA-1 pass."""

    def _build_transforms_for_reference(self, *, transforms_node: Any, reference: Any, **rest: Any) -> None:
        super()._build_transforms_for_reference(transforms_node=transforms_node, reference=reference, **rest)
        if reference.inclusive_ns_prefixes:
            # The library leaves this out where the signature is enveloped, and digests as if it stood there.
            place = f"{{{EXCLUSIVE}}}InclusiveNamespaces"
            etree.SubElement(transforms_node[-1], place, PrefixList=" ".join(reference.inclusive_ns_prefixes))


@dataclass(frozen=True)
class SamlProvider:
    """An identity provider with its key."""

    entity_id: str = "https://idp.example/metadata"
    sso_url: str = "https://idp.example/sso?tenant=7"
    signs_with: Key = field(default_factory=key)
    published: tuple[Key, ...] = ()
    """Certificates in its metadata; its own where none is named."""

    def metadata(self) -> str:
        """Returns its metadata."""
        keys = "".join(
            f"""<md:KeyDescriptor use="signing"><ds:KeyInfo xmlns:ds="{DSIG}"><ds:X509Data><ds:X509Certificate>
                {base64.b64encode(one.der).decode()}</ds:X509Certificate></ds:X509Data></ds:KeyInfo></md:KeyDescriptor>"""
            for one in self.published or (self.signs_with,)
        )
        return f"""<?xml version="1.0" encoding="UTF-8"?>
        <md:EntityDescriptor xmlns:md="urn:oasis:names:tc:SAML:2.0:metadata" entityID="{self.entity_id}">
            <md:IDPSSODescriptor protocolSupportEnumeration="{SAMLP}">{keys}
                <md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
                    Location="https://idp.example/post"/>
                <md:SingleSignOnService Binding="urn:oasis:names:tc:SAML:2.0:bindings:HTTP-Redirect"
                    Location="{self.sso_url}"/>
            </md:IDPSSODescriptor>
        </md:EntityDescriptor>"""

    def answer(self, request: Request, now: datetime, **parts: Any) -> Said:
        """Returns what it says in answer to a request; `parts` are said otherwise."""
        said = Said(
            request.issuer, request.acs_url, request.id, now, issuer=self.entity_id, response_issuer=self.entity_id
        )
        return replace(said, **parts)

    def response(self, said: Said, *, sign: str = "assertion") -> Any:
        """Returns a response as XML; `sign` is `assertion`, `response`, `both` or `none`."""
        root = etree.fromstring(said.xml())
        if sign in ("assertion", "both"):
            self.sign(root.find("saml:Assertion", NAMESPACES))
        if sign in ("response", "both"):
            self.sign(root)
        return root

    def sign(
        self,
        element: Any,
        *,
        key: Key | None = None,
        shown: Key | None = None,
        method: SignatureMethod | None = None,
        digest: DigestAlgorithm = DigestAlgorithm.SHA256,
        c14n: CanonicalizationMethod = CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
        prefixes: list[str] | None = None,
    ) -> Any:
        """Signs an element where it stands, enveloped; `shown` is the certificate in KeyInfo."""
        used = key or self.signs_with
        default = (
            SignatureMethod.RSA_SHA256 if isinstance(used.private, rsa.RSAPrivateKey) else SignatureMethod.ECDSA_SHA256
        )
        signer = Signer(signature_algorithm=method or default, digest_algorithm=digest, c14n_algorithm=c14n)
        signed = signer.sign(
            etree.fromstring(etree.tostring(element, with_tail=False)),
            key=used.private,
            cert=(shown or used).pem,
            reference_uri=[SignatureReference(f"#{element.get('ID')}", inclusive_ns_prefixes=prefixes)],
            id_attribute="ID",
        )
        signature = signed.find("ds:Signature", NAMESPACES)
        issuer = element.find("saml:Issuer", NAMESPACES)
        element.insert(0 if issuer is None else list(element).index(issuer) + 1, signature)
        return signature


def posted(root: Any) -> str:
    """Returns a response as the browser's form carries it."""
    return base64.b64encode(root if isinstance(root, bytes) else etree.tostring(root)).decode()


@dataclass(frozen=True)
class Visit:
    """A sign-in that has begun in one browser."""

    request: Request
    secret: str


@dataclass(frozen=True)
class Connected:
    """An account with a connection to an identity provider."""

    house: AuthHouse
    publisher: Publisher
    provider: SamlProvider
    connection: saml_pb2.SamlConnection

    async def begin(self, account: UUID | None = None) -> Visit:
        request = saml_pb2.BeginSamlSignInRequest(
            account_id=ids.encode("acct", account or self.publisher.live), connection_id=self.connection.id
        )
        answer = await self.house.call(self.house.anonymous(), self.house.saml.BeginSamlSignIn, request)
        assert isinstance(answer, saml_pb2.BeginSamlSignInResponse)
        return Visit(read(answer.redirect_url), answer.browser_secret)

    def said(self, visit: Visit, **parts: Any) -> Said:
        """What the identity provider says in answer, of Ada if of nobody else."""
        parts.setdefault("attributes", {"mail": ("ada@example.com",), "displayName": ("Ada",)})
        return self.provider.answer(visit.request, self.house.clock.wall(), **parts)

    def unasked(self, **parts: Any) -> Said:
        """What the identity provider says without having been asked."""
        request = Request("", self.connection.entity_id, self.connection.acs_url, "", "")
        said = self.provider.answer(request, self.house.clock.wall(), **parts)
        return replace(said, in_response_to=None)

    async def post(self, root: Any, relay_state: str) -> str:
        """Posts a response as the browser does; returns the token in the fragment of where it is sent."""
        request = saml_pb2.TakeSamlResponseRequest(
            account_id=ids.encode("acct", self.publisher.live),
            connection_id=self.connection.id,
            SAMLResponse=posted(root),
            RelayState=relay_state,
        )
        answer = await self.house.call(self.house.anonymous(), self.house.saml.TakeSamlResponse, request)
        assert isinstance(answer, redirect_pb2.Redirect)
        parts = urlsplit(answer.location)
        assert parts._replace(fragment="").geturl() == "https://staff.gatefold.example/sign-in/callback"
        fragment = parse_qs(parts.fragment)
        assert fragment["purpose"] == ["saml"]
        return fragment["token"][0]

    async def refusal(self, root: Any, relay_state: str) -> str:
        """Posts a response that is refused; returns the rule that it broke."""
        counted = self.house.telemetry.registry.get_sample_value
        with pytest.raises(GatefoldError) as raised:
            await self.post(root, relay_state)
        assert (raised.value.kind, raised.value.reason) == (Kind.MALFORMED, "saml_response_refused")
        rule = raised.value.metadata["rule"]
        assert counted("gatefold_saml_refusals_total", {"rule": rule}), "operators see which"
        return rule

    async def finish(self, token: str, secret: str) -> session_pb2.Tokens:
        request = saml_pb2.FinishSamlSignInRequest(token=token, browser_secret=secret)
        answer = await self.house.call(self.house.anonymous(), self.house.saml.FinishSamlSignIn, request)
        assert isinstance(answer, session_pb2.Tokens)
        return answer

    async def sign_in(self, account: UUID | None = None, **parts: Any) -> session_pb2.Tokens:
        """Signs somebody in from beginning to end."""
        visit = await self.begin(account)
        root = self.provider.response(self.said(visit, **parts))
        return await self.finish(await self.post(root, visit.request.relay_state), visit.secret)


async def connect(
    house: AuthHouse, publisher: Publisher, provider: SamlProvider | None = None, **chosen: Any
) -> Connected:
    """Connects an account with an identity provider that is believed about example.com."""
    provider = provider or SamlProvider()
    fields = {
        "name": "Example SSO",
        "idp_metadata": provider.metadata(),
        "email_attribute": "mail",
        "name_attribute": "displayName",
        "email_domains": ["example.com"],
        "enabled": True,
        **chosen,
    }
    request = saml_pb2.CreateSamlConnectionRequest(**fields)
    made = await house.call(house.staff(publisher.live), house.saml_connections.CreateSamlConnection, request)
    assert isinstance(made, saml_pb2.SamlConnection)
    return Connected(house, publisher, provider, made)
