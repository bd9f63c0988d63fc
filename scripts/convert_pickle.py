#!/usr/bin/env python3
"""Converts pytorch_model*.bin of a model folder into model.safetensors beside it.

Needs nothing but Python: the pickle inside is read by an unpickler that knows tensors and containers only and
refuses everything else, so that a foreign file cannot run code.

usage: convert_pickle.py MODEL_FOLDER
"""
import json
import os
import pickle
import struct
import sys
import zipfile

# Storage class of torch -> (safetensors dtype, bytes of an element)
DTYPES = {
    "FloatStorage": ("F32", 4),
    "BFloat16Storage": ("BF16", 2),
    "HalfStorage": ("F16", 2),
    "DoubleStorage": ("F64", 8),
    "LongStorage": ("I64", 8),
    "IntStorage": ("I32", 4),
    "ByteStorage": ("U8", 1),
    "BoolStorage": ("BOOL", 1),
}


class Tensor:
    def __init__(self, storage, offset, shape, stride):
        self.dtype, self.item, self.data = storage
        self.offset, self.shape, self.stride = offset, tuple(shape), tuple(stride)

    def count(self):
        count = 1
        for size in self.shape:
            count *= size
        return count

    def contents(self):
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride)):
            if size != 1 and stride != expected:
                sys.exit(f"a tensor of shape {self.shape} with strides {self.stride}: only contiguous ones are supported")
            expected *= size
        begin = self.offset * self.item
        return self.data()[begin : begin + self.count() * self.item]


class Reader(pickle.Unpickler):
    def __init__(self, archive):
        self.archive = archive
        self.root = next(name for name in archive.namelist() if name.endswith("data.pkl"))[: -len("data.pkl")]
        super().__init__(archive.open(self.root + "data.pkl"))

    def find_class(self, module, name):
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, stride, *rest: Tensor(storage, offset, shape, stride)
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *rest: tensor
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch" and name in DTYPES:
            return name
        raise pickle.UnpicklingError(f"{module}.{name} is neither a tensor nor a container of them")

    def persistent_load(self, key):
        _, storage, number, _, _ = key
        dtype, item = DTYPES[storage]
        return dtype, item, lambda: self.archive.read(f"{self.root}data/{number}")


def write_safetensors(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in tensors.items():
        size = tensor.count() * tensor.item
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path + ".unfinished", "wb") as out:
        out.write(struct.pack("<Q", len(text)))
        out.write(text)
        for tensor in tensors.values():
            out.write(tensor.contents())
        out.flush()
        os.fsync(out.fileno())
    os.replace(path + ".unfinished", path)


def convert(folder):
    names = sorted(n for n in os.listdir(folder) if n.startswith("pytorch_model") and n.endswith(".bin"))
    if not names:
        sys.exit(f"{folder}: expected pytorch_model*.bin, found none")
    weight_map = {}
    for i, name in enumerate(names):
        with zipfile.ZipFile(os.path.join(folder, name)) as archive:
            tensors = Reader(archive).load()
            output = "model.safetensors" if len(names) == 1 else f"model-{i + 1:05}-of-{len(names):05}.safetensors"
            write_safetensors(os.path.join(folder, output), tensors)
        weight_map.update(dict.fromkeys(tensors, output))
        print(f"{name} -> {output}: {len(tensors)} tensors")
    if len(names) > 1:
        with open(os.path.join(folder, "model.safetensors.index.json"), "w") as out:
            json.dump({"metadata": {}, "weight_map": weight_map}, out, indent=1)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    convert(sys.argv[1])
