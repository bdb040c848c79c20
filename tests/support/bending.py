"""Owns changing a token so that it surely is another one."""


def bent(token: str, at: int = -10) -> str:
    """Returns a token with another letter at a place.

    The default is within any token's signature, and not its last letter, whose lowest bits base64 does not read.
    """
    place = at % len(token)
    return token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
