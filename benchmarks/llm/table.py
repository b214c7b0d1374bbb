"""What each way to quantize costs a language model: perplexity, KL from the float model and changed tokens, beside
honest bits per weight. README.md says what the rows are; run.sh builds the tool and calls this.
"""
import argparse
import datetime
import importlib.util
import json
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys

import orders
import report
from rows import FLOAT, all_rows

GGML_PACKAGES = ("numpy", "gguf", "llama_cpp")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL_DIR", type=pathlib.Path, help="a float model")
    parser.add_argument("--calibration", metavar="FILE", type=pathlib.Path, required=True,
                        help="the text that calibrated methods see")
    parser.add_argument("--text", metavar="FILE", type=pathlib.Path, required=True, help="the text that is scored")
    parser.add_argument("--out", metavar="DIR", type=pathlib.Path, default=pathlib.Path("build/llm"),
                        help="takes what is found, and what is there is not measured again (default: %(default)s)")
    parser.add_argument("--only", metavar="REGEX", default="", help="measure only rows whose name matches")
    parser.add_argument("--windows", type=int, default=12, help="windows of the text that are scored (default: 12)")
    parser.add_argument("--window", type=int, default=512, help="tokens of a window (default: 512)")
    parser.add_argument("--tokens", type=int, default=8192, help="tokens of a calibration (default: 8192)")
    parser.add_argument("--together", type=int, default=4, help="models on the disk and scored at once (default: 4)")
    parser.add_argument("--tool", type=pathlib.Path, default=pathlib.Path("build/release/bin/sinq"),
                        help="the tool sinq (default: %(default)s)")
    return parser.parse_args()


def say(text):
    print(text, file=sys.stderr, flush=True)


def call(command):
    """Runs a command; a RuntimeError says what it said if it failed."""
    done = subprocess.run([str(part) for part in command], text=True, capture_output=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise RuntimeError(said[-1] if said else f"exit status {done.returncode}")


def write_json(path, document):
    """The file appears whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(path)


def read_json(path):
    return json.loads(path.read_text()) if path.exists() else None


def processor():
    known = pathlib.Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.split(": ", 1)[1] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


class Bench:
    """One output directory: moments, models while they are scored, and a file for each row that is done."""

    def __init__(self, arguments):
        self.a, self.out = arguments, arguments.out
        self.rows_dir, self.models = self.out / "rows", self.out / "models"
        for folder in (self.rows_dir, self.models):
            folder.mkdir(parents=True, exist_ok=True)
        self.check_settings()
        self.plan = self.make_plan()

    def check_settings(self):
        """Rows of other models, texts or windows are not put in one table."""
        a = self.a
        asked = {"model": str(a.model.resolve()), "text": str(a.text.resolve()),
                 "calibration": str(a.calibration.resolve()), "window": a.window, "windows": a.windows,
                 "tokens": a.tokens}
        found = read_json(self.out / "settings.json")
        if found not in (None, asked):
            raise RuntimeError(f"{self.out} has results of other settings, {found}: give another --out or remove it")
        write_json(self.out / "settings.json", asked)

    def make_plan(self):
        """Which tensors are quantized."""
        path = self.out / "plan.json"
        call([self.a.tool, "quantize", self.a.model, "--dry-run", "--quiet", "--json", path])
        return path

    def moments(self, kind):
        """The file of that kind, which is made once."""
        path = self.out / f"moments-{kind}.safetensors"
        if not path.exists():
            say(f"moments: {kind}")
            how = {"random": ["--random"], "self": ["--self", "--full"],
                   "text": ["--text", self.a.calibration, "--full"]}[kind]
            call([self.a.tool, "calibrate", self.a.model, "-o", path, "--tokens", self.a.tokens, "--precision", "exact",
                  "--window", self.a.window, "--quiet", *how])
        return path

    def asked_of(self, row):
        return {"options": list(row.options), "ggml_type": row.ggml_type, "calibration": row.calibration}

    def found(self, row):
        """What is kept of a row, if it was done in this way."""
        kept = read_json(self.rows_dir / f"{row.name}.json")
        return kept if kept and kept["asked"] == self.asked_of(row) else None

    def keep(self, row, scored, bits_per_weight):
        result = {"bits_per_weight": bits_per_weight, **scored}
        where = f"{datetime.date.today().isoformat()}, {processor()}, {os.cpu_count()} processors"
        write_json(self.rows_dir / f"{row.name}.json",
                   {"asked": self.asked_of(row), "measured": where, "result": result})
        say(f"{row.name}: {bits_per_weight:.3f} bits, perplexity {scored['perplexity']:.3f}, KL {scored['kl']:.4f}")

    def make(self, row):
        """Quantizes the model, unless that was done before; returns its directory and its bits per weight."""
        made, told = self.models / row.name, self.models / f"{row.name}.json"
        if not told.exists():
            shutil.rmtree(made, ignore_errors=True)
            if row.ggml_type:
                import ggml_model  # which needs packages that are not everywhere

                ggml_model.main(self.a.model, made, row.ggml_type, self.plan, told,
                                self.moments(row.calibration) if row.calibration else None)
            else:
                known = {row.calibration: self.moments(row.calibration)} if row.calibration else {}
                call([self.a.tool, "quantize", self.a.model, "-o", made, "--quiet", "--json", told,
                      *(option.format(**known) for option in row.options)])
        return made, read_json(told)["totals"]["bits_per_weight"]

    def score(self, rows):
        """Quantizes, scores and keeps some rows; returns those that failed, with why."""
        made, failed = {}, {}
        for row in rows:
            try:
                made[row] = self.make(row)
            except (OSError, RuntimeError) as error:
                failed[row] = str(error)
        if made:
            path = self.models / "scores.json"
            call([self.a.tool, "compare-models", *(directory for directory, _ in made.values()), "--against",
                  self.a.model, "--text", self.a.text, "--window", self.a.window, "--windows", self.a.windows,
                  "--precision", "exact", "--quiet", "--json", path])
            scores = read_json(path)
            self.keep_float(scores["against"])
            for (row, (directory, bits)), scored in zip(made.items(), scores["models"]):
                self.keep(row, {key: value for key, value in scored.items() if key != "model"}, bits)
                shutil.rmtree(directory)
                (self.models / f"{row.name}.json").unlink()
        return failed

    def keep_float(self, against):
        if self.found(FLOAT):
            return
        tensors = [t for t in read_json(self.plan)["tensors"] if t["quantized"]]
        weights = sum(t["shape"][0] * t["shape"][1] for t in tensors)
        self.keep(FLOAT, {"perplexity": against["perplexity"], "kl": 0, "kl_standard_error": None, "flips": 0,
                          "top5_overlap": 1, "each_window": against["each_window"]},
                  8 * sum(t["bytes_before"] for t in tensors) / weights)

    def measure(self):
        """Measures the rows that are asked for and not there; returns whether all could be."""
        todo = [row for row in all_rows() if re.search(self.a.only, row.name) and not self.found(row)]
        missing = [name for name in GGML_PACKAGES if importlib.util.find_spec(name) is None]
        if missing and any(row.ggml_type for row in todo):
            say(f"left out: ggml's types, for which Python has no {', '.join(missing)}")
            todo = [row for row in todo if not row.ggml_type]
        good = True
        for first in range(0, len(todo), self.a.together):
            batch = todo[first:first + self.a.together]
            say(f"rows {first + 1} to {first + len(batch)} of {len(todo)}")
            for row, why in self.score(batch).items():
                say(f"failed: {row.name}: {why}")
                good = False
        return good

    def present(self):
        """Prints the table of all rows that are there, and writes it in its other forms."""
        rows, a = [FLOAT, *all_rows()], self.a
        kept = {row.name: found for row in rows if (found := self.found(row))}
        results = {name: found["result"] for name, found in kept.items()}
        table = report.markdown(rows, results)
        checks = "".join(orders.line(order, results) + "\n" for order in orders.expected())
        head = (f"{a.model.name}, {a.windows} windows of {a.window} tokens of {a.text.name}; calibrated on {a.tokens} "
                f"tokens, text: {a.calibration.name}; {'; '.join(sorted({f['measured'] for f in kept.values()}))}\n")
        text = f"{head}\n{table}\n{checks}"
        (self.out / "table.md").write_text(text)
        print(text, end="")
        report.write_csv(self.out / "table.csv", rows, results)
        plot = self.out / "perplexity.svg"
        why_not = report.draw(rows, results, plot)
        say(f"{self.out}: table.md, table.csv" + (f"; no plot: {why_not}" if why_not else f", {plot.name}"))


def main():
    try:
        bench = Bench(parse_arguments())
        good = bench.measure()
        bench.present()
    except RuntimeError as error:
        sys.exit(f"error: {error}")
    sys.exit(0 if good else 1)


if __name__ == "__main__":
    main()
