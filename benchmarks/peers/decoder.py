"""The model of a Motley configuration, in plain torch: the same architecture, tensor names and initial weights.

Experts are computed by one of the routes of experts.py.
"""

import json
import math
import struct

import torch
import torch.nn.functional as F
from experts import ROUTES, zero_experts


def read_safetensors(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack("<Q", data[:8])
    dtypes = {"F32": torch.float32, "BF16": torch.bfloat16}
    tensors = {}
    for name, entry in json.loads(data[8 : 8 + length]).items():
        if name == "__metadata__":
            continue
        begin, end = (8 + length + offset for offset in entry["data_offsets"])
        tensor = torch.frombuffer(bytearray(data[begin:end]), dtype=dtypes[entry["dtype"]])
        tensors[name] = tensor.reshape(entry["shape"])
    return tensors


def rms_norm(x, weight, eps):
    return F.rms_norm(x, weight.shape, weight, eps)


class Decoder:
    def __init__(self, config, dtype, route="loop", seed=1):
        self.config, self.dtype, self.route = config, dtype, route
        self.kinds = config.get("zero_expert_types", [])
        self.num_experts, self.top_k = config["num_experts"], config["num_experts_per_tok"]
        self.heads = config["num_attention_heads"]
        self.head_dim = config["hidden_size"] // self.heads
        self.kv_heads = config.get("num_key_value_heads", self.heads)
        self.eps = config.get("rms_norm_eps", 1e-6)
        self.parameters = self._fresh(seed)
        angles = config["max_position_embeddings"], self.head_dim
        self.cos, self.sin = self._rotary(*angles, config.get("rope_theta", 10000.0))

    def _shapes(self):
        c = self.config
        d, f, slots = c["hidden_size"], c["moe_intermediate_size"], self.num_experts + len(self.kinds)
        constants = self.kinds.count("constant")
        shapes = {"model.embed_tokens.weight": (c["vocab_size"], d), "model.norm.weight": (d,)}
        if not c.get("tie_word_embeddings"):
            shapes["lm_head.weight"] = (c["vocab_size"], d)
        for layer in range(c["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."
            shapes |= {
                prefix + "input_layernorm.weight": (d,),
                prefix + "self_attn.q_proj.weight": (self.heads * self.head_dim, d),
                prefix + "self_attn.k_proj.weight": (self.kv_heads * self.head_dim, d),
                prefix + "self_attn.v_proj.weight": (self.kv_heads * self.head_dim, d),
                prefix + "self_attn.o_proj.weight": (d, self.heads * self.head_dim),
                prefix + "post_attention_layernorm.weight": (d,),
                prefix + "mlp.gate.weight": (slots, d),
                prefix + "mlp.experts.gate_up_proj": (self.num_experts, 2 * f, d),
                prefix + "mlp.experts.down_proj": (self.num_experts, d, f),
            }
            if c.get("gating_residual") and layer > 0:
                shapes[prefix + "mlp.gate.residual.weight"] = (slots, slots)
            if constants:
                shapes[prefix + "mlp.zero_experts.constant"] = (constants, d)
                shapes[prefix + "mlp.zero_experts.constant_gate"] = (constants, 2, d)
        return shapes

    def _fresh(self, seed):
        generator = torch.Generator().manual_seed(seed)
        std = self.config.get("initializer_range", 0.02)
        parameters = {}
        for name, shape in self._shapes().items():
            values = torch.ones(shape)
            if "norm" not in name:
                narrow = "o_proj" in name or "down_proj" in name
                scale = math.sqrt(2 * self.config["num_hidden_layers"]) if narrow else 1.0
                values = torch.empty(shape).normal_(0, std / scale, generator=generator)
            parameters[name] = values.to(self.dtype).requires_grad_()
        return parameters

    def load(self, tensors):
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(tensors[name])

    @staticmethod
    def _rotary(positions, head_dim, theta):
        frequencies = theta ** (-torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim)
        angles = torch.outer(torch.arange(positions, dtype=torch.float64), frequencies)
        angles = torch.cat([angles, angles], dim=1).float()
        return angles.cos(), angles.sin()

    def _rotate(self, x):  # [B, H, L, hd]
        half = self.head_dim // 2
        turned = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
        length = x.shape[2]
        return x * self.cos[:length].to(x.dtype) + turned * self.sin[:length].to(x.dtype)

    def _attention(self, x, weight):  # [B, L, D]
        batch, length, _ = x.shape

        def heads(name, count):
            return F.linear(x, weight(name)).view(batch, length, count, self.head_dim).transpose(1, 2)

        q = self._rotate(heads("q_proj.weight", self.heads))
        k = self._rotate(heads("k_proj.weight", self.kv_heads))
        v = heads("v_proj.weight", self.kv_heads)
        grouped = self.heads != self.kv_heads
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
        return F.linear(out.transpose(1, 2).reshape(batch, length, -1), weight("o_proj.weight"))

    def _moe(self, x, weight, previous, training):  # [T, D]
        c = self.config
        logits = F.linear(x.float(), weight("gate.weight").float())
        if previous is not None and c.get("gating_residual"):
            logits = logits + F.linear(previous, weight("gate.residual.weight").float())
        scores = logits.softmax(-1)
        weights, slots = scores.topk(self.top_k, dim=-1)
        if c.get("norm_topk_prob"):
            weights = weights / weights.sum(1, keepdim=True)
        gate_up, down = weight("experts.gate_up_proj"), weight("experts.down_proj")
        y = ROUTES[self.route](x, slots, weights, gate_up, down)
        if self.kinds:
            constants = gates = ()
            if "constant" in self.kinds:
                constants, gates = weight("zero_experts.constant"), weight("zero_experts.constant_gate")
            others = zero_experts(x, slots, weights, self.kinds, self.num_experts, constants, gates)
            y = (y + others).to(x.dtype)
        loss = None
        if training and c.get("router_aux_loss_coef", 0) > 0:
            chosen = torch.bincount(slots.flatten(), minlength=scores.shape[1]) / len(x)
            products = chosen * scores.mean(0)
            if self.kinds:  # MoE++ Eq. 7
                eta = torch.full_like(products, c.get("zero_expert_tau", 1.0))
                eta[: self.num_experts] = 1
                loss = c["router_aux_loss_coef"] * (eta * products).sum()
            else:
                loss = c["router_aux_loss_coef"] * scores.shape[1] * products.sum()
        return y, logits, loss

    def forward(self, ids, training=True):  # [B, L] -> logits [B, L, V], auxiliary losses
        x = F.embedding(ids, self.parameters["model.embed_tokens.weight"])
        previous, losses = None, []
        for layer in range(self.config["num_hidden_layers"]):
            prefix = f"model.layers.{layer}."

            def part(name):
                return lambda tensor: self.parameters[prefix + name + tensor]

            norm = part("")
            x = x + self._attention(rms_norm(x, norm("input_layernorm.weight"), self.eps), part("self_attn."))
            h = rms_norm(x, norm("post_attention_layernorm.weight"), self.eps)
            y, previous, loss = self._moe(h.flatten(0, 1), part("mlp."), previous, training)
            x = x + y.view_as(x)
            if loss is not None:
                losses.append(loss)
        x = rms_norm(x, self.parameters["model.norm.weight"], self.eps)
        head = self.parameters.get("lm_head.weight", self.parameters["model.embed_tokens.weight"])
        return F.linear(x, head), losses


class TrainingStep:
    """Forward, backward, clipping and AdamW; a smaller dtype has fp32 masters, as in Motley."""

    def __init__(self, model, train):
        self.model, self.clip = model, train.get("gradient_clip", 1.0)
        self.parameters = list(model.parameters.values())
        masters = self.parameters
        if model.dtype != torch.float32:
            masters = [p.detach().float().requires_grad_() for p in self.parameters]
        self.masters = masters
        decays, others = [], []
        for name, master in zip(model.parameters, masters):
            plain = master.dim() < 2 or "norm" in name or name.endswith("zero_experts.constant")
            (others if plain else decays).append(master)
        groups = [
            {"params": decays, "weight_decay": train.get("weight_decay", 0.1)},
            {"params": others, "weight_decay": 0.0},
        ]
        betas = (train.get("beta1", 0.9), train.get("beta2", 0.95))
        self.optimizer = torch.optim.AdamW(groups, lr=train["learning_rate"], betas=betas, eps=1e-8, fused=True)

    def __call__(self, ids, targets):
        logits, losses = self.model.forward(ids)
        loss = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten())
        total = loss + sum(losses) if losses else loss
        total.backward()
        if self.masters is not self.parameters:
            for parameter, master in zip(self.parameters, self.masters):
                master.grad = parameter.grad.float()
                parameter.grad = None
        torch.nn.utils.clip_grad_norm_(self.masters, self.clip, foreach=True)
        self.optimizer.step()
        with torch.no_grad():
            if self.masters is not self.parameters:
                torch._foreach_copy_(self.parameters, self.masters)
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()
