"""benchmarks/peers/programs.py on a program and a sinq_bench_matmul of known times: python3 programs_test.py CXX SOURCE_DIR"""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

CXX, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
THEIRS = {(1, 1): 100.0, (16, 1): 1000.0}  # microseconds by tokens and threads; a second kernel takes twice as long
OURS = {(1, 1): 50.0, (16, 1): 1500.0}
FAKE_BENCH = """#!{python}
import json, sys
asked = dict(zip(sys.argv[1::2], sys.argv[2::2]))
assert asked["--tokens"] == "1,16" and asked["--threads"] == "1" and asked["--precision"] == "int8", asked
json.dump({found}, open(asked["--json"], "w"))
"""


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def run(folder, printed):
    source, bench = folder / "fake.cpp", folder / "bench"
    lines = "".join(f'std::puts("{line}");' for line in printed)
    source.write_text(f"#include <cstdio>\nint main() {{ {lines} }}\n")
    found = {"machine": {"date": "today", "processor": "none", "instructions": "none"},
             "products": [{"tokens": tokens, "threads": threads, "seconds": {"median": us / 1e6},
                           "of_read": {"median": 0.75}} for (tokens, threads), us in OURS.items()]}
    bench.write_text(FAKE_BENCH.format(python=sys.executable, found=repr(found)))
    bench.chmod(0o755)
    program = SOURCE / "benchmarks" / "peers" / "programs.py"
    return subprocess.run([sys.executable, "-B", program, source, "--bench", bench, "--rounds", "3"], capture_output=True,
                          text=True, env={**os.environ, "CXX": CXX}, check=False)


def main():
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        good = run(folder, [f"{kernel},64,64,n={tokens},T={threads},{factor * us} us [1..2],more"
                            for kernel, factor in (("fast", 1), ("slow", 2))
                            for (tokens, threads), us in THEIRS.items()])
        expect(good.returncode == 0, good.stderr)
        rows = {(int(row[1]), int(row[0])): row for row in map(str.split, good.stdout.splitlines())
                if re.fullmatch(r"\d+", row[0])}
        for key, theirs in THEIRS.items():
            ours = OURS[key]
            wanted = [f"{ours:.1f}", f"{ours / OURS[1, 1]:.2f}", f"{theirs:.1f}", "fast", f"{ours / theirs:.2f}"]
            expect(rows[key][2:7] == wanted, f"{rows[key]} instead of {wanted}")
        expect("0.75 [0.75..0.75] of the bytes" in good.stdout, good.stdout)
        wrong = run(folder, ["nothing of that form"])
        expect(wrong.returncode != 0 and "no program printed" in wrong.stderr, wrong.stderr)


if __name__ == "__main__":
    main()
