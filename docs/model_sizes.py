"""Writes docs/model_sizes.md: the parts of every shipped model beside what was published.

Run as `python docs/model_sizes.py` (or `make docs`). It is what `rt2 train --dry_run` prints for
each file of gin_configs/models; shapes are computed, nothing is held in memory.
"""

from __future__ import annotations

from pathlib import Path

from rt2_jax.models.parts import total_parameters
from rt2_jax.training.gin_files import SHIPPED, load_model_config
from rt2_jax.training.report import abstract_parts

PAGE = Path(__file__).with_name("model_sizes.md")
HEAD = """# Sizes of the models

Written by `make docs`. Each row is a part of a model in [gin_configs/models](../gin_configs/models)
with its parameters, and the number that was published of it where there is one. A single model:

    rt2 train --gin_file=models/rt2_palix_55b.gin --dry_run

Shapes are computed without memory, the 55 B model's in a few seconds. Most published numbers have
two to four digits. What is compared is the part together with what the published number includes
and the model here leaves out; the source names it.

| model | part | parameters | compared | published | difference | source |
|---|---|---|---|---|---|---|
"""
TOTALS = """
## In all

| model | parameters | by its name | why they differ |
|---|---|---|---|
"""
NOMINAL = {
    "rt2_palix_5b": ("5 B", "RT-2 says no more than the size; with T5's 32,128 rows it is 4.7 B"),
    "rt2_palix_55b": ("55 B", "the 32 B part's widths are not published; ours come to 32.25 B"),
    "rt2_pali_3b": ("3 B", "rounded: ViT-G 1.8 B and mT5-Large 1.2 B"),
    "rt2_palme_12b": ("12 B", "rounded down: 4 B and 8 B, in truth 3.9 B and 8.6 B"),
    "rt2_paligemma_3b": ("3 B", "rounded: 0.4 B and 2.5 B"),
    "rt2_ul2_20b": ("20 B", "UL2's 19.46 B and So400m's 0.4 B"),
    "rt1_35m": ("35 M", "with the sentence encoder, which RT-1 had outside; 35 M without it"),
}
"""What a model is called, and why it has another number of parameters."""


def page() -> str:
    """The text of docs/model_sizes.md."""
    rows, totals = [], []
    for path in sorted(SHIPPED.glob("models/*.gin")):
        config = load_model_config([str(path)])
        assert config is not None, path
        parts = abstract_parts(config)
        name = f"[{path.stem}](../gin_configs/models/{path.name})"
        for part in parts:
            compared, published, difference, source = "", "", "", ""
            if part.published is not None:
                compared = f"{part.compared:,}"
                published = f"{part.published.parameters:,}"
                difference = part.difference
                lacking = part.published.elsewhere.items()
                source = part.published.source
                source += "".join(f"; {each} {count:+,}" for each, count in lacking)
            rows.append(
                f"| {name} | {part.name} | {part.parameters:,} | {compared} | {published} | "
                f"{difference} | {source} |"
            )
            name = ""
        nominal, why = NOMINAL.get(path.stem, ("", ""))
        total = total_parameters(parts)
        totals.append(f"| {path.stem} | {total:,} | {nominal} | {why} |")
    return HEAD + "\n".join(rows) + "\n" + TOTALS + "\n".join(totals) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
