from cs285.envs.swingup.swingup_env import CartPoleSwingUp, PendulumSwingUp

__all__ = ["CartPoleSwingUp", "PendulumSwingUp"]
