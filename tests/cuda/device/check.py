#!/usr/bin/env python3
"""Compiles every kernel that sinq::cuda can launch, with all warnings, spills and local memory as errors, and holds what
comes out to a table: how many mma.sync, lop3 and cp.async instructions the PTX of each kernel has, and how many registers
it takes at most. No kernel may have a stack frame.

  check.py [--nvcc NVCC] [--launcher CCACHE] [--write] compute_80=sm_80,sm_86 ...

With --write the table is made anew; give all architectures then. Status 0: as the table says; 77: no nvcc.
"""

import argparse
import collections
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parents[2] / "include"
TABLE = HERE / "resources.txt"
COUNTED = {"mma": "mma.sync", "lop3": "lop3.b32", "cp.async": "cp.async.cg"}
COLUMNS = [*COUNTED, "registers"]


def compile_kernels(nvcc, launcher, virtual, reals):
    """The object file's bytes, and what nvcc printed."""
    with tempfile.TemporaryDirectory() as folder:
        output = pathlib.Path(folder) / "kernels.o"
        command = [*launcher, nvcc, "-std=c++20", "-c", f"-I{INCLUDE}", "-Werror", "all-warnings", "--no-compress",
                   "-Xptxas", "-v,-warn-spills,-warn-lmem-usage,-Werror",
                   "-gencode", f"arch={virtual},code=[{','.join([virtual, *reals])}]",
                   str(HERE / "instances.cu"), "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in (done.stdout + done.stderr).splitlines()
                    if not re.match(r"ptxas info|    \d+ bytes stack", line)]
            sys.exit("\n".join([" ".join(command), *said]))
        return output.read_bytes(), done.stdout + done.stderr


def demangle(names):
    """Kernels by mangled name: "few_tokens<2, f16, 1>"."""
    text = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True).stdout
    short = {}
    for mangled, line in zip(names, text.splitlines()):
        name = re.sub(r"\([^()]*\)$", "", line)
        name = re.sub(r"^void ", "", name)
        name = re.sub(r"\(sinq::cuda::(kernels::)?(code_form|output_type)\)", "", name)
        name = name.replace("sinq::cuda::kernels::", "").replace("sinq::cuda::", "")
        short[mangled] = re.sub(r"(\d)u\b", r"\1", name).replace(" ", "")
    return short


def instructions(binary):
    """Of the PTX in an object file: counts by mangled name of the kernel."""
    begin = binary.find(b".version ")
    if begin < 0:
        sys.exit("no PTX in the object file")
    ptx = binary[begin:binary.index(b"\0", begin)].decode()
    counts = {}
    for kernel in ptx.split(".entry ")[1:]:
        name, body = kernel.split("(", 1)
        counts[name] = {column: len(re.findall(rf"^\s*(?:@!?%p\d+ )?{re.escape(word)}\b", body, re.MULTILINE))
                        for column, word in COUNTED.items()}
    return counts


def resources(log):
    """From ptxas: [(mangled name, architecture, bytes of stack, registers)]."""
    pattern = (r"Compiling entry function '(\w+)' for '(sm_\w+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers")
    return [(name, sm, int(stack), int(registers))
            for name, sm, stack, registers in re.findall(pattern, log, re.DOTALL)]


def measure(nvcc, launcher, architectures):
    """For each virtual architecture: {kernel: {column: number}}; registers are the most of its real ones."""
    measured = {}
    for architecture in architectures:
        virtual, _, reals = architecture.partition("=")
        reals = reals.split(",")
        binary, log = compile_kernels(nvcc, launcher, virtual, reals)
        counts = instructions(binary)
        names = demangle(list(counts))
        kernels = {names[mangled]: dict(columns, registers=0) for mangled, columns in counts.items()}
        reported = collections.Counter()
        for mangled, sm, stack, registers in resources(log):
            if stack != 0:
                sys.exit(f"{names[mangled]} on {sm}: {stack} bytes of stack")
            reported[sm] += 1
            kernels[names[mangled]]["registers"] = max(kernels[names[mangled]]["registers"], registers)
        if dict(reported) != {sm: len(counts) for sm in reals}:
            sys.exit(f"ptxas reports {dict(reported)}, but the PTX has {len(counts)} kernels")
        measured[virtual] = kernels
        print(f"{virtual}: {len(counts)} kernels on {', '.join(reals)}")
    return measured


def release_of(nvcc):
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    return re.search(r"release (\S+),", text).group(1)


def read_table():
    lines = TABLE.read_text().splitlines()
    release = lines[0].split()[-1]
    rows = [line.split() for line in lines if line and not line.startswith("#")]
    return release, {row[-1]: dict(zip(COLUMNS, map(int, row))) for row in rows}


def write_table(measured, release):
    rows = {name: dict(columns) for name, columns in measured["compute_80"].items()}
    for kernels in measured.values():
        for name, columns in kernels.items():
            rows[name]["registers"] = max(rows[name]["registers"], columns["registers"])
    lines = [f"# What each kernel is made of; written by check.py --write with nvcc {release}",
             "# Instructions of its PTX for compute_80, registers at most on any architecture",
             "# " + " ".join(COLUMNS) + " kernel"]
    lines += [" ".join(f"{row[column]:4}" for column in COLUMNS) + "  " + name for name, row in sorted(rows.items())]
    TABLE.write_text("\n".join(lines) + "\n")


def expected_count(virtual, column, in_table, found):
    """How many instructions a kernel should have. Before compute_80 there are neither mma nor cp.async; lop3 is not
    counted there. Loops of copies are unrolled differently from compute_90 on: what counts is whether there are any."""
    if int(virtual.split("_")[1]) < 80:
        return found if column == "lop3" else 0
    if column == "cp.async" and virtual != "compute_80":
        return found if (found > 0) == (in_table > 0) else in_table
    return in_table


def differences(measured, release):
    """Sentences on all that is not as the table says."""
    table_release, table = read_table()
    problems = []
    for virtual, kernels in measured.items():
        problems += [f"{virtual}: {name} is only in {'the table' if name in table else 'the code'}"
                     for name in sorted(table.keys() ^ kernels.keys())]
        for name in sorted(table.keys() & kernels.keys()):
            found, row = kernels[name], table[name]
            for column in COUNTED:
                expected = expected_count(virtual, column, row[column], found[column])
                if found[column] != expected:
                    problems.append(f"{virtual}: {name} has {found[column]} {column}, the table {expected}")
            if release == table_release and found["registers"] > row["registers"]:
                problems.append(f"{virtual}: {name} takes {found['registers']} registers, the table {row['registers']}")
    if release != table_release:
        print(f"registers not compared: nvcc {release}, the table is of {table_release}")
    return problems


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--launcher", default="")
    parser.add_argument("--write", action="store_true")
    parser.add_argument("architectures", nargs="+")
    options = parser.parse_args()
    nvcc = shutil.which(options.nvcc)
    if nvcc is None:
        print("SKIPPED: no nvcc")
        return 77
    measured = measure(nvcc, options.launcher.split(), options.architectures)
    if options.write:
        write_table(measured, release_of(nvcc))
        return 0
    problems = differences(measured, release_of(nvcc))
    print("\n".join(problems))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
