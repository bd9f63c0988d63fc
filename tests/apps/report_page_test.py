"""The page of a run's report in a headless browser: its script runs and draws what the run did.

usage: report_page_test.py MOTLEY; exits with 77, for skipped, where no browser is installed
"""

import html
import re
import shutil
import subprocess
import sys

from command import CommandTest, main

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)


class ReportPage(CommandTest):
    def draw(self, run):
        """The document after its script, as text, and what the browser's console said."""
        command = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        command += [f"--user-data-dir={self.motley.path('browser')}", "--enable-logging=stderr"]
        command += ["--virtual-time-budget=5000", "--dump-dom", f"file://{self.motley.path(run)}/report.html"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
        self.assertEqual(done.returncode, 0, done.stderr)
        console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
        return done.stdout.split('<script type="application/json"')[0], console

    def test_page(self):
        config = self.motley.write_config(train_steps=12, train_eval_every=6)
        result = self.motley.train(config, "a<b")  # a name that would break careless markup
        self.assertEqual(result.returncode, 0, result.stderr)
        page, console = self.draw("a<b")
        self.assertEqual(console, [])
        self.assertIn("Motley: a&lt;b", page)
        self.assertIn("12 of 12 steps", page)
        loss = page[page.index('id="loss"') :]
        self.assertRegex(loss, r"<svg[^>]*>.*?<path[^>]*d=\"M[^\"]*L", "no curve of the loss")
        tiles = re.search(r'id="tiles">(.*?)</div><section|id="tiles">(.*?)<section', page, re.DOTALL)
        self.assertGreaterEqual(tiles.group(0).count('class="tile"'), 4)
        self.assertEqual(page[page.index('id="maps"') :].count("<canvas"), 2, "a map of load for each MoE layer")
        self.assertIn("the ", html.unescape(page[page.index('id="samples"') :]))
        self.assertNotIn("NaN", page)
        self.assertNotIn("undefined", page)


if __name__ == "__main__":
    if BROWSER is None:
        print(f"skipped: none of {', '.join(BROWSERS)} is installed")
        sys.exit(77)
    main()
