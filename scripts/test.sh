#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test and check. Its last line is "N passed, N failed".
set -euo pipefail
# shellcheck source=scripts/setup.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

usage() {
  cat << 'END'
usage: scripts/test.sh [--sanitize asan|tsan] [--filter REGEX]

  --sanitize asan   build and run with the address and undefined-behaviour sanitizers
  --sanitize tsan   build and run with the thread sanitizer
  --filter REGEX    run only the tests whose name matches, e.g. '^ops\.'

TORCH_ROOT names a torch package or libtorch to use; without it torch comes into build/venv.
END
}

preset=cpu
filter=.
while [ $# -gt 0 ]; do
  case $1 in
    --sanitize)
      case ${2:-} in
        asan | tsan) preset=$2 ;;
        *) usage >&2; printf 'error: --sanitize: expected asan or tsan, found "%s"\n' "${2:-}" >&2; exit 2 ;;
      esac
      shift 2
      ;;
    --filter)
      [ $# -ge 2 ] || { usage >&2; printf 'error: --filter: expected a regular expression\n' >&2; exit 2; }
      filter=$2
      shift 2
      ;;
    --help | -h) usage; exit 0 ;;
    *) usage >&2; printf 'error: unknown argument "%s"\n' "$1" >&2; exit 2 ;;
  esac
done

passed=0
failed=0
finish() {
  local status=$?
  trap - EXIT
  # A set-up or build that failed is a failure too, though no test ran.
  if [ "$status" != 0 ] && [ "$failed" = 0 ]; then failed=1; fi
  printf '%d passed, %d failed\n' "$passed" "$failed"
  [ "$failed" = 0 ] || exit 1
}
trap finish EXIT

install_build_tools
install_torch
clang_format=$(find_clang_format) || say "clang-format 14 is neither here nor can it be installed"
configure "$preset" -DMOTLEY_TESTS=ON -DMOTLEY_CLANG_FORMAT="$clang_format"
build "$preset"

compile_cuda() {
  local nvcc
  nvcc=$(command -v nvcc || echo "${CUDA_HOME:-/usr/local/cuda}/bin/nvcc")
  if [ ! -x "$nvcc" ]; then
    say "no nvcc: the CUDA code is not compiled"
    return
  fi
  if [ ! -e "$TORCH_ROOT/lib/libtorch_cuda.so" ]; then
    say "torch in $TORCH_ROOT has no CUDA: the CUDA code is not compiled"
    return
  fi
  install_cutlass
  configure cuda -DMOTLEY_NVCC="$nvcc" -DMOTLEY_TESTS=ON
  build cuda motley_cuda_code
}
if [ "$preset" = cpu ]; then compile_cuda; fi

say "running the tests in build/$preset"
log=$root/build/$preset/tests.log
run=(ctest --preset "$preset" --parallel "$(nproc)" --tests-regex "$filter" --no-tests=error)
# The thread sanitizer of GCC 12 does not start where addresses are spread as widely as new kernels do.
if [ "$preset" = tsan ]; then run=(setarch "$(uname -m)" --addr-no-randomize "${run[@]}"); fi
(cd "$root" && "${run[@]}") 2>&1 | tee "$log" | grep -vE '^ *Start +[0-9]+:' || true

# "99% tests passed, 1 tests failed out of 120"; skipped tests are listed with (Skipped) and did not fail.
summary=$(grep -E '[0-9]+% tests passed, [0-9]+ tests? failed out of [0-9]+' "$log" | tail -1) ||
  die "ctest gave no summary (see $log)"
failed=$(sed -E 's/.* ([0-9]+) tests? failed.*/\1/' <<< "$summary")
total=$(sed -E 's/.*out of ([0-9]+).*/\1/' <<< "$summary")
skipped=$(grep -cE '\*\*\*Skipped' "$log" || true)
passed=$((total - failed - skipped))
if [ "$skipped" -gt 0 ]; then
  say "$skipped skipped, each with its reason in $root/build/$preset/Testing/Temporary/LastTest.log"
fi
say "done"
