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
        self.storage, self.offset, self.shape, self.stride = storage, offset, tuple(shape), tuple(stride)
        self.dtype, self.item, self.number = storage

    def count(self):
        count = 1
        for size in self.shape:
            count *= size
        return count

    def is_contiguous(self):
        expected = 1
        for size, stride in zip(reversed(self.shape), reversed(self.stride)):
            if size != 1 and stride != expected:
                return False
            expected *= size
        return True


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
        return *DTYPES[storage], number


class PickleFile:
    """The tensors of one pytorch_model*.bin, and their bytes."""

    def __init__(self, path):
        self.archive = zipfile.ZipFile(path)
        reader = Reader(self.archive)
        self.root = reader.root
        loaded = reader.load()
        if not isinstance(loaded, dict):
            sys.exit(f"{path}: expected names and their tensors, found one {type(loaded).__name__}")
        for name, tensor in loaded.items():
            if not isinstance(tensor, Tensor):
                sys.exit(f"{path}: {name}: expected a tensor, found one {type(tensor).__name__}")
            if not tensor.is_contiguous():
                sys.exit(
                    f"{path}: {name}: expected a contiguous tensor, found shape {list(tensor.shape)} with strides "
                    f"{list(tensor.stride)}"
                )
            if (tensor.offset + tensor.count()) * tensor.item > self.size(tensor.number):
                sys.exit(f"{path}: {name}: expected {tensor.count()} elements in its storage, found fewer")
        # Tensors of one storage stand together, so that each storage is read once and one is held at a time.
        self.tensors = dict(sorted(loaded.items(), key=lambda item: item[1].number))
        self.number, self.storage = None, None

    def size(self, number):
        return self.archive.getinfo(f"{self.root}data/{number}").file_size

    def contents(self, tensor):
        if self.number != tensor.number:
            self.storage = None
            self.number, self.storage = tensor.number, self.archive.read(f"{self.root}data/{tensor.number}")
        begin = tensor.offset * tensor.item
        return memoryview(self.storage)[begin : begin + tensor.count() * tensor.item]


def write_atomic(path, parts):
    """`parts` gives bytes; a file that is there is replaced when all of them are on the disk, or not at all."""
    unfinished = path + ".unfinished"
    try:
        with open(unfinished, "wb") as out:
            for part in parts:
                out.write(part)
            out.flush()
            os.fsync(out.fileno())
        os.replace(unfinished, path)
    except BaseException:
        if os.path.exists(unfinished):
            os.remove(unfinished)
        raise


def safetensors(pickled):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, tensor in pickled.tensors.items():
        size = tensor.count() * tensor.item
        header[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    yield struct.pack("<Q", len(text))
    yield text
    for tensor in pickled.tensors.values():
        yield pickled.contents(tensor)


def convert(folder):
    names = sorted(n for n in os.listdir(folder) if n.startswith("pytorch_model") and n.endswith(".bin"))
    if not names:
        sys.exit(f"{folder}: expected pytorch_model*.bin, found none")
    # Every file is looked through before the first is written.
    files = [PickleFile(os.path.join(folder, name)) for name in names]
    weight_map = {}
    for i, (name, pickled) in enumerate(zip(names, files), 1):
        output = "model.safetensors" if len(names) == 1 else f"model-{i:05}-of-{len(names):05}.safetensors"
        write_atomic(os.path.join(folder, output), safetensors(pickled))
        weight_map.update(dict.fromkeys(pickled.tensors, output))
        print(f"{name} -> {output}: {len(pickled.tensors)} tensors")
    if len(names) > 1:
        index = json.dumps({"metadata": {}, "weight_map": weight_map}, indent=1)
        write_atomic(os.path.join(folder, "model.safetensors.index.json"), [index.encode()])


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        convert(sys.argv[1])
    except (OSError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        sys.exit(f"{sys.argv[1]}: cannot be converted: {error}")
