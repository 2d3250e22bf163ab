"""The schedule of the learning rate, by hand; that a resumed run keeps to it is seen in test_resume.py."""

import pytest

from contextseg.settings import TrainingSettings, make_settings
from contextseg.training.checkpoint import Position
from contextseg.training.loop import learning_rate_share


@pytest.mark.parametrize(
    ("decay", "shares"),
    [
        (0.0, [1, 1, 1, 1, 1, 1, 1, 1]),
        (0.5, [1, 1, 1, 1, 1, 3 / 4, 1 / 2, 1 / 4]),  # what is left of 8 steps, over the 4 last
        (1.0, [1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]),
    ],
)
def test_the_learning_rate_falls_over_the_last_part_of_training(decay: float, shares: list[float]) -> None:
    settings = TrainingSettings(epochs=2, decay=decay)
    steps = [Position(epoch, step) for epoch in range(2) for step in range(4)]
    assert [learning_rate_share(at, 4, settings) for at in steps] == pytest.approx(shares)


def test_context_lets_it_fall_and_others_do_as_they_are_published() -> None:
    decay = {name: make_settings({"n_classes": 3, "method": name}).training.decay for name in ("context", "picie")}
    assert decay == {"context": 0.5, "picie": 0.0}
    assert make_settings({"n_classes": 3, "training": {"decay": 0.0}}).training.decay == 0
