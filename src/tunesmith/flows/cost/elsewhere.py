"""The same training on named GPUs, and every method here and there: computed, and said to be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tunesmith.core.stage import Exec
from tunesmith.flows.context import Context
from tunesmith.flows.cost import forecast
from tunesmith.flows.cost.forecast import cost_words
from tunesmith.flows.cost.worded import as_trained
from tunesmith.flows.journey import Journey
from tunesmith.flows.steps import exec_for
from tunesmith.model.methods.spec import MethodSpec
from tunesmith.train.cost import counting, machine, ranking, work
from tunesmith.train.cost.devices import Gpu, Prices, read_prices
from tunesmith.train.cost.memory import Memory, load_of
from tunesmith.train.cost.ranking import RULE, Option, fits_in
from tunesmith.train.cost.skeleton import Skeleton
from tunesmith.train.cost.work import Cost

HERE = "here"
FITS = {True: "fits", None: "may fit", False: "does not fit"}


@dataclass(frozen=True, slots=True, kw_only=True)
class OnGpu:
    """The project's own training on one GPU."""

    gpu: Gpu
    fits: bool | None
    memory_mib: int
    memory_low_mib: int
    memory_high_mib: int
    cost: Cost
    why: str  # where it does not fit: the largest parts
    would_fit: str

    def words(self, currency: str) -> str:
        size = f"{self.memory_low_mib:,} to {self.memory_high_mib:,} of {self.gpu.memory_gib * 1024:,.0f} MiB"
        hour = f"{self.gpu.price:g} {currency} an hour, " if self.gpu.price else ""
        price = f"{hour}{self.gpu.price_source}"
        line = f"{self.gpu.name}: {FITS[self.fits]}, {size}; {cost_words(self.cost, currency)}; {price}"
        if self.fits is not True:
            line += f"; {self.why}" + (f"; would fit with {self.would_fit}" if self.would_fit else "")
        return line


@dataclass(frozen=True, slots=True, kw_only=True)
class Methods:
    """Every method on every device that was asked for."""

    options: tuple[Option, ...]  # by device, those that fit first
    devices: dict[str, float]  # GiB of memory
    rule: str
    currency: str
    date: str  # of the prices

    def __str__(self) -> str:
        lines = [f"ranked by {self.rule}"]
        for device, size in self.devices.items():
            said = "measured here" if device == HERE else f"computed; prices of {self.date}"
            lines += ["", f"{device} ({size:,.0f} GiB of memory; {said})"]
            lines += [self._line(o) for o in self.options if o.device == device]
        return "\n".join(lines)

    def _line(self, o: Option) -> str:
        if o.refused:
            return f"  ✕ {o.method:<22} {o.why}"
        mark = {True: "✓", None: "?", False: "✕"}[o.fits]
        cost = cost_words(o.cost, self.currency) if o.cost else forecast.UNKNOWN_SPEED
        line = f"  {mark} {o.method:<22} {o.memory_low_mib:>7,} to {o.memory_high_mib:>7,} MiB  {cost}"
        if o.fits is not True:
            line += f"\n      {o.why}; " + (
                f"would fit with {o.would_fit}" if o.would_fit else "nothing here makes it fit"
            )
        return line


def prices_for(context: Context, names: tuple[str, ...]) -> tuple[Prices, list[Gpu]]:
    """Raises InputError for unknown GPUs, and for every problem of the user's file."""
    said = context.settings.plan
    prices = read_prices(None if said.prices is None else context.root / said.prices)
    return prices, prices.find(list(names or said.gpus))


def on_gpus(journey: Journey, names: tuple[str, ...]) -> tuple[tuple[OnGpu, ...], str]:
    """(the training on each, the prices' currency)."""
    prices, gpus = prices_for(journey.context, names)
    asked = Asked.of(journey)
    found = []
    for gpu in gpus:
        count, limit = asked.count_on(gpu), asked.limit_of(gpu)
        memory = count(asked.spec.method, asked.spec.optimizer, asked.exec)
        fits = fits_in(memory, limit)
        remedy = "" if fits else ranking.remedies(asked.spec.method, asked.spec.optimizer, limit, count, asked.exec)
        found.append(
            OnGpu(
                gpu=gpu,
                fits=fits,
                memory_mib=round(memory.total / machine.MIB),
                memory_low_mib=round(memory.low / machine.MIB),
                memory_high_mib=round(memory.high / machine.MIB),
                cost=asked.cost_on(gpu, asked.spec.method),
                why="" if fits else ranking.largest(memory, limit),
                would_fit=remedy,
            )
        )
    return tuple(found), prices.currency


def methods(journey: Journey, names: tuple[str, ...], *, probe: bool) -> Methods:
    """Here and on each GPU. Times of other methods here are the measured one's, by the arithmetic each takes."""
    prices, gpus = prices_for(journey.context, names)
    asked, here = Asked.of(journey), forecast.training(journey, probe=probe)
    own = (asked.spec.method, asked.spec.optimizer)
    free = here.free_mib * machine.MIB if here.free_mib is not None else float(machine.free_bytes())
    found = ranking.options(
        asked.skeleton, device=HERE, limit_bytes=free / (1 - ranking.RESERVED),
        count=asked.count_here(here.device), cost=lambda m: asked.cost_here(here, m), exec=asked.exec, configured=own,
        new_tokens=len(asked.spec.new_tokens),
    )  # fmt: skip
    for gpu in gpus:
        found += ranking.options(
            asked.skeleton, device=gpu.name, limit_bytes=gpu.memory_gib * 2**30, count=asked.count_on(gpu),
            cost=partial(asked.cost_on, gpu), exec=asked.exec, configured=own, new_tokens=len(asked.spec.new_tokens),
        )  # fmt: skip
    return Methods(
        options=tuple(found),
        devices={HERE: free / 2**30, **{g.name: g.memory_gib for g in gpus}},
        rule=RULE,
        currency=prices.currency,
        date=prices.date,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The training in question, ready to be counted with another method or on another device."""

    config: dict[str, Any]
    skeleton: Skeleton
    dataset: dict[str, Any]
    spec: Any
    exec: Exec
    tokens: int  # of the whole training
    context: Context

    @classmethod
    def of(cls, journey: Journey) -> Asked:
        step = forecast.train_step_of(journey)
        from tunesmith.train.precision import tokens_of

        spec, inputs = step.build(journey)
        dataset = as_trained(journey, spec, inputs, count=True)
        return cls(
            config=forecast.config_of(journey),
            skeleton=forecast.skeleton_for(journey),
            dataset=dataset,
            spec=spec,
            exec=exec_for(journey, step),
            tokens=tokens_of(dataset, spec.epochs),
            context=journey.context,
        )

    def limit_of(self, gpu: Gpu) -> float:
        return gpu.memory_gib * 2**30 * (1 - ranking.RESERVED)

    def count_here(self, device: str) -> Callable[[MethodSpec, str, Exec], Memory]:
        def count(method: MethodSpec, optimizer: str, exec: Exec) -> Memory:
            found = self._count(method, optimizer, exec, self.spec.precision, device)
            return replace(
                found, parts={n: b for n, b in found.parts.items() if n != "file"}
            )  # the system takes it back

        return count

    def count_on(self, gpu: Gpu) -> Callable[[MethodSpec, str, Exec], Memory]:
        precision = "bf16" if gpu.bf16_tflops else "fp32"
        return lambda method, optimizer, exec: self._count(method, optimizer, exec, precision, "cuda")

    def _count(self, method: MethodSpec, optimizer: str, exec: Exec, precision: str, device: str) -> Memory:
        from tunesmith.train.precision import training_memory

        return training_memory(
            self.config, self.skeleton, self.dataset, self.spec, exec,
            method=method, optimizer=optimizer, precision=precision, device=device,
        )  # fmt: skip

    def flops(self, method: MethodSpec) -> float:
        load = load_of(
            self.dataset, global_batch=self.spec.global_batch, micro_batch_tokens=self.exec.micro_batch_tokens
        )
        rows = max(1, load.all_rows)
        load = replace(load, tokens=max(1, load.all_tokens // rows))  # as long as they are on average
        return work.flops_per_token(self.skeleton, method, load, checkpointing=bool(self.exec.gradient_checkpointing))

    def cost_on(self, gpu: Gpu, method: MethodSpec) -> Cost:
        return work.on_gpu(gpu, self.tokens, self.flops(method))

    def cost_here(self, measured: forecast.Training, method: MethodSpec) -> Cost | None:
        if measured.cost is None or counting.refusal(self.skeleton, method):
            return None
        if method == self.spec.method:
            return measured.cost
        ratio = self.flops(method) / self.flops(self.spec.method)
        basis = f"computed: {ratio:.2f} times the arithmetic of the measured method"
        cost = measured.cost
        wide = work.OTHER_METHOD_UNSURE
        kwh, money = (None if s is None else s.times(ratio).wider(wide) for s in (cost.kwh, cost.money))
        return Cost(seconds=cost.seconds.times(ratio).wider(wide), kwh=kwh, money=money, basis=basis)
