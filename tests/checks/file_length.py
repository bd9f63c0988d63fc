"""No source file over 500 lines unless one of its first lines says "Long because ..."; the median under 200."""

import statistics

from sources import ROOT, all_files, finish

LIMIT = 500
MEDIAN_LIMIT = 200
REASON_WITHIN = 12  # lines
SUFFIXES = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".cmake", ".txt"}


def main():
    problems, program_lengths, count = [], [], 0
    for path in all_files():
        if path.suffix not in SUFFIXES or (path.suffix == ".txt" and path.name != "CMakeLists.txt"):
            continue
        lines = (ROOT / path).read_text().splitlines()
        count += 1
        if path.parts[0] in ("motley", "apps") and path.suffix != ".txt":
            program_lengths.append(len(lines))
        if len(lines) > LIMIT and "long because" not in " ".join(lines[:REASON_WITHIN]).lower():
            problems.append(f"{path}: {len(lines)} lines; split it, or begin it with a comment 'Long because ...'")
    median = statistics.median(program_lengths)
    if median >= MEDIAN_LIMIT:
        problems.append(f"the median file of motley/ and apps/ has {median} lines, expected under {MEDIAN_LIMIT}")
    summary = f"{count} files; in motley/ and apps/ the median is {median:g} lines, the longest {max(program_lengths)}"
    finish("file length", problems, summary)


main()
