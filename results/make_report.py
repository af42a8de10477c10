"""Write results/README.md and results/figures/ from the files beside them.

    python results/make_report.py

Every number reached is read from a CSV or JSON; what is stated or wanted is in the list of
experiments (cs285/analysis/experiments.toml).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from cs285.analysis.experiments import Experiment, Result, read_experiments
from cs285.analysis.plots import save
from cs285.analysis.report import figures, table

RESULTS = Path(__file__).parent
PEER = Experiment(
    name="sb3_halfcheetah",
    script="",
    flags=(),
    minutes=0,
    results=(Result("Eval_AverageReturn", last=3),),
)


def sources() -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(RESULTS.glob("*/*_seed*.json"))]


def commit_of(source: dict[str, Any]) -> str:
    changed = " (with uncommitted changes)" if source["git"].get("uncommitted_changes") else ""
    return (source["git"]["commit"] or "unknown")[:9] + changed


def machine_of(source: dict[str, Any]) -> str:
    return f"{source['machine']['processor']}, {source['machine']['cores']} cores"


def main() -> None:
    described = sources()
    commits = sorted({commit_of(source) for source in described})
    machines = sorted({machine_of(source) for source in described})
    rows = table([*read_experiments(), PEER], RESULTS)
    drawn = figures(RESULTS)
    for old in (RESULTS / "figures").glob("*.png"):
        old.unlink()
    for name, figure in drawn.items():
        save(figure, RESULTS / "figures" / f"{name}.png")
    pictures = [f"![{name.replace('_', ' ')}](figures/{name}.png)" for name in drawn]
    newline = "\n"
    (RESULTS / "README.md").write_text(
        f"""# Results

Written by `python results/make_report.py` from the CSV and JSON files beside it. Those were made by

    python scripts/reproduce.py --data_dir DIR --export_to results

(those of Stable-Baselines3 by `results/sb3_sac.py`). Each JSON holds its run's command, flags,
commit, versions and machine. "Stated" is the assignment's, "wanted" this project's, held against
the mean over seeds. Times are from the first iteration on, the mean over seeds, with another run on
the other core; speeds are in [benchmarks/](benchmarks/README.md).

{newline.join(rows)}

Commits: {", ".join(commits)}. Machines: {"; ".join(machines)}.

Lines are interquartile means over seeds, bands their 95% bootstrap intervals, thin lines the seeds.

{newline.join(pictures)}
"""
    )


if __name__ == "__main__":
    main()
