"""Torch archives are written here opcode by opcode, honest and hostile ones: no torch is needed, none is trusted."""

import zipfile

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_ssl.errors import UserError
from jax_ssl.weights.read import networks, open_file
from tests.weights.arrays import read


def name(module, attribute):
    return f"c{module}\n{attribute}\n".encode()


def number(value):
    return f"I{value}\n".encode()


def text(value):
    return f"V{value}\n".encode()


def group(*items):
    return b"(" + b"".join(items) + b"t"


def mapping(entries):
    return b"(" + b"".join(text(key) + value for key, value in entries.items()) + b"d"


def tensor(kind, key, count, shape, strides, offset=0):
    """The opcodes of torch._utils._rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks)."""
    storage = group(text("storage"), name("torch", kind), text(key), text("cpu"), number(count)) + b"Q"
    hooks = name("collections", "OrderedDict") + b")R"
    arguments = (storage, number(offset), group(*map(number, shape)), group(*map(number, strides)), b"I00\n", hooks)
    return name("torch._utils", "_rebuild_tensor_v2") + group(*arguments) + b"R"


def write(path, program, records=(), compression=zipfile.ZIP_STORED, byteorder=b"little"):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("weights/data.pkl", program + b".")
        archive.writestr("weights/byteorder", byteorder)
        for key, data in dict(records).items():
            archive.writestr(f"weights/data/{key}", data)
    return path


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.pth"


def test_a_file_that_torch_wrote_gives_the_arrays_that_were_recorded_beside_it(request):
    golden = request.config.rootpath / "tests" / "golden"
    arrays = read(golden / "official_mae.pth")
    np.testing.assert_array_equal(arrays["pos_embed"], np.load(golden / "official_mae_io.npz")["pos_embed"])
    assert arrays["blocks.1.attn.qkv.weight"].shape == (96, 32)
    assert {array.dtype for array in arrays.values()} == {np.dtype("float32")}


@pytest.mark.parametrize(
    "kind, dtype",
    [("FloatStorage", "float32"), ("DoubleStorage", "float64"), ("HalfStorage", "float16"), ("LongStorage", "int64"),
     ("BFloat16Storage", ml_dtypes.bfloat16), ("ByteStorage", "uint8"), ("BoolStorage", "bool")],
)  # fmt: skip
def test_every_kind_of_number(file, kind, dtype):
    array = np.array([0, 1, 2.5, 96]).astype(dtype)
    write(file, mapping({"x": tensor(kind, "0", 4, (4,), (1,))}), {"0": array.tobytes()})
    read_back = read(file)["x"]
    assert read_back.dtype == array.dtype
    np.testing.assert_array_equal(read_back.astype(np.float64), array.astype(np.float64))


def test_views_of_one_storage_with_offset_and_strides(file):
    data = np.arange(12, dtype=np.float32)
    views = {"transposed": tensor("FloatStorage", "0", 12, (3, 4), (1, 3)),
             "middle": tensor("FloatStorage", "0", 12, (2, 2), (4, 1), 5),
             "scalar": tensor("FloatStorage", "0", 12, (), (), 7)}  # fmt: skip
    arrays = read(write(file, mapping(views), {"0": data.tobytes()}))
    np.testing.assert_array_equal(arrays["transposed"], data.reshape(4, 3).T)
    np.testing.assert_array_equal(arrays["middle"], [[5, 6], [9, 10]])
    assert arrays["scalar"] == 7


def test_one_network_inside_a_training_checkpoint_is_found_and_several_have_names(file):
    ones, twos = (tensor("FloatStorage", key, 1, (1,), (1,)) for key in "12")
    records = {"1": np.float32(1).tobytes(), "2": np.float32(2).tobytes()}
    write(file, mapping({"model": mapping({"x": ones}), "epoch": number(7)}), records)
    assert read(file)["x"] == 1
    write(file, mapping({"student": mapping({"x": ones}), "teacher": mapping({"x": twos})}), records)
    found = networks(open_file(file).tree)
    assert [np.asarray(found[name]["x"]) for name in ("student", "teacher")] == [1, 2]


def call(module, attribute, *arguments):
    return name(module, attribute) + group(*arguments) + b"R"


@pytest.mark.parametrize("module, attribute", [
    ("posix", "system"), ("builtins", "eval"), ("builtins", "getattr"), ("torch", "load"), ("collections", "Counter"),
    ("torch.nn.modules.linear", "Linear"), ("torch.storage", "_load_from_bytes"), ("numpy", "fromfile"),
    ("lightning", "seed_everything"), ("functools", "partial"), ("operator", "methodcaller"),
])  # fmt: skip
def test_a_pickle_that_names_anything_else_is_refused_before_it_is_called(file, tmp_path, module, attribute):
    trace = tmp_path / "trace"
    write(file, mapping({"x": call(module, attribute, text(f"touch {trace}"))}))
    with pytest.raises(UserError, match=f"{module}.{attribute}.*safetensors"):
        read(file)
    assert not trace.exists()


def test_settings_and_numbers_beside_the_weights_are_plain_data(file):
    """As argparse, NumPy and torch's Parameter leave them in a training checkpoint."""
    weight = tensor("FloatStorage", "0", 1, (1,), (1,))
    parameter = call("torch._utils", "_rebuild_parameter", weight, b"I01\n", name("collections", "OrderedDict") + b")R")
    dtype = call("numpy", "dtype", text("f8"), b"I00\n", b"I01\n") + group(number(3), text("<"), b"NNN", number(-1),
                                                                          number(-1), number(0)) + b"b"  # fmt: skip
    raw = call("_codecs", "encode", text("\x00" * 6 + "\\u00f8?"), text("latin1"))
    scalar = call("numpy._core.multiarray", "scalar", dtype, raw)
    array = call("numpy.core.multiarray", "_reconstruct", name("numpy", "ndarray"), group(number(0)), raw)
    array += group(number(1), group(number(1)), dtype, b"I00\n", raw) + b"b"
    settings = name("argparse", "Namespace") + b")\x81" + mapping({"lr": scalar, "out": text("x")}) + b"b"
    old = call("copy_reg", "_reconstructor", name("argparse", "Namespace"), name("__builtin__", "object"), b"N")
    program = mapping({"model": mapping({"x": parameter, "y": array}), "args": settings, "old": old, "best": scalar})
    opened = open_file(write(file, program, {"0": np.float32(3).tobytes()}))
    assert opened.tree["best"] == 1.5 and opened.tree["args"] == {"lr": 1.5, "out": "x"}
    arrays = read(file)
    assert (arrays["x"], arrays["y"]) == (3, 1.5)


def test_an_ordered_dict_with_torchs_metadata(file):
    made = name("collections", "OrderedDict") + b")R(" + text("x") + tensor("FloatStorage", "0", 1, (1,), (1,)) + b"u"
    made += mapping({"_metadata": mapping({})}) + b"b"
    assert read(write(file, made, {"0": np.float32(3).tobytes()}))["x"] == 3


def test_a_pickle_cannot_change_what_the_reader_lends_it(file):
    lent = name("torch._utils", "_rebuild_tensor_v2")
    state = mapping({"__call__": number(1)})
    for change in (state + b"b", group(b"N", state) + b"b"):  # BUILD: set __dict__, or attributes one by one
        with pytest.raises(UserError, match="damaged"):
            read(write(file, mapping({"x": lent + change})))
    good = mapping({"x": tensor("FloatStorage", "0", 1, (1,), (1,))})
    assert read(write(file, good, {"0": np.float32(3).tobytes()}))["x"] == 3


@pytest.mark.parametrize(
    "described",
    [
        tensor("FloatStorage", "0", 4, (4,), (1,), 1),  # begins one late
        tensor("FloatStorage", "0", 4, (4,), (1,), -1),
        tensor("FloatStorage", "0", 4, (2,), (4,)),
        tensor("FloatStorage", "0", 4, (2,), (-1,)),
        tensor("FloatStorage", "0", 4, (10**12,), (0,)),  # no memory now, 4 TB when copied
        tensor("FloatStorage", "0", 5, (4,), (1,)),  # says more than the record has
        tensor("FloatStorage", "1", 4, (4,), (1,)),  # no such record
        name("torch._utils", "_rebuild_tensor_v2") + group(*map(number, range(4))) + b"R",
    ],
)
def test_a_tensor_that_leads_out_of_its_storage_is_refused(file, described):
    write(file, mapping({"x": described}), {"0": np.zeros(4, np.float32).tobytes()})
    with pytest.raises(UserError, match="damaged"):
        read(file)


def test_a_compressed_or_big_endian_archive_is_refused(file):
    program = mapping({"x": tensor("FloatStorage", "0", 4, (4,), (1,))})
    records = {"0": np.zeros(4, np.float32).tobytes()}
    with pytest.raises(UserError, match="compressed"):
        read(write(file, program, records, compression=zipfile.ZIP_DEFLATED))
    with pytest.raises(UserError, match="big-endian"):
        read(write(file, program, records, byteorder=b"big"))


def test_a_flipped_bit_is_seen(file):
    data = np.arange(64, dtype=np.float32).tobytes()
    write(file, mapping({"x": tensor("FloatStorage", "0", 64, (64,), (1,))}), {"0": data})
    broken = bytearray(file.read_bytes())
    broken[bytes(broken).index(data) + 5] ^= 1
    file.write_bytes(broken)
    with pytest.raises(UserError, match="damaged"):
        read(file)


def test_the_format_before_torch_1_6_is_refused_with_the_command_that_converts_it(file):
    file.write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")
    with pytest.raises(UserError, match="weights_only=True"):
        read(file)


def test_safetensors_with_bfloat16(tmp_path):
    file = tmp_path / "weights.safetensors"
    half = np.array([1, 2.5], ml_dtypes.bfloat16)
    save_file({"x": np.arange(6, dtype=np.float32).reshape(2, 3), "half": half}, file)
    arrays = read(file)
    np.testing.assert_array_equal(arrays["x"], [[0, 1, 2], [3, 4, 5]])
    assert arrays["half"].dtype == half.dtype
    np.testing.assert_array_equal(arrays["half"], half)


def test_npz_without_pickles(tmp_path):
    file = tmp_path / "weights.npz"
    np.savez(file, x=np.arange(3))
    np.testing.assert_array_equal(read(file)["x"], [0, 1, 2])
    np.savez(file, x=np.array([{}], object))
    with pytest.raises(UserError, match="Python objects, which could run code"):
        read(file)


@pytest.mark.parametrize("suffix", [".safetensors", ".npz", ".pt"])
def test_rubbish_is_a_sentence(tmp_path, suffix):
    file = tmp_path / f"weights{suffix}"
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(UserError, match="weights"):
        read(file)


NO_WEIGHTS = {
    "x.pth": (b"", "is empty: fetch it again"),
    "x.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "`git lfs pull`"),
    "page.bin": (b"\n<!DOCTYPE html><html>", "is a web page"),
    "x.pth.tar": (bytes(257) + b"ustar\x0000", "unpack it"),
    "x.ckpt": (b"\x1f\x8b\x08", "unpack it"),
    "zip.safetensors": (b"PK\x03\x04", "rename it to end in .pth"),
    "x.pt": (b"\x10\x27\0\0\0\0\0\0{", "rename it to end in .safetensors"),
    "cut.pth": (b"PK\x03\x04" + bytes(99), "its end is missing"),
}


@pytest.mark.parametrize("name", NO_WEIGHTS)
def test_what_people_have_in_place_of_weights_is_told(name, tmp_path):
    data, told = NO_WEIGHTS[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=told) as caught:
        open_file(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_no_file_and_no_known_kind_are_told_apart(tmp_path):
    with pytest.raises(UserError, match="no weights file"):
        read(tmp_path / "absent.pth")
    (tmp_path / "weights.h5").write_bytes(b"")
    with pytest.raises(UserError, match=r"convert it to \.safetensors"):
        read(tmp_path / "weights.h5")
    (tmp_path / "byol.pkl").write_bytes(b"")
    with pytest.raises(UserError, match="a pickle can run code: write its arrays to .npz"):
        read(tmp_path / "byol.pkl")
    (tmp_path / "model.ckpt-7.index").write_bytes(b"")
    for name in ("model.ckpt-7", "model.ckpt-7.index"):
        with pytest.raises(UserError, match="checkpoint of TensorFlow: write its arrays to .npz"):
            read(tmp_path / name)


def test_a_program_of_torch_is_told_from_its_weights(file):
    with zipfile.ZipFile(file, "w") as archive:
        for record in ("code/__torch__.py", "data.pkl", "constants.pkl"):
            archive.writestr(f"archive/{record}", b"")
    with pytest.raises(UserError, match="TorchScript.*torch.jit.load.*writes its weights alone"):
        read(file)
