"""scripts/convert_pickle.py on small files in torch's format, which are written here without torch."""

import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import types
import unittest
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SCRIPT = os.path.join(ROOT, "scripts", "convert_pickle.py")


def fake_torch():
    """The names that torch's pickles hold, for pickle to find when it writes them."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")

    def _rebuild_tensor_v2(*arguments):
        raise AssertionError("only written, never called")

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = "torch._utils", "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    for name in ("FloatStorage", "BFloat16Storage"):
        setattr(torch, name, type(name, (), {"__module__": "torch"}))
    torch._utils = utils
    sys.modules.update({"torch": torch, "torch._utils": utils})
    return torch


TORCH = fake_torch()


class Storage:
    def __init__(self, number, kind, data):
        self.number, self.kind, self.data = number, kind, data


def floats(number, *values):
    return Storage(number, "FloatStorage", struct.pack(f"<{len(values)}f", *values))


class Tensor:
    def __init__(self, storage, offset, shape, stride):
        self.arguments = (storage, offset, shape, stride, False, {})

    def __reduce__(self):
        return TORCH._utils._rebuild_tensor_v2, self.arguments


class Writer(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return ("storage", getattr(TORCH, thing.kind), thing.number, "cpu", len(thing.data))


def write_bin(path, tensors):
    text = io.BytesIO()
    Writer(text, protocol=2).dump(tensors)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", text.getvalue())
        for tensor in tensors.values():
            if isinstance(tensor, Tensor):
                storage = tensor.arguments[0]
                if f"archive/data/{storage.number}" not in archive.namelist():
                    archive.writestr(f"archive/data/{storage.number}", storage.data)


def read_safetensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(size)), file.read()
    header.pop("__metadata__")
    return {
        name: (entry["dtype"], entry["shape"], data[slice(*entry["data_offsets"])]) for name, entry in header.items()
    }


class ConvertPickle(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="motley_convert_")
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def convert(self):
        command = [sys.executable, "-B", SCRIPT, self.folder.name]
        return subprocess.run(command, capture_output=True, text=True, timeout=60)

    def expect_error(self, *parts):
        done = self.convert()
        self.assertNotEqual(done.returncode, 0, done.stdout)
        for part in parts:
            self.assertIn(part, done.stderr)
        self.assertNotIn("Traceback", done.stderr)
        left = [name for name in os.listdir(self.folder.name) if not name.endswith(".bin")]
        self.assertEqual(left, [], "half written")

    def test_one_file(self):
        shared = floats("1", 1, 2, 3, 4, 5, 6)
        bf16 = Storage("0", "BFloat16Storage", bytes(range(8)))
        tensors = {
            "whole": Tensor(shared, 0, (2, 3), (3, 1)),
            "narrow": Tensor(bf16, 1, (3,), (1,)),
            "part": Tensor(shared, 2, (1, 2), (9, 1)),
            "scalar": Tensor(shared, 5, (), ()),
        }
        write_bin(self.path("pytorch_model.bin"), tensors)
        done = self.convert()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(sorted(os.listdir(self.folder.name)), ["model.safetensors", "pytorch_model.bin"])
        found = read_safetensors(self.path("model.safetensors"))
        self.assertEqual(
            found,
            {
                "whole": ("F32", [2, 3], shared.data),
                "narrow": ("BF16", [3], bytes(range(2, 8))),
                "part": ("F32", [1, 2], struct.pack("<2f", 3, 4)),
                "scalar": ("F32", [], struct.pack("<f", 6)),
            },
        )

    def test_shards_and_their_index(self):
        for i in (1, 2):
            write_bin(
                self.path(f"pytorch_model-{i:05}-of-00002.bin"), {f"t{i}": Tensor(floats("0", i), 0, (1,), (1,))}
            )
        done = self.convert()
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("model.safetensors.index.json")) as file:
            weight_map = json.load(file)["weight_map"]
        self.assertEqual(sorted(weight_map), ["t1", "t2"])
        for name, file in weight_map.items():
            self.assertEqual(read_safetensors(self.path(file))[name][2], struct.pack("<f", int(name[1])))

    def test_a_tensor_that_is_not_contiguous_in_the_last_file(self):
        write_bin(self.path("pytorch_model-00001-of-00002.bin"), {"a": Tensor(floats("0", 1), 0, (1,), (1,))})
        transposed = Tensor(floats("0", 1, 2, 3, 4), 0, (2, 2), (1, 2))
        write_bin(self.path("pytorch_model-00002-of-00002.bin"), {"b": transposed})
        self.expect_error("pytorch_model-00002", "b: expected a contiguous tensor", "strides [1, 2]")

    def test_a_storage_that_is_too_short(self):
        write_bin(self.path("pytorch_model.bin"), {"a": Tensor(floats("0", 1, 2), 1, (2,), (1,))})
        self.expect_error("a: expected 2 elements in its storage")

    def test_what_is_no_tensor(self):
        write_bin(self.path("pytorch_model.bin"), {"step": 3})
        self.expect_error("step: expected a tensor, found one int")

    def test_code_is_not_run(self):
        class Evil:
            def __reduce__(self):
                return os.system, (f"touch {self.target}",)

        evil = Evil()
        evil.target = self.path("ran")
        write_bin(self.path("pytorch_model.bin"), {"a": evil})
        self.expect_error("system is neither a tensor nor a container")

    def test_what_is_no_archive(self):
        with open(self.path("pytorch_model.bin"), "wb") as file:
            file.write(b"old format")
        self.expect_error("cannot be converted")

    def test_no_file(self):
        self.expect_error("expected pytorch_model*.bin, found none")


if __name__ == "__main__":
    unittest.main(verbosity=2)
