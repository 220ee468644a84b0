"""Assignment maps: which weight becomes which, and a report that names all the others."""

import jax
import pytest

from rt2_jax.training.assignment import assign, check_assignment_map


def shapes(**named):
    return {
        name.replace("__", "/"): jax.ShapeDtypeStruct(shape, "float32")
        for name, shape in named.items()
    }


def test_names_are_mapped_by_the_first_expression_that_matches_as_a_whole():
    wanted = shapes(target__encoder__a=(2,), target__encoder__b=(3,), target__head=(4,))
    found = shapes(target__old__a=(2,), target__encoder__b=(3,))
    rules = [("target/head", None), (r"target/encoder/(a)", r"target/old/\1"), ("target/enc", None)]
    with pytest.raises(ValueError, match="'target/enc' matches no weight of this run"):
        assign(wanted, found, rules)
    assignment = assign(wanted, found, rules[:2])
    assert assignment.whole and assignment.left_new == ["target/head"]
    assert assignment.sources == {
        "target/encoder/a": "target/old/a",
        "target/encoder/b": "target/encoder/b",
    }


def test_the_report_names_every_weight_that_is_missing_extra_or_of_another_shape():
    wanted = shapes(target__a=(2,), target__b=(3, 4), target__c=(5,))
    found = shapes(target__b=(4, 3), target__d=(6,))
    assignment = assign(wanted, found, [("target/c", "target/e")])
    assert not assignment.whole
    assert assignment.report().splitlines() == [
        "0 weights are restored",
        "  missing: target/a",
        "  missing: target/c, as target/e",
        "  target/b: found shape (4, 3), expected (3, 4)",
        "  not expected: target/d",
    ]


@pytest.mark.parametrize("entry", ["target/a", ("a",), (1, "a"), ("a", 1), ("(", None)])
def test_what_is_no_pair_of_expression_and_name_is_refused(entry):
    with pytest.raises(ValueError, match="RunConfig.assignment_map: found"):
        check_assignment_map((entry,))
