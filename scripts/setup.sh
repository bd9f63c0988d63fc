# shellcheck shell=bash
# Shared by quickstart.sh and test.sh, which source it: installs what is missing and builds.
# Every step looks first whether its work is done, so running it again costs seconds.

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
venv=$root/build/venv
torch_version=2.11.0
cutlass_version=4.2.0.0
clang_format_version=14.0.6
start_time=$SECONDS
mkdir -p "$root/build"

say() {
  printf '[%02d:%02d] %s\n' $(((SECONDS - start_time) / 60)) $(((SECONDS - start_time) % 60)) "$*"
}

die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    die "this step needs root: run as root or install sudo. The step: $*"
  fi
}

# install_packages NAME...: Debian or Ubuntu packages, those that are not there yet.
install_packages() {
  if ! command -v dpkg-query apt-get > /dev/null; then
    die "expected Debian 12 or Ubuntu 24.04 with apt-get; on another system install by hand: $*"
  fi
  local missing=() name
  for name in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$name" 2> /dev/null | grep -qx installed || missing+=("$name")
  done
  [ ${#missing[@]} = 0 ] && return
  say "installing packages: ${missing[*]}"
  local log=$root/build/apt.log
  as_root apt-get update -q > "$log" 2>&1 || { tail -20 "$log" >&2; die "apt-get update failed (see $log)"; }
  # env inside, because sudo drops the variable.
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}" \
    >> "$log" 2>&1 || { tail -20 "$log" >&2; die "apt-get install failed (see $log)"; }
}

install_build_tools() {
  install_packages ca-certificates git g++ cmake ninja-build ccache mold python3 python3-venv \
    nlohmann-json3-dev libcli11-dev libspdlog-dev zlib1g-dev libgtest-dev libgmock-dev
}

make_venv() {
  [ -x "$venv/bin/pip" ] && "$venv/bin/python" -c '' 2> /dev/null && return
  say "making a Python environment in build/venv"
  rm -rf "$venv"
  python3 -m venv "$venv" 2> /dev/null || /usr/bin/python3 -m venv "$venv" ||
    die "cannot make a Python environment in $venv; python3-venv is needed"
}

pip_install() {
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-input --progress-bar off --retries 5 "$@"
}

has_nvidia_gpu() {
  command -v nvidia-smi > /dev/null && nvidia-smi -L 2> /dev/null | grep -q '^GPU'
}

# Sets TORCH_ROOT. A torch named by the user is used as it is.
install_torch() {
  if [ -n "${TORCH_ROOT:-}" ]; then
    [ -e "$TORCH_ROOT/lib/libtorch_cpu.so" ] ||
      die "TORCH_ROOT=$TORCH_ROOT: expected a torch package or libtorch with lib/libtorch_cpu.so, found none"
    say "using torch in $TORCH_ROOT"
    return
  fi
  make_venv
  local want=cpu mark=$venv/.motley_torch
  has_nvidia_gpu && want=gpu
  if [ "$(cat "$mark" 2> /dev/null)" != "$torch_version $want" ]; then
    # Only the wheel itself and the two small libraries that libtorch_cpu links to; the other packages it
    # names are gigabytes of CUDA that a machine without a GPU never loads.
    if [ "$want" = cpu ]; then
      say "installing torch $torch_version without its GPU packages (about 1.2 GB on disk)"
      pip_install --no-deps "torch==$torch_version" 'nvidia-cuda-runtime==13.0.*' 'nvidia-cuda-cupti==13.0.*' ||
        die "pip could not install torch $torch_version"
    else
      say "installing torch $torch_version with its GPU packages (several GB)"
      pip_install "torch==$torch_version" || die "pip could not install torch $torch_version"
    fi
    printf '%s %s\n' "$torch_version" "$want" > "$mark"
  fi
  TORCH_ROOT=$(echo "$venv"/lib/python3*/site-packages/torch)
  export TORCH_ROOT
}

install_cutlass() {
  [ -d "$TORCH_ROOT/../cutlass_library/source" ] && return
  compgen -G "$venv/lib/python3*/site-packages/cutlass_library/source" > /dev/null && return
  say "installing the CUTLASS $cutlass_version headers"
  make_venv
  pip_install --no-deps "nvidia-cutlass==$cutlass_version" || die "pip could not install nvidia-cutlass"
}

# Prints the clang-format to use, or nothing. Versions differ in what they write, so it is always 14.
find_clang_format() {
  local candidate
  for candidate in clang-format-14 clang-format "$venv/bin/clang-format"; do
    if command -v "$candidate" > /dev/null && "$candidate" --version | grep -q 'version 14\.'; then
      command -v "$candidate"
      return
    fi
  done
  { make_venv && pip_install "clang-format==$clang_format_version"; } >&2 && echo "$venv/bin/clang-format"
}

# configure PRESET [cmake option...]
configure() {
  local preset=$1
  shift
  say "configuring build/$preset"
  local log=$root/build/$preset.configure.log
  (cd "$root" && cmake --preset "$preset" -DTORCH_ROOT="$TORCH_ROOT" "$@") > "$log" 2>&1 ||
    { tail -30 "$log" >&2; die "configuring failed (see $log)"; }
}

# build PRESET [target...]: all targets without a name. One job a core, but no more than memory allows.
build() {
  local preset=$1 jobs memory_gib targets=()
  shift
  if [ $# -gt 0 ]; then targets=(--target "$@"); fi
  jobs=$(nproc)
  memory_gib=$(awk '/MemAvailable/ { print int($2 / 1048576) }' /proc/meminfo 2> /dev/null || echo "$jobs")
  [ $((memory_gib / 2)) -lt "$jobs" ] && jobs=$((memory_gib / 2 > 1 ? memory_gib / 2 : 1))
  say "building build/$preset${*:+: $*} ($jobs jobs)"
  cmake --build "$root/build/$preset" --parallel "$jobs" "${targets[@]}" || die "the build failed"
}
