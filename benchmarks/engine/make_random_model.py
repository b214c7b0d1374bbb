"""Writes a llama model of random weights in bf16, to measure speed on: by default of 1.1 billion, as TinyLlama has.

It has no tokenizer: sinq_bench_engine and llama.py give tokens by their numbers.
"""
import argparse
import json
import pathlib

import numpy


def tensors(a):
    """Names and shapes, in the order of the file."""
    head_dim = a.hidden // a.heads
    key = a.kv_heads * head_dim
    yield "model.embed_tokens.weight", (a.vocabulary, a.hidden)
    for n in range(a.layers):
        layer = f"model.layers.{n}."
        for name, shape in (("self_attn.q_proj", (a.hidden, a.hidden)), ("self_attn.k_proj", (key, a.hidden)),
                            ("self_attn.v_proj", (key, a.hidden)), ("self_attn.o_proj", (a.hidden, a.hidden)),
                            ("mlp.gate_proj", (a.intermediate, a.hidden)), ("mlp.up_proj", (a.intermediate, a.hidden)),
                            ("mlp.down_proj", (a.hidden, a.intermediate)), ("input_layernorm", (a.hidden,)),
                            ("post_attention_layernorm", (a.hidden,))):
            yield f"{layer}{name}.weight", shape
    yield "model.norm.weight", (a.hidden,)
    yield "lm_head.weight", (a.vocabulary, a.hidden)


def bfloat16(values):
    bits = values.view(numpy.uint32)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")


def write(a):
    a.directory.mkdir(parents=True, exist_ok=True)
    config = {"model_type": "llama", "hidden_act": "silu", "hidden_size": a.hidden,
              "intermediate_size": a.intermediate, "num_hidden_layers": a.layers, "num_attention_heads": a.heads,
              "num_key_value_heads": a.kv_heads, "vocab_size": a.vocabulary, "max_position_embeddings": 2048,
              "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}
    (a.directory / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    header, at = {}, 0
    for name, shape in tensors(a):
        size = 2 * int(numpy.prod(shape))
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    random = numpy.random.default_rng(a.seed)
    with open(a.directory / "model.safetensors", "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, shape in tensors(a):
            if len(shape) == 1:
                values = numpy.ones(shape, numpy.float32)
            else:
                values = random.standard_normal(shape, dtype=numpy.float32) * numpy.float32(0.02)
            file.write(bfloat16(values).tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("directory", type=pathlib.Path)
    for name, value in (("hidden", 2048), ("intermediate", 5632), ("layers", 22), ("heads", 32), ("kv-heads", 4),
                        ("vocabulary", 32000), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=value, help=f"default {value}")
    write(parser.parse_args())


if __name__ == "__main__":
    main()
