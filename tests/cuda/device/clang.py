#!/usr/bin/env python3
"""Has clang++ read every kernel and launcher, once for the host and once for each architecture, with warnings as errors.
It makes no code of them: that is nvcc's part (check.py).

  clang.py [--nvcc NVCC] [--clang CLANG] sm_80 ...

Takes the newest clang++-N unless told. Status 77: no clang++, no nvcc, or a clang++ to which nvcc's toolkit is too new.
"""

import argparse
import pathlib
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
INCLUDE = HERE.parents[2] / "include"
# The bodies of a few functions are for the device alone: what they are given is unused on the host.
WARNINGS = ["-Wall", "-Wextra", "-Wno-unused-parameter", "-Wno-unknown-cuda-version", "-Werror"]


def newest_clang():
    """The path of clang++-N with the largest N, or of clang++, or None."""
    names = [f"clang++-{version}" for version in range(40, 13, -1)]
    return next(filter(None, map(shutil.which, [*names, "clang++"])), None)


def read(clang, toolkit, architectures, source):
    """What clang++ says of a source; empty if it has nothing against it."""
    done = subprocess.run([clang, "-x", "cuda", "-std=c++20", "-fsyntax-only", f"--cuda-path={toolkit}",
                           *[f"--cuda-gpu-arch={name}" for name in architectures], f"-I{INCLUDE}", *WARNINGS, str(source)],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    return done.stdout if done.returncode != 0 else ""


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--nvcc", default="nvcc")
    parser.add_argument("--clang", default="")
    parser.add_argument("architectures", nargs="+")
    options = parser.parse_args()
    nvcc = shutil.which(options.nvcc)
    clang = shutil.which(options.clang) if options.clang else newest_clang()
    if nvcc is None or clang is None:
        print("SKIPPED: no nvcc" if nvcc is None else "SKIPPED: no clang++")
        return 77
    toolkit = pathlib.Path(nvcc).resolve().parents[1]
    with tempfile.NamedTemporaryFile(suffix=".cu") as nothing:
        said = read(clang, toolkit, options.architectures, nothing.name)
    if said:
        print(f"SKIPPED: {clang} cannot read even an empty source with {toolkit}:\n{said}")
        return 77
    said = read(clang, toolkit, options.architectures, HERE / "instances.cu")
    print(said or f"{clang} has nothing against the kernels for {', '.join(options.architectures)}")
    return 1 if said else 0


if __name__ == "__main__":
    sys.exit(main())
