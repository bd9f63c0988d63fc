"""Dynamic against static gating, a whole layer's forward pass: torch beside `motley bench gating`.

    python benchmarks/peers/gating.py [--tokens 4096 --hidden 256 --width 1024 --experts 512 --top-k 2 --capacity 0.05]

Needs torch. torch's static layer is the padded one of GShard and fairseq: a mask [tokens, experts, places] and products
with it; its dynamic ones are the routes of experts.py. Router included; fp32.
"""

import math

import torch
import torch.nn.functional as F
from common import HEADER, arguments, measure, motley_bench, of_motley, processor, row
from experts import ROUTES


def route(x, gate, top_k):
    return F.linear(x, gate).softmax(-1).topk(top_k, -1)


def static(x, gate, gate_up, down, top_k, places):
    """Tokens beyond an expert's places are dropped."""
    weights, slots = route(x, gate, top_k)
    chosen = F.one_hot(slots.T.flatten(), len(gate))  # first choices first
    place = (chosen.cumsum(0) - 1).gather(1, slots.T.flatten().unsqueeze(1)).squeeze(1)
    kept = (place < places).nonzero().squeeze(1)
    token = kept % len(x)
    mask = torch.zeros(len(x), len(gate), places)
    mask[token, slots.T.flatten()[kept], place[kept]] = weights.T.flatten()[kept]
    rows = torch.einsum("tec,td->ecd", (mask > 0).to(x.dtype), x)
    first, second = torch.bmm(rows, gate_up.transpose(1, 2)).chunk(2, dim=-1)
    out = torch.bmm(F.silu(first) * second, down.transpose(1, 2))
    return torch.einsum("tec,ecd->td", mask, out)


def main():
    parser = arguments(__doc__)
    sizes = {"tokens": 4096, "hidden": 256, "width": 1024, "experts": 512, "top-k": 2}
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--capacity", type=float, default=0.05)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    flags = [part for name in sizes for part in (f"--{name}", getattr(options, name.replace("-", "_")))]
    ours = motley_bench(options, "gating", *flags, "--capacity", options.capacity, "--seconds", options.seconds)
    print(
        f"{options.experts} experts, C {options.capacity}, {options.tokens} tokens, D {options.hidden}, "
        f"F {options.width}, top-{options.top_k}, waste factor {ours['waste_factor']:.1f}; {options.threads} threads of "
        f"{processor()}, torch {torch.__version__}\n\n{HEADER}"
    )
    reference = ours["dynamic"]["milliseconds"]
    for name in ("dynamic", "static"):
        row(f"Motley, {name}", of_motley(ours[name]), ours[name]["milliseconds"] / reference)

    x, gate = torch.randn(options.tokens, options.hidden), torch.randn(options.experts, options.hidden) / 16
    gate_up = 0.02 * torch.randn(options.experts, 2 * options.width, options.hidden)
    down = 0.02 * torch.randn(options.experts, options.hidden, options.width)

    def dynamic(experts):
        weights, slots = route(x, gate, options.top_k)
        return experts(x, slots, weights, gate_up, down)

    layers = {f"dynamic, {name}": lambda experts=experts: dynamic(experts) for name, experts in ROUTES.items()}
    places = math.ceil(options.capacity * options.tokens)
    layers["static, mask"] = lambda: static(x, gate, gate_up, down, options.top_k, places)
    for name, layer in layers.items():
        with torch.no_grad():
            figures = measure(options.seconds, layer)
        row(f"torch, {name}", figures, figures[0] / reference)


if __name__ == "__main__":
    main()
