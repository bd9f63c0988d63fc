"""Experts of a MoE layer as a torch user would write them: SwiGLU, weights [E, 2F, D] and [E, D, F], given routing.

Slots of E and more are experts without a feed-forward network.
"""

import torch
import torch.nn.functional as F


def loop(x, slots, weights, gate_up, down):
    """A loop over experts: gather, two products, scatter."""
    y = torch.zeros_like(x)
    for expert in range(len(gate_up)):
        token, choice = torch.where(slots == expert)
        if token.numel() == 0:
            continue
        gate, up = F.linear(x[token], gate_up[expert]).chunk(2, dim=-1)
        out = F.linear(F.silu(gate) * up, down[expert])
        y = y.index_add(0, token, out * weights[token, choice].to(x.dtype).unsqueeze(1))
    return y


def grouped_mm(x, slots, weights, gate_up, down):
    """Sorted rows and torch's grouped products."""
    flat = slots.flatten()
    order = torch.argsort(flat, stable=True)
    counts = torch.bincount(flat, minlength=len(gate_up))[: len(gate_up)]
    offsets = counts.cumsum(0).to(torch.int32)
    order = order[: int(offsets[-1])]  # rows of experts without a feed-forward network come last
    token = order // slots.shape[1]
    gate, up = torch._grouped_mm(x[token], gate_up.transpose(1, 2), offs=offsets).chunk(2, dim=-1)
    out = torch._grouped_mm(F.silu(gate) * up, down.transpose(1, 2), offs=offsets)
    return torch.zeros_like(x).index_add(0, token, out * weights.flatten()[order].to(x.dtype).unsqueeze(1))


ROUTES = {"loop": loop, "grouped_mm": grouped_mm}


def zero_experts(x, slots, weights, kinds, first, constants, gates):
    """The part of MoE++'s experts `kinds`, whose slots begin with `first`; fp32."""
    y = torch.zeros(x.shape, dtype=torch.float32)
    constant = 0
    for index, kind in enumerate(kinds):
        share = (weights * (slots == first + index)).sum(1, keepdim=True)
        if kind == "copy":
            y = y + share * x
        elif kind == "constant":
            mix = F.linear(x, gates[constant]).float().softmax(-1)
            y = y + share * (mix[:, :1] * x + mix[:, 1:] * constants[constant])
            constant += 1
    return y
