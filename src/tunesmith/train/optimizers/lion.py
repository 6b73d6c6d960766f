"""Lion: the sign of an interpolated momentum."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

BETAS = (0.9, 0.99)


class Lion(torch.optim.Optimizer):  # type: ignore[misc]  # torch is untyped here
    """c = b1 m + (1 - b1) g;  w = w - lr (sign(c) + decay w);  m = b2 m + (1 - b2) g.

    Source: Chen et al. 2023, arXiv:2302.06675, algorithm 2, b1 = 0.9, b2 = 0.99. A tenth to a third of AdamW's
    rate, since every weight moves by the whole rate.
    """

    def __init__(self, groups: Any):
        super().__init__(groups, {"lr": 0.0, "weight_decay": 0.0})

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def step(self, closure: None = None) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                if "exp_avg" not in self.state[p]:
                    self.state[p]["exp_avg"] = torch.zeros_like(p)
                momentum: Tensor = self.state[p]["exp_avg"]
                direction = torch.lerp(p.grad, momentum, BETAS[0]).sign_()
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(direction, alpha=-group["lr"])
                momentum.lerp_(p.grad, 1 - BETAS[1])
