"""A run that is stopped and started again ends as one that never stopped, bit for bit.

usage: resume_test.py PROGRAM
"""

import json
import os
import shutil
import signal
import time
import unittest

from command import CommandTest, main
from kill_test import kill_and_compare


class Resume(CommandTest):
    def finish(self, config, run, **options):
        result = self.motley.train(config, run, "--json", **options)
        self.assertEqual(result.returncode, 0, result.stderr)
        return json.loads(result.stdout.splitlines()[-1])

    def stop_and_go_on(self, config, run, number, threads):
        process = self.motley.start("train", config, "--out", self.motley.path(run), threads=threads)
        self.assertTrue(self.motley.wait_for(f"{run}/checkpoints/step_10"))
        time.sleep(0.02)
        code, errors = self.motley.stop(process, number)
        self.assertEqual(code, 128 + number, errors)
        self.assertIn("stopped by signal", errors)
        stopped_at = self.motley.steps(run)[-1]
        self.assertLess(stopped_at, 60)
        self.assertFalse(os.path.exists(self.motley.path(f"{run}/model")))
        return self.finish(config, run, threads=threads)

    def test_signals_save_first(self):
        config = self.motley.write_config(train_steps=60, data_sequence_length=64, train_batch_size=16)
        for threads in (1, 2):
            whole = self.finish(config, f"whole{threads}", threads=threads)
            for number in (signal.SIGTERM, signal.SIGINT):
                run = f"stopped{threads}_{int(number)}"
                parts = self.stop_and_go_on(config, run, number, threads)
                self.assert_same_model(f"whole{threads}", run)
                self.assertEqual(self.motley.metrics(run), self.motley.metrics(f"whole{threads}"))
                self.assertEqual(parts["validation_loss"], whole["validation_loss"])

    def large_validation(self, **changes):
        """Evaluations that take long beside the steps."""
        text = self.motley.write("large.txt", self.motley.read("text.txt") * 8)
        return self.motley.write_config(data_path=text, data_validation_fraction=0.9, train_steps=6, train_log_every=2,
                                        train_sample_every=None, **changes)

    def test_signal_in_the_last_evaluation(self):
        """The finished training is on the disk before anything else is done with it."""
        config = self.large_validation(train_checkpoint_every=0, train_eval_every=0, train_eval_tokens=32)
        self.finish(config, "whole")
        process = self.motley.start("train", config, "--out", self.motley.path("run"))
        self.assertTrue(self.motley.wait_for("run/checkpoints/step_6"))
        code, errors = self.motley.stop(process)
        self.assertEqual(code, 128 + signal.SIGTERM, errors)
        self.assertFalse(os.path.exists(self.motley.path("run/model")))
        self.finish(config, "run")
        self.assert_same_model("run", "whole")
        self.assertEqual(self.motley.metrics("run"), self.motley.metrics("whole"))

    def test_signals_in_evaluations(self):
        config = self.large_validation(train_checkpoint_every=4, train_eval_every=2)
        self.finish(config, "whole")
        stops = 0
        for kinds in (["train"], ["train", "eval", "train"]):
            process = self.motley.start("train", config, "--out", self.motley.path("run"))
            while process.poll() is None:  # until the evaluation that follows these lines begins
                found = [line["kind"] for line in self.motley.metrics("run")[1:]] if os.path.exists(self.motley.path("run/metrics.jsonl")) else []
                if found[:len(kinds)] == kinds:
                    break
            time.sleep(0.1)
            code, errors = self.motley.stop(process)
            self.assertEqual(code, 128 + signal.SIGTERM, errors)
            stops += 1
            self.assertEqual(self.motley.steps("run")[-1], 2 * stops)
            self.assertEqual(self.motley.metrics("run")[-1]["kind"], "train")  # the evaluation was not waited for
        self.finish(config, "run")
        self.assert_same_model("run", "whole")
        self.assertEqual(self.motley.metrics("run"), self.motley.metrics("whole"))

    def test_bf16_with_accumulation(self):
        config = self.motley.write_config(train_dtype="bf16", train_gradient_accumulation=3, train_batch_size=4,
                                          train_steps=24)
        self.finish(config, "whole")
        kill_and_compare(self.motley, config, "whole", kills=2, threads=1, seed=5)

    def test_kills(self):
        config = self.motley.write_config(train_checkpoint_every=3)
        for threads in (1, 2):
            self.finish(config, f"whole{threads}", threads=threads)
            kill_and_compare(self.motley, config, f"whole{threads}", kills=5, threads=threads, seed=threads)

    def test_finished_run_is_left_alone(self):
        config = self.motley.write_config(train_steps=12)
        first = self.finish(config, "run")
        before = self.motley.files("run")
        self.assertEqual(self.finish(config, "run"), first)
        self.assertEqual(self.motley.files("run"), before)
        self.assertGreater(len(before["report.html"]), 1000)

    def test_time_limit(self):
        config = self.motley.write_config(train_steps=100_000, train_max_minutes=0.02)
        result = self.finish(config, "run")
        self.assertLess(result["step"], 100_000)
        self.assertTrue(os.path.exists(self.motley.path("run/model/model.safetensors")))
        # A later limit goes on with the same run, whose first end is then no model of it any more.
        process = self.motley.start("train", self.motley.write_config(train_steps=100_000, train_max_minutes=1),
                                    "--out", self.motley.path("run"))
        self.assertTrue(self.motley.wait_for(f"run/checkpoints/step_{result['step'] // 10 * 10 + 20}"))
        code, errors = self.motley.stop(process)
        self.assertEqual(code, 128 + signal.SIGTERM, errors)
        self.assertFalse(os.path.exists(self.motley.path("run/model")))
        longer = self.finish(self.motley.write_config(train_steps=100_000, train_max_minutes=0.1), "run")
        self.assertGreater(longer["step"], result["step"])

    def test_keeps_the_last_and_the_best(self):
        config = self.motley.write_config(train_checkpoint_every=4, train_keep_checkpoints=2)
        self.finish(config, "run")
        steps = self.motley.steps("run")
        best = json.loads(self.motley.read("run/checkpoints/step_60/trainer.json"))["best_step"]
        self.assertEqual(steps, sorted({56, 60, best}))

    def diverge(self, what, checkpoint, **changes):
        """Exit code 1, and a message with the step, the place and the last good checkpoint; and a report."""
        config = self.motley.write_config(train_warmup_steps=0, **changes)
        shutil.rmtree(self.motley.path("run"), ignore_errors=True)
        result = self.motley.train(config, "run")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, what)
        self.assertRegex(result.stderr, r"model\.(layers|embed_tokens|norm)|lm_head")
        self.assertIn(checkpoint, result.stderr)
        self.assertTrue(os.path.exists(self.motley.path("run/report.html")))

    def test_weights_that_are_not_finite(self):
        """Found by what looks at them first: a sample, an evaluation, a checkpoint, the end of the run."""
        update = r"step 1: the update made model\S+ not finite"
        huge = dict(train_learning_rate=3.4e38, train_eval_every=0, train_checkpoint_every=0, train_sample_every=0)
        none = "there is no checkpoint yet"
        self.diverge(update, none, **dict(huge, train_sample_every=1))
        self.diverge(update, none, **dict(huge, train_eval_every=1))
        self.diverge(update, none, **dict(huge, train_checkpoint_every=1))
        self.diverge(update, none, **dict(huge, train_steps=1))
        self.diverge(update, none, **dict(huge, train_steps=1, data_validation_fraction=0, train_eval_every=None,
                                          train_sample_every=None, train_sample_tokens=0, train_sample_prompt=None))

    def test_activations_that_are_not_finite(self):
        """Weights that are finite and give values that are not."""
        huge = dict(train_learning_rate=1e18, train_checkpoint_every=0, train_eval_every=1, train_sample_every=0)
        self.diverge(r"step 1: the validation loss is -?(nan|inf)", "there is no checkpoint yet", **huge)
        huge.update(data_validation_fraction=0, train_eval_every=None)
        self.diverge(r"step 1: in a sample the model's largest logit is -?(nan|inf)", "there is no checkpoint yet",
                     **dict(huge, train_sample_every=1))
        self.diverge(r"step 2: the (loss|gradient's norm) is -?(nan|inf)", "last good checkpoint is",
                     **dict(huge, train_checkpoint_every=1))
        self.assertEqual(self.motley.steps("run"), [1])


if __name__ == "__main__":
    main()
