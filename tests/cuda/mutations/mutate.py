#!/usr/bin/env python3
"""Plants the faults of faults.txt into copies of include/sinq/cuda, one at a time, and requires that a short program of
tests here fails for each. Run after the tests were built:

  mutate.py [--build build/release] [--only REGEX] [--list]

A fault is its name, the file, the programs that are to catch it, the text as it is ("- ") and as it is not to be ("+ ");
in the text any white space is like any other. Status 1 if a text is not found exactly once, if a fault passes unnoticed
or does not compile, or if the programs fail without one.
"""

import argparse
import concurrent.futures
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[2]
INCLUDE = ROOT / "include"
OPTIONS = ["-std=c++20", "-O0", "-ffp-contract=off", "-w", "-DSINQ_SEPARATE_COMPILATION",
           '-DSINQ_CUDA_EMULATION="cuda/emulation/emulation.hpp"', f"-I{ROOT / 'tests'}", "-isystem",
           "/usr/include/eigen3"]
TIMEOUT_SECONDS = 300  # of a program that a fault keeps from ending


class Fault:
    def __init__(self, lines):
        self.name = lines[0].removeprefix("## ")
        self.file, *self.programs = lines[1].split()
        self.before = "\n".join(line[2:] for line in lines if line.startswith("- "))
        self.after = "\n".join(line[2:] for line in lines if line.startswith("+ "))

    def places(self, folder):
        """Where its text is in the file, in an include/sinq/cuda."""
        pattern = r"\s+".join(re.escape(word) for word in self.before.split())
        return [match.span() for match in re.finditer(pattern, (folder / self.file).read_text())]

    def apply(self, folder):
        """Changes the file in a copy of include/sinq/cuda."""
        (begin, end), = self.places(folder)
        path = folder / self.file
        text = path.read_text()
        path.write_text(text[:begin] + self.after + text[end:])


def read_faults():
    text = (HERE / "faults.txt").read_text()
    blocks = re.split(r"^(?=## )", text, flags=re.MULTILINE)[1:]
    return [Fault(block.rstrip("\n").splitlines()) for block in blocks]


def run(command, **options):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False,
                          **options)


class Bench:
    """Compiles and runs the programs against an include folder."""

    def __init__(self, compiler, build, folder):
        self.compiler = compiler
        self.folder = folder
        self.objects = [*build.glob("tests/CMakeFiles/sinq_tests_main.dir/**/*.o"), *build.glob("libsinq_compiled.a")]
        if len(self.objects) != 2:
            sys.exit(f"the tests are not built in {build}")
        self.prelude = folder / "prelude.hpp"
        shutil.copy2(HERE / "prelude.hpp", self.prelude)
        self.objects.insert(0, folder / "emulation.o")
        for command in (["-x", "c++-header", self.prelude, "-o", f"{self.prelude}.gch"],
                        ["-O2", "-c", HERE / "emulation.cpp", "-o", self.objects[0]]):
            done = run([compiler, *OPTIONS, f"-I{INCLUDE}", *command])
            if done.returncode != 0:
                sys.exit(done.stdout)

    def tree(self, name):
        """A folder include/sinq in which only cuda.hpp and cuda/ are copies."""
        include = self.folder / name / "include" / "sinq"
        include.mkdir(parents=True)
        for entry in (INCLUDE / "sinq").iterdir():
            if entry.name == "cuda":
                shutil.copytree(entry, include / "cuda")
            elif entry.name == "cuda.hpp":
                shutil.copy2(entry, include / "cuda.hpp")
            else:
                (include / entry.name).symlink_to(entry)
        return include / "cuda"

    def outcome(self, cuda, program):
        """"passed", "caught", or why neither can be said."""
        include = cuda.parents[1]
        binary = include.parent / program
        done = run([self.compiler, *OPTIONS, "-include", self.prelude, f"-I{include}", f"-I{INCLUDE}",
                    HERE / f"{program}.cpp", *self.objects, "-lpthread", "-o", binary])
        if done.returncode != 0:
            return "does not compile:\n" + done.stdout[:2000]
        try:
            done = run([binary, "--abort"], timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return "caught"
        finally:
            binary.unlink()
        return "passed" if done.returncode == 0 else "caught"


def judge(bench, number, fault):
    """What is wrong, or None, and the seconds that it took."""
    started = time.monotonic()
    cuda = bench.tree(f"fault{number}")
    fault.apply(cuda)
    problem = "no program notices it"
    for program in fault.programs:
        outcome = bench.outcome(cuda, program)
        if outcome != "passed":
            problem = None if outcome == "caught" else outcome
            break
    return problem, time.monotonic() - started


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--build", type=pathlib.Path, default=ROOT / "build/release")
    parser.add_argument("--compiler", default="clang++-14")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--only", default="")
    parser.add_argument("--list", action="store_true")
    options = parser.parse_args()
    faults = [fault for fault in read_faults() if re.search(options.only, fault.name)]
    if options.list:
        print("\n".join(f"{fault.file}: {fault.name}" for fault in faults))
        return 0
    lost = [fault for fault in faults if len(fault.places(INCLUDE / "sinq/cuda")) != 1]
    for fault in lost:
        print(f"{fault.name}: its text is {len(fault.places(INCLUDE / 'sinq/cuda'))} times in {fault.file}")
    if lost or not faults:
        return 1
    started = time.monotonic()
    failed = 0
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        bench = Bench(options.compiler, options.build.resolve(), pathlib.Path(folder))
        programs = sorted({program for fault in faults for program in fault.programs})
        as_it_is = bench.tree("none")
        for program, outcome in zip(programs, pool.map(lambda name: bench.outcome(as_it_is, name), programs)):
            if outcome != "passed":
                print(f"{program} without a fault: {outcome}")
                failed += 1
        if failed == 0:
            jobs = pool.map(lambda numbered: judge(bench, *numbered), enumerate(faults))
            for fault, (problem, seconds) in zip(faults, jobs):
                print(f"{'caught' if problem is None else 'FAILED'} in {seconds:5.1f} s  {fault.file}: {fault.name}"
                      f"{'' if problem is None else ': ' + problem}", flush=True)
                failed += problem is not None
    print(f"{len(faults) - failed} of {len(faults)} faults caught in {time.monotonic() - started:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
