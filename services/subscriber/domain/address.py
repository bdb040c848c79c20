"""Owns when two e-mail addresses are the same: by the form that the blind index is made of."""

import re
import unicodedata

MOST_ADDRESS = 254
"""RFC 5321, 4.5.3.1.3, less the angle brackets."""

# Invisible characters that spreadsheets and web pages leave around addresses; none may stand in one.
_INVISIBLE = re.compile("[\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def cleaned(text: str) -> str:
    """Returns the address without surrounding white space and invisible characters."""
    return _INVISIBLE.sub("", text).strip()


def folded(address: str) -> str:
    """Returns the form under which addresses are compared, the one the vault's blind index is made of."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", address).casefold()).strip()
