"""Throughput and memory of training on a GPU, on random weights of real shapes: ours and TRL's SFTTrainer in turns.

    python benchmarks/gpu.py --size 1b --methods lora,qlora,full --lengths 512,2048 --trl --seconds 300
    python benchmarks/gpu.py --size tiny --device cpu          # the same script, small, where there is no GPU

Values of weights change neither time nor memory, so none are downloaded. Each measurement is a process of its own: its
peak is its own. Shapes are those of the config.json of meta-llama/Llama-3.2-1B and meta-llama/Llama-3.1-8B on the
Hugging Face hub. MFU counts 2 FLOP a weight and token forward, 2 for the gradient of the input, and 2 for that of a
trained weight, attention not counted, over --peak-tflops (dense bf16; default by the GPU's name).
Writes benchmarks/results/gpu.json after every measurement, so that a cut run keeps what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULT = ROOT / "benchmarks" / "results" / "gpu.json"
LLAMA = {"model_type": "llama", "rope_theta": 500000.0, "vocab_size": 128256, "max_position_embeddings": 131072}
SIZES: dict[str, dict[str, Any]] = {
    "1b": LLAMA
    | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "head_dim": 64, "tie_word_embeddings": True},
    "8b": LLAMA
    | {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "head_dim": 128, "tie_word_embeddings": False},
    "tiny": {"model_type": "llama", "vocab_size": 512, "hidden_size": 64, "intermediate_size": 128}
    | {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "tie_word_embeddings": True},
}
PEAK_TFLOPS = {"H200": 989.0, "H100": 989.0, "A100": 312.0, "L40": 181.0, "4090": 165.0, "L4": 121.0}  # NVIDIA's sheets
WARMUP = 2


def make_model(size: str, folder: Path) -> Path:
    """A folder in the hub's layout: random bf16 weights, and no tokenizer, since documents are made of numbers."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    said = dict(SIZES[size])
    config = AutoConfig.for_model(said.pop("model_type"), **said)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    return folder


def documents(count: int, length: int, vocabulary: int) -> list[Any]:
    from tunesmith.model.flat_layout import Document

    half = length // 2  # a prompt and an answer
    return [
        Document(
            ids=tuple((7919 * i + 13 * t * t + 3) % vocabulary for t in range(length)),
            trained=(False,) * half + (True,) * (length - half),
            key=f"{i:06}",
        )
        for i in range(count)
    ]


def ours(folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    """The recipe's own parts: train/learner.py."""
    import torch

    from tunesmith.core.stage import Exec
    from tunesmith.model.device import device_of
    from tunesmith.train import optim
    from tunesmith.train.learner import accumulate, at_start

    device = device_of(a.device)
    config = json.loads((folder / "config.json").read_text())
    batches = documents(a.batch * a.steps, a.length, config["vocab_size"])
    spec = spec_of(a.method, "bf16" if device.type == "cuda" else "fp32")
    exec = Exec(device=a.device, gradient_checkpointing=a.checkpointing, packing=device.type == "cuda")
    learner = at_start(spec, folder, batches, exec)
    model, parameters, optimizer, forward = learner.model, learner.parameters, learner.optimizer, learner.forward
    marks, losses = [], []
    for step in range(a.steps):
        settle(device)
        marks.append(time.perf_counter())
        batch = batches[step * a.batch : (step + 1) * a.batch]
        losses.append(accumulate(forward, batch, step, a.batch * a.length))
        optim.clip(parameters.values(), 1.0)
        optim.apply(optimizer, lr=1e-4)
    settle(device)
    found = speed(marks, a, device)
    trained = sum(p.numel() for p in parameters.values())
    whole = sum(p.numel() for p in model.parameters()) if a.method != "qlora" else count_of(config)
    flops = (4 * whole + 2 * trained) * found["tokens_per_s"]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else ""
    peak = a.peak_tflops or next((v for k, v in PEAK_TFLOPS.items() if k in name), 0.0)
    found |= {"path": f"{forward.path}: {forward.why}", "losses": losses, "trained": trained, "device": name or "cpu"}
    return found | ({"mfu": round(flops / peak / 1e12, 4)} if peak else {}) | {"planned_mib": planned(config, spec, a)}


def planned(config: dict[str, Any], spec: Any, a: argparse.Namespace) -> float:
    """What the planner would have said of the memory, without the program's own."""
    from tunesmith.train.precision import estimate

    dataset = {
        "counts": {"train": a.batch, "validation": 0, "test": 0},
        "tokens": {"total": a.batch * a.length, "longest": a.length},
    }
    memory = estimate(config, dataset, spec, 1.0)["memory"]
    return round(sum(v for k, v in memory.items() if k != "program"))


def count_of(config: dict[str, Any]) -> int:
    from tunesmith.train.precision import parameter_count

    return int(parameter_count(config))


def spec_of(method: str, precision: str) -> Any:
    from tunesmith.core.settings import MethodSettings, TrainSettings
    from tunesmith.flows.steps import method_spec
    from tunesmith.train.stages import SftSpec

    said = {k: v for k, v in TrainSettings().model_dump().items() if k in SftSpec.__dataclass_fields__}
    said |= {"kind": "instruct", "method": method_spec(MethodSettings(kind=method)), "base": "random", "system": ""}
    said |= {"lr": 1e-4, "precision": precision, "metric": "", "max_new_tokens": 1, "lr_ratios": ()}
    for name, f in SftSpec.__dataclass_fields__.items():
        if isinstance(said.get(name), list | dict):
            said[name] = tuple(said[name].items()) if isinstance(said[name], dict) else tuple(said[name])
        elif name not in said:
            said[name] = {"str": "", "int": 0, "float": 0.0, "bool": False}.get(str(f.type), ())
    return SftSpec(**said)


def trl(folder: Path, a: argparse.Namespace) -> dict[str, Any]:
    """TRL as its documentation sets it up: bf16, checkpointing as asked here."""
    import torch
    from datasets import Dataset
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

    from tunesmith.model.device import device_of
    from tunesmith.model.load import load_base
    from tunesmith.model.methods import catalog as methods

    device = device_of(a.device)
    config = json.loads((folder / "config.json").read_text())
    spec = spec_of(a.method, "bf16")
    base = load_base(folder, dtype="fp32" if a.method == "full" or device.type == "cpu" else "bf16")
    model = methods.wrap(base, spec.method, seed=0).to(device).train()
    rows = [
        {"input_ids": list(d.ids), "completion_mask": [int(t) for t in d.trained]}
        for d in documents(a.batch * a.steps, a.length, config["vocab_size"])
    ]
    from tokenizers import Tokenizer, models

    core = Tokenizer(models.WordLevel({"<unk>": 0, "</s>": 1}, unk_token="<unk>"))
    trainer = SFTTrainer(
        model=model,
        args=SFTConfig(
            output_dir=tempfile.mkdtemp(),
            per_device_train_batch_size=a.batch,
            max_steps=a.steps,
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            max_grad_norm=1.0,
            max_length=None,
            completion_only_loss=True,
            train_sampling_strategy="sequential",
            use_cpu=device.type == "cpu",
            bf16=device.type == "cuda",
            gradient_checkpointing=a.checkpointing,
            report_to="none",
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=PreTrainedTokenizerFast(
            tokenizer_object=core, unk_token="<unk>", eos_token="</s>", pad_token="</s>"
        ),
    )
    marks, inner = [], trainer.training_step

    def training_step(*args: Any, **named: Any) -> Any:
        settle(device)
        marks.append(time.perf_counter())
        return inner(*args, **named)

    trainer.training_step = training_step
    trainer.train()
    settle(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    losses = [x["loss"] for x in trainer.state.log_history if "loss" in x]
    return {**speed(marks, a, device), "losses": losses, "device": name}


def settle(device: Any) -> None:
    """A GPU works behind the program's back: wait for it before a clock is read."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def speed(marks: list[float], a: argparse.Namespace, device: Any) -> dict[str, Any]:
    import resource

    import torch

    seconds = time.perf_counter() - marks[min(WARMUP, a.steps - 1)]
    tokens = a.batch * a.length * (a.steps - min(WARMUP, a.steps - 1))
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "tokens_per_s": round(tokens / seconds, 1),
        "gpu_peak_mib": round(peak / 2**20),
        "rss_mib": round(rss / 1024),
    }


def measure(arm: str, folder: Path, method: str, length: int, a: argparse.Namespace, left: float) -> dict[str, Any]:
    command = [sys.executable, __file__, "--arm", arm, "--folder", str(folder), "--method", method]
    command += ["--length", str(length), "--batch", str(a.batch), "--steps", str(a.steps), "--device", a.device]
    command += ["--peak-tflops", str(a.peak_tflops)] + (["--checkpointing"] if a.checkpointing else [])
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    what = {"arm": arm, "size": a.size, "method": method, "length": length, "batch": a.batch}
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=max(30.0, left))
    except subprocess.TimeoutExpired:
        return what | {"failed": "out of time"}
    if done.returncode:
        return what | {"failed": (done.stderr.strip().splitlines() or ["?"])[-1][:300]}
    return what | json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--size", choices=SIZES, default="1b")
    parser.add_argument("--methods", default="lora,qlora,full")
    parser.add_argument("--lengths", default="512,2048")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--trl", action="store_true")
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--peak-tflops", type=float, default=0.0)
    parser.add_argument("--seconds", type=float, default=300.0, help="no measurement begins after so many")
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--arm", choices=["ours", "trl"])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--method", default="lora")
    parser.add_argument("--length", type=int, default=512)
    a = parser.parse_args()
    if a.arm:
        print(json.dumps(ours(a.folder, a) if a.arm == "ours" else trl(a.folder, a)))
        return
    started = time.monotonic()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = make_model(a.size, Path(scratch) / a.size)
        for method in a.methods.split(","):
            for length in map(int, a.lengths.split(",")):
                for arm in ("ours", "trl") if a.trl else ("ours",):
                    left = a.seconds - (time.monotonic() - started)
                    if left <= 0:
                        found.append({"arm": arm, "method": method, "length": length, "failed": "out of time"})
                    else:
                        found.append(measure(arm, folder, method, length, a, left))
                    print(json.dumps({k: v for k, v in found[-1].items() if k != "losses"}), flush=True)
                    a.out.parent.mkdir(parents=True, exist_ok=True)
                    a.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
