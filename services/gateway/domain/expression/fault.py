"""Owns what is wrong with an expression, and where."""


class ExpressionError(ValueError):
    """An expression that is refused."""

    def __init__(self, position: int, message: str) -> None:
        super().__init__(f"at {position + 1}: {message}")
        self.position = position
        """Of the first character that is at fault, from 0."""
        self.message = message
