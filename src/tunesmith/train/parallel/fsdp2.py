"""Fully sharded: each rank keeps a part of every weight, of its gradient and of the optimizer's memory.

torch's `fully_shard` (Zhao et al. 2023, arXiv:2304.11277; the second, per-parameter form) on each decoder layer and on
the rest; a layer's weights are whole only while it is computed. The plain path alone: the flat one takes weights out
of their modules.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tunesmith.core.errors import ModelError
from tunesmith.core.stage import Exec
from tunesmith.train.kernels import decoder_layers
from tunesmith.train.optimizers.catalog import Optimizer
from tunesmith.train.parallel import parts
from tunesmith.train.parallel.ranks import Ranks


class Fsdp2(Ranks):
    in_step = True
    splits = "weights split by fsdp2"

    def __init__(self, exec: Exec):
        super().__init__(exec)
        from torch.distributed.device_mesh import init_device_mesh

        gpus = torch.cuda.is_available() and exec.device != "cpu"
        self._mesh = init_device_mesh("cuda" if gpus else "cpu", (self.size,))

    def shard(self, model: Any) -> None:
        from torch.distributed.fsdp import fully_shard

        layers = decoder_layers(model)
        if not layers:
            raise ModelError(
                f"{type(model).__name__} has no list of decoder layers to split",
                where="exec.engine",
                fix="--set exec.engine=ddp",
            )
        for module in (*layers, model):
            fully_shard(module, mesh=self._mesh, reshard_after_forward=True)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
            module.set_gradient_divide_factor(1.0)  # gradients add up: losses are divided by the whole batch

    def bind(self, model: Any, optimizer: Optimizer, forward: Any, max_grad_norm: float) -> Optimizer:
        from torch.distributed.fsdp import FSDPModule
        from torch.distributed.tensor import DTensor

        split = [p for p in model.parameters() if isinstance(p, DTensor)]
        whole = [n for n, p in model.named_parameters() if not isinstance(p, DTensor)]
        if not isinstance(model, FSDPModule) or whole or not split or forward.path == "flat":
            raise RuntimeError(f"fsdp2 was asked for, and these weights are not split: {whole[:3]}")
        stepped = [p for g in optimizer.param_groups for p in g["params"]]
        if not all(isinstance(p, DTensor) for p in stepped):
            raise RuntimeError("fsdp2 was asked for, and the optimizer steps weights that are not split")
        return optimizer

    def clip(self, parameters: Mapping[str, nn.Parameter], max_norm: float) -> float:
        """The norm over all parts; each rank scales its own."""
        held = [p for p in parameters.values() if p.grad is not None]
        squares = torch.zeros((), dtype=torch.float64)
        for p in held:
            squares += p.grad.to_local().float().pow(2).sum(dtype=torch.float64).cpu()
        dist.all_reduce(squares)
        norm = squares.sqrt()
        scale = float((max_norm / (norm + 1e-6)).clamp(max=1.0))  # as in torch.nn.utils.clip_grads_with_norm_
        if scale < 1.0:
            for p in held:
                p.grad.to_local().mul_(scale)
        return float(norm)

    def whole(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        from torch.distributed.tensor import DTensor

        found = {}
        for name, tensor in tensors.items():
            full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            if self.writes:
                found[name] = full.cpu()
        return found

    def like(self, tensor: Tensor, p: nn.Parameter) -> Tensor:
        from torch.distributed.tensor import DTensor, distribute_tensor

        if isinstance(tensor, DTensor) or not isinstance(p, DTensor) or tensor.shape != p.shape:
            return tensor
        found: Tensor = distribute_tensor(tensor, p.device_mesh, p.placements, src_data_rank=None)
        return found

    def write_parts(self, folder: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.nodes > 1:  # a machine has no part of the others' disks
            return self.whole(tensors)
        return parts.write(folder, tensors)
