"""Kills training at random moments, also while it writes a checkpoint, and compares the end with that of a run
that was left alone.

usage: kill_test.py PROGRAM [--kills N] [--threads N ...] [--seed N]
"""

import argparse
import os
import random
import signal
import time

from command import Motley


def unfinished(motley, run):
    folder = motley.path(f"{run}/checkpoints")
    return os.path.isdir(folder) and any(name.endswith(".unfinished") for name in os.listdir(folder))


def kill_once(motley, config, run, threads, randoms, seconds):
    """Every second kill waits for a checkpoint that is being written."""
    process = motley.start("train", config, "--out", motley.path(run), threads=threads)
    in_checkpoint = randoms.random() < 0.5
    wait = randoms.uniform(0, seconds)
    end = time.monotonic() + wait
    while time.monotonic() < end and process.poll() is None:
        time.sleep(0.0005)
    while in_checkpoint and process.poll() is None and not unfinished(motley, run):
        pass
    if in_checkpoint:
        time.sleep(randoms.uniform(0, 0.004))
    process.send_signal(signal.SIGKILL)
    _, errors = process.communicate()
    assert process.returncode in (0, -signal.SIGKILL), errors
    return process.returncode != 0, unfinished(motley, run)


def kill_and_compare(motley, config, whole, kills, threads, seed):
    """whole: a run of the same configuration that was left alone. Returns how many kills hit a checkpoint."""
    randoms = random.Random(seed)
    start = time.monotonic()
    assert motley.train(config, f"timed_{seed}", threads=threads).returncode == 0
    seconds = time.monotonic() - start
    done, hit, run, count = 0, 0, None, 0
    compared = []
    while done < kills:
        if run is None or os.path.exists(motley.path(f"{run}/model")):
            count += 1
            run = f"killed_{seed}_{count}"
            compared.append(run)
        killed, in_checkpoint = kill_once(motley, config, run, threads, randoms, seconds / 2)
        done += killed
        hit += killed and in_checkpoint
    for run in compared:
        result = motley.train(config, run, threads=threads)
        assert result.returncode == 0, result.stderr
        assert motley.files(f"{run}/model") == motley.files(f"{whole}/model"), f"{run}: another model"
        assert motley.metrics(run) == motley.metrics(whole), f"{run}: other metrics"
        assert not unfinished(motley, run), f"{run}: unfinished checkpoint left"
    return hit


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    motley = Motley(os.path.abspath(arguments.program))
    try:
        config = motley.write_config(train_checkpoint_every=2, train_steps=120, data_sequence_length=64)
        for threads in arguments.threads:
            whole = motley.train(config, f"whole{threads}", threads=threads)
            assert whole.returncode == 0, whole.stderr
            hit = kill_and_compare(motley, config, f"whole{threads}", arguments.kills, threads, arguments.seed + threads)
            print(f"{threads} threads: {arguments.kills} kills, {hit} of them in a checkpoint; same bits at the end")
    finally:
        motley.close()


if __name__ == "__main__":
    main()
