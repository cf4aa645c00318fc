"""The config.json by which Transformers makes a network of ours."""

from jax_ssl.errors import UserError
from jax_ssl.weights.network import DECODER_HEADS, Network, known_heads


def whole_ratio(model: dict, gated: bool) -> int | float:
    """The ratio of widths as a whole number, which Transformers takes, if one gives the same width."""
    width = model["width"]
    hidden = lambda ratio: (int(int(width * ratio) * 2 / 3) + 7) // 8 * 8 if gated else int(width * ratio)
    whole = int(model["mlp_ratio"])
    return whole if hidden(whole) == hidden(model["mlp_ratio"]) else model["mlp_ratio"]


def config_of(network: Network) -> dict:
    """The entries of config.json of a ViT, ViTMAE, I-JEPA, DINOv2 or DINOv3. Raises UserError."""
    model = network.model
    hidden = int(model["width"] * model["mlp_ratio"])
    shared = dict(
        hidden_size=model["width"], num_hidden_layers=model["depth"], num_attention_heads=model["heads"],
        patch_size=model["patch"], image_size=network.size, layer_norm_eps=model["epsilon"], hidden_act="gelu",
        hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0, qkv_bias=True, torch_dtype="float32",
    )  # fmt: skip
    gated = model.get("mlp") == "swiglu"
    if model["positions"] == "rotary":
        width = (int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden
        return shared | dict(
            model_type="dinov3_vit", architectures=["DINOv3ViTModel"], intermediate_size=width,
            num_register_tokens=model["registers"], use_gated_mlp=gated, rope_theta=100.0, query_bias=True,
            value_bias=True, key_bias=False, proj_bias=True, mlp_bias=True,
            hidden_act="silu" if gated else "gelu",
        )  # fmt: skip
    if model["layer_scale"] or model["registers"]:
        kind = "dinov2_with_registers" if model["registers"] else "dinov2"
        name = "Dinov2WithRegistersModel" if model["registers"] else "Dinov2Model"
        more = dict(num_register_tokens=model["registers"]) if model["registers"] else {}
        return shared | dict(
            model_type=kind, architectures=[name], mlp_ratio=whole_ratio(model, gated), use_swiglu_ffn=gated,
            use_mask_token=True, **more,
        )  # fmt: skip
    if "decoder" in network.params:
        decoder = network.params["decoder"]
        width = decoder["embed"]["kernel"].shape[-1]
        heads = known_heads(width, DECODER_HEADS)
        if heads is None:
            raise UserError(f"The heads of a decoder of width {width} are not in its file: take --to=torch.")
        return shared | dict(
            model_type="vit_mae", architectures=["ViTMAEForPreTraining"], intermediate_size=hidden,
            decoder_hidden_size=width, decoder_num_hidden_layers=len(decoder["blocks"]["blocks"]["norm1"]["scale"]),
            decoder_num_attention_heads=heads, norm_pix_loss=True,
            decoder_intermediate_size=decoder["blocks"]["blocks"]["mlp"]["fc1"]["kernel"].shape[-1],
        )  # fmt: skip
    kind, name = ("ijepa", "IJepaModel") if model["pool"] == "mean" else ("vit", "ViTModel")
    return shared | dict(model_type=kind, architectures=[name], intermediate_size=hidden)
