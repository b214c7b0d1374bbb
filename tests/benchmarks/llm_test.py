"""benchmarks/llm on a tiny model of tests/golden/engine: python3 llm_test.py TOOL SOURCE_DIR [ggml]

Without ggml, what is tested needs Python alone; with it, the packages that ggml_model.py imports, in the environment of
cmake/check_hf.sh.
"""
import csv
import json
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile

TOOL, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
LLM = SOURCE / "benchmarks" / "llm"
sys.dont_write_bytecode = True
sys.path.insert(0, str(LLM))

import orders  # noqa: E402
import report  # noqa: E402

CHARACTERS = [chr(c) for c in range(ord("!"), ord("!") + 94)]


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def skip(why):
    print(f"SKIPPED: {why}")
    sys.exit(77)


def make_model(folder):
    """A golden model, and a tokenizer of single characters for it."""
    golden = SOURCE / "tests" / "golden" / "engine" / "llama"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        shutil.copy(golden / name, folder / name)
    vocabulary = {character: token for token, character in enumerate([*CHARACTERS, "\u0120", "\u010a"])}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps(
        {"version": "1.0", "added_tokens": [], "normalizer": None, "pre_tokenizer": level, "post_processor": None,
         "decoder": level, "model": {"type": "BPE", "vocab": vocabulary, "merges": []}}))
    return folder


def make_text(path, seed, length):
    draw = random.Random(seed)
    path.write_text("".join(draw.choice(CHARACTERS) for _ in range(length)))
    return path


def run_table(work, *options, python=(sys.executable, "-B")):
    return subprocess.run(
        [*python, LLM / "table.py", work / "model", "--calibration", work / "calibration", "--text", work / "text",
         "--out", work / "out", "--tool", TOOL, "--window", "24", "--windows", "3", "--tokens", "96", "--together", "3",
         *options], text=True, capture_output=True)


def prepare(work):
    make_model(work / "model")
    make_text(work / "calibration", 1, 200)
    make_text(work / "text", 2, 100)


def row_file(work, name):
    return work / "out" / "rows" / f"{name}.json"


def read(path):
    return json.loads(path.read_text())


def said(run, text):
    expect(text in run.stdout, f"the table lacks {text!r}:\n{run.stdout}{run.stderr}")


MEASURED = ["4-rtn", "4-hqq", "4-sinq", "4-paper", "4-refined", "4-asinq", "4-refined-self-feedback"]
ONLY = f"^({'|'.join(MEASURED)})$"


def test_table(work):
    """Numbers are those of the tool asked directly; all forms of the table have every row."""
    run = run_table(work, "--only", ONLY)
    expect(run.returncode == 0, run.stderr)
    for label in ("| float |", "| RTN |", "| HQQ |", "| A-SINQ | text |",
                  "| SINQ, refined, error feedback | own texts |"):
        said(run, label)
    said(run, "3-sinq < 3-rtn: not measured (3-sinq, 3-rtn)")
    with open(work / "out" / "table.csv") as file:
        expect([row["name"] for row in csv.DictReader(file)] == ["float", *MEASURED], "the rows of table.csv")
    expect(not list((work / "out" / "models").glob("4-*")), "models stay after they are scored")

    direct = work / "direct.json"
    subprocess.run([TOOL, "compare-models", work / "model", "--method", "rtn", "--bits", "4", "--group-size", "64",
                    "--against", work / "model", "--text", work / "text", "--window", "24", "--windows", "3",
                    "--precision", "exact", "--json", direct, "--quiet"], check=True, capture_output=True)
    found, asked = read(row_file(work, "4-rtn"))["result"], read(direct)
    for key in ("perplexity", "kl", "flips"):
        expect(found[key] == asked["models"][0][key], f"{key} of 4-rtn is not that of compare-models --method rtn")
    expect(read(row_file(work, "float"))["result"]["perplexity"] == asked["against"]["perplexity"],
           "perplexity of the float model")
    expect(read(row_file(work, "float"))["result"]["bits_per_weight"] == 16, "bits of bf16")


def test_resuming(work):
    """Only the row that is missing is measured; one that was tampered with stays, and its wrong order is told."""
    tampered = read(row_file(work, "4-sinq"))
    tampered["result"]["perplexity"] = 1e6
    row_file(work, "4-sinq").write_text(json.dumps(tampered))
    before = read(row_file(work, "4-hqq"))
    row_file(work, "4-hqq").unlink()
    run = run_table(work, "--only", ONLY)
    expect(run.returncode == 0, run.stderr)
    expect("rows 1 to 1 of 1" in run.stderr, f"not one row was measured again:\n{run.stderr}")
    expect(read(row_file(work, "4-hqq"))["result"] == before["result"], "a row measured again differs")
    said(run, "perplexity: 4-sinq < 4-rtn: **DOES NOT HOLD**: 1e+06")
    said(run, "perplexity: 4-asinq <= 4-sinq: holds")


def test_other_way(work):
    """A row that was found in another way than it would be now is measured again."""
    other = read(row_file(work, "4-rtn"))
    other["asked"]["options"] = ["--bits", "8"]
    row_file(work, "4-rtn").write_text(json.dumps(other))
    run = run_table(work, "--only", "^4-rtn$")
    expect("rows 1 to 1 of 1" in run.stderr, f"not measured again:\n{run.stderr}")
    expect(read(row_file(work, "4-rtn"))["asked"]["options"] != ["--bits", "8"], "the other row stays")


def test_failures(work):
    run = run_table(work, "--window", "32")
    expect(run.returncode == 1 and "other settings" in run.stderr, f"settings are mixed:\n{run.stderr}")
    broken = work / "broken"
    broken.write_text('#!/bin/sh\ncase "$*" in *--dry-run*|compare-models*) exec "$REAL" "$@" ;; esac\n'
                      'echo "sinq: error: planted" >&2; exit 1\n')
    broken.chmod(0o755)
    os.environ["REAL"] = TOOL
    run = run_table(work, "--only", "^3-rtn$", "--tool", str(broken))
    expect(run.returncode == 1 and "failed: 3-rtn: sinq: error: planted" in run.stderr, f"no failure:\n{run.stderr}")
    said(run, "| RTN |")


def test_orders():
    def result(value):
        return {"perplexity": value, "kl": value, "each_window": {"nll": [value, value + 1], "kl": [value, value]}}

    results = {"a": result(1.0), "b": result(2.0)}
    for order, holds in ((orders.Order("a", "b", "kl"), True), (orders.Order("b", "a", "kl"), False),
                         (orders.Order("a", "a", "kl"), False), (orders.Order("a", "a", "kl", or_equal=True), True),
                         (orders.Order("a", "b", "kl", .5, True), True), (orders.Order("a", "b", "kl", .49), False)):
        expect(order.holds(results) == holds, f"{order}")
        expect(("DOES NOT HOLD" in orders.line(order, results)) == (not holds), orders.line(order, results))
    mean, error = orders.paired_difference([1, 2, 6], [0, 0, 0])
    # variance of 1, 2, 6 is (4 + 1 + 9) / 2, that of the mean a third of it
    expect(mean == 3 and abs(error - (7 / 3) ** 0.5) < 1e-15, "the mean of differences, and its standard error")


def test_front():
    points = {"cheap": (1, 9), "good": (2, 3), "dear": (3, 3), "worse": (2, 4), "twin": (2, 3), "best": (4, 1)}
    expect(report.pareto_front(points) == {"cheap", "good", "twin", "best"}, "the Pareto front")


def test_plot(work):
    if shutil.which("gnuplot") is None:
        print("no gnuplot: the plot is not tested")
        return
    expect((work / "out" / "perplexity.svg").read_text().rstrip().endswith("</svg>"), "the plot is no SVG")


def test_ggml(work):
    venv = pathlib.Path(os.environ.get("SINQ_HF_VENV", pathlib.Path.home() / ".cache" / "sinq-hf-venv"))
    packages = list(venv.glob("lib/python3*/site-packages"))
    if not packages:
        skip(f"{venv} is no Python environment, which benchmarks/llm/run.sh makes")
    os.environ["PYTHONPATH"] = str(packages[0])
    python = (venv / "bin" / "python", "-S", "-B")
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec(sys.argv[1]) is None)"
    missing = [name for name in ("numpy", "gguf", "llama_cpp")
               if subprocess.run([*python, "-c", code, name]).returncode != 0]
    if missing:
        skip(f"{venv} has no {', '.join(missing)}")
    check = SOURCE / "tests" / "benchmarks" / "llm_ggml_check.py"
    done = subprocess.run([*python, check, LLM, TOOL, work / "model", work], text=True, capture_output=True)
    expect(done.returncode == 0, done.stdout + done.stderr)
    run = run_table(work, "--only", "^ggml-(Q4_K|Q4_K-self)$", python=python)
    expect(run.returncode == 0, run.stderr)
    said(run, "| ggml Q4_K |  | 4.500 |")
    said(run, "| ggml Q4_K, importance matrix | own texts | 4.500 |")


def main():
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        prepare(work)
        if sys.argv[3:] == ["ggml"]:
            test_ggml(work)
            return
        test_orders()
        test_front()
        test_table(work)
        test_plot(work)
        test_resuming(work)
        test_other_way(work)
        test_failures(work)


if __name__ == "__main__":
    main()
