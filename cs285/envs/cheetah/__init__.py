from cs285.envs.cheetah.cheetah import HalfCheetahEnv

__all__ = ["HalfCheetahEnv"]
