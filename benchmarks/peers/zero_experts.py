"""MoE++'s expert forward against a vanilla MoE's, by tau: torch beside `motley bench zero-experts`.

    python benchmarks/peers/zero_experts.py [--dtype bf16] [--tau 0.1 0.25 0.5 0.75 1] [--rows 512]

Needs torch. Same sizes, tokens and odds; plan, experts and their sum, without the router. "of theory" is the speedup
over the one that the saved assignments promise; torch's vanilla and MoE++ layers run in turn.
"""

import statistics
import time

import torch
from common import arguments, motley_bench, processor
from experts import ROUTES, zero_experts

HIDDEN, WIDTH, EXPERTS, TOP_K = 768, 2048, 8, 2
KINDS = ["zero", "copy", "constant", "constant"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def draw(tokens, slots, tau):
    """Different choices a token, with odds of tau to 1 between experts with and without a feed-forward network."""
    odds = torch.zeros(slots)
    odds[:EXPERTS] = torch.tensor(tau).log()
    gumbel = -torch.rand(tokens, slots).clamp_min(1e-9).log().neg().log()
    return (odds + gumbel).softmax(1).topk(TOP_K, 1)


def in_turn(seconds, runs):
    """Median milliseconds of each."""
    times = [[] for _ in runs]
    for run in runs:
        run()
    begin = time.perf_counter()
    while len(times[0]) < 3 or time.perf_counter() - begin < seconds:
        for run, taken in zip(runs, times):
            start = time.perf_counter()
            run()
            taken.append(1e3 * (time.perf_counter() - start))
    return [statistics.median(taken) for taken in times]


def main():
    parser = arguments(__doc__)
    parser.add_argument("--dtype", choices=DTYPES, default="bf16")
    parser.add_argument("--tau", type=float, nargs="+", default=[0.1, 0.25, 0.5, 0.75, 1.0])
    parser.add_argument("--rows", type=int, default=512, help="of an expert, at least (default: %(default)s)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    flags = ["--dtype", options.dtype, "--rows", options.rows, "--seconds", options.seconds, "--tau", *options.tau]
    ours = motley_bench(options, "zero-experts", *flags)
    tokens, dtype = ours["tokens"], DTYPES[options.dtype]
    print(
        f"{EXPERTS} experts of {HIDDEN} x {WIDTH}, {tokens} tokens, top-{TOP_K}, {options.dtype}, "
        f"{options.threads} threads of {processor()}, torch {torch.__version__}\n\n"
        "| | tau | FFN experts a token | vanilla ms | MoE++ ms | faster by | theory | of theory |\n" + "|---" * 8 + "|"
    )

    def print_row(name, tau, assigned, vanilla, plus, theory):
        print(
            f"| {name:<18} | {tau:.2f} | {assigned:.3f} | {vanilla:.2f} | {plus:.2f} | {vanilla / plus:.2f}x "
            f"| {theory:.2f}x | {100 * vanilla / plus / theory:.1f} % |",
            flush=True,
        )

    for entry in ours["rows"]:
        medians = (entry[layer]["milliseconds"] for layer in ("vanilla", "moe_plus_plus"))
        print_row("Motley", entry["tau"], entry["ffn_experts_per_token"], *medians, entry["theory"])

    def weights(*shape):
        return (0.02 * torch.randn(*shape)).to(dtype)

    x = torch.randn(tokens, HIDDEN).to(dtype)
    gate_up, down = weights(EXPERTS, 2 * WIDTH, HIDDEN), weights(EXPERTS, HIDDEN, WIDTH)
    constants, gates = weights(2, HIDDEN), weights(2, 2, HIDDEN)
    even_weights, even_slots = draw(tokens, EXPERTS, 1.0)
    for name, experts in ROUTES.items():
        for tau in options.tau:
            drawn_weights, drawn_slots = draw(tokens, EXPERTS + len(KINDS), tau)

            def vanilla():
                return experts(x, even_slots, even_weights, gate_up, down)

            def plus():
                y = experts(x, drawn_slots, drawn_weights, gate_up, down)
                return (y + zero_experts(x, drawn_slots, drawn_weights, KINDS, EXPERTS, constants, gates)).to(dtype)

            assigned = (drawn_slots < EXPERTS).sum().item() / tokens
            with torch.no_grad():
                medians = in_turn(options.seconds, [vanilla, plus])
            print_row(f"torch, {name}", tau, assigned, *medians, TOP_K / assigned)


if __name__ == "__main__":
    main()
