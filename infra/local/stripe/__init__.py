"""A simulator of the calls that Gatefold makes at Stripe: stateful, signed, and able to fail on demand."""

from infra.local.stripe.app import create_app, running

__all__ = ["create_app", "running"]
