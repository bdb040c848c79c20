"""Owns one reader's whole journey over HTTP: what `make demo` shows and what chaos tests walk."""

from infra.local.journey.client import Answer, Api, JourneyError
from infra.local.journey.receiver import WebhookReceiver
from infra.local.journey.steps import Cast, Journey, Mailbox, Scene

__all__ = ["Answer", "Api", "Cast", "Journey", "JourneyError", "Mailbox", "Scene", "WebhookReceiver"]
