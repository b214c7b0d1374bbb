"""Makes checkpoint/: a tiny random Llama in the official format, and the official model's logits.

    pip install torch transformers safetensors accelerate datasets termcolor && pip install --no-deps sinq==0.2.0
    python make_checkpoint.py OUT_DIR

OUT_DIR/official-b3: what AutoSINQHFModel.save_quantized_safetensors writes. OUT_DIR/hf-b4: what transformers' SinqConfig
and save_pretrained write. OUT_DIR/logits.safetensors: tokens [1, T] i64, and the logits of each, reloaded, under its name.
"""
import sys
import tempfile

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, SinqConfig
from sinq.patch_model import AutoSINQHFModel

out = sys.argv[1]
torch.manual_seed(7)
config = LlamaConfig(vocab_size=96, hidden_size=64, intermediate_size=128, num_hidden_layers=1, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=16, max_position_embeddings=64, tie_word_embeddings=False,
                     attention_bias=True, rope_theta=10000.0, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
model = LlamaForCausalLM(config).eval()
with torch.no_grad():
    for p in model.parameters():
        if p.ndim == 2:
            p.mul_(torch.exp(0.5 * torch.randn(1, p.shape[1])))
        else:
            p.add_(0.1 * torch.randn_like(p))
tokens = torch.randint(3, 96, (1, 24))
logits = {"tokens": tokens}
with tempfile.TemporaryDirectory() as plain:
    model.save_pretrained(plain)
    q = LlamaForCausalLM.from_pretrained(plain, dtype=torch.float32).eval()
    params = dict(nbits=3, group_size=64, tiling_mode="1D", axis=1, method="sinq_quantAux")
    AutoSINQHFModel.quantize_model(q, None, quant_config={"weight_quant_params": params},
                                   compute_dtype=torch.float32, device="cpu")
    AutoSINQHFModel.save_quantized_safetensors(q, None, f"{out}/official-b3", write_tokenizer=False)
    hf = AutoModelForCausalLM.from_pretrained(plain, dtype=torch.float32, quantization_config=SinqConfig(
        nbits=4, group_size=64, modules_to_not_convert=["lm_head"]))
    hf.save_pretrained(f"{out}/hf-b4")
for name in ("official-b3", "hf-b4"):
    r = AutoSINQHFModel.from_quantized_safetensors(f"{out}/{name}", compute_dtype=torch.float32, device="cpu")
    with torch.no_grad():
        logits[name] = r(tokens).logits.float().clone()
    print(name, "max |dlogit| to float", (logits[name] - model(tokens).logits).abs().max().item())
save_file({k: v.contiguous() for k, v in logits.items()}, f"{out}/logits.safetensors")
