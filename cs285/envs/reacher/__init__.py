from cs285.envs.reacher.reacher_env import Reacher7DOFEnv

__all__ = ["Reacher7DOFEnv"]
