"""No data sets, weights or other binaries are committed; pictures of the documents and small golden files may be."""

import subprocess
import sys

from sources import ROOT, SKIPPED, all_files, finish

MAX_TEXT_BYTES = 200_000
MAX_PICTURE_BYTES = 600_000
MAX_GOLDEN_BYTES = 2_000_000  # tests/golden together


def main():
    if subprocess.run(["git", "-C", str(ROOT), "rev-parse"], capture_output=True).returncode != 0:
        print("no data: skipped, this is not a git clone")
        sys.exit(SKIPPED)
    problems, golden = [], 0
    files = all_files()
    for path in files:
        content = (ROOT / path).read_bytes()
        size = len(content)
        if path.parts[:2] == ("tests", "golden"):
            golden += size
        elif path.suffix in (".png", ".svg") and path.parts[0] == "docs":
            if size > MAX_PICTURE_BYTES:
                problems.append(f"{path}: {size} bytes, expected at most {MAX_PICTURE_BYTES} for a picture")
        elif b"\0" in content[:8192]:
            problems.append(f"{path}: a binary file; make it when it is needed")
        elif size > MAX_TEXT_BYTES:
            problems.append(f"{path}: {size} bytes, expected at most {MAX_TEXT_BYTES}")
    if golden > MAX_GOLDEN_BYTES:
        problems.append(f"tests/golden: {golden} bytes together, expected at most {MAX_GOLDEN_BYTES}")
    finish("no data", problems, f"{len(files)} files")


main()
