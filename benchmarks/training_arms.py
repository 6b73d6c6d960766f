"""One measurement of `training.py`, in a process of its own: some optimizer steps of ours or of TRL's.

Speeds count real tokens (no padding; a shared prefix for each row) after one step of warm-up.
"""

from __future__ import annotations

import resource
import tempfile
import time
from pathlib import Path
from typing import Any

from training_data import documents, folder_of, made_up

WARMUP = 1
MICRO_TOKENS = 8192
RATES = {"lora": 2e-4, "qlora": 2e-4, "int8": 2e-4, "dora": 2e-4, "full": 2e-5}
ARMS: dict[str, dict[str, Any]] = {
    "tunesmith bf16": {"precision": "bf16"},
    "tunesmith fp32": {"precision": "fp32"},
    "trl default": {},  # bf16 autocast, activation checkpointing
    "trl best": {"activation_checkpointing": False},
    "trl fp32 checkpointing": {"bf16": False},
    "trl fp32": {"activation_checkpointing": False, "bf16": False},
}


def method_of(name: str, rank: int) -> Any:
    from tunesmith.model.methods.spec import MethodSpec

    if name == "full":
        return MethodSpec(kind="full", rank=1, alpha=1.0, dropout=0.0, targets="all-linear")
    lora: dict[str, Any] = {"rank": rank, "alpha": 2.0 * rank, "dropout": 0.0, "targets": "all-linear"}
    if name in ("qlora", "int8"):
        four = name == "qlora"
        return MethodSpec(kind="qlora", bits=4 if four else 8, double_quant=four, **lora)
    return MethodSpec(kind="lora", dora=name == "dora", **lora)


def wrapped(folder: Path, method: str, rank: int, dtype: str) -> Any:
    from tunesmith.model.load import load_base
    from tunesmith.model.methods import catalog as methods

    return methods.wrap(load_base(folder, dtype=dtype), method_of(method, rank), seed=0)


def rows_of(case: str, folder: Path, count: int) -> list[Any]:
    """`len:N` are made-up rows of N tokens."""
    return made_up(int(case.removeprefix("len:")), count) if case.startswith("len:") else documents(case, folder, count)


def ours(
    case: str, model: str, method: str, precision: str, *, steps: int, batch: int, rank: int, micro_tokens: int
) -> dict[str, Any]:
    """The steps of train/recipes/sft.py."""
    from tunesmith.model.flat_layout import pack
    from tunesmith.model.methods import catalog as methods
    from tunesmith.train import optim
    from tunesmith.train.forward import choose_forward
    from tunesmith.train.learner import accumulate

    folder, full = folder_of(model), method == "full"
    rows = rows_of(case, folder, steps * batch)
    net = wrapped(folder, method, rank, "fp32" if full else precision)
    parameters = methods.trainable_parameters(net)
    optimizer = optim.adamw(parameters, weight_decay=0.0)
    forward = choose_forward(net, rows, precision, full=full, seed=0)  # type: ignore[arg-type]
    marks, losses, tokens, work = [], [], [], 0.0
    for step in range(steps):
        taken = rows[step * batch : (step + 1) * batch]
        marks.append((time.perf_counter(), time.process_time()))
        losses.append(accumulate(forward, taken, step, micro_tokens))
        optim.clip(parameters.values(), 1.0)
        optim.apply(optimizer, lr=RATES[method])
        tokens.append(sum(len(d.ids) for d in taken))
    found = {"path": forward.path, "why": forward.why, **speeds(marks, tokens), "losses": losses}
    if forward.path == "flat":
        for step in range(WARMUP, steps):
            packed = pack(rows[step * batch : (step + 1) * batch])
            work += flops(net, method, rows=packed.end, answers=packed.supervised)
        found["gflop_per_s"] = round(work / found["seconds"] / 1e9, 1)
        found["gflop_per_cpu_s"] = round(work / found["cpu_seconds"] / 1e9, 1)
    return found


def flops(net: Any, method: str, *, rows: int, answers: int) -> float:
    """Of the products with weights that a step needs: forward, inputs' gradients, and those of what is trained.
    Attention is not counted; the last layer runs behind its attention, and the head, on `answers` alone."""
    from torch import nn

    from tunesmith.model.flat import plain_model

    inner, total = plain_model(net), 0.0
    last = len(inner.model.layers) - 1
    for i, layer in enumerate(inner.model.layers):
        for name, m in layer.named_modules():
            if isinstance(m, nn.Linear) or hasattr(m, "dequantized"):
                size = m.in_features * m.out_features
                narrow = i == last and not any(p in name for p in ("q_proj", "k_proj", "v_proj"))
                trained = method == "full" or "lora_" in name
                total += (answers if narrow else rows) * size * (6.0 if trained else 4.0)
    return total + answers * inner.lm_head.weight.numel() * (6.0 if method == "full" else 4.0)


def trl(
    case: str, model: str, method: str, settings: dict[str, Any], *, steps: int, batch: int, rank: int
) -> dict[str, Any]:
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    folder = folder_of(model)
    rows = rows_of(case, folder, steps * batch)
    columns = [{"input_ids": list(d.ids), "completion_mask": [int(t) for t in d.trained]} for d in rows]
    bf16 = settings.get("bf16", True)
    net = (
        _quantized(folder, method, rank, bf16) if method in ("qlora", "int8") else wrapped(folder, method, rank, "fp32")
    )
    trainer = SFTTrainer(
        model=net.train(),
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=batch,
            max_steps=steps,
            learning_rate=RATES[method],
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            completion_only_loss=True,
            train_sampling_strategy="sequential",
            use_cpu=True,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            seed=0,
            **settings,
        ),
        train_dataset=Dataset.from_list(columns),
        processing_class=AutoTokenizer.from_pretrained(folder),
    )
    marks, tokens, inner = [], [], trainer.training_step

    def training_step(model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        marks.append((time.perf_counter(), time.process_time()))
        tokens.append(int(inputs["attention_mask"].sum()))
        return inner(model, inputs, *more, **named)

    trainer.training_step = training_step
    trainer.train()
    return {**speeds(marks, tokens), "losses": [x["loss"] for x in trainer.state.log_history if "loss" in x]}


def _quantized(folder: Path, method: str, rank: int, bf16: bool) -> Any:
    """transformers' and bitsandbytes' own layers, with the adapter that ours starts from."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    dtype = torch.bfloat16 if bf16 else torch.float32
    if method == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    base = AutoModelForCausalLM.from_pretrained(folder, quantization_config=config, dtype=dtype, device_map="cpu")
    model = get_peft_model(
        base, LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    start = {n: p for n, p in wrapped(folder, "lora", rank, "fp32").named_parameters() if "lora_" in n}
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(start[name])
    return model


def speeds(marks: list[tuple[float, float]], tokens: list[int]) -> dict[str, Any]:
    """`marks` are the wall and CPU clocks at the start of each step; the last step ends now."""
    wall, cpu = time.perf_counter() - marks[WARMUP][0], time.process_time() - marks[WARMUP][1]
    timed = sum(tokens[WARMUP:])
    return {
        "tokens_per_s": round(timed / wall, 1),
        "tokens_per_cpu_s": round(timed / cpu, 1),
        "seconds": round(wall, 3),
        "cpu_seconds": round(cpu, 3),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def peak(rows: int = 1024, seconds: float = 0.5) -> dict[str, Any]:
    """The machine's matrix products at the model's own shapes, x Wᵀ of `rows` rows, in GFLOP/s by type: work over
    time of the four fused products, each at its best repetition. Wall clock and processor time."""
    import torch
    from transformers import AutoConfig

    c = AutoConfig.from_pretrained(folder_of("real"))
    head = getattr(c, "head_dim", None) or c.hidden_size // c.num_attention_heads
    q, kv = c.num_attention_heads * head, c.num_key_value_heads * head
    shapes = [(c.hidden_size, q + 2 * kv), (q, c.hidden_size), (c.hidden_size, 2 * c.intermediate_size)]
    shapes.append((c.intermediate_size, c.hidden_size))
    found: dict[str, Any] = {}
    for dtype in (torch.float32, torch.bfloat16):
        work, best_wall, best_cpu = 0.0, 0.0, 0.0
        for inputs, outputs in shapes:
            x, w = torch.randn(rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
            x @ w.T
            walls, cpus, end = [], [], time.perf_counter() + seconds
            while time.perf_counter() < end or len(walls) < 3:
                started = time.perf_counter(), time.process_time()
                x @ w.T
                walls.append(time.perf_counter() - started[0])
                cpus.append(time.process_time() - started[1])
            work += 2.0 * rows * inputs * outputs
            best_wall, best_cpu = best_wall + min(walls), best_cpu + min(cpus)
        name = str(dtype).removeprefix("torch.")
        found[name] = {"gflop_per_s": round(work / best_wall / 1e9, 1)}
        found[name]["gflop_per_cpu_s"] = round(work / max(best_cpu, 1e-9) / 1e9, 1)
    return found


def rows_cost(counts: tuple[int, ...] = (1_000, 3_000)) -> dict[str, float]:
    """Milliseconds a row of what happens before the first step: rendering and the order of an epoch."""
    from training_data import _prompt, _rows

    from tunesmith.text.render import Renderer
    from tunesmith.train.batches import Schedule, render_rows

    renderer, found = Renderer.load(folder_of("real"), system=_prompt(lists=False)), {}
    for count in counts:
        rows = _rows(count)
        started = time.process_time()
        render_rows(rows, renderer, 1024)
        Schedule(rows, epochs=1.0, global_batch=16, seed=0).batch(0)
        found[str(count)] = round((time.process_time() - started) / count * 1e3, 4)
    return found
