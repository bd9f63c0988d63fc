"""One expert layer (SwiGLU, given routing): torch beside `motley bench operators`.

    python benchmarks/peers/operators.py [--dtype bf16] [--tokens 512 --hidden 512 --width 1024 --experts 16 --top-k 2]

Needs torch; with transformers installed its grouped_mm experts take part, too.
"""

import torch
import torch.nn.functional as F
from common import HEADER, arguments, measure, motley_bench, of_motley, processor, row

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def loop(x, slots, weights, gate_up, down):
    y = torch.zeros_like(x)
    for expert in range(len(gate_up)):
        token, choice = torch.where(slots == expert)
        if token.numel() == 0:
            continue
        gate, up = F.linear(x[token], gate_up[expert]).chunk(2, dim=-1)
        out = F.linear(F.silu(gate) * up, down[expert]) * weights[token, choice].to(x.dtype).unsqueeze(1)
        y = y.index_add(0, token, out)
    return y


def grouped_mm(x, slots, weights, gate_up, down):
    flat = slots.flatten()
    order = torch.argsort(flat, stable=True)
    offsets = torch.bincount(flat, minlength=len(gate_up)).cumsum(0).to(torch.int32)
    token = order // slots.shape[1]
    gate, up = torch._grouped_mm(x[token], gate_up.transpose(1, 2), offs=offsets).chunk(2, dim=-1)
    out = torch._grouped_mm(F.silu(gate) * up, down.transpose(1, 2), offs=offsets)
    return torch.zeros_like(x).index_add(0, token, out * weights.flatten()[order].to(x.dtype).unsqueeze(1))


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
    figures = motley_bench(options, "operators", *flags, "--dtype", options.dtype)
    for entry in figures["operators"]:
        row(f"Motley: {entry['name']}, {100 * entry['share_of_peak']:.0f} % of peak", of_motley(entry))

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

    routes = {"loop over experts": loop, "grouped_mm": grouped_mm, "transformers grouped_mm": transformers_experts()}
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
        row(f"torch: {name} forward", forward)
        row(f"torch: {name} forward and backward", both)


if __name__ == "__main__":
    main()
