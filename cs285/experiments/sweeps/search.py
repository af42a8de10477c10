"""Optuna search for --sampler optuna and --asha. Imported only for these flags.

TPE (Bergstra et al. 2011) proposes values. ASHA (Li et al. 2020) stops unpromising trials early.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

from cs285.experiments.job import DONE, STOPPED
from cs285.experiments.sweeps.definition import Sweep
from cs285.experiments.sweeps.values import Choice, Range
from cs285.infrastructure.errors import UsageError

try:
    import optuna
    from optuna.trial import TrialState
except ImportError as error:
    raise UsageError(
        f"--sampler optuna, --asha: must be left out without Optuna ({error}); install it with "
        "pip install -e '.[search]'"
    ) from error

ATTEMPTS = 200  # proposals per trial, because invalid or repeated values are rejected
REDUCTION = 3  # ASHA's reduction factor: a third of the trials continues at each rung


class Search:
    """An Optuna study that proposes trials, and stops trials based on the metric they log.

    The study is held in memory. A resumed sweep therefore adds its earlier trials again and reports
    their logged rows.
    """

    def __init__(self, sweep: Sweep) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep = sweep
        self._space = {name: distribution(sweep.choices[name]) for name in sweep.varied}
        pruner: optuna.pruners.BasePruner = optuna.pruners.NopPruner()
        if sweep.asha:
            longest = max(sweep.job(values).n_iter for values in sweep.values())
            self._first_rung = max(1, longest // REDUCTION**2)
            pruner = optuna.pruners.SuccessiveHalvingPruner(self._first_rung, REDUCTION)
        self.study = optuna.create_study(
            # A resumed sweep repeats the same draws. propose() skips those that were tried already.
            sampler=optuna.samplers.TPESampler(seed=sweep.sampler_seed),
            pruner=pruner,
            direction="maximize" if sweep.mode == "max" else "minimize",
        )
        self._trials: dict[str, optuna.Trial] = {}  # by --exp_name

    def add(self, name: str, values: dict[str, Any]) -> None:
        """Add a trial with known values."""
        self.study.enqueue_trial(values)
        self._trials[name] = self.study.ask(self._space)

    def propose(self) -> dict[str, Any] | None:
        """Add a new trial and return its values, or None if no valid new values were found."""
        for _ in range(ATTEMPTS):
            trial = self.study.ask(self._space)
            with contextlib.suppress(UsageError):  # an invalid combination of flags
                name = self.sweep.job(trial.params).name
                if name not in self._trials:
                    self._trials[name] = trial
                    return dict(trial.params)
            self.study.tell(trial, state=TrialState.FAIL)
        return None

    def report(self, name: str, iterations: int, metric: float) -> bool:
        """Record the metric of a trial after `iterations`, and return whether to stop the trial.

        ASHA judges each trial at two rungs, after a ninth and after a third of the iterations. The
        trial continues if its metric is among the best third of those reported at the rung.
        """
        # The pruner alone would add a third rung near the end, where stopping saves almost nothing.
        if not self.sweep.asha or iterations >= self._first_rung * REDUCTION**2:
            return False
        trial = self._trials[name]
        trial.report(metric, iterations)
        return trial.should_prune()

    def close(self, name: str, state: str, metric: float | None) -> None:
        """End a trial. TPE learns from its last metric unless the trial failed."""
        trial = self._trials[name]
        is_known = metric is not None and math.isfinite(metric)
        if state == DONE and is_known:
            self.study.tell(trial, metric)
        elif state == STOPPED and is_known:
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, state=TrialState.FAIL)


def distribution(choice: Choice) -> optuna.distributions.BaseDistribution:
    """Return the Optuna distribution of a flag's values."""
    if not isinstance(choice, Range):
        return optuna.distributions.CategoricalDistribution(list(choice))
    if choice.whole:
        low, high = int(choice.low), int(choice.high)
        return optuna.distributions.IntDistribution(low, high, log=choice.log)
    return optuna.distributions.FloatDistribution(choice.low, choice.high, log=choice.log)
