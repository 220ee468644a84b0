"""RT-2's chain of thought: robot tasks whose model writes a plan before it acts."""

from __future__ import annotations

from rt2_jax.data.plans import PlanFile, plan_column, with_plans
from rt2_jax.tasks import bridge, rt1, tabletop

# Importing these modules registers their tasks.
__all__ = ["bridge", "rt1", "tabletop"]

# Their demonstrations hold a plan of each step; numbers end it, so no full stop is put behind it.
for _skill in ("reach", "push"):
    with_plans(
        f"rt2_tabletop_{_skill}",
        f"rt2_tabletop_{_skill}_cot",
        plan_column("target"),
        target="{plan} Action:",
    )
# Plans of people or of another model, by the data set's episode ids.
for _name in ("bridge", "bridge_sample"):
    with_plans(_name, f"{_name}_cot", PlanFile("bridge_plans.json"))
# RT-2's own plans are not published (section 4.4: such as "pick rxbar chocolate" for "I'm hungry").
with_plans("rt1", "rt1_cot", PlanFile("rt1_plans.json"))
