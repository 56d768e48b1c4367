"""Something that a metric reads and does not own."""

from typing import Any

from ncflow.metrics.head import LinearHead


class Shared:
    """A classifier that is read, and no part of what reads it: a copy reads the same one.

    If the classifier is copied as well, in whole of a module that has both, the copy reads the copied one.

    Args:
        classifier: The classifier, or None.
    """

    def __init__(self, classifier: LinearHead | None) -> None:
        self._classifier = classifier
        self._copied: dict[int, Any] | None = None

    def __call__(self) -> LinearHead | None:
        """The classifier."""
        if self._copied is not None:
            # Only now is it known what else was copied.
            self._classifier = self._copied.get(id(self._classifier), self._classifier)
            self._copied = None
        return self._classifier

    def __deepcopy__(self, memo: dict[int, Any]) -> "Shared":
        copied = Shared(self())
        copied._copied = memo
        return copied

    def __getstate__(self) -> dict[str, Any]:
        return {"_classifier": self(), "_copied": None}
