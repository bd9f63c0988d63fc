"""What the peers share: timing, tables, and Motley's own figures from `motley bench`."""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def arguments(description):
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--motley", default=ROOT / "build/cpu/apps/motley", help="the program (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of every contender")
    parser.add_argument("--seconds", type=float, default=5, help="for each contender (default: %(default)s)")
    return parser


def motley_bench(options, *command):
    """The JSON object that `motley bench` prints, on the same number of threads."""
    command = [options.motley, "bench", *command, "--threads", options.threads, "--json"]
    result = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def measure(seconds, run):
    """Median, least and most milliseconds of run(), after three runs that warm up."""
    for _ in range(3):
        run()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        run()
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times), min(times), max(times)


def processor():
    with open("/proc/cpuinfo") as file:
        names = [line.split(":", 1)[1].strip() for line in file if line.startswith("model name")]
    return names[0] if names else "unknown processor"


HEADER = "| | ms, median | least to most | Motley is faster by |\n|---|---|---|---|"


def row(name, figures, ratio=None):
    median, least, most = figures
    faster = f"{ratio:.2f}x" if ratio else ""
    print(f"| {name:<44} | {median:10.2f} | {least:.2f} to {most:.2f} | {faster} |", flush=True)


def of_motley(figures):
    return tuple(figures[key] for key in ("milliseconds", "least_milliseconds", "most_milliseconds"))
