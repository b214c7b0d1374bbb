# Sourced by the scripts one folder below the repository: goes to its root and says how to set up, build and test.
# shellcheck shell=sh

cd "$(dirname -- "$0")/.." || exit

# Installs those of the given Debian packages that are missing. Elsewhere they are taken to be there already.
need() {
  command -v dpkg-query >/dev/null 2>&1 || return 0
  missing=
  for package in "$@"; do
    case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) in
    installed) ;;
    *) missing="$missing $package" ;;
    esac
  done
  [ -n "$missing" ] || return 0
  as_root=
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null 2>&1 || {
      echo "These Debian packages are missing, and only root or sudo can install them:$missing" >&2
      exit 1
    }
    as_root=sudo
  fi
  echo "Installing Debian packages:$missing"
  setup_log=$(mktemp)
  # shellcheck disable=SC2086 # the packages are words
  if ! {
    $as_root apt-get -o DPkg::Lock::Timeout=300 update -qq &&
      $as_root env DEBIAN_FRONTEND=noninteractive \
        apt-get -o DPkg::Lock::Timeout=300 install -qq --no-install-recommends $missing
  } >"$setup_log" 2>&1 </dev/null; then
    cat "$setup_log" >&2
    rm -f "$setup_log"
    exit 1
  fi
  rm -f "$setup_log"
}

# What it takes to build the library, the tool and the tests.
need_to_build() {
  need g++ cmake ninja-build libeigen3-dev nlohmann-json3-dev libcli11-dev libfmt-dev catch2 pkg-config \
    libpcre2-dev libutf8proc-dev
}

# make_venv VENV: a Python environment with PyTorch, without CUDA if that index can be reached; $pip installs into it.
make_venv() {
  (need python3-venv) && python3 -m venv "$1" || return 1
  pip="$1/bin/pip install --quiet --retries 1 --timeout 20"
  $pip torch --index-url https://download.pytorch.org/whl/cpu || $pip torch
}

# venv_python VENV ARGUMENT...: its Python without what it loads at each start: the package sinq, where it is there, loads
# PyTorch then and prints.
venv_python() {
  venv_of=$1
  shift
  for packages in "$venv_of"/lib/python3*/site-packages; do
    PYTHONPATH=$packages "$venv_of/bin/python" -S -B "$@"
  done
}

# venv_has VENV MODULE...: its Python has them.
venv_has() {
  venv_asked=$1
  shift
  for module in "$@"; do
    venv_python "$venv_asked" -c "import importlib.util, sys; sys.exit(importlib.util.find_spec('$module') is None)" ||
      return 1
  done
}

# install_ggml VENV PACKAGE: one that brings ggml, compiled for this processor: what PyPI has may be for any with AVX2.
# -fno-dse: g++ 12 drops what ggml writes into the configuration of AMX tiles, which then is an illegal instruction.
install_ggml() {
  CMAKE_ARGS="-DGGML_NATIVE=ON -DLLAVA_BUILD=OFF -DCMAKE_CXX_FLAGS=-fno-dse" \
    "$1/bin/pip" install --quiet --no-binary "$2" "$2"
}

# need_llama VENV: gguf and llama.cpp in an environment, unless they are there.
need_llama() {
  venv_has "$1" gguf || "$1/bin/pip" install --quiet gguf || return 1
  venv_has "$1" llama_cpp || install_ggml "$1" llama-cpp-python
}

# How many compilers or tests run at once.
jobs=${SINQ_JOBS:-2}

# build PRESET [BUILD OPTION...]: configures and builds.
build() {
  built=$1
  shift
  cmake --preset "$built"
  cmake --build --preset "$built" --parallel "$jobs" "$@"
}

# test_built PRESET [CTEST OPTION...]: runs the tests, then says which were skipped and why.
test_built() {
  tested=$1
  shift
  status=0
  ctest --preset "$tested" --parallel "$jobs" "$@" || status=$?
  awk -v preset="$tested" '
    / Testing: / { sub(/.* Testing: /, ""); name = $0 }
    /^SKIPPED: / { sub(/^SKIPPED: /, ""); print "skipped in " preset ": " name ": " $0; ++count }
    END { print count + 0 " tests skipped in " preset }
  ' "build/$tested/Testing/Temporary/LastTest.log"
  return "$status"
}
