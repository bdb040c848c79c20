"""Events between services: the event itself, consuming it, and serving what a stream lost."""

from libs.events.application import Handler
from libs.events.consumer import Consumer
from libs.events.event import Event
from libs.events.inbox import DeadLetter
from libs.events.servicer import EventServicer
from libs.events.sweeper import Sweeper

__all__ = ["Consumer", "DeadLetter", "Event", "EventServicer", "Handler", "Sweeper"]
