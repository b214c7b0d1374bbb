"""Makes engine/: tiny random decoder-only models as Hugging Face directories, and what transformers computes with them.

    pip install torch transformers safetensors && python make_engine.py OUT_DIR

OUT_DIR/NAME/config.json and model.safetensors (bf16): as transformers' save_pretrained writes them.
OUT_DIR/NAME/expected.safetensors, computed in f32 from exactly those bf16 weights with eager attention:
  tokens       [2, 24] i64
  logits       [2, 24, 96] f32
  continuation [2, 12] i64, the likeliest token each time, well ahead of the second; no end token, few repetitions
  frequencies  [head_dim / 2] f32, angles of the rotary positions per position

Every setting and every weight vector of a model matters: the script stops if leaving one out changes no logit.
"""
import json
import os
import pathlib
import sys
import tempfile

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

VOCABULARY, SEQUENCES, LENGTH, CONTINUED, END = 96, 2, 24, 12, 2
LEAST_EFFECT = 0.02  # of what is left out on the logits, whose standard deviation is about 2
LEAST_LEAD = 0.05    # of the likeliest token over the second
LEAST_DIFFERENT = 6  # tokens of a continuation

WIDE = dict(hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
NARROW = dict(hidden_size=32, num_attention_heads=4, num_key_value_heads=2)


def rope(theta, kind="default", **scaling):
    return dict(rope_parameters=dict(rope_theta=theta, rope_type=kind, **scaling))


MODELS = {
    "llama": dict(model_type="llama", **WIDE, intermediate_size=96, tie_word_embeddings=True, attention_bias=True,
                  mlp_bias=True, rms_norm_eps=1e-5, **rope(10000.0)),
    "llama3": dict(model_type="llama", **WIDE, intermediate_size=48, tie_word_embeddings=False, rms_norm_eps=1e-5,
                   **rope(500.0, "llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                          original_max_position_embeddings=32)),
    "linear": dict(model_type="llama", **NARROW, intermediate_size=96, tie_word_embeddings=True, rms_norm_eps=1e-5,
                   **rope(10000.0, "linear", factor=4.0)),
    "mistral": dict(model_type="mistral", **WIDE, intermediate_size=48, tie_word_embeddings=False, rms_norm_eps=1e-5,
                    sliding_window=7, **rope(10000.0)),
    "qwen2": dict(model_type="qwen2", **NARROW | dict(num_key_value_heads=1), intermediate_size=96,
                  tie_word_embeddings=True, rms_norm_eps=1e-6, **rope(1000000.0)),
    "qwen3": dict(model_type="qwen3", **NARROW, head_dim=16, intermediate_size=96, tie_word_embeddings=True,
                  rms_norm_eps=1e-6, **rope(1000000.0)),
}
WITHOUT = {  # what a reader could leave out
    "llama3": [rope(500.0), rope(500.0, "linear", factor=8.0)],
    "linear": [rope(10000.0)],
    "mistral": [dict(sliding_window=None), dict(sliding_window=6), dict(sliding_window=8)],
}


def random_model(settings, seed):
    torch.manual_seed(seed)
    kind = settings["model_type"]
    config = AutoConfig.for_model(kind, **{k: v for k, v in settings.items() if k != "model_type"},
                                  num_hidden_layers=2, vocab_size=VOCABULARY, max_position_embeddings=128,
                                  bos_token_id=1, eos_token_id=END)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 2:
                strong = any(part in name for part in ("q_proj", "o_proj", "down_proj", "embed", "lm_head"))
                p.copy_((2.0 if strong else 1.0) * p.shape[1] ** -0.5 * torch.randn_like(p))
            elif name.endswith("bias"):
                p.copy_(0.3 * torch.randn_like(p))
            else:
                p.copy_(torch.exp(0.3 * torch.randn_like(p)))
    return model


def load(directory, config=None):
    return AutoModelForCausalLM.from_pretrained(directory, config=config, dtype=torch.float32,
                                                attn_implementation="eager").eval()


@torch.no_grad()
def logits_of(model, tokens):
    return model(tokens, use_cache=False).logits


def continue_greedily(model, tokens):
    """The tokens that follow, and the least lead of a chosen token."""
    lead = float("inf")
    for _ in range(CONTINUED):
        best = logits_of(model, tokens)[:, -1].topk(2)
        lead = min(lead, (best.values[:, 0] - best.values[:, 1]).min().item())
        tokens = torch.cat([tokens, best.indices[:, :1]], dim=1)
    return tokens[:, -CONTINUED:], lead


def older_config(document):
    """config.json as transformers 4 wrote it."""
    document = dict(document)
    scaling = dict(document.pop("rope_parameters"))
    document["rope_theta"] = scaling.pop("rope_theta")
    document["rope_scaling"] = None if scaling["rope_type"] == "default" else scaling
    document["torch_dtype"] = document.pop("dtype")
    return document


def check_settings_matter(name, directory, tokens, logits):
    document = json.loads((directory / "config.json").read_text())
    with tempfile.TemporaryDirectory() as other:
        (pathlib.Path(other) / "config.json").write_text(json.dumps(older_config(document)))
        same = logits_of(load(directory, AutoConfig.from_pretrained(other)), tokens)
        assert torch.equal(same, logits), f"{name}: the older form of config.json changes the logits"
    for change in WITHOUT.get(name, []) + [rope(20.0)]:
        changed = load(directory, AutoConfig.from_pretrained(directory, **change))
        effect = (logits_of(changed, tokens) - logits).abs().max()
        print(f"{name}: {change} changes a logit by {effect:.3g}")
        assert effect > LEAST_EFFECT
    model = load(directory)
    for parameter, p in model.named_parameters():
        if p.ndim == 1:
            kept = p.detach().clone()
            p.data.fill_(0.0 if parameter.endswith("bias") else 1.0)
            effect = (logits_of(model, tokens) - logits).abs().max()
            p.data.copy_(kept)
            # A bias of k adds the same to every score of a query but for the rotation.
            assert effect > (LEAST_EFFECT if "k_proj" not in parameter else 1e-3), f"{name}: {parameter} {effect}"


def make(name, settings, directory):
    seed = 0
    while True:
        random_model(settings, seed).to(torch.bfloat16).save_pretrained(directory)
        os.remove(directory / "generation_config.json")
        model = load(directory)
        tokens = torch.randint(3, VOCABULARY, (SEQUENCES, LENGTH))
        continuation, lead = continue_greedily(model, tokens)
        different = min(row.unique().numel() for row in continuation)
        if lead > LEAST_LEAD and different >= LEAST_DIFFERENT and not (continuation == END).any():
            break
        seed += 1
    logits = logits_of(model, tokens)
    check_settings_matter(name, directory, tokens, logits)
    rounding = (logits_of(load(directory).double(), tokens) - logits).abs().max().item()
    print(f"{name}: seed {seed}, logits' standard deviation {logits.std():.2f}, f64 products differ by {rounding:.2g}, "
          f"least lead {lead:.3f}, continuation {continuation.tolist()}")
    save_file({"tokens": tokens, "logits": logits.contiguous(), "continuation": continuation.contiguous(),
               "frequencies": model.model.rotary_emb.inv_freq.float().contiguous()},
              directory / "expected.safetensors")


if __name__ == "__main__":
    torch.set_num_threads(1)
    for name, settings in MODELS.items():
        make(name, settings, pathlib.Path(sys.argv[1]) / name)
