"""A training step of a configuration's model: torch in eager mode beside `motley bench train`.

    python benchmarks/peers/train_step.py [--config configs/quickstart.json] [--threads N] [--motley PROGRAM]

Needs torch. Same architecture, batch and optimizer, random tokens, fresh weights; both report how many experts with a
feed-forward network a token takes. --check MODEL compares logits with `motley eval` instead, for the weights of a
model folder.
"""

import json
import pathlib
import subprocess
import tempfile

import torch
from common import HEADER, ROOT, arguments, measure, motley_bench, of_motley, processor, row
from decoder import Decoder, TrainingStep, read_safetensors
from experts import ROUTES

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def check(options):
    folder = pathlib.Path(options.check)
    config = json.loads((folder / "config.json").read_text())
    ids = torch.randint(0, config["vocab_size"], (2, 64), generator=torch.Generator().manual_seed(1))
    with tempfile.TemporaryDirectory() as scratch:
        cases, logits = pathlib.Path(scratch, "cases.json"), pathlib.Path(scratch, "logits.safetensors")
        cases.write_text(json.dumps(ids.tolist()))
        command = [options.motley, "eval", folder, "--tokens", cases, "--logits", logits, "--dtype", "fp32"]
        subprocess.run([str(part) for part in command], check=True)
        theirs = read_safetensors(logits)
    wanted = torch.stack([theirs["logits_0"], theirs["logits_1"]])
    for route in ROUTES:
        model = Decoder(config, torch.float32, route)
        model.load(read_safetensors(folder / "model.safetensors"))
        with torch.no_grad():
            found, _ = model.forward(ids, training=False)
        worst = (found - wanted).abs().max().item()
        print(f"{route}: logits differ by {worst:.2e} at most, of {wanted.abs().max().item():.1f}")
        assert worst < 1e-3 * wanted.abs().max().item()


def peers(config, options):
    batch, length = config["train"]["batch_size"], config["data"]["sequence_length"]
    ids = torch.randint(0, config["model"]["vocab_size"], (batch, length + 1))
    for dtype, torch_dtype in DTYPES.items():
        for route in ROUTES:
            step = TrainingStep(Decoder(config["model"], torch_dtype, route), config["train"])
            try:
                figures = measure(options.seconds, lambda: step(ids[:, :-1], ids[:, 1:]))
            except (RuntimeError, NotImplementedError) as error:
                print(f"torch {torch.__version__} cannot do {route} in {dtype}: {error}")
                continue
            yield f"torch eager, {route}, {dtype}", figures


def main():
    parser = arguments(__doc__)
    parser.add_argument("--config", default=ROOT / "configs/quickstart.json")
    parser.add_argument("--check", metavar="MODEL", help="compare logits for this model folder, measure nothing")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.check:
        return check(options)
    config = json.loads(pathlib.Path(options.config).read_text())
    print(f"A training step of {options.config}, {options.threads} threads of {processor()}, torch {torch.__version__}\n")
    ours = {}
    print(HEADER)
    for dtype in DTYPES:
        changed = ("--set", f"train.dtype={dtype}", "--seconds", 2 * options.seconds)
        figures = motley_bench(options, "train", options.config, *changed)
        ours[dtype] = of_motley(figures["step"])
        row(f"Motley, {dtype}, {figures['ffn_experts_per_token']:.2f} FFN experts a token", ours[dtype])
    reference = ours[config["train"].get("dtype", "fp32")][0]  # what the configuration asks for
    for name, figures in peers(config, options):
        row(name, figures, figures[0] / reference)


if __name__ == "__main__":
    main()
