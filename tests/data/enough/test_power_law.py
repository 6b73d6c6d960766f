"""A power law is found where there is one, and nothing is foretold where there is none."""

from __future__ import annotations

import numpy as np
import pytest

from tunesmith.data.enough.power_law import Floats, fit_laws, forecast

SIZES = 4000.0 / 2.0 ** (np.arange(7)[::-1] / 2)


def around(scores: Floats, noise: float, draws: int = 200) -> Floats:
    return scores + np.random.default_rng(0).normal(0, noise, (draws, len(scores)))


@pytest.mark.parametrize("floor, scale, exponent", [(0.0, 3.0, 0.3), (0.1, 5.0, 0.5), (0.25, 8.0, 0.9)])
def test_a_law_is_recovered_and_its_forecast_true(floor: float, scale: float, exponent: float) -> None:
    scores = 1 - (floor + scale * SIZES**-exponent)
    law = fit_laws(SIZES, scores[None, :])
    assert law.score(8000)[0] == pytest.approx(1 - (floor + scale * 8000**-exponent), abs=1e-3)
    found = forecast(SIZES, scores, around(scores, 0.005), to=8000, confidence=0.95)
    want = scale * (4000**-exponent - 8000**-exponent)
    assert found["refused"] is None
    assert found["gain"]["low"] <= want <= found["gain"]["high"]
    assert found["gain"]["value"] == pytest.approx(want, abs=1e-3)


def test_fitting_is_the_best_of_a_general_optimizer() -> None:
    from scipy.optimize import least_squares

    generator = np.random.default_rng(1)
    scores = 1 - (0.1 + 4 * SIZES**-0.45) + generator.normal(0, 0.01, len(SIZES))
    law = fit_laws(SIZES, scores[None, :])
    ours = float(((law.floor + law.scale * SIZES**-law.exponent - (1 - scores)) ** 2).sum())
    best = min(
        2
        * least_squares(
            lambda p: p[0] + p[1] * SIZES ** -p[2] - (1 - scores),
            (0.1, 1.0, b),
            bounds=((0, 0, 0.02), (np.inf, np.inf, 2)),
        ).cost
        for b in (0.1, 0.5, 1.0)
    )
    assert ours <= best * 1.02


def test_floor_and_scale_are_never_negative() -> None:
    generator = np.random.default_rng(2)
    laws = fit_laws(SIZES, generator.uniform(0, 1, (50, len(SIZES))))
    assert (laws.floor >= 0).all() and (laws.scale >= 0).all()


def test_a_flat_curve_promises_nothing() -> None:
    scores = np.full(len(SIZES), 0.8)
    found = forecast(SIZES, scores, around(scores, 0.002), to=8000, confidence=0.95)
    assert found["gain"]["value"] == pytest.approx(0, abs=1e-9)


def test_the_smallest_sizes_are_left_out_where_no_law_holds_for_them() -> None:
    scores = 1 - (0.1 + 4 * SIZES**-0.4)
    scores[:2] = 0.02  # too few rows to learn anything
    found = forecast(SIZES, scores, around(scores, 0.002), to=8000, confidence=0.95)
    assert found["sizes_left_out"] == 2
    assert found["gain"]["value"] == pytest.approx(4 * (4000**-0.4 - 8000**-0.4), abs=2e-3)


@pytest.mark.parametrize(
    "scores, noise, because",
    [
        (np.array([0.3, 0.6, 0.3, 0.6, 0.3, 0.6, 0.3]), 0.01, "off any such curve"),
        (np.array([0.10, 0.12, 0.13, 0.15, 0.16, 0.18, 0.145]), 0.002, "foretell the largest wrongly"),
        (np.array([0.1, 0.12, 0.2, 0.25, 0.35, 0.42, 0.5]), 0.5, "is possible"),
        (np.array([0.5, 0.6, 0.7, 0.75]), 0.01, "4 sizes are too few"),
    ],
)
def test_what_cannot_be_foretold_is_refused_with_its_reason(scores: Floats, noise: float, because: str) -> None:
    sizes = SIZES[-len(scores) :]
    found = forecast(sizes, scores, around(scores, noise), to=8000, confidence=0.95)
    assert found["gain"] is None
    assert because in found["refused"]
