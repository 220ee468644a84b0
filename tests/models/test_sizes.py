"""The shipped models have the sizes that were published; nothing is allocated for them."""

import pytest

from rt2_jax.models.parts import total_parameters
from rt2_jax.training.gin_files import SHIPPED, load_model_config
from rt2_jax.training.report import abstract_parts, parts_table

FILES = sorted(path.name for path in SHIPPED.glob("models/*.gin"))
TOTALS = {  # in billions, as the names say
    "rt2_palix_55b.gin": 54.0,
    "rt2_palix_5b.gin": 5.6,
    "rt2_pali_3b.gin": 3.1,
    "rt2_palme_12b.gin": 12.4,
    "rt2_paligemma_3b.gin": 2.9,
    "rt2_ul2_20b.gin": 19.9,
    "rt1_35m.gin": 0.0445,
}


@pytest.mark.parametrize("name", FILES)
def test_parts_have_the_published_parameters(name):
    parts = abstract_parts(load_model_config([f"models/{name}"]))
    known = [part for part in parts if part.published is not None]
    for part in known:
        two_digits = part.published.parameters == 35_000_000
        tolerance = 1e-2 if two_digits else 1e-3
        assert part.compared == pytest.approx(part.published.parameters, rel=tolerance), part.name
    if name in TOTALS:
        assert known, "a published model has parts with published numbers"
        assert total_parameters(parts) / 1e9 == pytest.approx(TOTALS[name], rel=0.01)
    assert parts_table(parts).count("\n") == len(parts) + 3
