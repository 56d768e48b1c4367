import pytest

from tests.crash.client import Ncflow


@pytest.fixture(scope="session")
def ncflow():
    """Run ``ncflow`` in a child of a warm process, half a second's work rather than seven."""
    with Ncflow() as running:
        yield running
