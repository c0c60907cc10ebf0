from types import SimpleNamespace

import pytest

from metarl.errors import UserError
from metarl.learning.settings import check_range

CONFIG = SimpleNamespace(trials=3, unset=None, head=(4, 2), step_size=0.5, broken=float("nan"))


def test_what_lies_in_range_passes_and_none_is_unset():
    check_range(CONFIG, "trials", "unset", "head", least=1, most=4)
    check_range(CONFIG, "trials", least=3, most=3)
    check_range(CONFIG, "step_size", "unset", above=0, most=0.5)


@pytest.mark.parametrize(
    ("name", "limits", "words"),
    [
        ("trials", {"least": 4}, "--trials is 3; it must be at least 4"),
        ("trials", {"above": 3}, "--trials is 3; it must be above 3"),
        ("trials", {"most": 2}, "--trials is 3; it must be at most 2"),
        ("trials", {"least": 0, "most": 1}, "--trials is 3; it must be between 0 and 1"),
        ("step_size", {"above": 1, "most": 2}, "--step-size is 0.5; it must be above 1, at most 2"),
        ("head", {"least": 3}, r"--head is \(4, 2\); it must be at least 3"),
        ("broken", {"above": 0}, "--broken is nan; it must be above 0"),
        ("broken", {"most": 1}, "--broken is nan; it must be at most 1"),
    ],
)
def test_what_lies_outside_is_refused_by_its_flag(name, limits, words):
    with pytest.raises(UserError, match=f"^{words}$"):
        check_range(CONFIG, name, **limits)
