"""Package cs285. requirements.txt pins the versions that were tested together."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "cs285" / "__init__.py").read_text())[1]

setup(
    name="cs285",
    version=version,
    description="Model-based reinforcement learning (CS285 homework 4)",
    license="MIT",
    license_files=["LICENSE"],
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Education",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Programming Language :: Python :: 3.14",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    python_requires=">=3.11,<3.15",
    packages=find_packages(include=["cs285", "cs285.*"]),
    package_data={
        "cs285.envs.reacher": ["assets/*.xml"],
        "cs285": ["py.typed"],
        "cs285.experiments": ["*.toml"],
        "cs285.assignment": ["*.toml"],
        "cs285.config": ["presets/*.toml"],
        "cs285.analysis.report": ["*.toml"],
    },
    install_requires=[
        "torch>=2.13,<3",  # networks and optimisers
        "gymnasium[mujoco]>=1.1,<1.5",  # environments
        "mujoco>=3.2,<5",
        "numpy>=1.26,<2.5",
        "tensorboardX>=2.6.2.2,<2.7",  # writes event files without TensorFlow
        "matplotlib>=3.8,<3.12",  # figures, and videos of the obstacles task
        "scipy>=1.15,<1.19",  # interquartile means and bootstrap intervals
        "tqdm>=4.65,<5",  # progress bars
        "pillow>=10.1",  # captions in videos
        "imageio[ffmpeg]>=2.31,<3",  # mp4 and gif; its wheel contains the encoder
    ],
    extras_require={
        "cluster": ["ray>=2.60,<3"],  # --address in scripts/sweep.py and scripts/reproduce.py
        "dmc": ["shimmy[dm-control]>=2,<3"],  # DeepMind Control: dm_control/cheetah-run-v0
        # Gymnasium-Robotics: FetchReach-v4. Its Fetch and Hand tasks fail from mujoco 3.12 on.
        "robotics": ["gymnasium-robotics>=1.3,<2", "mujoco<3.12"],
        "wandb": ["wandb>=0.31,<1"],  # --track wandb
        # --track mlflow; the package mlflow adds the web interface, `mlflow ui`
        "mlflow": ["mlflow-skinny>=3.0,<4", "sqlalchemy>=2,<3", "alembic>=1.10,<2"],
        "tensorboard": ["tensorboard>=2.16,<3"],  # shows the event files
        "search": ["optuna>=4.1,<6"],  # --sampler optuna and --asha in scripts/sweep.py
    },
    entry_points={
        "console_scripts": [
            "hw4-mb = cs285.scripts.run_hw4_mb:main",
            "hw4-mbpo = cs285.scripts.run_hw4_mbpo:main",
            "hw4-pilco = cs285.scripts.run_pilco:main",
            "hw4-evaluate = cs285.scripts.evaluate:main",
            "hw4-sweep = cs285.scripts.sweep:main",
        ]
    },
)
