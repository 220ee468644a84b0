"""docs/features.yaml claims nothing that no test or benchmark shows."""

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("features", ROOT / "docs/features.py")
features = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(features)

EVIDENCE = "tests/quality/test_features.py::test_a_row_with_evidence_is_accepted"


def problems(**changes):
    """What is wrong with a file of one good "yes" row after `changes`; None removes a key."""
    row = {"id": "row", "capability": "can", "status": "yes", "evidence": [EVIDENCE], "systems": []}
    row = {key: value for key, value in {**row, **changes}.items() if value is not None}
    groups = [{"group": "Group", "capabilities": [row]}]
    return "\n".join(features.problems({"systems": ["RT-2"], "groups": groups}))


def test_a_row_with_evidence_is_accepted():
    assert problems() == ""
    assert problems(status="partly", missing="half", systems=["RT-2"]) == ""
    assert problems(status="no", evidence=None) == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"status": "maybe"}, "row: status is 'maybe'; expected one of yes, partly, no"),
        ({"evidence": []}, "row: 'yes' without evidence; name a test or benchmark"),
        ({"evidence": None}, "row: 'yes' without evidence; name a test or benchmark"),
        ({"status": "partly"}, "row: has ['capability', 'evidence', 'id', 'status', 'systems']"),
        ({"status": "no"}, "a 'no' has ['capability', 'id', 'status', 'systems']"),
        ({"systems": ["RT-3"]}, "row: unknown system 'RT-3'; expected one of RT-2"),
        ({"evidence": ["tests/gone.py::test_x"]}, "'tests/gone.py::test_x': no such file"),
        ({"evidence": ["benchmarks/gone.py"]}, "'benchmarks/gone.py': no such file"),
        ({"evidence": [EVIDENCE + "_not"]}, "no such test in that file"),
        ({"evidence": ["tests/quality/test_features.py::problems"]}, "no such test in that file"),
        ({"evidence": ["tests/conftest.py"]}, "expected tests/FILE.py::TEST or benchmarks/FILE"),
        ({"evidence": ["README.md"]}, "expected tests/FILE.py::TEST or benchmarks/FILE"),
    ],
)
def test_a_wrong_row_is_refused_by_name(changes, message):
    assert message in problems(**changes)


def test_an_id_that_stands_twice_is_refused():
    row = {"id": "row", "capability": "can", "status": "no", "systems": []}
    groups = [{"group": group, "capabilities": [row]} for group in ("One", "Two")]
    assert features.problems({"systems": [], "groups": groups}) == ["row: 2 rows have this id"]


def test_the_projects_claims_hold():
    assert features.problems(features.load()) == []


def test_the_written_tables_are_current():
    claims = features.load()
    text = (ROOT / "README.md").read_text()
    assert features.readme(claims, text) == text, "run `make docs`"
    assert features.page(claims) == (ROOT / "docs/features.md").read_text(), "run `make docs`"


def test_a_readme_without_the_markers_is_refused():
    with pytest.raises(ValueError, match="README.md: expected the markers"):
        features.readme(features.load(), "# A page")
