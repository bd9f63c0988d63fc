"""`motley bench`: every subcommand at a small size gives one JSON object whose figures fit together.

usage: bench_test.py PROGRAM
"""

import json

from command import CommandTest, main


class Bench(CommandTest):
    def bench(self, *arguments):
        result = self.motley.run("bench", *arguments, "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        figures = json.loads(result.stdout)
        self.assertEqual((figures["threads"], figures["device"]), (1, "cpu"))
        self.assertEqual(len(figures["ceilings"]) > 0, "ceilings now: " in result.stderr)
        return figures

    def test_train_parts_add_up_to_the_step(self):
        figures = self.bench("train", self.motley.write_config(), "--seconds", "0.4")
        parts = figures["parts"]
        for part in ("attention", "norms", "gates", "experts", "head", "embedding", "loss"):
            self.assertGreater(parts[part]["forward_milliseconds"], 0, part)
            self.assertGreater(parts[part]["backward_milliseconds"], 0, part)
        self.assertGreater(parts["optimizer"]["forward_milliseconds"], 0)
        total = sum(sum(part.values()) for part in parts.values())
        step = figures["step"]
        self.assertGreater(total, 0.5 * step["least_milliseconds"])
        self.assertLess(total, 3 * step["most_milliseconds"])
        self.assertLess(parts["other"]["backward_milliseconds"], 0.5 * total)

    def test_operators_stand_beside_the_larger_of_two_floors(self):
        sizes = ("--tokens", "8", "--hidden", "32", "--width", "32", "--experts", "4", "--seconds", "0")
        figures = self.bench("operators", *sizes, "--dtype", "fp32,bf16")
        rows = figures["operators"]
        self.assertEqual([row["dtype"] for row in rows], ["fp32"] * 4 + ["bf16"] * 4)
        for row in rows:
            self.assertLess(row["least_milliseconds"], row["most_milliseconds"])
            self.assertEqual(row["share_of_floor"], max(row["share_of_peak"], row["share_of_read"]), row["name"])

    def test_tables_of_operators_are_measured_on_a_cpu(self):
        result = self.motley.run("bench", "operators", "products")
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("matmul", result.stderr)
        result = self.motley.run("bench", "operators", "matmul", "--tokens", "9")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--tokens: expected layer", result.stderr)
        rows = self.bench("operators", "decode", "--dtype", "bf16", "--seconds", "0")["operators"]
        self.assertEqual([row["name"].split()[:2] for row in rows], [["decode", tokens] for tokens in "1248"])
        for row in rows:
            self.assertGreater(row["bytes_per_second"], 0, row["name"])
            self.assertGreater(row["share_of_floor"], 0, row["name"])

    def test_zero_experts_take_the_rows_that_tau_gives_them(self):
        figures = self.bench(
            *("zero-experts", "--hidden", "32", "--width", "32", "--experts", "4", "--constant-experts", "1"),
            *("--rows", "64", "--tau", "0.25", "1", "--seconds", "0", "--dtype", "fp32"),
        )
        few, many = figures["rows"]
        self.assertAlmostEqual(many["ffn_experts_per_token"], 2 * 4 / 7, delta=0.15)
        self.assertLess(few["ffn_experts_per_token"], many["ffn_experts_per_token"])
        self.assertAlmostEqual(few["theory"], 2 / few["ffn_experts_per_token"], places=6)
        self.assertAlmostEqual(few["share_of_theory"], few["speedup"] / few["theory"], places=6)

    def test_gating_counts_the_memory_of_padding(self):
        sizes = ("--tokens", "64", "--experts", "16", "--hidden", "16", "--width", "16", "--seconds", "0")
        figures = self.bench("gating", *sizes, "--capacity", "1")
        self.assertEqual(figures["waste_factor"], 8)
        self.assertEqual(figures["dropped"], 0)
        mask = 64 * 64 * 16 * 4
        self.assertGreater(figures["static_peak_bytes"], mask)
        self.assertLess(figures["dynamic_peak_bytes"], mask)

    def test_gating_that_does_not_fit_is_refused(self):
        result = self.motley.run("bench", "gating", "--tokens", "10000000", "--experts", "100000")
        self.assertEqual(result.returncode, 2, result.stderr)
        self.assertIn("--tokens", result.stderr)

    def test_gating_doubles_batches_until_the_best(self):
        sizes = ("--tokens", "16", "--experts", "8", "--hidden", "16", "--width", "16", "--seconds", "0")
        figures = self.bench("gating", *sizes, "--capacity", "0.5", "--batches")
        for layer in ("static", "dynamic"):
            tokens = [row["tokens"] for row in figures[layer]]
            self.assertGreaterEqual(len(tokens), 2)
            self.assertEqual(tokens, [16 << i for i in range(len(tokens))])
        best = [max(row["tokens_per_second"] for row in figures[layer]) for layer in ("dynamic", "static")]
        self.assertAlmostEqual(figures["speedup_at_best_batch"], best[0] / best[1], places=6)

    def test_devices_that_are_not_there_are_named(self):
        for device in ("tpu", "cuda:99", "cuda:x"):
            for command in ("gating", "zero-experts", "operators"):
                result = self.motley.run("bench", command, "--device", device)
                self.assertEqual(result.returncode, 2, result.stderr)
                self.assertIn("--device", result.stderr)
                self.assertIn(device, result.stderr)


if __name__ == "__main__":
    main()
