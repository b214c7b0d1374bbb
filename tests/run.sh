#!/bin/sh
# Builds and runs every test; exit status 0 means that all passed. Needs nothing but Debian 12 and root or sudo: missing
# packages are installed. Options go to ctest, as in: sh tests/run.sh -R '^core/'
set -eu
# shellcheck source=cmake/setup.sh
. "$(dirname -- "$0")/../cmake/setup.sh"

need_to_build
build release
test_built release "$@"
