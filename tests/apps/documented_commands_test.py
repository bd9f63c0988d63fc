"""The commands that documents show exist: programs, subcommands, flags, files, presets.

usage: documented_commands_test.py MOTLEY
"""

import json
import os
import re
import shlex
import subprocess
import sys
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAM = ""
FENCE = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")


def documents():
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [name for name in folders if not name.startswith((".", "build", "runs", "golden"))]
        yield from (os.path.join(folder, name) for name in names if name.endswith(".md") and name != "CHANGELOG.md")


def command_lines():
    """(document, words) of every line that begins with a program of ours, or with cmake."""
    for path in documents():
        with open(path) as file:
            text = file.read()
        lines = [line for block in FENCE.findall(text) for line in block.splitlines()]
        lines += CODE.findall(FENCE.sub("", text))
        for line in lines:
            try:
                words = shlex.split(line, comments=True)
            except ValueError:
                continue
            while words and re.fullmatch(r"[A-Z_]+=\S+", words[0]):
                words.pop(0)
            if words:
                yield os.path.relpath(path, ROOT), words


def run(*command):
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


class DocumentedCommands(unittest.TestCase):
    def test_motley(self):
        helps, seen = {}, 0
        for path, words in command_lines():
            if os.path.basename(words[0]) != "motley" or len(words) < 2:
                continue
            command = [word for word in words[1:3] if re.fullmatch("[a-z][a-z-]*", word)]
            if not command:
                continue
            for end in range(len(command), 0, -1):  # `motley bench operators`, but `motley eval folder`
                key = tuple(command[:end])
                if key not in helps:
                    done = run(PROGRAM, *key, "--help")
                    helps[key] = done.stdout + done.stderr if done.returncode == 0 else None
                if helps[key] and (end == 1 or helps[key] != helps.get(key[:1])):
                    break
            with self.subTest(document=path, command=" ".join(words)):
                self.assertTrue(helps[key], f"{path}: motley {' '.join(key)} --help fails")
                for word in words[2:]:
                    if word.startswith("--"):
                        flag = word.split("=")[0]
                        self.assertRegex(helps[key], rf"{flag}\b", f"{path}: {' '.join(key)} has no {flag}")
                for word in words[2:]:
                    if word.startswith("configs/"):
                        self.assertTrue(os.path.exists(os.path.join(ROOT, word)), f"{path}: no {word}")
            seen += 1
        self.assertGreaterEqual(seen, 8, "no commands were found: the pattern is wrong")

    def test_scripts(self):
        seen = 0
        for path, words in command_lines():
            name = words[0].removeprefix("./")
            if not name.startswith("scripts/"):
                continue
            seen += 1
            with self.subTest(document=path, command=" ".join(words)):
                script = os.path.join(ROOT, name)
                self.assertTrue(os.access(script, os.X_OK), f"{path}: {name} is no program")
                with open(script) as file:
                    text = file.read()
                for word in words[1:]:
                    if word.startswith("--"):
                        self.assertIn(word.split("=")[0], text, f"{path}: {name} knows no {word}")
        self.assertGreaterEqual(seen, 3)

    def test_presets(self):
        with open(os.path.join(ROOT, "CMakePresets.json")) as file:
            presets = {preset["name"] for preset in json.load(file)["configurePresets"]}
        seen = 0
        for path, words in command_lines():
            if words[0] == "cmake" and "--preset" in words:
                seen += 1
                self.assertIn(words[words.index("--preset") + 1], presets, path)
        self.assertGreaterEqual(seen, 2)


if __name__ == "__main__":
    PROGRAM = sys.argv.pop(1)
    unittest.main(verbosity=2)
