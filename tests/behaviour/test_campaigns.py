"""The short form of each campaign; `python -m tests.campaigns.NAME` runs the long form."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.campaigns import corrupt, disk, faulty_env, kill
from tests.campaigns.common import attack_many


@pytest.mark.parametrize(
    ("attack", "times"),
    [(kill.attack, 3), (disk.attack, 3), (corrupt.attack, 5), (faulty_env.attack, 5)],
)
def test_no_attack_finds_a_defect(attack: Callable[..., str], times: int) -> None:
    failures = [each.failure for each in attack_many(attack, times) if each.failure]
    assert not failures


def test_campaigns_notice_defects() -> None:
    def attack(rng: object, place: Path) -> str:
        assert place.exists()
        raise AssertionError("differs")

    (found,) = attack_many(attack, 1)
    assert (found.what, found.failure) == ("defect", "AssertionError: differs")
