"""Package cs285; requirements.txt pins the exact versions that were tested together."""

import pathlib
import re

from setuptools import find_packages, setup

here = pathlib.Path(__file__).parent
version = re.search(r'__version__ = "(.+)"', (here / "cs285" / "__init__.py").read_text())[1]

setup(
    name="cs285",
    version=version,
    description="Model-based reinforcement learning in the form of CS285 homework 4",
    long_description=(here / "README.md").read_text(),
    long_description_content_type="text/markdown",
    python_requires=">=3.10,<3.14",
    packages=find_packages(include=["cs285", "cs285.*"]),
    package_data={
        "cs285.envs.reacher": ["assets/*.xml"],
        "cs285": ["py.typed"],
        "cs285.experiments": ["*.toml"],
        "cs285.config": ["presets/*.toml"],
        "cs285.analysis.report": ["*.toml"],
    },
    install_requires=[
        "torch>=2.6,<2.14",  # networks and optimisers
        "gymnasium[mujoco]>=1.1,<1.5",  # environments
        "mujoco>=3.2,<3.16",  # from 3.16 on it warns about Gymnasium's half_cheetah.xml
        "numpy>=1.26,<2.5",
        "tensorboardX>=2.6.2.2,<2.7",  # event files without tensorflow
        "matplotlib>=3.8,<3.12",  # figures, and the picture of the obstacle map
        "scipy>=1.15,<1.19",  # the interquartile mean and its bootstrap interval
        "tomli>=2; python_version < '3.11'",  # there the standard library cannot read TOML
        "tqdm>=4.65,<5",  # progress bars
        "pillow>=10.1",  # letters of a given size in videos
        "imageio[ffmpeg]>=2.31,<3",  # mp4 and gif, with the encoder in the wheel
    ],
    extras_require={
        "cluster": ["ray>=2.60,<3"],  # --address of sweep.py and reproduce.py: many machines
        "search": ["optuna>=4.1,<6"],  # --sampler optuna and --asha of sweep.py
    },
    entry_points={
        "console_scripts": [
            "hw4-mb = cs285.scripts.run_hw4_mb:main",
            "hw4-mbpo = cs285.scripts.run_hw4_mbpo:main",
            "hw4-sweep = cs285.scripts.sweep:main",
        ]
    },
)
