"""Times llama.cpp beside sinq_bench_engine on the same float model, quantized by each, in the same rounds. Run by run.sh.

Every round llama.cpp reads the prompt and writes after each context, then sinq_bench_engine does the same in a round of
its own; ratios are taken within rounds. Linear layers have 4 bits in both; the embedding and the output matrix stay in
16 bits in both.
"""
import argparse
import ctypes
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import gguf
import llama_cpp
import numpy

sys.path[:0] = [str(pathlib.Path(__file__).parents[1] / folder) for folder in ("llm", "measure")]
from ggml_model import read_safetensors, to_floats  # noqa: E402
from one_round import listed, one_round  # noqa: E402

LAYER = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def floats(directory):
    """Names and values of the tensors of a directory."""
    for path in sorted(directory.glob("*.safetensors")):
        for name, tensor in read_safetensors(path).items():
            yield name, to_floats(*tensor)


def interleaved(weight, heads):
    """Rows of q or k as llama.cpp rotates them: pairs side by side instead of half a head apart."""
    rows, cols = weight.shape
    return weight.reshape(heads, 2, rows // heads // 2, cols).swapaxes(1, 2).reshape(rows, cols)


def write_gguf(directory, kind, path):
    """A llama model in a directory as a GGUF file whose linear layers are of that kind."""
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    if config["model_type"] != "llama":
        raise SystemExit(f"{directory}: config.json: model_type is {config['model_type']}, expected llama")
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_dimension_count(config["hidden_size"] // heads)
    writer.add_rope_freq_base(config.get("rope_theta") or config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("no_vocab")
    types = gguf.GGMLQuantizationType
    for name, values in floats(directory):
        stem, _, part = name.rpartition(".")
        layer = stem.split(".", 3)
        if stem in WHOLE:
            to = WHOLE[stem]
        else:
            to = f"blk.{layer[2]}.{LAYER[layer[3]]}"
        if "q_proj" in stem or "k_proj" in stem:
            values = interleaved(values, heads if "q_proj" in stem else kv_heads)
        if values.ndim == 1:
            writer.add_tensor(f"{to}.{part}", numpy.ascontiguousarray(values, numpy.float32))
            continue
        type_of = types.F16 if stem in WHOLE else types[kind]
        writer.add_tensor(f"{to}.{part}", gguf.quants.quantize(numpy.ascontiguousarray(values), type_of),
                          raw_dtype=type_of)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class Llama:
    """A model in llama.cpp, given tokens by their numbers."""

    def __init__(self, path, threads, length, vocabulary):
        self.log = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.log, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        model = llama_cpp.llama_model_default_params()
        model.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(os.fsencode(path), model)
        context = llama_cpp.llama_context_default_params()
        context.n_ctx, context.n_batch, context.n_ubatch = length, length, min(length, 512)
        context.n_threads = context.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, context)
        if not self.context:
            raise SystemExit(f"{path}: llama.cpp cannot open it")
        self.tokens = numpy.random.default_rng(1).integers(0, vocabulary, length)

    def read(self, begin, end, at_once):
        """Seconds to read tokens [begin, end), some at a time, after those before."""
        llama_cpp.llama_memory_seq_rm(llama_cpp.llama_get_memory(self.context), 0, begin, -1)
        start = time.perf_counter()
        for n in range(begin, end, at_once):
            some = (llama_cpp.llama_token * at_once)(*self.tokens[n:n + at_once].tolist())
            if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(some, at_once)) != 0:
                raise SystemExit("llama_decode failed")
            llama_cpp.llama_synchronize(self.context)
        return time.perf_counter() - start

    def round(self, arguments):
        """Tokens a second of the prompt, and after each context."""
        found = {"prompt": arguments.prompt / min(self.read(0, arguments.prompt, arguments.prompt) for _ in range(2))}
        for context in sorted(arguments.context):
            if context > arguments.prompt:
                self.read(0, context, context)
            self.read(context, context + arguments.tokens, 1)
            found[context] = arguments.tokens / self.read(context, context + arguments.tokens, 1)
        return found


def our_round(arguments, model):
    document = one_round(arguments.bench, model, "--threads", arguments.threads, "--prompt", arguments.prompt,
                         "--tokens", arguments.tokens, "--context", listed(arguments.context))
    found = document["found"][0]
    rates = {"prompt": found["prompt_tokens_per_second"]["median"]}
    for line in found["generation"]:
        rates[line["context"]] = line["tokens_per_second"]["median"]
        rates[f"read {line['context']}"] = line["weights_of_read"]["median"]
    return rates, document["machine"], found


def median_of(rounds, key):
    return statistics.median(found[key] for found in rounds)


def report(arguments, ours, theirs, machine, found):
    print(f"{machine['date']}: {machine['processor']}, {machine['instructions']}, {arguments.threads} threads, "
          f"{arguments.rounds} rounds")
    print(f"{arguments.float}: sinq {found['file_bytes'] / 1e6:.1f} MB, {found['resident_bytes'] / 1e6:.1f} MB in memory, "
          f"opened in {found['open_seconds']:.3f} s; llama.cpp {arguments.kind} {arguments.gguf_bytes / 1e6:.1f} MB")
    print(f"{'tokens/s':24} {'sinq':>9} {'llama.cpp':>9} {'ratio':>6} {'least..most':>12} {'of read':>8}")
    for key in ["prompt", *arguments.context]:
        name = f"prompt of {arguments.prompt}" if key == "prompt" else f"one after {key}"
        ratios = [a[key] / b[key] for a, b in zip(ours, theirs)]
        read = "-" if key == "prompt" else f"{median_of(ours, f'read {key}'):.3f}"
        print(f"{name:24} {median_of(ours, key):9.1f} {median_of(theirs, key):9.1f} {statistics.median(ratios):6.2f} "
              f"{f'{min(ratios):.2f}..{max(ratios):.2f}':>12} {read:>8}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    numbers = lambda text: [int(number) for number in text.split(",")]
    parser.add_argument("float", type=pathlib.Path, help="directory of a llama model in bf16, f16 or f32")
    parser.add_argument("quantized", help="the same model from sinq quantize, in panels")
    parser.add_argument("--kind", default="Q4_0", help="of llama.cpp's linear layers: Q4_0 or Q4_1")
    parser.add_argument("--bench", default="build/release/bin/sinq_bench_engine", help="our program")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512, help="tokens of the prompt")
    parser.add_argument("--context", type=numbers, default=[16, 512], help="tokens before those that are written")
    parser.add_argument("--tokens", type=int, default=16, help="that are written")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gguf")
        write_gguf(arguments.float, arguments.kind, path)
        arguments.gguf_bytes = os.path.getsize(path)
        vocabulary = json.loads((arguments.float / "config.json").read_text(encoding="utf-8"))["vocab_size"]
        length = max(arguments.prompt, max(arguments.context) + arguments.tokens)
        llama = Llama(path, arguments.threads, length, vocabulary)
        ours, theirs = [], []
        for _ in range(arguments.rounds):
            theirs.append(llama.round(arguments))
            rates, machine, found = our_round(arguments, arguments.quantized)
            ours.append(rates)
    report(arguments, ours, theirs, machine, found)


if __name__ == "__main__":
    main()
