"""How the official code of each method names the tensors of a transformer: one table of rules a naming scheme."""

from jax_ssl.weights.heads import DINO_HEADS
from jax_ssl.weights.rules import (
    BLOCKS,
    INCEPTION,
    NUMBER,
    Part,
    Rule,
    Scheme,
    linear,
    norm,
    option,
    patch_kernel,
    same,
    token,
    transpose,
    without_key,
)


def timm_attention(block: str, target: str) -> tuple[Rule, ...]:
    """The rules for a block without its MLP."""
    return (
        *norm(block + r"norm1", f"{target}/norm1"),
        *linear(block + r"attn\.qkv", f"{target}/attention/qkv"),
        *linear(block + r"attn\.proj", f"{target}/attention/out"),
        *norm(block + r"norm2", f"{target}/norm2"),
    )


def timm_mlp(block: str, target: str, first: str = "fc1", second: str = "fc2") -> tuple[Rule, ...]:
    names = (first, second)
    return tuple(rule for name in names for rule in linear(block + rf"mlp\.{name}", f"{target}/mlp/{name}"))


def timm_blocks(prefix: str, target: str) -> tuple[Rule, ...]:
    return *timm_attention(prefix + NUMBER, target), *timm_mlp(prefix + NUMBER, target)


def ijepa_predictor(prefix: str) -> tuple[Rule, ...]:
    """facebookresearch/ijepa, src/models/vision_transformer.py, VisionTransformerPredictor."""
    return (
        Rule(prefix + r"mask_token", "predictor/mask_token", same),
        Rule(prefix + r"predictor_pos_embed", "positions/predictor", same),
        *linear(prefix + r"predictor_embed", "predictor/embed"),
        *timm_blocks(prefix + r"predictor_blocks", "predictor/blocks/blocks"),
        *norm(prefix + r"predictor_norm", "predictor/norm"),
        *linear(prefix + r"predictor_proj", "predictor/predict"),
    )


CLASS_TOKEN = Rule(r"cls_token", "backbone/cls_token", same)
POSITIONS = Rule(r"pos_embed", "positions/backbone", same)
EMBED = linear(r"patch_embed\.proj", "backbone/embed", kernel=patch_kernel)
ENDS = (POSITIONS, *EMBED, *norm(r"norm", "backbone/norm"))
CLASSIFIER = r"(?:head|head_dist|linear|classifier)\..*"

# facebookresearch/mae, models_mae.py; moco-v3, dino and ibot, whose vision transformers use timm's names too.
OF_TIMM = dict(position_offset=0.0, position_antialias=True)  # how timm resizes positions: resample_abs_pos_embed
TIMM = Scheme(
    name="timm",
    sign=r"patch_embed\.proj\.weight",
    rules=(CLASS_TOKEN, POSITIONS, *EMBED, *timm_blocks(r"blocks", BLOCKS)),
    parts=(
        Part(r"norm\.weight", norm(r"norm", "backbone/norm")),
        Part(r"fc_norm\.weight", norm(r"fc_norm", "pooled_norm")),  # of a fine-tuned MAE
        option(Rule(r"reg_token", "backbone/registers", same)),
        Part(
            r"decoder_embed\.weight",
            (
                Rule(r"mask_token", "decoder/mask_token", same),
                Rule(r"decoder_pos_embed", "positions/decoder", same),
                *linear(r"decoder_embed", "decoder/embed"),
                *timm_blocks(r"decoder_blocks", "decoder/blocks/blocks"),
                *norm(r"decoder_norm", "decoder/norm"),
                *linear(r"decoder_pred", "decoder/predict"),
            ),
        ),
        option(Rule(r"masked_embed", "backbone/mask_token", token)),  # of an iBOT student
        *DINO_HEADS,
    ),
    without=r"norm_pre\.weight|storage_tokens",  # CLIP's and DINOv3's
    ignored=CLASSIFIER,
    offset=0.1,
)

# facebookresearch/dinov2, models/vision_transformer.py; a block's name may have two numbers, chunk and block.
DINOV2_BLOCK = r"blocks(?:\.\d{1,3})?" + NUMBER
SCALES = tuple(Rule(DINOV2_BLOCK + rf"ls{i}\.gamma", f"{BLOCKS}/gamma{i}", same) for i in (1, 2))
DINOV2 = Scheme(
    name="DINOv2",
    sign=DINOV2_BLOCK + r"ls1\.gamma",
    rules=(CLASS_TOKEN, *ENDS, *timm_attention(DINOV2_BLOCK, BLOCKS), *timm_mlp(DINOV2_BLOCK, BLOCKS), *SCALES),
    parts=(
        option(Rule(r"mask_token", "backbone/mask_token", token)),
        option(Rule(r"register_tokens|reg_token", "backbone/registers", same)),
        *DINO_HEADS,
    ),
    without=r"storage_tokens|rope_embed\.periods",  # DINOv3's
    ignored=CLASSIFIER,
    offset=0.1,
)
DINOV2_SWIGLU = DINOV2._replace(
    name="DINOv2 with SwiGLU",
    sign=DINOV2_BLOCK + r"mlp\.w12\.weight",
    rules=tuple(rule for rule in DINOV2.rules if "/mlp/" not in rule.target)
    + timm_mlp(DINOV2_BLOCK, BLOCKS, "w12", "w3"),
)

# facebookresearch/dinov3, models/vision_transformer.py: rotary positions, the periods of which tell the heads.
DINOV3_BLOCK = r"blocks" + NUMBER
DINOV3_ATTENTION = tuple(
    rule._replace(transform=without_key) if rule.target.endswith("qkv/bias") else rule
    for rule in timm_attention(DINOV3_BLOCK, BLOCKS)
)
ROTARY = dict(
    epsilon=1e-5,
    model=dict(positions="rotary"),
    heads={1280: 20, 4096: 32},
)
DINOV3 = Scheme(
    name="DINOv3",
    sign=r"storage_tokens",
    rules=(CLASS_TOKEN, *EMBED, *norm(r"norm", "backbone/norm"), *DINOV3_ATTENTION, *SCALES,
           Rule(r"storage_tokens", "backbone/registers", same)),
    parts=(
        Part(DINOV3_BLOCK + r"mlp\.fc1\.weight", timm_mlp(DINOV3_BLOCK, BLOCKS)),
        Part(
            DINOV3_BLOCK + r"mlp\.w1\.weight",
            (
                *linear(DINOV3_BLOCK + r"mlp\.w1", f"{BLOCKS}/mlp/w12"),
                *linear(DINOV3_BLOCK + r"mlp\.w2", f"{BLOCKS}/mlp/w12", part=1),
                *linear(DINOV3_BLOCK + r"mlp\.w3", f"{BLOCKS}/mlp/w3"),
            ),
        ),
        option(Rule(r"mask_token", "backbone/mask_token", token)),
        option(Rule(r"rope_embed\.periods", "rotary/periods", same)),
    ),
    ignored=rf"{CLASSIFIER}|.*bias_mask|local_cls_norm\..*",
    **ROTARY,
)  # fmt: skip

# facebookresearch/ijepa, src/models/vision_transformer.py: no class token.
IJEPA = Scheme(
    name="I-JEPA",
    sign=r"patch_embed\.proj\.weight",
    without=r"cls_token",
    rules=(*ENDS, *timm_blocks(r"blocks", BLOCKS)),
    parts=(Part(r"predictor\.predictor_embed\.weight", ijepa_predictor(r"predictor\.")),),
    ignored=CLASSIFIER,
)
IJEPA_PREDICTOR = Scheme(
    name="I-JEPA's predictor", sign=r"predictor_embed\.weight", rules=ijepa_predictor(""), kind="predictor"
)


def beit(name: str, prefix: str, **image) -> Scheme:
    """microsoft/unilm, beit/modeling_finetune.py and modeling_pretrain.py, which SimMIM's models follow."""
    block, table = "blocks" + NUMBER, r"relative_position_bias_table"
    return Scheme(
        name=name,
        sign=block + r"attn\.q_bias",
        prefix=prefix,
        rules=(
            CLASS_TOKEN,
            *EMBED,
            *norm(block + r"norm1", f"{BLOCKS}/norm1"),
            Rule(block + r"attn\.qkv\.weight", f"{BLOCKS}/attention/qkv/kernel", transpose),
            Rule(block + r"attn\.q_bias", f"{BLOCKS}/attention/query_bias", same),
            Rule(block + r"attn\.v_bias", f"{BLOCKS}/attention/value_bias", same),
            *linear(block + r"attn\.proj", f"{BLOCKS}/attention/out"),
            *norm(block + r"norm2", f"{BLOCKS}/norm2"),
            *timm_mlp(block, BLOCKS),
        ),
        parts=(
            *(option(Rule(block + rf"gamma_{i}", f"{BLOCKS}/gamma{i}", same)) for i in (1, 2)),
            option(Rule(r"mask_token", "backbone/mask_token", same)),
            option(POSITIONS),
            option(Rule(r"rel_pos_bias\." + table, "backbone/encoder/relative_bias/table", same)),
            option(Rule(block + r"attn\." + table, f"{BLOCKS}/relative_bias/table", same)),
            Part(r"norm\.weight", norm(r"norm", "backbone/norm")),
            Part(r"fc_norm\.weight", norm(r"fc_norm", "pooled_norm")),
        ),
        ignored=rf"{CLASSIFIER}|(?:lm_head|decoder)\..*|.*relative_position_index|blocks\.\d+\.attn\.k_bias",
        **image,
    )


BEIT = beit("BEiT", r".*", pixels=INCEPTION)
SIMMIM = beit("SimMIM", r"(?:.*\.)?encoder\.")
