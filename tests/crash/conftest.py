import pytest


@pytest.fixture(scope="session")
def ncflow(warm):
    """Run ``ncflow`` in a child of a warm process, half a second's work rather than seven."""
    return warm
