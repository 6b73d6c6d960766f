"""Supervised fine-tuning with LoRA by hand: what Tunesmith's recipe computes, in plain torch and PEFT.

    python examples/sft_by_hand.py BASE_MODEL_FOLDER train.jsonl OUT --system "Give the label of the text."

A line of train.jsonl is {"id", "messages": [{"role", "content"}], "target", ...}, as `tunesmith prepare`
writes it. No ledger, no resuming, no validation, no fast path; tests/train/test_by_hand.py holds the
weights to those of tunesmith.train.recipes.sft.
"""

import argparse
import hashlib
import json
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer


def render(tokenizer, messages, target, system):
    """Token ids, and which of them the model should have written: the answer and its stop token."""
    if messages[0]["role"] != "system":
        messages = [{"role": "system", "content": system}, *messages]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    prompt = tokenizer(text, add_special_tokens=False)["input_ids"]
    answer = [*tokenizer(target, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return prompt + answer, [False] * len(prompt) + [True] * len(answer)


def add_lora(model, rank, alpha, seed):
    """A uniform, B zero, drawn in the order of the layers' names."""
    head = model.get_output_embeddings()
    linears = {n.split(".")[-1] for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and m is not head}
    model = get_peft_model(model, LoraConfig(r=rank, lora_alpha=alpha, target_modules=sorted(linears)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _, module in sorted((n, m) for n, m in model.named_modules() if hasattr(m, "lora_A")):
            torch.nn.init.kaiming_uniform_(module.lora_A["default"].weight, a=math.sqrt(5), generator=generator)
            module.lora_B["default"].weight.zero_()
    return model


def batches(rows, epochs, global_batch, seed):
    """Every epoch in its own order, by the hash of seed, epoch and row id. The last batch may be small."""
    found = []
    for epoch in range(epochs):
        order = sorted(rows, key=lambda r: hashlib.sha256(f"{seed}:{epoch}:{r['id']}".encode()).digest())
        found += [order[i : i + global_batch] for i in range(0, len(order), global_batch)]
    return found


def rate(step, steps, peak, warmup):
    """Up in a line, then down along a cosine."""
    rising = math.ceil(warmup * steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def batch_loss(model, batch):
    """Mean negative log-likelihood per supervised token, in nats. Padding is on the right, so no token sees it."""
    longest = max(len(ids) for ids, _ in batch)
    ids_BT = torch.tensor([ids + [0] * (longest - len(ids)) for ids, _ in batch])
    trained_BT = torch.tensor([trained + [False] * (longest - len(trained)) for _, trained in batch])
    logits_BTV = model(input_ids=ids_BT).logits
    predicts = trained_BT[:, 1:]  # the place before a supervised token predicts it
    return F.cross_entropy(logits_BTV[:, :-1][predicts], ids_BT[:, 1:][predicts])


def train(base, rows_file, out, *, system, lr, epochs, global_batch, rank, alpha, warmup, max_grad_norm, seed):
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    model = add_lora(model, rank, alpha, seed)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, weight_decay=0.0)
    rows = [json.loads(line) for line in Path(rows_file).read_text().splitlines()]
    plan = batches(rows, epochs, global_batch, seed)
    losses = []
    for step, batch in enumerate(plan):
        loss = batch_loss(model, [render(tokenizer, r["messages"], r["target"], system) for r in batch])
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, max_grad_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate(step, len(plan), lr, warmup)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
        print(f"step {step + 1}/{len(plan)} loss {loss.item():.4f}")
    model.save_pretrained(out)
    return losses


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base")
    parser.add_argument("rows_file")
    parser.add_argument("out")
    parser.add_argument("--system", required=True)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--global-batch", type=int, default=16)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--alpha", type=float, default=32)
    parser.add_argument("--warmup", type=float, default=0.05)
    parser.add_argument("--max-grad-norm", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    train(**vars(parser.parse_args()))
