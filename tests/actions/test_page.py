import doctest
from pathlib import Path

import pytest


def test_the_examples_of_the_page_give_what_it_shows():
    pytest.importorskip("sentencepiece")
    page = Path(__file__).parents[2] / "docs/actions.md"
    result = doctest.testfile(str(page), module_relative=False)
    assert result.attempted > 20
    assert result.failed == 0
