import pytest

from ncflow.checks import ArgumentError, error_line, require


def test_a_broken_rule_names_the_argument_the_rule_and_the_value():
    require(True, "depth", "at least 2", 1)
    with pytest.raises(ArgumentError, match=r"^depth must be at least 2, found 'x'$"):
        require(False, "depth", "at least 2", "x")


@pytest.mark.parametrize(
    ("error", "line", "named"),
    [
        (ValueError("one word"), "one word", "ValueError: one word"),
        (OSError("  two\n\tlines  "), "two lines", "OSError: two lines"),
        (KeyError(), "KeyError", "KeyError"),
        (RuntimeError("\n"), "RuntimeError", "RuntimeError"),
        (KeyError("name"), "'name'", "KeyError: 'name'"),
        (ValueError("ends with:"), "ends with:", "ValueError: ends with:"),
    ],
)
def test_any_error_is_one_line(error, line, named):
    assert error_line(error) == line
    assert error_line(error, named=True) == named
