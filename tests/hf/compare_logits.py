"""Loads a directory in the official format with transformers and the official sinq package, on the CPU, and compares its
logits with those of an ordinary directory.

    python compare_logits.py OFFICIAL_DIR ORDINARY_DIR MAX_ABS_DIFF

Exit status 0: it loads, layers are SINQ's, logits are finite and differ by no more.
"""
import sys

import torch
from transformers import AutoModelForCausalLM
from sinq.hf_io import patch_hf_pretrained_io

official, ordinary, limit = sys.argv[1], sys.argv[2], float(sys.argv[3])
patch_hf_pretrained_io()
quantized = AutoModelForCausalLM.from_pretrained(official, dtype=torch.float32).eval()
plain = AutoModelForCausalLM.from_pretrained(ordinary, dtype=torch.float32).eval()
layers = sum(type(m).__name__ == "SINQLinear" for m in quantized.modules())
torch.manual_seed(0)
tokens = torch.randint(3, plain.config.vocab_size, (1, 64))
with torch.no_grad():
    a, b = quantized(tokens).logits.float(), plain(tokens).logits.float()
difference = (a - b).abs().max().item()
print(f"{layers} SINQ layers, max |dlogit| {difference:.3g}, largest logit {b.abs().max().item():.3g}")
sys.exit(0 if layers > 0 and torch.isfinite(a).all() and difference <= limit else 1)
