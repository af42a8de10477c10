"""Values by Optuna's TPE (Bergstra et al. 2011): each trial learns from those before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import optuna
from ray.tune.search import Searcher

from cs285.experiments.job import FAILED, WAITING
from cs285.experiments.sweeps.folder import Trial
from cs285.experiments.sweeps.plan import Sweep
from cs285.experiments.sweeps.values import Choice, Range
from cs285.infrastructure.errors import UsageError

ATTEMPTS = 200  # to be told values that are allowed, and were not tried before

Distribution = optuna.distributions.BaseDistribution


class OptunaSearch(Searcher):
    """Optuna as a searcher of Ray Tune: it knows `trials`, and begins with those WAITING."""

    def __init__(self, sweep: Sweep, trials: Iterable[Trial]) -> None:
        super().__init__(sweep.metric, sweep.mode)
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.sweep = sweep
        self.space = {name: distribution(sweep.choices[name]) for name in sweep.varied}
        self.seen: set[str] = set()  # names of trials
        self.asked: dict[str, optuna.Trial] = {}  # by Tune's id
        trials = list(trials)
        ended = [trial for trial in trials if trial.job.state != WAITING]
        self.open = [trial.values for trial in trials if trial.job.state == WAITING]
        sampler = optuna.samplers.TPESampler(seed=sweep.sampler_seed + len(ended))
        self.study = optuna.create_study(
            sampler=sampler, direction="maximize" if sweep.mode == "max" else "minimize"
        )
        for trial in ended:
            self.seen.add(trial.job.name)
            if "metric" in trial.result and trial.job.state != FAILED:
                known = optuna.trial.create_trial(
                    params=trial.values,
                    distributions=self.space,
                    value=float(trial.result["metric"]),
                )
                self.study.add_trial(known)

    def suggest(self, trial_id: str) -> Any:
        """Return the values of another trial, or that there are no more."""
        if self.open:
            self.study.enqueue_trial(self.open.pop(0))
        for _ in range(ATTEMPTS):
            asked = self.study.ask(self.space)
            name = self._name_if_allowed(asked.params)
            if name is not None and name not in self.seen:
                self.seen.add(name)
                self.asked[trial_id] = asked
                return dict(asked.params)
            self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
        return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Learn what a trial reached; of one that failed, nothing."""
        asked = self.asked.pop(trial_id, None)
        if asked is None:
            return
        if error or not result or self.metric not in result or result.get("state") == FAILED:
            self.study.tell(asked, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(asked, float(result[self.metric]))

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: sweep.csv has it all."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""

    def _name_if_allowed(self, values: dict[str, Any]) -> str | None:
        try:
            return self.sweep.job(values).name
        except UsageError:  # of flags that do not go together
            return None


def distribution(choice: Choice) -> Distribution:
    """Return what values are drawn from."""
    if not isinstance(choice, Range):
        return optuna.distributions.CategoricalDistribution(list(choice))
    if choice.whole:
        low, high = int(choice.low), int(choice.high)
        return optuna.distributions.IntDistribution(low, high, log=choice.log)
    return optuna.distributions.FloatDistribution(choice.low, choice.high, log=choice.log)
