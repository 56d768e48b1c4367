"""One form for every complaint about an argument (its name, the rule, the value found), and any error as one line."""

from typing import Any


class ArgumentError(ValueError):
    """An argument breaks its rule; the message starts with the argument's name."""


def require(condition: bool, argument: str, rule: str, value: Any) -> None:
    """Raise unless ``condition`` holds.

    Args:
        condition: Whether the argument keeps its rule.
        argument: Name of the argument.
        rule: The rule, to be read after "must be", for example ``"at least 2"``.
        value: The value found.

    Raises:
        ArgumentError: ``"{argument} must be {rule}, found {value!r}"``.
    """
    if not condition:
        raise ArgumentError(f"{argument} must be {rule}, found {value!r}")


def error_line(error: BaseException, named: bool = False) -> str:
    """The message of an error as one line; its kind if it has none.

    Args:
        error: The error.
        named: Whether its kind stands before its message.
    """
    kind, words = type(error).__name__, " ".join(str(error).split())
    return f"{kind}: {words}" if named and words else words or kind
