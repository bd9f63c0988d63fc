"""Loads the operators' library into Python's torch and trains one step through it.

usage: load_library.py LIBRARY. Exit code 77 where Python has no torch: nothing was tested.
"""
import sys

try:
    import torch
except ImportError as error:
    print(f"skipped: {error}")
    sys.exit(77)

torch.ops.load_library(sys.argv[1])
torch.manual_seed(0)
T, K, E, D, F = 11, 2, 3, 8, 5
slots = torch.stack([torch.randperm(E + 1)[:K] for _ in range(T)]).int()  # slot E is no expert's
plan = torch.ops.motley.routing_plan(slots, E)


def leaves():
    torch.manual_seed(1)
    shapes = [(T, D), (T, K), (E, 2 * F, D), (E, D, F)]
    return [torch.randn(shape, requires_grad=True) for shape in shapes]


def assert_close(actual, expected):
    error = (actual - expected).abs().max() / expected.abs().max()
    assert error < 1e-5, f"relative error {error}"


def reference(x, gate_weights, gate_up, down):
    y = torch.zeros(T, D)
    for expert in range(E):
        tokens, choices = (slots == expert).nonzero(as_tuple=True)
        gate, up = (x[tokens] @ gate_up[expert].T).chunk(2, -1)
        rows = (torch.nn.functional.silu(gate) * up) @ down[expert].T
        y = y.index_add(0, tokens, rows * gate_weights[tokens, choices, None])
    return y


found, wanted = leaves(), leaves()
x, gate_weights, gate_up, down = found
y = torch.ops.motley.expert_ffn(x, gate_weights, *plan, gate_up, down, None, None, None, 0, 0.0, 0.0)
expected = reference(*wanted)
assert_close(y, expected)
y.square().sum().backward()
expected.square().sum().backward()
for a, b in zip(found, wanted):
    assert_close(a.grad, b.grad)

try:
    torch.ops.motley.expert_ffn(x, gate_weights, *plan, gate_up.half(), down, None, None, None, 0, 0.0, 0.0)
except RuntimeError as error:
    assert "[expert_rows] expected gate_up of dtype Float, got Half" in str(error), error
else:
    raise AssertionError("expected an error about gate_up's dtype")
print("passed")
