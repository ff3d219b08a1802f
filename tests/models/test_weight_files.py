"""Weight files: every format that holds only tensors, and one sentence for every other file."""

import argparse
import gzip
import io
import pickle
import random
import struct
import tarfile
import time
import zipfile
from collections import defaultdict

import numpy as np
import pytest
import torch
from safetensors.torch import save, save_file
from torch import nn

from msvqa.errors import WeightsError
from msvqa.models.encoders.resnet import ResNet
from msvqa.models.weight_files import read_weights

STATE = {
    "conv1.weight": torch.arange(24.0).reshape(2, 3, 2, 2) / 7,
    "bn1.num_batches_tracked": torch.tensor(5),
}


def prefixed(prefix, state=STATE):
    return {f"{prefix}{name}": value for name, value in state.items()}


def saved(content, **options):
    buffer = io.BytesIO()
    torch.save(content, buffer, **options)
    return buffer.getvalue()


def legacy(content):
    return saved(content, _use_new_zipfile_serialization=False)


def from_gpu(state):
    """Return what an old torch wrote of weights on a GPU."""
    return legacy(state).replace(b"X\x03\x00\x00\x00cpu", b"X\x06\x00\x00\x00cuda:0")


def with_old_numpy(content):
    """Return what torch wrote with numpy before version 2."""
    return legacy(content).replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray")


def deflated(content):
    """Return what an archive becomes when it is packed once more, with compression."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    return buffer.getvalue()


BESIDE = {
    "epoch": 3,
    "arch": "resnext-101",
    "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}, "param_groups": [{"lr": 0.1}]},
}
NUMBERS = {"best": np.float64(71.2), "step": np.int64(4), "curve": np.arange(3.0)}
SOUND = {
    "plain": saved(STATE),
    "parameters": saved({n: nn.Parameter(v, v.is_floating_point()) for n, v in STATE.items()}),
    "legacy": legacy(STATE),
    "module": saved(BESIDE | {"state_dict": prefixed("module.")}),
    "module, legacy": legacy(BESIDE | {"state_dict": prefixed("module.")}),
    "module twice": saved(prefixed("module.module.")),
    "compiled": saved(prefixed("module._orig_mod.")),
    "model": saved({"model": STATE, "epoch": 1}),
    "net": saved({"net": STATE, "acc": 0.5}),
    "wrapped twice": saved({"model": BESIDE | {"state_dict": STATE}}),
    "another key": saved(BESIDE | {"generator": STATE}),
    "numpy numbers": saved(NUMBERS | {"state_dict": STATE}),
    "old numpy numbers": with_old_numpy(NUMBERS | {"state_dict": STATE}),
    "arguments": saved({"state_dict": STATE, "args": argparse.Namespace(lr=0.1)}),
    "gpu": from_gpu(STATE),
    "safetensors": save(STATE),
    "deflated": deflated(saved(STATE)),
}


@pytest.mark.parametrize("kind", SOUND)
def test_weights_are_read_in_every_format_whatever_the_name(kind, tmp_path):
    (tmp_path / "weights.pth").write_bytes(SOUND[kind])
    found = read_weights(tmp_path / "weights.pth")
    assert sorted(found) == sorted(STATE)
    for name, value in STATE.items():
        assert found[name].device.type == "cpu"
        assert torch.equal(found[name], value)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken_over(kind, tmp_path):
    config = {"depth": 10, "base_width": 4, "stem": "small"}
    source = ResNet(ResNet.Config(**config))
    save_file({n: v.to(kind) for n, v in source.state_dict().items()}, tmp_path / "w.safetensors")
    loaded = ResNet(ResNet.Config(**config, weights=str(tmp_path / "w.safetensors")))
    loaded.load_pretrained()
    assert loaded.conv1.weight.dtype == torch.float32
    assert torch.equal(loaded.conv1.weight, source.conv1.weight.to(kind).float())


def legacy_tar():
    """Return weights as torch 0.1 wrote them."""
    members = {}
    storages, tensors = io.BytesIO(), io.BytesIO()
    value = STATE["conv1.weight"]
    pickle.dump(1, storages, 2)
    pickle.dump((0, "cpu", torch.FloatStorage), storages, 2)
    storages.write(struct.pack("<q", value.numel()) + value.numpy().tobytes())
    pickle.dump([], storages, 2)
    pickle.dump(1, tensors, 2)
    pickle.dump((1, 0, torch.FloatTensor), tensors, 2)
    tensors.write(struct.pack("<i4x", value.dim()) + struct.pack("<4q", *value.shape))
    tensors.write(struct.pack("<4q", *value.stride()) + struct.pack("<q", 0))

    class Pickler(pickle.Pickler):
        def persistent_id(self, thing):
            return "1" if isinstance(thing, torch.Tensor) else None

    content = io.BytesIO()
    Pickler(content, 2).dump({"conv1.weight": value})
    members = {"sys_info": pickle.dumps({}), "pickle": content.getvalue()}
    return packed(members | {"tensors": tensors.getvalue(), "storages": storages.getvalue()})


def packed(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


class Surprise:
    def __reduce__(self):
        return (print, ("code ran",))


ZEROS = {"weight": torch.zeros(1_000_000)}
SAFETENSORS_OF_GIGABYTES = struct.pack("<Q", 90_000_000) + b"{" + b" " * 200
REFUSED = {
    "empty": (b"", "is empty"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
    "page": (b"<!DOCTYPE html><title>Sign in</title>", "is a web page"),
    "text": (b"not weights, but long enough", "is not a file of weights: it begins with b'not"),
    "cut": (saved(STATE)[:-300], "is cut short: it ends after"),
    "cut, legacy": (legacy(STATE)[:-20], "is cut short: it ends after"),
    "cut, safetensors": (save(STATE)[:-20], "is cut short: it ends after .* of .* bytes"),
    "cut head": (SAFETENSORS_OF_GIGABYTES, "is cut short: it ends after 209 of 90,000,008 bytes"),
    "whole model": (saved(nn.Linear(2, 2)), r"torch\.save\(model\.state_dict\(\), FILE\)"),
    "whole model, legacy": (legacy(nn.Linear(2, 2)), r"nn\.modules\.linear\.Linear"),
    "code": (saved(Surprise()), "a Python object"),
    "objects": (saved({"state_dict": STATE, "x": defaultdict(list)}), "defaultdict"),
    "pickle": (pickle.dumps({"a": np.zeros(2)}), "is a Python pickle"),
    "another protocol": (saved(STATE, pickle_protocol=4), "is damaged: Unsupported operand"),
    "old tar": (legacy_tar(), r"Only if you trust .* convert it, once: python -c"),
    "tar": (packed({"weights.pth": b""}), r"tar archive of other files \(weights\.pth\): unpack"),
    "gzip": (gzip.compress(saved(STATE)), "is compressed"),
    "no tensors": (saved({"state_dict": {"a": "b"}}), "holds values that are not tensors: a"),
    "a list": (saved([1, 2]), "holds no state dict"),
    "nothing": (saved({"state_dict": {}}), "holds no state dict"),
    "sparse": (saved({"a": torch.eye(3).to_sparse()}), "not tensors: a"),
    "without values": (saved({"a": torch.empty(3, device="meta")}), "not tensors: a"),
    "twice": (saved(STATE | prefixed("module.")), "'conv1.weight' twice"),
    "bomb": (deflated(saved(ZEROS)), "would unpack to 4,000"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_another_file_is_one_sentence_with_its_cause(kind, tmp_path, capsys):
    content, message = REFUSED[kind]
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=message) as error:
        read_weights(path)
    said = str(error.value)
    assert said.startswith(str(path))
    assert "\n" not in said
    # Torch's advice is to run whatever code is in the file.
    assert "weights_only" not in said or "Only if you trust" in said
    assert "code ran" not in capsys.readouterr().out


def test_folders_and_absent_files_are_named(tmp_path):
    with pytest.raises(WeightsError, match="is a folder"):
        read_weights(tmp_path)
    with pytest.raises(WeightsError, match="no such weights file"):
        read_weights(tmp_path / "absent.pth")


def test_an_archive_of_another_kind_is_named(tmp_path):
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as archive:
        archive.writestr("resnet.pth", b"")
    with pytest.raises(WeightsError, match=r"ZIP archive of other files \(resnet\.pth\)"):
        read_weights(tmp_path / "archive.zip")


def test_the_conversion_of_the_oldest_format_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "it's old.pth"
    path.write_bytes(legacy_tar())
    with pytest.raises(WeightsError) as error:
        read_weights(path)
    command = str(error.value).partition("convert it, once: ")[2]
    import shlex

    exec(shlex.split(command)[2])
    found = read_weights(tmp_path / "it's old_converted.pth")
    assert torch.equal(found["conv1.weight"], STATE["conv1.weight"])


@pytest.mark.parametrize("kind", ["plain", "legacy", "safetensors", "old numpy numbers"])
def test_damage_anywhere_is_read_or_refused(kind, tmp_path):
    chance, path = random.Random(0), tmp_path / "weights.pth"
    for _ in range(40):
        content = bytearray(SOUND[kind])
        for _ in range(chance.choice((1, 3, 20))):
            content[chance.randrange(min(len(content), 1200))] = chance.randrange(256)
        path.write_bytes(content)
        try:
            read_weights(path)
        except WeightsError as error:
            assert str(path) in str(error)


@pytest.mark.long
def test_a_compressed_archive_is_named_without_being_unpacked(tmp_path):
    path = tmp_path / "w.tar.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(200):
            file.write(bytes(1_000_000))
    start = time.process_time()
    with pytest.raises(WeightsError, match="is compressed"):
        read_weights(path)
    assert time.process_time() - start < 0.3
