import doctest
from pathlib import Path


def test_the_examples_of_the_page_give_what_it_shows():
    page = Path(__file__).parents[3] / "docs/rt1.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 2
    assert result.failed == 0
