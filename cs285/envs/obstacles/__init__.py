from cs285.envs.obstacles.obstacles_env import Obstacles

__all__ = ["Obstacles"]
