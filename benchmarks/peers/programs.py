"""Times products of programs that are given as C++ sources beside sinq_bench_matmul's, in the same rounds.

    python3 benchmarks/peers/programs.py SOURCE.cpp... [OPTION...]

A program takes rows, columns and rounds, multiplies by 4-bit weights in groups of 64 that come from memory, and prints
a line a kernel: NAME,ROWS,COLUMNS,n=TOKENS,T=THREADS,MICROSECONDS us ...
"""
import argparse
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "measure"))
from one_round import listed, one_round  # noqa: E402

LINE = re.compile(r"^([^,\n]+),\d+,\d+,n=(\d+),T=(\d+),([\d.]+) us", re.M)


def compiled(source, folder):
    program = folder / pathlib.Path(source).stem
    compiler = os.environ.get("CXX", "g++")
    subprocess.run([compiler, "-std=c++20", "-O3", "-march=native", "-pthread", source, "-o", program], check=True)
    return program


def round_of(program, arguments):
    """Microseconds by tokens and threads: of the fastest kernel of the program."""
    said = subprocess.run([program, str(arguments.rows), str(arguments.cols), "1"], check=True, text=True,
                          stdout=subprocess.PIPE).stdout
    found = {}
    for name, tokens, threads, us in LINE.findall(said):
        key = int(tokens), int(threads)
        found[key] = min(found.get(key, (float("inf"), "")), (float(us), name.strip()))
    return found


def our_round(arguments, keys):
    """The same of sinq int8, and what part of the bytes that are read at most one token reads, by threads."""
    tokens, threads = (sorted({key[n] for key in keys}) for n in (0, 1))
    found = one_round(arguments.bench, "--rows", arguments.rows, "--cols", arguments.cols, "--precision", "int8",
                      "--tokens", listed(tokens), "--threads", listed(threads))
    us = {(row["tokens"], row["threads"]): row["seconds"]["median"] * 1e6 for row in found["products"]}
    of_read = {row["threads"]: row["of_read"]["median"] for row in found["products"] if row["tokens"] == 1}
    return us, of_read, found["machine"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sources", nargs="+", metavar="SOURCE.cpp")
    parser.add_argument("--bench", default="build/release/bin/sinq_bench_matmul", help="our program")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--cols", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rounds, shares, machine = [], [], {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        programs = [compiled(source, folder) for source in arguments.sources]
        for _ in range(arguments.rounds):
            theirs = {}
            for program in programs:
                for key, found in round_of(program, arguments).items():
                    theirs[key] = min(theirs.get(key, found), found)
            if not theirs:
                sys.exit("programs.py: no program printed a line of the form above")
            ours, share, machine = our_round(arguments, theirs)
            rounds.append((ours, theirs))
            shares.append(share)
    print(f"{machine['date']}: {machine['processor']}, {machine['instructions']}; {arguments.rows} x {arguments.cols}, "
          f"4 bits, groups of 64, {arguments.rounds} rounds")
    print(f"{'threads':>7} {'tokens':>6} {'sinq int8, us':>13} {'of 1 token':>10} {'best program, us':>16} {'':10} "
          f"{'sinq / program':>14} {'least..most':>13}")
    for tokens, threads in sorted(rounds[0][1], key=lambda key: key[::-1]):
        key = tokens, threads
        us = statistics.median(ours[key] for ours, _ in rounds)
        of_one = statistics.median(ours[key] / ours.get((1, threads), ours[key]) for ours, _ in rounds)
        best = [theirs[key] for _, theirs in rounds]
        ratios = [ours[key] / theirs[key][0] for ours, theirs in rounds]
        ends = f"{min(ratios):.2f}..{max(ratios):.2f}"
        print(f"{threads:7} {tokens:6} {us:13.1f} {of_one:10.2f} {statistics.median(b[0] for b in best):16.1f} "
              f"{best[-1][1]:10} {statistics.median(ratios):14.2f} {ends:>13}")
    for threads in sorted(shares[0]):
        found = [share[threads] for share in shares]
        ends = f"{min(found):.2f}..{max(found):.2f}"
        print(f"one token, {threads} threads: {statistics.median(found):.2f} [{ends}] of the bytes that are read at most")


if __name__ == "__main__":
    main()
