"""Owns charges: the record of each try to take money."""

from infra.local.stripe import payment_methods
from infra.local.stripe.cards import Decline
from infra.local.stripe.engine import Call, Engine
from infra.local.stripe.problems import Json


def record(engine: Engine, call: Call, intent: Json, method: Json, decline: Decline | None) -> None:
    """Records a charge for a try of a PaymentIntent, and makes it the intent's latest."""
    paid = decline is None
    card = payment_methods.card_of(method)
    charge: Json = {
        "id": engine.new_id("charge"),
        "object": "charge",
        "amount": intent["amount"],
        "amount_captured": intent["amount"] if paid else 0,
        "amount_refunded": 0,
        "application_fee_amount": None,
        "balance_transaction": None,
        "billing_details": method["billing_details"],
        "captured": paid,
        "created": engine.now(),
        "currency": intent["currency"],
        "customer": intent["customer"],
        "description": intent["description"],
        "disputed": False,
        "failure_code": None if decline is None else decline.code,
        "failure_message": None if decline is None else decline.message,
        "livemode": call.scope.live,
        "metadata": intent["metadata"],
        "outcome": {
            "network_status": "approved_by_network" if paid else "declined_by_network",
            "reason": None if decline is None else decline.decline_code or decline.code,
            "risk_level": "normal",
            "seller_message": "Payment complete." if paid else "The bank did not return any further details.",
            "type": "authorized" if paid else "issuer_declined",
        },
        "paid": paid,
        "payment_intent": intent["id"],
        "payment_method": method["id"],
        "payment_method_details": {
            "card": {
                "brand": card.brand,
                "country": "US",
                "exp_month": method["card"]["exp_month"],
                "exp_year": method["card"]["exp_year"],
                "fingerprint": method["card"]["fingerprint"],
                "funding": "credit",
                "last4": card.number[-4:],
                "network": card.brand,
                "three_d_secure": None,
            },
            "type": "card",
        },
        "receipt_email": intent["receipt_email"],
        "refunded": False,
        "status": "succeeded" if paid else "failed",
    }
    intent["latest_charge"] = charge["id"]
    engine.save(call, charge)
    engine.emit(call, "charge.succeeded" if paid else "charge.failed", charge)


def retrieve(engine: Engine, call: Call, charge_id: str) -> Json:
    """GET /v1/charges/:id."""
    call.params.only({"expand"})
    return engine.render(call, engine.load(call, "charge", charge_id))
