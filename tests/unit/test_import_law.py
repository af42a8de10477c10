"""A file imports only from its own level of docs/architecture.md or a lower one."""

import ast
from pathlib import Path

PACKAGE = Path(__file__).parents[2] / "cs285"
LEVELS = [
    ["envs", "infrastructure.errors", "infrastructure.rendering", "infrastructure.pytorch_util",
     "infrastructure.stacked_mlp", "infrastructure.compilation",
     "infrastructure.flags", "infrastructure.cpu_tuning", "infrastructure.toml",
     "infrastructure.stopwatch",
     "infrastructure.config", "infrastructure.effects", "infrastructure.sac_config",
     "infrastructure.model_config", "infrastructure.planner_config"],
    ["infrastructure.replay_buffer", "infrastructure.model_buffer",
     "infrastructure.event_file", "infrastructure.logger",
     "infrastructure.progress", "infrastructure.run_folder"],
    ["models", "critics", "policies.base_policy", "policies.sac_policy"],
    ["policies", "infrastructure.episodes", "infrastructure.worker_pool",
     "infrastructure.collector", "infrastructure.continuing_collector",
     "infrastructure.model_rollouts", "infrastructure.utils", "infrastructure.figures",
     "infrastructure.video"],
    ["agents"],
    ["infrastructure.checkpoint", "infrastructure.rl_trainer", "infrastructure.run_queue",
     "infrastructure.machine", "infrastructure.job",
     "infrastructure.run_display", "analysis"],
    ["scripts", "sweeps"],
]  # fmt: skip


def level_of(module: str) -> int:
    """Return the level of cs285.<module>, by its longest listed prefix."""
    matches = [
        (len(prefix), level)
        for level, prefixes in enumerate(LEVELS)
        for prefix in prefixes
        if module == prefix or module.startswith(prefix + ".")
    ]
    assert matches, f"cs285.{module} is at no level: add it to LEVELS and docs/architecture.md"
    return max(matches)[1]


def imported_modules(file: Path) -> set[str]:
    """Return the cs285 modules that `file` imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cs285."):
            module = str(node.module).removeprefix("cs285.")
            if module == "infrastructure":
                found |= {f"infrastructure.{alias.name}" for alias in node.names}
            else:
                found.add(module)
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            found |= {name.removeprefix("cs285.") for name in names if name.startswith("cs285.")}
    return found


def test_no_file_imports_from_a_higher_level() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if file.name != "__init__.py"]
    assert len(files) > 25
    wrong = []
    for file in files:
        module = ".".join(file.relative_to(PACKAGE).with_suffix("").parts)
        wrong += [
            f"{module} imports {other}"
            for other in imported_modules(file)
            if level_of(other) > level_of(module)
        ]
    assert not wrong


def test_forbidden_habits() -> None:
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text()
        assert "import *" not in text, file
        assert "isinstance(agent" not in text.replace("self.agent", "agent"), file
        assert len(text.splitlines()) <= 250, file
