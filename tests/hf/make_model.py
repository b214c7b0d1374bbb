"""Makes a tiny random Llama as a Hugging Face directory, in the element type of a real one.

    python make_model.py OUT_DIR
"""
import sys

import torch
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(11)
config = LlamaConfig(vocab_size=160, hidden_size=128, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=32, max_position_embeddings=128, tie_word_embeddings=True,
                     attention_bias=True, rope_theta=10000.0, rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2)
model = LlamaForCausalLM(config)
with torch.no_grad():
    for p in model.parameters():
        if p.ndim == 2:
            p.mul_(torch.exp(0.5 * torch.randn(1, p.shape[1])))
        else:
            p.add_(0.1 * torch.randn_like(p))
model.to(torch.bfloat16).save_pretrained(sys.argv[1])
