"""How Hugging Face's Transformers names the tensors of vision transformers, since its version 5 and before."""

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
)
from jax_ssl.weights.schemes import ROTARY

QUERY, KEY, VALUE = (
    rf"attention\.(?:{letter}_proj|attention\.{name})"  # since Transformers 5, and before it
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value"))
)
OUT = r"attention\.(?:o_proj|output\.dense)"
PROJECTION = r"embeddings\.patch_embeddings\.projection"
EMBED = linear(PROJECTION, "backbone/embed", kernel=patch_kernel)
CLASS_TOKEN = Rule(r"embeddings\.cls_token", "backbone/cls_token", same)
POSITIONS = Rule(r"embeddings\.position_embeddings", "positions/backbone", same)
MASK_TOKEN = Rule(r"embeddings\.mask_token", "backbone/mask_token", token)
CLASSIFIER = r"(?:classifier|lm_head|pooler)\..*"


def kernels(block: str, target: str) -> tuple[Rule, ...]:
    """The rules for the kernels of query, key and value, side by side."""
    kernel = f"{target}/attention/qkv/kernel"
    return tuple(Rule(block + name + r"\.weight", kernel, transpose, i) for i, name in enumerate((QUERY, KEY, VALUE)))


def biases(block: str, target: str) -> tuple[Rule, ...]:
    bias = f"{target}/attention/qkv/bias"
    return tuple(Rule(block + name + r"\.bias", bias, same, i) for i, name in enumerate((QUERY, KEY, VALUE)))


def vit_blocks(prefix: str, target: str) -> tuple[Rule, ...]:
    """The rules for blocks, without the biases of query, key and value."""
    block = prefix + NUMBER
    return (
        *norm(block + r"layernorm_before", f"{target}/norm1"),
        *kernels(block, target),
        *linear(block + OUT, f"{target}/attention/out"),
        *norm(block + r"layernorm_after", f"{target}/norm2"),
        *linear(block + r"(?:mlp\.fc1|intermediate\.dense)", f"{target}/mlp/fc1"),
        *linear(block + r"(?:mlp\.fc2|output\.dense)", f"{target}/mlp/fc2"),
    )


# models/vit_mae/modeling_vit_mae.py, models/vit, models/vit_msn and, without a class token, models/ijepa.
LAYERS = r"(?:layers|encoder\.layer)"
DECODER = r"decoder\.decoder_"
DECODER_LAYERS = DECODER + r"(?:encoder\.layer|layers)"  # the former by save_pretrained of Transformers 5
VIT = Scheme(
    name="Hugging Face ViT",
    sign=PROJECTION + r"\.weight",
    rules=(
        POSITIONS,
        *EMBED,
        *vit_blocks(LAYERS, BLOCKS),
        *biases(LAYERS + NUMBER, BLOCKS),
        *norm(r"layernorm", "backbone/norm"),
    ),
    parts=(
        option(CLASS_TOKEN),
        option(MASK_TOKEN),
        Part(
            DECODER + r"embed\.weight",
            (
                Rule(r"decoder\.mask_token", "decoder/mask_token", same),
                Rule(DECODER + r"pos_embed", "positions/decoder", same),
                *linear(DECODER + r"embed", "decoder/embed"),
                *vit_blocks(DECODER_LAYERS, "decoder/blocks/blocks"),
                *biases(DECODER_LAYERS + NUMBER, "decoder/blocks/blocks"),
                *norm(DECODER + r"norm", "decoder/norm"),
                *linear(DECODER + r"pred", "decoder/predict"),
            ),
        ),
    ),
    ignored=CLASSIFIER,
    epsilon=1e-12,
)

# models/beit/modeling_beit.py; pre-trained files end in a norm of all tokens, fine-tuned ones in a norm of their mean.
TABLE = r"relative_position_bias\.relative_position_bias_table"
BEIT = Scheme(
    name="Hugging Face BEiT",
    sign=LAYERS + NUMBER + r"lambda_1",
    rules=(
        CLASS_TOKEN,
        *EMBED,
        *vit_blocks(LAYERS, BLOCKS),
        Rule(LAYERS + NUMBER + QUERY + r"\.bias", f"{BLOCKS}/attention/query_bias", same),
        Rule(LAYERS + NUMBER + VALUE + r"\.bias", f"{BLOCKS}/attention/value_bias", same),
        Rule(LAYERS + NUMBER + r"lambda_1", f"{BLOCKS}/gamma1", same),
        Rule(LAYERS + NUMBER + r"lambda_2", f"{BLOCKS}/gamma2", same),
    ),
    parts=(
        option(Rule(LAYERS + NUMBER + r"(?:attention\.attention\.)?" + TABLE, f"{BLOCKS}/relative_bias/table", same)),
        option(Rule(r"(?:encoder\.)?" + TABLE, "backbone/encoder/relative_bias/table", same)),
        option(MASK_TOKEN),
        option(POSITIONS),
        option(*norm(r"layernorm", "backbone/norm")),
        option(*norm(r"pooler\.layernorm", "pooled_norm")),
    ),
    ignored=r"(?:classifier|lm_head)\..*|.*relative_position_index",
    epsilon=1e-12,
    pixels=INCEPTION,
)

# models/dinov2/modeling_dinov2.py and, with registers, models/dinov2_with_registers.
LAYER = r"encoder\.layer" + NUMBER
DINOV2_RULES = (
    CLASS_TOKEN,
    POSITIONS,
    *EMBED,
    *norm(LAYER + r"norm1", f"{BLOCKS}/norm1"),
    *kernels(LAYER, BLOCKS),
    *biases(LAYER, BLOCKS),
    *linear(LAYER + OUT, f"{BLOCKS}/attention/out"),
    *norm(LAYER + r"norm2", f"{BLOCKS}/norm2"),
    *(Rule(LAYER + rf"layer_scale{i}\.lambda1", f"{BLOCKS}/gamma{i}", same) for i in (1, 2)),
    *norm(r"layernorm", "backbone/norm"),
)
MLP = (*linear(LAYER + r"mlp\.fc1", f"{BLOCKS}/mlp/fc1"), *linear(LAYER + r"mlp\.fc2", f"{BLOCKS}/mlp/fc2"))
SWIGLU = (
    *linear(LAYER + r"mlp\.weights_in", f"{BLOCKS}/mlp/w12"),
    *linear(LAYER + r"mlp\.weights_out", f"{BLOCKS}/mlp/w3"),
)
SWIGLU_APART = (
    *linear(LAYER + r"mlp\.gate_proj", f"{BLOCKS}/mlp/w12"),
    *linear(LAYER + r"mlp\.up_proj", f"{BLOCKS}/mlp/w12", part=1),
    *linear(LAYER + r"mlp\.down_proj", f"{BLOCKS}/mlp/w3"),
)
DINOV2 = Scheme(
    name="Hugging Face DINOv2",
    sign=LAYER + r"layer_scale1\.lambda1",
    prefix=r"(?!(?:.*\.)?backbone\.(?:backbone|0\.encoder\.encoder)\.$).*",  # RF-DETR's, whose attention has windows
    rules=DINOV2_RULES,
    parts=(
        Part(LAYER + r"mlp\.fc1\.weight", MLP),
        Part(LAYER + r"mlp\.weights_in\.weight", SWIGLU),
        Part(LAYER + r"mlp\.gate_proj\.weight", SWIGLU_APART),
        option(MASK_TOKEN),
        option(Rule(r"embeddings\.register_tokens", "backbone/registers", same)),
    ),
    ignored=CLASSIFIER,
)

# models/dinov3_vit/modeling_dinov3_vit.py
LAYER_3 = r"(?:model\.)?layer" + NUMBER
DINOV3 = Scheme(
    name="Hugging Face DINOv3",
    sign=LAYER_3 + r"layer_scale1\.lambda1",
    prefix=r"(?!.*encoder\.$).*",  # DINOv2's
    rules=(
        CLASS_TOKEN,
        Rule(r"embeddings\.register_tokens", "backbone/registers", same),
        *linear(r"embeddings\.patch_embeddings", "backbone/embed", kernel=patch_kernel),
        *norm(LAYER_3 + r"norm1", f"{BLOCKS}/norm1"),
        *kernels(LAYER_3, BLOCKS),
        Rule(LAYER_3 + QUERY + r"\.bias", f"{BLOCKS}/attention/query_bias", same),
        Rule(LAYER_3 + VALUE + r"\.bias", f"{BLOCKS}/attention/value_bias", same),
        *linear(LAYER_3 + OUT, f"{BLOCKS}/attention/out"),
        *norm(LAYER_3 + r"norm2", f"{BLOCKS}/norm2"),
        *(Rule(LAYER_3 + rf"layer_scale{i}\.lambda1", f"{BLOCKS}/gamma{i}", same) for i in (1, 2)),
        *norm(r"norm", "backbone/norm"),
        *linear(LAYER_3 + r"mlp\.up_proj", f"{BLOCKS}/mlp/fc1"),
        *linear(LAYER_3 + r"mlp\.down_proj", f"{BLOCKS}/mlp/fc2"),
    ),
    parts=(option(MASK_TOKEN._replace(transform=same)),),
    **ROTARY,
)
DINOV3_GATED = DINOV3._replace(
    sign=LAYER_3 + r"mlp\.gate_proj\.weight",
    rules=tuple(rule for rule in DINOV3.rules if "/mlp/" not in rule.target)
    + (
        *linear(LAYER_3 + r"mlp\.gate_proj", f"{BLOCKS}/mlp/w12"),
        *linear(LAYER_3 + r"mlp\.up_proj", f"{BLOCKS}/mlp/w12", part=1),
        *linear(LAYER_3 + r"mlp\.down_proj", f"{BLOCKS}/mlp/w3"),
    ),
)
SCHEMES = (DINOV3_GATED, DINOV3, DINOV2, BEIT, VIT)
