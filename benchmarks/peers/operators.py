"""One expert layer (SwiGLU, given routing): torch and transformers beside `motley bench operators`.

    python benchmarks/peers/operators.py [--dtype bf16] [--tokens 512 --hidden 512 --width 1024 --experts 16 --top-k 2]

Needs torch; with transformers installed its grouped_mm experts take part, too.
"""

import torch
import torch.nn.functional as F
from common import HEADER, arguments, measure, motley_bench, of_motley, processor, row
from experts import ROUTES

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def transformers_experts():
    """The function that transformers' MoE models run, where it is installed."""
    try:
        from transformers.integrations.moe import grouped_mm_experts_forward
    except ImportError:
        return None

    class Experts(torch.nn.Module):
        def __init__(self, gate_up, down):
            super().__init__()
            self.gate_up_proj, self.down_proj = gate_up, down
            self.num_experts, self.is_transposed, self.has_bias, self.has_gate = len(gate_up), False, False, True
            self.act_fn = F.silu
            self._is_expert_parallel = self.has_post_expert_norm = False  # newer versions ask for them

        def _apply_gate(self, hidden):
            gate, up = hidden.chunk(2, dim=-1)
            return F.silu(gate) * up

    def run(x, slots, weights, gate_up, down):
        return grouped_mm_experts_forward(Experts(gate_up, down), x, slots, weights.to(x.dtype))

    return run


def main():
    parser = arguments(__doc__)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    sizes = {"tokens": 512, "hidden": 512, "width": 1024, "experts": 16, "top-k": 2}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    size = {name: getattr(options, name.replace("-", "_")) for name in sizes}
    dtype = DTYPES[options.dtype]
    shape = ", ".join(f"{name} {value}" for name, value in size.items())
    print(f"{shape}, {options.dtype}, {options.threads} threads of {processor()}, torch {torch.__version__}\n\n{HEADER}")
    flags = [part for name, value in size.items() for part in (f"--{name}", value)]
    figures = motley_bench(
        options, "operators", *flags, "--dtype", options.dtype, "--seconds", options.seconds
    )
    ours = {}
    for entry in figures["operators"]:
        ours[entry["name"]] = entry["milliseconds"]
        row(f"Motley: {entry['name']}, {100 * entry['share_of_floor']:.0f} % of floor", of_motley(entry))

    x = torch.randn(size["tokens"], size["hidden"]).to(dtype)
    weights, slots = torch.rand(size["tokens"], size["experts"]).topk(size["top-k"])
    gate_up = (0.02 * torch.randn(size["experts"], 2 * size["width"], size["hidden"])).to(dtype).requires_grad_()
    down = (0.02 * torch.randn(size["experts"], size["hidden"], size["width"])).to(dtype).requires_grad_()
    x.requires_grad_(), weights.requires_grad_()
    dy = torch.randn(size["tokens"], size["hidden"]).to(dtype)

    def forward_backward(run):
        run(x, slots, weights, gate_up, down).backward(dy)
        for tensor in (x, weights, gate_up, down):
            tensor.grad = None

    routes = {**ROUTES, "transformers grouped_mm": transformers_experts()}
    for name, run in routes.items():
        if run is None:
            continue
        try:
            with torch.no_grad():
                forward = measure(options.seconds, lambda: run(x, slots, weights, gate_up, down))
            both = measure(options.seconds, lambda: forward_backward(run))
        except (RuntimeError, AttributeError, TypeError) as error:
            print(f"| torch: {name} | cannot: {str(error).splitlines()[0]} | | |")
            continue
        for passes, figures in (("forward", forward), ("forward and backward", both)):
            row(f"torch: {name} {passes}", figures, figures[0] / ours[f"expert_ffn {passes}"])


if __name__ == "__main__":
    main()
