"""`weights inspect` and `weights import`: one command for each official file, and files as people have them."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import save_file

from jax_ssl import __main__ as command
from jax_ssl.errors import UserError
from jax_ssl.models.positions import sincos
from jax_ssl.weights import load, torch_file
from jax_ssl.weights.network import vit_of
from jax_ssl.weights.schemes import TIMM
from tests.weights.arrays import read

CLOSE = 1e-4  # absolute, fp32


@pytest.fixture
def golden(request):
    return request.config.rootpath / "tests" / "golden"


def run(capfd, *words):
    """(exit code, what was printed) of `weights WORDS`."""
    code = command.main(["weights", *map(str, words)])
    told = capfd.readouterr()
    return code, told.out + told.err


def equal(a, b):
    assert a.backbone == b.backbone and (a.mean, a.std, a.size) == (b.mean, b.std, b.size)
    jax.tree.map(np.testing.assert_array_equal, dict(a.variables), dict(b.variables))


FILES = {  # file -> flags, and what inspect says
    "dino_vit": ((), "named as: timm"),
    "dinov2_vit": ((), "positions learned"),
    "dinov2_reg_swiglu": ((), "mlp swiglu"),
    "dinov3_vit": ((), "positions rotary"),
    "dinov3_swiglu": ((), "registers 2"),
    "hf_dinov3": ((), "key_bias False"),
    "hf_dinov3_swiglu": ((), "Hugging Face DINOv3"),
    "official_mae": ((), "pool cls"),
    "hf_mae_normpix1": ((), "epsilon 1e-12"),
    "ijepa_encoder": ((), "pool mean"),
    "hf_beit": ((), "relative_bias block"),
    "official_beit": (("--heads=2",), "mean (0.5, 0.5, 0.5)"),
    "official_simmim": (("--heads=2",), "2 other parts"),
    "hf_clip_vision": (("--as=clip",), "mlp quick_gelu"),
    "resnet18": ((), "22 ignored"),
    "resnet_bottleneck": (("--as=moco",), "stages (2, 1, 1, 1)"),
}


@pytest.mark.parametrize("name", FILES)
def test_one_command_imports_an_official_file(golden, name, tmp_path, capfd):
    flags, told = FILES[name]
    code, out = run(capfd, "inspect", golden / f"{name}.pth", *flags)
    assert code == 0 and told in out and "cannot be imported" not in out
    code, out = run(capfd, "import", golden / f"{name}.pth", *flags, f"--out={tmp_path / 'here'}")
    assert code == 0 and str(tmp_path / "here") in out and len(out) < 1500
    given = {word.partition("=")[0][2:].replace("as", "family"): word.partition("=")[2] for word in flags}
    given |= {"heads": int(given["heads"])} if "heads" in given else {}
    equal(load(tmp_path / "here"), load(golden / f"{name}.pth", **given))


def near(value, recorded):
    np.testing.assert_allclose(value, recorded, rtol=0, atol=CLOSE)


@pytest.mark.parametrize("name", ["dinov3_vit", "dinov3_swiglu"])
def test_dinov3(golden, name):
    recorded, encode = np.load(golden / f"{name}_io.npz"), load(golden / f"{name}.pth")
    for suffix in ("", "_wide"):
        features = encode(jnp.asarray(recorded[f"x{suffix}"]))
        near(features.pooled, recorded[f"cls{suffix}"])
        near(features.patches, recorded[f"patches{suffix}"])
        near(features.registers, recorded[f"storage{suffix}"])
    masked = jax.jit(lambda v, x, m: encode.backbone.apply(v, x, mask=m))
    near(masked(encode.variables, recorded["x"], recorded["mask"]).patches, recorded["patches_masked"])


@pytest.mark.parametrize("name", ["dinov3_vit", "dinov3_swiglu"])
def test_dinov3_of_hugging_face_is_the_same_network(golden, name):
    ours, theirs = (
        load(golden / f"{name}.pth"),
        load(golden / f"{name.replace('dinov3', 'hf_dinov3').removesuffix('_vit')}.pth"),
    )
    blocks = lambda encode: encode.variables["params"]["encoder"]["blocks"]
    qkv, bias = blocks(ours)["attention"]["qkv"], blocks(theirs)["attention"]
    np.testing.assert_array_equal(qkv["kernel"], bias["qkv"]["kernel"])
    np.testing.assert_array_equal(qkv["bias"][:, :32], bias["query_bias"])
    np.testing.assert_array_equal(qkv["bias"][:, 64:], bias["value_bias"])
    assert not np.any(qkv["bias"][:, 32:64])  # masked; what the file has there must not enter
    jax.tree.map(np.testing.assert_array_equal, blocks(ours)["mlp"], blocks(theirs)["mlp"])
    assert ours.backbone.heads == theirs.backbone.heads == 2


@pytest.mark.parametrize("name", ["resnet18", "resnet_bottleneck"])
def test_resnets(golden, name):
    recorded, encode = np.load(golden / f"{name}_io.npz"), load(golden / f"{name}.pth")
    features = encode(jnp.asarray(recorded["x"]))
    near(features.pooled, recorded["pooled"])
    near(features.patches[:2].reshape(recorded["layer4"].shape), recorded["layer4"])


def test_clip(golden):
    recorded = np.load(golden / "hf_clip_vision_io.npz")
    with pytest.raises(UserError, match="which GELU.*--as=open_clip"):
        load(golden / "hf_clip_vision.pth")
    encode = load(golden / "hf_clip_vision.pth", family="clip")
    near(encode(jnp.asarray(recorded["x"])).pooled, recorded["pooled"])
    assert encode.mean[0] == 0.48145466
    assert load(golden / "hf_clip_vision.pth", family="open_clip").backbone.mlp == "gelu"


@pytest.fixture
def resnet(golden):
    return read(golden / "resnet18.pth")


def prefixed(arrays, prefix):
    return {prefix + name: array for name, array in arrays.items()}


def as_sequence(arrays):
    """The names of Sequential(*list(resnet.children())[:-1]), as lightly has them."""
    places = {"conv1": "0", "bn1": "1", **{f"layer{i}": str(3 + i) for i in range(1, 5)}}
    first = lambda name: name.partition(".")[0]
    return {f"{places[first(n)]}.{n.partition('.')[2]}": a for n, a in arrays.items() if first(n) in places}


PROJECTOR = {"projector.0.weight": np.ones((4, 32), np.float32), "projector.1.running_var": np.ones(4, np.float32)}
LAYOUTS = {  # of a ResNet: what torch.save was given, and which network of it is asked for
    "MoCo": (lambda a: {"epoch": 7, "arch": "resnet50", "optimizer": {"state": {}},
                        "state_dict": prefixed(a, "module.encoder_q.") | {"module.queue": np.ones((4, 9), np.float32)}},
             None),
    "MoCo with both": (lambda a: {"state_dict": prefixed(a, "module.encoder_q.")
                                  | prefixed({n: x * 0 for n, x in a.items()}, "module.encoder_k.")}, "student"),
    "SwAV": (lambda a: prefixed(a | {"prototypes.weight": np.ones((5, 3), np.float32)}, "module."), None),
    "Barlow Twins": (lambda a: {"model": prefixed(a, "module.backbone.") | prefixed(PROJECTOR, "module.")}, None),
    "VICReg, the backbone alone": (lambda a: {n: x for n, x in a.items() if not n.startswith("fc")}, None),
    "SimSiam": (lambda a: {"state_dict": prefixed(a, "module.encoder.")
                           | {"module.predictor.0.weight": np.ones((4, 4), np.float32)}}, None),
    "BYOL, converted": (lambda a: {"online": prefixed(a, "net."), "target": prefixed({n: x * 0 for n, x in a.items()},
                                                                                     "net.")}, "online"),
    "lightly": (lambda a: {"state_dict": prefixed(as_sequence(a), "backbone."), "hyper_parameters": {"lr": 1}},
                None),
    "solo-learn": (lambda a: {"state_dict": prefixed(a, "backbone.") | PROJECTOR
                              | prefixed({n: x * 0 for n, x in a.items()}, "momentum_backbone.")}, "backbone"),
    "compiled": (lambda a: {"model": prefixed(a, "_orig_mod.")}, None),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_resnet_in_every_layout(golden, resnet, layout, tmp_path):
    make, which = LAYOUTS[layout]
    torch_file.write(tmp_path / "resnet.pth.tar", (make(resnet)))
    equal(load(tmp_path / "resnet.pth.tar", which), load(golden / "resnet18.pth"))
    if which:
        with pytest.raises(UserError, match="holds 2 networks.*which="):
            load(tmp_path / "resnet.pth.tar")


def test_lightning_writes_ckpt(golden, resnet, tmp_path):
    torch_file.write(tmp_path / "last.ckpt", ({"state_dict": prefixed(resnet, "backbone.")}))
    equal(load(tmp_path / "last.ckpt"), load(golden / "resnet18.pth"))


def test_simclr_has_pixels_from_0_to_1(golden):
    assert load(golden / "resnet18.pth", family="simclr").std == (1.0, 1.0, 1.0)
    with pytest.raises(UserError, match="no family 'simcrl'.*simclr"):
        load(golden / "resnet18.pth", family="simcrl")
    with pytest.raises(UserError, match="no heads"):
        load(golden / "resnet18.pth", heads=3)


def test_a_teacher_of_dino_with_its_head(golden, tmp_path):
    arrays = read(golden / "dino_vit.pth")
    whole = prefixed(arrays, "backbone.") | {"head.mlp.0.weight": np.ones((4, 32), np.float32)}
    student = prefixed({name: 2 * array for name, array in arrays.items()}, "module.backbone.")
    file = tmp_path / "checkpoint.pth"
    torch_file.write(file, ({"student": student, "teacher": whole, "epoch": 3}))
    with pytest.raises(UserError, match="'student.backbone', 'teacher.backbone'.*which="):
        load(file)
    equal(load(file, "teacher"), load(golden / "dino_vit.pth"))
    np.testing.assert_array_equal(load(file, "student").variables["params"]["norm"]["scale"], 2 * arrays["norm.weight"])


def test_a_fine_tuned_mae_pools_before_its_norm(golden, tmp_path):
    arrays = read(golden / "dino_vit.pth")
    norm = {f"fc_norm.{name}": arrays.pop(f"norm.{name}") for name in ("weight", "bias")}
    torch_file.write(tmp_path / "ft.pth", ({"model": arrays | norm | {"head.weight": np.ones((5, 32), np.float32)}}))
    encode = load(tmp_path / "ft.pth")
    assert encode.backbone.pool == "norm_of_mean"
    np.testing.assert_array_equal(encode.variables["params"]["norm"]["scale"], norm["fc_norm.weight"])


def test_timm_with_registers_has_positions_of_patches_alone(golden, tmp_path):
    arrays = read(golden / "dino_vit.pth")
    arrays["pos_embed"] = arrays["pos_embed"][:, 1:]
    torch_file.write(tmp_path / "timm.pth", (arrays | {"reg_token": np.ones((1, 4, 32), np.float32)}))
    encode = load(tmp_path / "timm.pth")
    assert encode.backbone.registers == 4 and not np.any(encode.variables["params"]["cls_position"])


def test_the_narrow_vit_of_moco_v3_has_twelve_heads():
    blocks = {"norm1": {"scale": np.ones((1, 384))}, "mlp": {"fc1": {"kernel": np.ones((1, 384, 4))}}, "attention": {}}
    tree = {"backbone": {"embed": {"kernel": np.ones((12, 384))}, "cls_token": 0, "encoder": {"blocks": blocks}}}
    codes = lambda axis: np.concatenate([np.zeros((1, 384)), sincos((2, 2), 384, axis)])[None]
    heads = lambda axis: vit_of("x", tree | {"positions": {"backbone": codes(axis)}}, TIMM, None)[0]["heads"]
    assert (heads("row"), heads("column")) == (12, 6)


WRONG = {
    "channels": (("patch_embed.proj.weight", (32, 1, 8, 8)), "takes images of 1 channels.*have 3"),
    "patches": (("patch_embed.proj.weight", (32, 3, 8, 4)), "patches of 8 x 4 pixels.*square"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_a_network_here_cannot_take_is_one_sentence(golden, what, tmp_path):
    (name, shape), told = WRONG[what]
    torch_file.write(tmp_path / "x.pth", (read(golden / "dino_vit.pth") | {name: np.ones(shape, np.float32)}))
    with pytest.raises(UserError, match=told):
        load(tmp_path / "x.pth")


def test_no_file_is_forgotten(golden):
    alone = {"ijepa_predictor"}  # of no use without its encoder; test_golden.py reads it
    assert {file.stem for file in golden.glob("*.pth")} == set(FILES) | alone | {"hf_mae_normpix0"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_told_with_the_name_of_their_array(golden, value, tmp_path, capfd):
    arrays = read(golden / "dino_vit.pth")
    damaged = arrays["blocks.1.mlp.fc2.weight"].copy()
    damaged[3, 5] = value
    torch_file.write(tmp_path / "x.pth", arrays | {"blocks.1.mlp.fc2.weight": damaged})
    code, out = run(capfd, "import", tmp_path / "x.pth", f"--out={tmp_path / 'out'}")
    assert code == 2 and out.count("\n") == 1
    assert "1 tensors with values that are not finite (blocks.1.mlp.fc2.weight)" in out


def test_whole_numbers_are_no_weights(golden, tmp_path):
    file = tmp_path / "x.pth"
    torch_file.write(file, (read(golden / "dino_vit.pth") | {"norm.weight": np.ones(32, np.int8)}))
    with pytest.raises(UserError, match="1 tensors of a wrong shape .norm.weight"):
        load(file)


def test_leftovers_are_counted_in_one_line_and_listed_by_inspect(golden, tmp_path, capfd):
    more = {f"adapter.{i}.weight": np.ones(3, np.float32) for i in range(500)}
    arrays = {name: array for name, array in read(golden / "dino_vit.pth").items() if name != "norm.bias"}
    torch_file.write(tmp_path / "x.pth", (arrays | more | {"head.weight": np.ones(3, np.float32)}))
    code, out = run(capfd, "import", tmp_path / "x.pth", f"--out={tmp_path / 'out'}")
    assert code == 2 and out.count("\n") == 1 and len(out) < 700
    assert (
        "500 unknown names (adapter.0.weight, adapter.1.weight" in out and "1 unfilled parameters (backbone/norm" in out
    )
    code, out = run(capfd, "inspect", tmp_path / "x.pth")
    assert (
        code == 0 and "not taken: 1 ignored (a classifier, counters), 500 unknown names, 1 unfilled parameters" in out
    )
    assert "unknown names: adapter.499.weight" in out and "cannot be imported" in out


def test_what_the_verb_refuses(golden, tmp_path, capfd):
    file = golden / "dino_vit.pth"
    for words, told in (
        (("import", file), "needs --out"),
        (("inspect",), "Name the file"),
        (("inspect", file, "--out=x"), "--out is not for"),
        (("inspect", tmp_path / "absent.pth"), "no weights file"),
        (("import", file, f"--out={golden}"), "not empty"),
        (("inspect", file, "--config.seed=1"), "no config"),
    ):
        code, out = run(capfd, *words)
        assert code == 2 and told in out and out.count("\n") == 1


def test_an_imported_folder_that_was_damaged_is_told(golden, tmp_path, capfd):
    folder = tmp_path / "here"
    assert run(capfd, "import", golden / "dino_vit.pth", f"--out={folder}")[0] == 0
    assert "imported network" in run(capfd, "inspect", folder)[1]
    for wrong in ("heads", "which"):
        with pytest.raises(UserError, match="leave"):
            load(folder, **{wrong: 2})
    about = json.loads((folder / "network.json").read_text())
    shutil.copy(folder / "network.json", tmp_path)
    (folder / "network.json").write_text(json.dumps(about | {"model": 3}))
    with pytest.raises(UserError, match="network.json is damaged"):
        load(folder)
    shutil.copy(tmp_path / "network.json", folder)
    (folder / "weights.safetensors").write_bytes(b"\x00" * 40)
    with pytest.raises(UserError, match="damaged"):
        load(folder)


def hub(folder, golden, about, shards=1):
    """A folder as Transformers saves it, of hf_clip_vision, in so many files."""
    folder.mkdir()
    arrays = {name: np.ascontiguousarray(array) for name, array in read(golden / "hf_clip_vision.pth").items()}
    pieces = [dict(list(arrays.items())[i::shards]) for i in range(shards)]
    names = [f"model-{i}-of-{shards}.safetensors" if shards > 1 else "model.safetensors" for i in range(shards)]
    for name, piece in zip(names, pieces):
        save_file(piece, folder / name)
    if shards > 1:
        index = {key: name for name, piece in zip(names, pieces) for key in piece}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    (folder / "config.json").write_text(json.dumps(about))
    return folder


def test_a_folder_of_transformers_says_what_its_tensors_do_not(golden, tmp_path, capfd):
    about = {"vision_config": {"num_attention_heads": 4, "hidden_act": "gelu", "layer_norm_eps": 1e-6}}
    folder = hub(tmp_path / "hub", golden, about, shards=3)
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1] * 3, "image_std": [0.2] * 3}))
    encode = load(folder)
    assert (encode.backbone.heads, encode.backbone.mlp, encode.backbone.epsilon) == (4, "gelu", 1e-6)
    assert (encode.mean, encode.std) == ((0.1,) * 3, (0.2,) * 3)
    assert load(folder, heads=2).backbone.heads == 2
    assert "heads 4" in run(capfd, "inspect", folder)[1]
    (folder / "config.json").write_text("[")
    with pytest.raises(UserError, match="config.json is no JSON file"):
        load(folder)


def test_a_folder_of_timms_hub_says_colours_and_how_positions_are_resized(golden, tmp_path):
    arrays = {name: np.ascontiguousarray(array) for name, array in read(golden / "dino_vit.pth").items()}
    save_file(arrays, tmp_path / "model.safetensors")
    assert load(tmp_path).backbone.position_offset == 0.1
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": {"mean": [0.5] * 3, "std": [0.4] * 3}}))
    for path in (tmp_path, tmp_path / "model.safetensors"):
        encode = load(path)
        assert (encode.mean, encode.std) == ((0.5,) * 3, (0.4,) * 3)
        assert (encode.backbone.position_offset, encode.backbone.position_antialias) == (0.0, True)


def test_positions_of_images_that_are_no_squares(golden, tmp_path, capfd):
    """Of 16 positions, 2 x 8 are of images of 16 x 64; the number alone says 4 x 4."""
    arrays = {name: np.ascontiguousarray(array) for name, array in read(golden / "dino_vit.pth").items()}
    save_file(arrays, tmp_path / "model.safetensors")
    positions = arrays["pos_embed"][0, 1:].reshape(2, 8, -1)
    for written in ({"image_size": [16, 64]}, {"pretrained_cfg": {"input_size": [3, 16, 64]}}, {}):
        (tmp_path / "config.json").write_text(json.dumps(written))
        encode = load(tmp_path, size=None if written else (16, 64))
        assert encode.size == (16, 64)
        np.testing.assert_array_equal(encode.variables["params"]["positions"], positions)
    arrays["pos_embed"] = arrays["pos_embed"][:, :-2]
    save_file(arrays, tmp_path / "x.safetensors")
    code, told = run(capfd, "import", tmp_path / "x.safetensors", f"--out={tmp_path / 'out'}")
    assert code == 2 and "import it with their --size=HEIGHTxWIDTH" in told and told.count("\n") == 1
    code, told = run(capfd, "import", tmp_path / "x.safetensors", "--size=16x56", f"--out={tmp_path / 'out'}")
    assert code == 0 and "images: 16x56 pixels" in told
    assert load(tmp_path / "out").size == (16, 56)


def test_a_folder_of_several_files_of_torch(golden, tmp_path):
    arrays, index = list(read(golden / "dino_vit.pth").items()), {}
    for number in range(2):
        torch_file.write(tmp_path / f"pytorch_model-{number}.bin", dict(arrays[number::2]))
        index |= {name: f"pytorch_model-{number}.bin" for name, _ in arrays[number::2]}
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    (tmp_path / "config.json").write_text("{}")
    expected = load(golden / "dino_vit.pth").variables
    for path in (tmp_path, tmp_path / "pytorch_model.bin.index.json"):
        jax.tree.map(np.testing.assert_array_equal, load(path).variables, expected)


def test_the_files_of_a_folder_lie_in_it(golden, tmp_path):
    folder = hub(tmp_path / "hub", golden, {}, shards=2)
    (tmp_path / "secret.safetensors").write_bytes(b"")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"x": "../secret.safetensors"}}))
    with pytest.raises(UserError, match="outside of the folder"):
        load(folder)
