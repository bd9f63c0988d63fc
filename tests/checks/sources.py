"""The files of the project, for the checks beside this file."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SKIPPED = 77  # ctest shows a check that exits with this as skipped
CPP = {".h", ".cc", ".cu", ".cuh"}


def all_files():
    """Paths under ROOT, relative to it: what git tracks or would add; without git, what is not built."""
    git = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        capture_output=True,
    )
    if git.returncode == 0:
        paths = [pathlib.Path(p) for p in git.stdout.decode().split("\0") if p]
    else:
        left_out = {"build", "runs", ".git", ".cache", "__pycache__"}
        paths = [p.relative_to(ROOT) for p in ROOT.rglob("*")]
        paths = [p for p in paths if not left_out & set(p.parts) and not p.parts[0].startswith("build-")]
    return sorted(p for p in paths if (ROOT / p).is_file())


def cpp_files():
    return [p for p in all_files() if p.suffix in CPP]


def finish(name, problems, summary):
    for problem in problems:
        print(problem)
    print(f"{name}: {len(problems)} problems; {summary}")
    sys.exit(1 if problems else 0)
