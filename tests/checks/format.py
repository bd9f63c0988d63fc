"""Every C++ and CUDA file is as clang-format 14 writes it: format.py PATH_OF_CLANG_FORMAT"""

import concurrent.futures
import os
import subprocess
import sys

from sources import ROOT, SKIPPED, cpp_files, finish


def main():
    tool = sys.argv[1] if len(sys.argv) > 1 else ""
    if not tool:
        print("format: skipped, clang-format 14 is missing; scripts/test.sh installs it where it can")
        sys.exit(SKIPPED)
    files = [str(p) for p in cpp_files()]

    def check(batch):
        # Gives the original and the formatted text to diff in one go, unlike --dry-run's warnings.
        wrong = []
        for name in batch:
            done = subprocess.run([tool, name], cwd=ROOT, capture_output=True)
            if done.returncode != 0:
                wrong.append(f"{name}: {done.stderr.decode().strip()}")
            elif done.stdout != (ROOT / name).read_bytes():
                wrong.append(f"{name}: not formatted; run: clang-format -i {name}")
        return wrong

    workers = os.cpu_count() or 1
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        problems = sum(pool.map(check, [files[i::workers] for i in range(workers)]), [])
    finish("format", problems, f"{len(files)} files")


main()
