"""A run that is stopped and started again ends as one that never stopped, bit for bit.

usage: resume_test.py PROGRAM
"""

import json
import os
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
        # A later limit goes on with the same run.
        longer = self.finish(self.motley.write_config(train_steps=100_000, train_max_minutes=0.04), "run")
        self.assertGreater(longer["step"], result["step"])

    def test_keeps_the_last_and_the_best(self):
        config = self.motley.write_config(train_checkpoint_every=4, train_keep_checkpoints=2)
        self.finish(config, "run")
        steps = self.motley.steps("run")
        best = json.loads(self.motley.read("run/checkpoints/step_60/trainer.json"))["best_step"]
        self.assertEqual(steps, sorted({56, 60, best}))

    def test_loss_that_is_not_finite(self):
        config = self.motley.write_config(train_checkpoint_every=2, train_learning_rate=1e20, train_warmup_steps=0)
        config_good = json.loads(self.motley.read("config.json"))
        result = self.motley.train(config, "run")
        self.assertEqual(result.returncode, 1, result.stderr)
        self.assertRegex(result.stderr, r"step \d+: the (loss|gradient's norm|update|validation loss)")
        self.assertRegex(result.stderr, r"(last good checkpoint is .*step_\d+|no checkpoint yet)")
        self.assertRegex(result.stderr, r"model\.layers\.|model\.embed_tokens|lm_head|model\.norm")
        self.assertEqual(config_good["train"]["learning_rate"], 1e20)


if __name__ == "__main__":
    main()
