"""The price files: the package's own is whole, the user's is read strictly, and arithmetic follows from both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tunesmith.core.errors import InputError
from tunesmith.train.cost.devices import read_prices
from tunesmith.train.cost.work import USED, on_gpu

BROKEN = """\
date: "2026-11-30"
gpsu: {}
gpus:
  L4: {price: -1}
  H100: {prize: 2.0}
  MYGPU: {memory_gib: 48, price: 1.0}
  A10: {price: "cheap"}
"""


def test_the_packaged_file_names_every_gpu_with_its_source() -> None:
    prices = read_prices()
    assert prices.date and prices.currency == "USD"
    wanted = ["T4", "L4", "A10", "A100-40GB", "A100-80GB", "H100", "H200", "RTX-3090", "RTX-4090", "RTX-5090", "L40S"]
    assert set(wanted) <= set(prices.gpus)
    for gpu in prices.gpus.values():
        assert (gpu.price is None or gpu.price > 0) and gpu.price_source and 0 < gpu.watts < 2000
        assert gpu.bf16_tflops or gpu.fp32_tflops
    assert prices.gpus["T4"].bf16_tflops is None  # Turing has no bf16 units


def test_names_are_found_whatever_their_spelling_and_unknown_ones_get_the_nearest() -> None:
    prices = read_prices()
    assert [g.name for g in prices.find(["a100 80gb", "rtx4090"])] == ["A100-80GB", "RTX-4090"]
    with pytest.raises(InputError) as e:
        prices.find(["H1000", "L4", "A100"])
    said = [str(p) for p in e.value.problems]
    assert len(said) == 2
    assert "did you mean H100" in said[0] and "A100-40GB" in said[1]


def test_the_users_file_goes_on_top(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(
        'date: "2026-11-30"\ncurrency: EUR\ngpus:\n  L4: {price: 0.5}\n'
        "  Mine: {memory_gib: 48, bf16_tflops: 200, bandwidth_gb_s: 900, watts: 300, price: 1}\n"
    )
    prices, packaged = read_prices(path), read_prices()
    assert prices.currency == "EUR" and prices.date == "2026-11-30"
    assert prices.gpus["L4"].price == 0.5 and prices.gpus["L4"].memory_gib == packaged.gpus["L4"].memory_gib
    assert "2026-11-30" in prices.gpus["L4"].price_source
    assert prices.gpus["Mine"].price == 1.0 and prices.gpus["H100"] == packaged.gpus["H100"]


def test_without_a_price_there_is_time_and_energy_and_no_money(tmp_path: Path) -> None:
    unpriced = [g for g in read_prices().gpus.values() if g.price is None]
    assert unpriced
    for gpu in unpriced:
        cost = on_gpu(gpu, tokens=1000, flops=1e10)
        assert cost.money is None and cost.kwh is not None and "price" in gpu.price_source
    path = tmp_path / "prices.yaml"
    path.write_text(f'date: "2026-11-30"\ngpus: {{{unpriced[0].name}: {{price: 0.7}}, L4: {{price: null}}}}\n')
    own = read_prices(path).gpus
    assert own[unpriced[0].name].price == 0.7 and own["L4"].price is None


def test_every_problem_of_a_price_file_is_said_at_once_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "prices.yaml"
    path.write_text(BROKEN)
    with pytest.raises(InputError) as e:
        read_prices(path)
    said = "\n".join(str(p) for p in e.value.problems)
    assert len(e.value.problems) == 5
    for line, word in ((2, "gpsu"), (4, "price is -1"), (5, "price"), (6, "lacks bandwidth_gb_s, watts"), (7, "cheap")):
        assert f"prices.yaml:{line}:" in said and word in said
    with pytest.raises(InputError, match="cannot be read"):
        read_prices(tmp_path / "none.yaml")


def test_the_time_on_a_gpu_is_its_peak_between_two_stated_shares() -> None:
    gpu = read_prices().gpus["H100"]
    cost = on_gpu(gpu, tokens=1_000_000, flops=4e10)
    assert cost.seconds.low == pytest.approx(1e6 * 4e10 / (989e12 * USED[1]))
    assert cost.seconds.high == pytest.approx(1e6 * 4e10 / (989e12 * USED[0]))
    assert "computed" in cost.basis and "25%" in cost.basis
    assert cost.money is not None and gpu.price
    assert cost.money.high == pytest.approx(cost.seconds.high / 3600 * gpu.price)
    assert cost.kwh is not None and cost.kwh.low < cost.kwh.high <= cost.seconds.high / 3600 * 0.7
