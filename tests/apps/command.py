"""Runs the built `motley` program in temporary folders."""

import json
import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WORDS = "the a cat dog ran sat and or on under tree house river green old small again never".split()
TIMED = ("tokens_per_second", "seconds")  # fields of metrics that no two runs share


class Motley:
    """The program and a folder to work in."""

    def __init__(self, program):
        self.program = program
        self.folder = tempfile.mkdtemp(prefix="motley_command_")
        words = random.Random(1)
        self.text = self.write("text.txt", " ".join(words.choice(WORDS) for _ in range(4000)))
        with open(os.path.join(ROOT, "configs", "tiny_test.json")) as file:
            self.config = json.load(file)
        self.config["data"]["path"] = self.text

    def close(self):
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, name):
        return os.path.join(self.folder, name)

    def write(self, name, content):
        os.makedirs(os.path.dirname(self.path(name)), exist_ok=True)
        with open(self.path(name), "wb") as file:
            file.write(content if isinstance(content, bytes) else content.encode())
        return self.path(name)

    def write_config(self, name="config.json", **changes):
        """changes: train_steps=5 sets train.steps; a value of None removes the key."""
        config = json.loads(json.dumps(self.config))
        for key, value in changes.items():
            section, name_in_section = key.split("_", 1)
            if value is None:
                config[section].pop(name_in_section)
            else:
                config[section][name_in_section] = value
        return self.write(name, json.dumps(config))

    def command(self, *arguments, threads=1):
        environment = dict(os.environ, MOTLEY_THREADS=str(threads), MOTLEY_LOG="info")
        return [self.program, *map(str, arguments)], environment

    def run(self, *arguments, threads=1, **options):
        command, environment = self.command(*arguments, threads=threads)
        return subprocess.run(command, env=environment, capture_output=True, text=True, errors="replace", timeout=300, **options)

    def start(self, *arguments, threads=1):
        command, environment = self.command(*arguments, threads=threads)
        return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def train(self, config, run, *arguments, **options):
        return self.run("train", config, "--out", self.path(run), *arguments, **options)

    def wait_for(self, *names, seconds=60):
        """Until one of the files is there."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if any(os.path.exists(self.path(name)) for name in names):
                return True
            time.sleep(0.001)
        return False

    def stop(self, process, number=signal.SIGTERM):
        process.send_signal(number)
        _, errors = process.communicate(timeout=120)
        return process.returncode, errors

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def metrics(self, run):
        """Lines of metrics.jsonl without what the clock says."""
        lines = [json.loads(line) for line in self.read(f"{run}/metrics.jsonl").splitlines()]
        return [{key: value for key, value in line.items() if key not in TIMED} for line in lines]

    def steps(self, run):
        folder = self.path(f"{run}/checkpoints")
        names = os.listdir(folder) if os.path.isdir(folder) else []
        return sorted(int(name[5:]) for name in names if name.startswith("step_") and name[5:].isdigit())

    def files(self, name):
        """Every file under a folder with its content."""
        found = {}
        for folder, _, names in os.walk(self.path(name)):
            for file in names:
                full = os.path.join(folder, file)
                with open(full, "rb") as content:
                    found[os.path.relpath(full, self.path(name))] = content.read()
        return found


class CommandTest(unittest.TestCase):
    program = None  # set by main()

    def setUp(self):
        self.motley = Motley(self.program)
        self.addCleanup(self.motley.close)

    def assert_mistake(self, result, *parts):
        """Exit code 2 and one line of error that holds every part."""
        self.assertEqual(result.returncode, 2, result.stderr)
        errors = [line for line in result.stderr.splitlines() if "error:" in line]
        self.assertEqual(len(errors), 1, result.stderr)
        for part in parts:
            self.assertIn(part, result.stderr)
        self.assertEqual(result.stdout, "")

    def assert_same_model(self, a, b):
        self.assertEqual(self.motley.read(f"{a}/model/model.safetensors"), self.motley.read(f"{b}/model/model.safetensors"))


def main():
    import sys
    CommandTest.program = os.path.abspath(sys.argv.pop(1))
    unittest.main(module="__main__")
