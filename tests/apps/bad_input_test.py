"""Mistakes: one clear error with the key or file, exit code 2, nothing half written.

usage: bad_input_test.py PROGRAM
"""

import json
import os
import resource
import shutil
import subprocess
import unittest

from command import CommandTest, main


def ask_for_missing_kernels(test):
    """Until the test's end; the name of the family."""
    families = json.loads(test.motley.run("doctor", "--json").stdout)["cpu_kernels"]
    missing = [family["name"] for family in families if not family["available"]]
    if not missing:
        test.skipTest("this processor has all of them")
    os.environ["MOTLEY_CPU_KERNELS"] = missing[0]
    test.addCleanup(os.environ.pop, "MOTLEY_CPU_KERNELS")
    return missing[0]


class Arguments(CommandTest):
    def test_help_and_version(self):
        for arguments in (["--help"], ["train", "--help"], ["doctor", "--help"], ["bench", "operators", "--help"]):
            result = self.motley.run(*arguments)
            self.assertEqual(result.returncode, 0)
            self.assertIn("Usage", result.stdout)
        self.assertRegex(self.motley.run("--version").stdout, r"^motley \d+\.\d+\.\d+\n$")

    def test_wrong_arguments(self):
        for arguments in ([], ["fly"], ["train"], ["train", "c.json"], ["train", "c.json", "--out", "r", "--fast"]):
            result = self.motley.run(*arguments)
            self.assert_mistake(result)
            self.assertTrue(result.stderr.startswith("motley: error: "), result.stderr)

    def test_unknown_commands_are_named(self):
        for arguments in (["frobnicate"], ["frobnicate", "c.json", "--out", "r"]):
            self.assert_mistake(self.motley.run(*arguments), "motley: expected one of the commands train, eval, generate", "found 'frobnicate'")
        self.assert_mistake(self.motley.run(), "motley: expected one of the commands train", "found none")
        self.assert_mistake(self.motley.run("bench", "speed"), "motley bench: expected one of the commands operators", "found 'speed'")

    def test_values_of_options(self):
        """Before any file is looked at."""
        for arguments, error in (
            (["generate", "m", "--seed", -3], "--seed: expected a whole number of at least 0, found -3"),
            (["eval", "m", "--window", 0], "--window: expected a whole number of at least 1, found 0"),
            (["bench", "train", "--seconds", "nan"], "--seconds: expected a number from 0.1 to 3600, found nan"),
            (["bench", "operators", "--seconds", "inf"], "--seconds: expected a number from 0 to 3600, found inf"),
            (["bench", "gating", "--tokens", 0], "--tokens: expected a whole number from 1 to 16777216, found 0"),
            (["eval", "m", "--dtype", "fp16"], "--dtype: expected one of fp32,bf16, found 'fp16'"),
            (["generate", "m", "--prompt", "a", "--tokens", ""], "--tokens: expected a JSON file, found nothing"),
            (["eval", "m", "--data", ""], "--data: expected a text file, a .gz file or a folder of them, found nothing"),
            (["train", "c.json", "--out", "r", "--data", ""], "--data: expected a text file, a .gz file or a folder of them, found nothing"),
            (["train", "c.json", "--out", "r", "--device", ""], "--device: expected cpu, cuda or cuda:<n>, found nothing"),
            (["train", "c.json", "--out", ""], "--out: expected a folder for the run, found nothing"),
        ):
            self.assert_mistake(self.motley.run(*arguments), f"motley: error: {error}\n")

    def test_doctor(self):
        result = self.motley.run("doctor", "--json", threads=2)
        self.assertEqual(result.returncode, 0, result.stderr)
        machine = json.loads(result.stdout.splitlines()[-1])
        self.assertEqual(machine["threads"], 2)
        self.assertEqual(sum(family["used"] for family in machine["cpu_kernels"]), 1)
        self.assertGreater(machine["memory_total"], 1 << 28)
        shown = self.motley.run("doctor")
        self.assertIn("CPU kernels", shown.stderr)
        self.assertEqual(shown.stdout, "")

    def test_lost_output(self):
        """What could not be printed was not done."""
        for arguments in (["doctor", "--json"], ["--version"]):
            with open("/dev/full", "w") as full:
                command, environment = self.motley.command(*arguments)
                result = subprocess.run(command, env=environment, stdout=full, stderr=subprocess.PIPE, text=True)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertIn("standard output", result.stderr)

    def test_bench(self):
        sizes = ("--tokens", 32, "--hidden", 64, "--width", 64, "--experts", 4)
        result = self.motley.run("bench", "operators", *sizes, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        operators = json.loads(result.stdout.splitlines()[-1])["operators"]
        self.assertTrue(all(row["milliseconds"] > 0 for row in operators))
        self.assert_mistake(self.motley.run("bench", "operators", *sizes, "--top-k", 5), "--top-k", "5")


class Configuration(CommandTest):
    def check(self, *parts, **changes):
        result = self.motley.train(self.motley.write_config(**changes), "run")
        self.assert_mistake(result, *parts)
        self.assertFalse(os.path.exists(self.motley.path("run")))

    def test_errors_name_file_and_key(self):
        """c.json: model.num_expert: ..., whoever finds the mistake."""
        changes = dict(model_num_expert=4, model_num_experts_per_tok=8, model_model_type="motly", model_hidden_size="x",
                       model_vocab_size=255, model_capacity_factor=-1, data_sequence_length=65, train_steps=0,
                       train_sample_prompt="x" * 100)
        for change, value in changes.items():
            config = self.motley.write_config(**{change: value})
            key = change.replace("_", ".", 1)
            result = self.motley.train(config, "run")
            self.assert_mistake(result, f"motley: error: {config}: {key}: expected ")

    def test_unknown_keys_name_the_nearest(self):
        self.check("train.learning_rat", "learning_rate", train_learning_rat=1)
        self.check("config.json: model.num_expert: ", "num_experts", model_num_expert=4)
        self.check("data.seqence_length", "sequence_length", data_seqence_length=4)

    def test_contradictions(self):
        self.check("train.min_learning_rate", "train.learning_rate", train_min_learning_rate=1)
        self.check("train.warmup_steps", "train.steps", train_warmup_steps=60)
        self.check("train.eval_every", "data.validation_fraction", data_validation_fraction=0)

    def test_missing_keys(self):
        self.check("train.steps", train_steps=None)
        self.check("config.json: model.num_experts: ", model_num_experts=None)

    def test_top_k_larger_than_the_slots(self):
        self.check("num_experts_per_tok", "7", model_num_experts_per_tok=8)

    def test_unsupported_dtype(self):
        self.check("train.dtype", "fp32", "bf16", "fp16", train_dtype="fp16")

    def test_vocabulary_mismatch(self):
        self.check("vocab_size", "256", "255", model_vocab_size=255)

    def test_sequences_beyond_the_positions(self):
        self.check("data.sequence_length", "64", "65", data_sequence_length=65)

    def test_prompt_beyond_the_positions(self):
        self.check("train.sample_prompt", "64 positions", "100 tokens", train_sample_prompt="x" * 100)

    def test_unknown_model(self):
        self.check("model_type", "motley", model_model_type="motly")

    def test_files(self):
        missing = self.motley.path("none.json")
        self.assert_mistake(self.motley.train(missing, "run"), missing)
        broken = self.motley.write("broken.json", '{"model": {},\n "data" 1}')
        self.assert_mistake(self.motley.train(broken, "run"), broken, "line 2")
        huge = self.motley.write("huge.json", '{"train": {"learning_rate": 1e999}}')
        self.assert_mistake(self.motley.train(huge, "run"), huge, "1e999")

    def test_paths_of_any_bytes(self):
        name = os.fsdecode(b"\xff.txt")
        config = self.motley.write_config(train_steps=2, train_warmup_steps=0)
        self.assert_mistake(self.motley.train(config, "run", "--data", self.motley.path(name)), "No such file")
        self.assertFalse(os.path.exists(self.motley.path("run")))
        data = self.motley.write(name, self.motley.read("text.txt"))
        for _ in range(2):  # a new run, and one that is found
            result = self.motley.train(config, "run", "--data", data, "--json")
            self.assertEqual(result.returncode, 0, result.stderr)

    def test_mistakes_show_before_the_text_is_read(self):
        for change in (dict(model_hidden_size="x"), dict(model_torch_dtype="bfloat16"), dict(train_device="cuda:x")):
            result = self.motley.train(self.motley.write_config(data_path="/nowhere.txt", **change), "run")
            self.assert_mistake(result, list(change)[0].replace("_", ".", 1))

    def test_json_that_is_nested_too_deep(self):
        deep = self.motley.write("deep.json", '{"model":' + "[" * 100000 + "]" * 100000 + "}")
        self.assert_mistake(self.motley.train(deep, "run"), "deep.json: expected JSON nested at most 100 deep")

    def test_sizes_that_overflow(self):
        self.check("train.batch_size", "4000000000000000000", train_batch_size=4000000000000000000)
        self.check("train.gradient_accumulation", train_gradient_accumulation=10 ** 12)
        self.check("data.sequence_length", data_sequence_length=10 ** 12)

    def test_models_beyond_the_memory(self):
        self.check("config.json: model.hidden_size: ", "to 1048576", model_hidden_size=1 << 21)
        self.check("config.json: model: expected weights", "of memory", model_hidden_size=1 << 20, model_num_experts=1 << 16)

    def test_steps_beyond_the_memory(self):
        """Before a text is read; 2^40 tokens are more than any machine's."""
        positions = 1 << 20
        self.check("config.json: train.batch_size: expected activations of batch_size x data.sequence_length = 1099511627776 tokens",
                   "of memory here, found 2048 TiB; lower train.batch_size or data.sequence_length", data_path="/nowhere.txt",
                   train_batch_size=1 << 20, data_sequence_length=positions, model_max_position_embeddings=positions)

    def test_kernels_that_the_processor_has_not(self):
        self.check(ask_for_missing_kernels(self))

    def test_memory_for_not_even_a_step(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))

        if self.motley.run("--version", preexec_fn=limit).returncode != 0:
            self.skipTest("a sanitizer takes more addresses than that for itself")
        config = self.motley.write_config(train_batch_size=1 << 16)
        result = self.motley.train(config, "run", preexec_fn=limit)
        self.assert_mistake(result, "memory")
        self.assertFalse(os.path.exists(self.motley.path("run")))

    def test_set(self):
        config = self.motley.write_config()
        for flags, error in (
            (["--set", "train.steps=0"], "--set train.steps: expected a whole number"),
            (["--set", "model.hidden_size=x"], "--set model.hidden_size: expected"),
            (["--device", "cuda:x"], "--device: expected cpu, cuda or cuda:<number>, found 'cuda:x'"),
        ):
            self.assert_mistake(self.motley.train(config, "run", *flags), f"motley: error: {error}")
        self.assert_mistake(self.motley.train(config, "run", "--set", "train.seeed=1"), "train.seeed", "seed")
        self.assert_mistake(self.motley.train(config, "run", "--set", "train.seed"), "train.seed")
        self.assertFalse(os.path.exists(self.motley.path("run")))


class Data(CommandTest):
    def check(self, path, *parts):
        result = self.motley.train(self.motley.write_config(), "run", "--data", path)
        self.assert_mistake(result, path, *parts)
        self.assertFalse(os.path.exists(self.motley.path("run")))

    def test_paths_without_text(self):
        self.check(self.motley.path("none.txt"), "No such file")
        os.makedirs(self.motley.path("empty"))
        self.check(self.motley.path("empty"), "no files")
        self.check(self.motley.write("empty.txt", ""), "empty")
        self.check(self.motley.write("picture.png", b"\x89PNG\0\0\0"), "zero bytes")
        self.check(self.motley.write("fake.gz", "plain"), "gzip")
        self.check(self.motley.write("short.txt", "too short"), "sequence_length")
        self.check("/dev/null", "a device or a pipe")

    def test_run_within_its_text(self):
        self.motley.write("texts/a.txt", "the cat sat " * 1000)
        config = self.motley.write_config(data_path=self.motley.path("texts"))
        for out in ("texts/run", "texts", "texts/../texts/new/run"):
            self.assert_mistake(self.motley.train(config, out), "a run's folder outside of the text", "choose another --out")
        self.assertEqual(os.listdir(self.motley.path("texts")), ["a.txt"])

    def test_no_object_to_put_the_path_into(self):
        config = self.motley.write("strange.json", '{"model": {}, "data": "text.txt", "train": {}}')
        self.assert_mistake(self.motley.train(config, "run", "--data", self.motley.text), "strange.json: data: expected an object")

    def test_missing_path(self):
        self.assert_mistake(self.motley.train(self.motley.write_config(data_path=None), "run"), "data.path", "--data")


class Model(CommandTest):
    """Options of eval and generate; the model is a short run's."""

    def setUp(self):
        super().setUp()
        config = self.motley.write_config(train_steps=6, train_eval_every=0, train_sample_every=0)
        result = self.motley.train(config, "run")
        self.assertEqual(result.returncode, 0, result.stderr)

    def test_options_without_effect(self):
        run, cases = self.motley.path("run"), self.motley.write("cases.json", "[[1, 2]]")
        logits = self.motley.path("l.safetensors")
        for option, value in (("--window", 4), ("--max-windows", 7), ("--batch", 0)):
            result = self.motley.run("eval", run, "--tokens", cases, "--logits", logits, option, value)
            self.assert_mistake(result, option, "--tokens")
        self.assertFalse(os.path.exists(logits))
        self.assert_mistake(self.motley.run("generate", run, "--prompt", "a", "--seed", 3), "--seed", "--temperature")

    def test_errors_name_flags_and_print_nothing(self):
        run = self.motley.path("run")
        for option, value in (("--temperature", -1), ("--top-k", 5), ("--top-p", 0.5), ("--max-new-tokens", -3)):
            result = self.motley.run("generate", run, "--prompt", "a", option, value)
            self.assert_mistake(result, f"motley: error: {option}: expected")
        self.assert_mistake(self.motley.run("generate", run, "--prompt", "a" * 100), "error: --prompt: expected at most")
        for option, value in (("--window", 65), ("--max-windows", -1), ("--batch", 0)):
            result = self.motley.run("eval", run, "--data", self.motley.text, option, value)
            self.assert_mistake(result, f"motley: error: {option}: expected")

    def test_prompts_of_wrong_ids(self):
        run, cases = self.motley.path("run"), self.motley.write("cases.json", "[[3], [1, -2]]")
        error = f"motley: error: {cases}: element 1, token 1: expected an id of 0 to 255, found -2"
        self.assert_mistake(self.motley.run("generate", run, "--tokens", cases), error)
        self.assert_mistake(self.motley.run("eval", run, "--tokens", cases, "--logits", self.motley.path("l.safetensors")), error)

    def test_logits_in_the_place_of_inputs(self):
        run, cases = self.motley.path("run"), self.motley.write("cases.json", "[[1, 2]]")
        inputs = [os.path.join(run, "model", "model.safetensors"), os.path.join(run, "config.json"), cases]
        before = [open(path, "rb").read() for path in inputs]
        os.symlink(run, self.motley.path("link"))
        for logits in (*inputs, self.motley.path("link/model/config.json")):
            self.assert_mistake(self.motley.run("eval", run, "--tokens", cases, "--logits", logits), "error: --logits", "a file of its own")
        self.assertEqual([open(path, "rb").read() for path in inputs], before)
        new = self.motley.run("eval", run, "--tokens", cases, "--logits", os.path.join(run, "logits.safetensors"))
        self.assertEqual(new.returncode, 0, new.stderr)

    def test_configuration_without_weights(self):
        os.remove(self.motley.path("run/model/model.safetensors"))
        result = self.motley.run("generate", self.motley.path("run/model"), "--prompt", "a")
        self.assert_mistake(result, "run/model: expected model.safetensors beside config.json", "found config.json alone")

    def test_models_without_a_tokenizer(self):
        os.remove(self.motley.path("run/model/tokenizer.json"))
        result = self.motley.run("generate", self.motley.path("run"), "--prompt", "a")
        self.assert_mistake(result, "tokenizer.json", "use --tokens")

    def test_kernels_that_the_processor_has_not(self):
        missing = ask_for_missing_kernels(self)
        self.assert_mistake(self.motley.run("generate", self.motley.path("run"), "--prompt", "a"), "MOTLEY_CPU_KERNELS: expected", missing)

    def test_more_tokens_than_there_are_numbers(self):
        result = self.motley.run("generate", self.motley.path("run"), "--prompt", "the ", "--max-new-tokens", 2 ** 63 - 1, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        answer = json.loads(result.stdout.splitlines()[-1])
        self.assertEqual(answer["stop"], "max_positions")
        self.assertEqual(len(answer["tokens"]), 61)
        self.assertIn("stopped after 61 tokens: the model has 64 positions", result.stderr)

    def test_weights_that_are_not_finite(self):
        path = self.motley.path("run/model/model.safetensors")
        content = self.motley.read("run/model/model.safetensors")
        begin = 8 + int.from_bytes(content[:8], "little")
        with open(path, "wb") as file:
            file.write(content[:begin] + b"\xff" * (len(content) - begin))
        for command in (["generate", "--prompt", "a"], ["eval", "--data", self.motley.text]):
            result = self.motley.run(command[0], self.motley.path("run"), *command[1:])
            self.assertEqual(result.returncode, 1, result.stderr)
            self.assertIn("nan", result.stderr)
            self.assertEqual(result.stdout, "")
        generate = ["generate", self.motley.path("run"), "--prompt", "a"]
        self.assertIn(f"motley: error: {generate[1]}: the model's largest logit is nan at new token 1\n", self.motley.run(*generate).stderr)


class RunFolder(CommandTest):
    def setUp(self):
        super().setUp()
        self.config = self.motley.write_config(train_steps=20)

    def finish(self):
        result = self.motley.train(self.config, "run")
        self.assertEqual(result.returncode, 0, result.stderr)

    def unfinish(self):
        """As if stopped after its last checkpoints: no model, and steps left."""
        shutil.rmtree(self.motley.path("run/model"))
        shutil.rmtree(self.motley.path("run/checkpoints/step_20"))

    def test_folder_of_something_else(self):
        self.motley.write("run/thesis.tex", "precious")
        before = self.motley.files("run")
        self.assert_mistake(self.motley.train(self.config, "run"), self.motley.path("run"), "thesis.tex")
        self.assertEqual(self.motley.files("run"), before)

    def test_file_in_the_way(self):
        self.motley.write("run", "precious")
        self.assert_mistake(self.motley.train(self.config, "run"), self.motley.path("run"))
        self.assertEqual(self.motley.read("run"), b"precious")
        self.assert_mistake(self.motley.run("train", self.config, "--out", ""), "--out: expected a folder")

    def test_places_show_before_the_text_is_read(self):
        config = self.motley.write_config(data_path="/nowhere.txt")
        self.assert_mistake(self.motley.train(config, "text.txt/run"), "text.txt/run", "Not a directory")
        self.assert_mistake(self.motley.train(config, "new/run"), "/nowhere.txt")
        self.assertFalse(os.path.exists(self.motley.path("new")))

    def test_other_configuration(self):
        self.finish()
        before = self.motley.files("run")
        result = self.motley.train(self.config, "run", "--set", "train.learning_rate=0.1")
        self.assert_mistake(result, "train.learning_rate", "0.1", "0.003")
        self.assertEqual(self.motley.files("run"), before)

    def test_metrics_that_lost_bytes(self):
        """As after a power cut: the run goes on, with a warning and lines that can be read."""
        self.finish()
        whole = self.motley.metrics("run")
        for size in (500, 0, None):
            self.unfinish()
            path = self.motley.path("run/metrics.jsonl")
            os.remove(path) if size is None else os.truncate(path, size)
            result = self.motley.train(self.config, "run")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("metrics.jsonl: expected", result.stderr)
            self.assertEqual(self.motley.metrics("run")[0], whole[0])
            self.assertEqual(self.motley.metrics("run")[-1], whole[-1])

    def test_report_that_cannot_be_written(self):
        self.finish()
        self.unfinish()
        os.remove(self.motley.path("run/report.html"))
        os.makedirs(self.motley.path("run/report.html"))
        result = self.motley.train(self.config, "run")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("no new report", result.stderr)
        self.assertTrue(os.path.exists(self.motley.path("run/model")))

    def test_other_text(self):
        self.finish()
        self.unfinish()
        other = self.motley.write("other.txt", "something else " * 300)
        self.assert_mistake(self.motley.train(self.config, "run", "--data", other), other)

    def test_truncated_checkpoint_falls_back(self):
        self.finish()
        model = self.motley.read("run/model/model.safetensors")
        shutil.rmtree(self.motley.path("run/model"))
        weights = self.motley.path("run/checkpoints/step_20/model.safetensors")
        os.truncate(weights, os.path.getsize(weights) // 2)
        result = self.motley.train(self.config, "run")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("step_20", result.stderr)
        self.assertIn("going on from the older checkpoint", result.stderr)
        self.assertEqual(self.motley.read("run/model/model.safetensors"), model)

    def test_no_good_checkpoint(self):
        self.finish()
        self.unfinish()
        for step in self.motley.steps("run"):
            self.motley.write(f"run/checkpoints/step_{step}/trainer.json", '{"format": "another program", "window": null}')
        before = self.motley.files("run")
        result = self.motley.train(self.config, "run")
        self.assert_mistake(result, "trainer.json", "remove them")
        self.assertEqual(self.motley.files("run"), before)

    def test_no_write_permission(self):
        if os.geteuid() == 0:
            os.chmod(self.motley.folder, 0o755)
            options = {"user": 65534, "group": 65534, "extra_groups": []}
        else:
            os.chmod(self.motley.folder, 0o555)
            self.addCleanup(os.chmod, self.motley.folder, 0o755)
            options = {}
        try:
            subprocess.run([self.motley.program, "--version"], check=True, capture_output=True, **options)
        except (OSError, subprocess.CalledProcessError):
            self.skipTest("the program itself cannot be run by another user")
        result = self.motley.train(self.config, "run", **options)
        self.assert_mistake(result, self.motley.path("run"), "Permission denied")
        self.assertFalse(os.path.exists(self.motley.path("run")))
        os.makedirs(self.motley.path("closed/run"))
        os.chmod(self.motley.path("closed"), 0o700 if options else 0)
        self.addCleanup(os.chmod, self.motley.path("closed"), 0o755)
        for command in (["train", self.config, "--out"], ["generate", "--prompt", "a"], ["eval", "--data", self.motley.text]):
            result = self.motley.run(*command, self.motley.path("closed/run"), **options)
            self.assert_mistake(result, self.motley.path("closed/run"), "Permission denied")


class FullDisk(CommandTest):
    """A limit on the size of files fails writes as a full disk does; a small file system does it where root may mount."""

    def setUp(self):
        super().setUp()
        self.config = self.motley.write_config(train_checkpoint_every=5, train_steps=40)

    def test_first_checkpoint(self):
        def limit():
            resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))

        result = self.motley.train(self.config, "run", preexec_fn=limit)
        self.assert_mistake(result, "model.safetensors", "File too large", "there is no checkpoint yet")
        self.assertEqual(self.motley.steps("run"), [])
        self.assertFalse(any(name.endswith(".unfinished") for name in os.listdir(self.motley.path("run/checkpoints"))))
        # With room again the run goes on to its end.
        again = self.motley.train(self.config, "run")
        self.assertEqual(again.returncode, 0, again.stderr)

    def mount(self, limit):
        place = self.motley.path("small")
        os.makedirs(place)
        mount = ["mount", "-t", "tmpfs", "-o", limit, "tmpfs", place]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
            self.skipTest("no permission to mount a small file system")
        self.addCleanup(subprocess.run, ["umount", "-l", place])

    def test_before_the_first_step(self):
        """Room for a file less than a run needs before its first step, then for one more."""
        self.mount("nr_inodes=2")
        for inodes in range(2, 5):
            subprocess.run(["mount", "-o", f"remount,nr_inodes={inodes}", self.motley.path("small")], check=True)
            result = self.motley.train(self.config, "small/run")
            self.assert_mistake(result, self.motley.path("small/run"), "No space left on device")
            self.assertFalse(os.path.exists(self.motley.path("small/run")), inodes)

    def test_small_file_system(self):
        self.mount("size=1500k")
        result = self.motley.train(self.config, "small/run")
        self.assert_mistake(result, "No space left on device", "last good checkpoint")
        kept = self.motley.steps("small/run")
        self.assertTrue(kept)
        self.assertIn(f"step_{kept[-1]}", result.stderr)
        result = self.motley.run("eval", self.motley.path(f"small/run/checkpoints/step_{kept[-1]}"), "--data", self.motley.text, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)


if __name__ == "__main__":
    main()
