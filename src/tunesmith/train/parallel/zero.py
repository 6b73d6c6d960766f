"""DeepSpeed's ZeRO: stage 2 splits gradients and the optimizer's memory among ranks, stage 3 the weights too.

Source: Rajbhandari et al. 2020, arXiv:1910.02054. The optimizer is ours, stepped by DeepSpeed on its own parts. State is
gathered into the form that one process writes, weight by weight, so that any engine goes on from it; DeepSpeed's own
checkpoints, which only as many ranks read, are not used.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tunesmith.core.errors import InputError
from tunesmith.core.extras import need
from tunesmith.core.stage import Exec
from tunesmith.train.optimizers.catalog import AnyOptimizer, Optimizer
from tunesmith.train.parallel.ranks import Ranks

MOMENTS = ("exp_avg", "exp_avg_sq")  # of AdamW, the optimizer that is known to work split


class Stepped(Optimizer):
    """DeepSpeed's engine in the place of the optimizer it steps."""

    def __init__(self, engine: Any):
        super().__init__(())
        self.engine = engine

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.engine.optimizer.param_groups
        return found

    def step(self) -> None:
        self.engine.step()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Nothing is left to drop: the engine drops gradients at the end of its own step."""


class Zero(Ranks):
    in_step = True

    def __init__(self, exec: Exec):
        super().__init__(exec)
        self.stage = int(exec.engine[-1])
        self.splits = f"weights held by DeepSpeed ZeRO-{self.stage}"
        self._deepspeed = need("deepspeed", extra="deepspeed", why=f"exec.engine={exec.engine}")
        # its own all-reduce for CPUs would be compiled at every first start, which a killed start blocks for ever
        self._deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        self._deepspeed.init_distributed(dist_backend=dist.get_backend())
        self._engine: Any = None

    def bind(self, model: Any, optimizer: Optimizer, forward: Any, max_grad_norm: float) -> Optimizer:
        other = [n for n, p in model.named_parameters() if p.dtype != torch.float32]
        if other:
            what = f"ZeRO here takes fp32 weights, and {other[0]} is not"
            raise InputError(what, where="train.precision", fix="--set train.precision=fp32, or exec.engine=ddp")
        (part,) = optimizer.parts
        self._engine, stepped, _, _ = self._deepspeed.initialize(
            model=model, optimizer=part, config=self._config(max_grad_norm), dist_init_required=False
        )
        self._assert_engine(stepped)
        forward.run_through(self._engine)
        return Stepped(self._engine)

    def _config(self, max_grad_norm: float) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,  # never read: sums are divided by the whole batch's tokens
            "gradient_accumulation_steps": 1,
            "gradient_clipping": max_grad_norm,
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "zero_optimization": {"stage": self.stage, "overlap_comm": False, "contiguous_gradients": True},
            "steps_per_print": 1 << 60,
        }

    def _assert_engine(self, stepped: Any) -> None:
        if type(self._engine).__name__ != "DeepSpeedEngine" or self._engine.zero_optimization_stage() != self.stage:
            raise RuntimeError(f"ZeRO-{self.stage} was asked for, and DeepSpeed made a {type(self._engine).__name__}")
        wanted = {2: "DeepSpeedZeroOptimizer", 3: "DeepSpeedZeroOptimizer_Stage3"}[self.stage]
        if type(stepped).__name__ != wanted:
            raise RuntimeError(f"ZeRO-{self.stage} was asked for, and its optimizer is a {type(stepped).__name__}")
        whole = [n for n, p in self._engine.module.named_parameters() if not hasattr(p, "ds_tensor")]
        if self.stage == 3 and whole:
            raise RuntimeError(f"ZeRO-3 was asked for, and these weights are not split: {whole[:3]}")

    def backward(self, loss: Tensor, *, last: bool) -> None:
        self._engine.set_gradient_accumulation_boundary(last)
        self._engine.backward(loss * self.size)  # DeepSpeed averages over ranks

    def clip(self, parameters: Mapping[str, nn.Parameter], max_norm: float) -> float:
        """The norm over all parts; DeepSpeed clips in its step."""
        optimizer = self._engine.optimizer
        if self.stage == 2:
            return float(optimizer.scaled_global_norm())
        squares = torch.stack([torch.as_tensor(n).double() ** 2 for n in optimizer._get_norm_groups()])
        return float(squares.sum().sqrt())

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Of weights under their own names; other tensors are whole."""
        found = {}
        for name, tensor in tensors.items():
            p = self._named.get(name)
            value = tensor if p is None else self._weight(p)
            if self.writes:
                found[name] = value.detach().clone().cpu()
        return found

    @property
    def _named(self) -> dict[str, nn.Parameter]:
        return {n: p for n, p in self._engine.module.named_parameters() if p.requires_grad}

    def _weight(self, p: nn.Parameter) -> Tensor:
        found: Tensor = self._deepspeed.utils.safe_get_full_fp32_param(p)
        return found

    def remembered(
        self, optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter]
    ) -> tuple[dict[str, Tensor], str]:
        found = {f"weight.{n}": t for n, t in self.whole(dict(parameters)).items()}
        steps = [s["step"] for s in self._engine.optimizer.optimizer.state.values() if "step" in s]
        if not steps:
            return found, "{}"
        self._find_memory()
        for name, p in parameters.items():
            for entry in MOMENTS:
                moment = self._deepspeed.utils.safe_get_full_optimizer_state(p, entry)
                if self.writes:
                    found[f"memory.{entry}.{name}"] = moment.detach().clone().cpu().view(self._shape(p))
            found[f"memory.step.{name}"] = steps[0].detach().clone().cpu()
        return (found, "{}") if self.writes else ({}, "{}")

    def recall(
        self, optimizer: AnyOptimizer, parameters: Mapping[str, nn.Parameter], saved: Mapping[str, Tensor], values: str
    ) -> None:
        utils = self._deepspeed.utils
        if json.loads(values):
            raise RuntimeError("an optimizer whose memory ZeRO does not know")
        for name, p in parameters.items():
            with (
                torch.no_grad(),
                self._deepspeed.zero.GatheredParameters([p], modifier_rank=0, enabled=self.stage == 3),
            ):
                p.copy_(saved[f"weight.{name}"])
            utils.safe_set_full_fp32_param(p, saved[f"weight.{name}"])
        held = {n: saved[f"memory.step.{n}"] for n in parameters if f"memory.step.{n}" in saved}
        if not held:
            return
        self._make_memory(next(iter(held.values())))
        for name, p in parameters.items():
            for entry in MOMENTS:
                moment = saved.get(f"memory.{entry}.{name}")  # none: it never had a gradient
                utils.safe_set_full_optimizer_state(p, torch.zeros(self._shape(p)) if moment is None else moment, entry)

    def _make_memory(self, step: Tensor) -> None:
        """As the first step would make it."""
        inner = self._engine.optimizer.optimizer
        if self.stage == 2:
            flats = list(self._engine.optimizer.single_partition_of_fp32_groups)
        else:
            flats = list(self._engine.optimizer.fp32_partitioned_groups_flat)
        for flat in flats:
            inner.state[flat] = {"step": step.clone(), **{entry: torch.zeros_like(flat) for entry in MOMENTS}}
        self._find_memory()

    def _find_memory(self) -> None:
        """Stage 2 notes where each weight's moments are once, after the first group's first step: those of other
        groups are not made yet and would never be found."""
        if self.stage == 2:
            self._engine.optimizer._hp_optimizer_states_linked = False
            self._engine.optimizer._lazy_init_hp_params_optimizer_state()

    @staticmethod
    def _shape(p: nn.Parameter) -> torch.Size:
        found: torch.Size = getattr(p, "ds_shape", p.shape)
        return found

    def count(self, parameters: Mapping[str, nn.Parameter]) -> int:
        return sum(self._shape(p).numel() for p in parameters.values())
