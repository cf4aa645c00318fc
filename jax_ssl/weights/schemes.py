"""How other libraries name their tensors: one table of rules for each naming scheme."""

from jax_ssl.weights.rules import Part, Rule, Scheme, linear, norm, patch_kernel, same, token, transpose

NUMBER = r"\.(\d{1,3})\."
BLOCKS = "backbone/encoder/blocks"
INCEPTION = dict(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


# ---- names as in timm: MAE, MoCo v3, DINO, iBOT, DINOv2, I-JEPA


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


TIMM_ENDS = (
    Rule(r"pos_embed", "positions/backbone", same),
    *linear(r"patch_embed\.proj", "backbone/embed", kernel=patch_kernel),
    *norm(r"norm", "backbone/norm"),
)
CLASS_TOKEN = Rule(r"cls_token", "backbone/cls_token", same)

# facebookresearch/mae, models_mae.py; moco-v3, dino and ibot, whose vision transformers use timm's names too.
TIMM = Scheme(
    name="timm",
    sign=r"patch_embed\.proj\.weight",
    rules=(CLASS_TOKEN, *TIMM_ENDS, *timm_blocks(r"blocks", BLOCKS)),
    parts=(
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
        Part(r"masked_embed", (Rule(r"masked_embed", "backbone/mask_token", token),)),  # of an iBOT student
    ),
    offset=0.1,
)

# facebookresearch/dinov2, models/vision_transformer.py; a block's name may have two numbers, chunk and block.
DINOV2_BLOCK = r"blocks(?:\.\d{1,3})?" + NUMBER
DINOV2 = Scheme(
    name="DINOv2",
    sign=DINOV2_BLOCK + r"ls1\.gamma",
    rules=(
        CLASS_TOKEN,
        *TIMM_ENDS,
        *timm_attention(DINOV2_BLOCK, BLOCKS),
        *timm_mlp(DINOV2_BLOCK, BLOCKS),
        Rule(DINOV2_BLOCK + r"ls1\.gamma", f"{BLOCKS}/gamma1", same),
        Rule(DINOV2_BLOCK + r"ls2\.gamma", f"{BLOCKS}/gamma2", same),
    ),
    parts=(
        Part(r"mask_token", (Rule(r"mask_token", "backbone/mask_token", token),)),
        Part(r"register_tokens", (Rule(r"register_tokens", "backbone/registers", same),)),
    ),
    offset=0.1,
)
DINOV2_SWIGLU = DINOV2._replace(
    name="DINOv2 with SwiGLU",
    sign=DINOV2_BLOCK + r"mlp\.w12\.weight",
    rules=tuple(rule for rule in DINOV2.rules if "/mlp/" not in rule.target)
    + timm_mlp(DINOV2_BLOCK, BLOCKS, "w12", "w3"),
)

# facebookresearch/ijepa, src/models/vision_transformer.py: no class token.
IJEPA = Scheme(
    name="I-JEPA",
    sign=r"patch_embed\.proj\.weight",
    without=r"cls_token",
    rules=(*TIMM_ENDS, *timm_blocks(r"blocks", BLOCKS)),
)
IJEPA_PREDICTOR = Scheme(
    name="I-JEPA's predictor",
    sign=r"predictor_embed\.weight",
    rules=(
        Rule(r"mask_token", "predictor/mask_token", same),
        Rule(r"predictor_pos_embed", "positions/predictor", same),
        *linear(r"predictor_embed", "predictor/embed"),
        *timm_blocks(r"predictor_blocks", "predictor/blocks/blocks"),
        *norm(r"predictor_norm", "predictor/norm"),
        *linear(r"predictor_proj", "predictor/predict"),
    ),
)


# ---- BEiT and SimMIM


def beit(name: str, prefix: str, **image) -> Scheme:
    """microsoft/unilm, beit/modeling_finetune.py and modeling_pretrain.py, which SimMIM's models follow."""
    block = prefix + "blocks" + NUMBER
    table = r"relative_position_bias_table"
    part = lambda pattern, target, transform=same: Part(pattern, (Rule(pattern, target, transform),))
    return Scheme(
        name=name,
        sign=block + r"attn\.q_bias",
        rules=(
            Rule(prefix + r"cls_token", "backbone/cls_token", same),
            *linear(prefix + r"patch_embed\.proj", "backbone/embed", kernel=patch_kernel),
            *norm(block + r"norm1", f"{BLOCKS}/norm1"),
            Rule(block + r"attn\.qkv\.weight", f"{BLOCKS}/attention/qkv/kernel", transpose),
            Rule(block + r"attn\.q_bias", f"{BLOCKS}/attention/query_bias", same),
            Rule(block + r"attn\.v_bias", f"{BLOCKS}/attention/value_bias", same),
            *linear(block + r"attn\.proj", f"{BLOCKS}/attention/out"),
            *norm(block + r"norm2", f"{BLOCKS}/norm2"),
            *timm_mlp(block, BLOCKS),
        ),
        parts=(
            *(part(block + rf"gamma_{i}", f"{BLOCKS}/gamma{i}") for i in (1, 2)),
            part(prefix + r"mask_token", "backbone/mask_token"),
            part(prefix + r"pos_embed", "positions/backbone"),
            part(prefix + r"rel_pos_bias\." + table, "backbone/encoder/relative_bias/table"),
            part(block + r"attn\." + table, f"{BLOCKS}/relative_bias/table"),
            Part(prefix + r"norm\.weight", norm(prefix + r"norm", "backbone/norm")),
            Part(prefix + r"fc_norm\.weight", norm(prefix + r"fc_norm", "pooled_norm")),
        ),
        ignored=r"(?:head|lm_head|decoder)\..*|.*relative_position_index",
        **image,
    )


# ---- Hugging Face

QUERY, KEY, VALUE = (
    rf"attention\.(?:{letter}_proj|attention\.{name})"  # since Transformers 5, and before it
    for letter, name in (("q", "query"), ("k", "key"), ("v", "value"))
)


def hugging_face_blocks(prefix: str, target: str) -> tuple[Rule, ...]:
    """The rules for blocks, without the biases of query, key and value."""
    block, qkv = prefix + NUMBER, f"{target}/attention/qkv/kernel"
    return (
        *norm(block + r"layernorm_before", f"{target}/norm1"),
        *(Rule(block + name + r"\.weight", qkv, transpose, part) for part, name in enumerate((QUERY, KEY, VALUE))),
        *linear(block + r"attention\.(?:o_proj|output\.dense)", f"{target}/attention/out"),
        *norm(block + r"layernorm_after", f"{target}/norm2"),
        *linear(block + r"(?:mlp\.fc1|intermediate\.dense)", f"{target}/mlp/fc1"),
        *linear(block + r"(?:mlp\.fc2|output\.dense)", f"{target}/mlp/fc2"),
    )


def hugging_face_biases(prefix: str, target: str) -> tuple[Rule, ...]:
    """The rules for the biases of query, key and value."""
    block, qkv = prefix + NUMBER, f"{target}/attention/qkv/bias"
    return tuple(Rule(block + name + r"\.bias", qkv, same, part) for part, name in enumerate((QUERY, KEY, VALUE)))


# huggingface/transformers, models/vit_mae/modeling_vit_mae.py; a ViTMAEModel saved alone has no prefix.
VIT = r"(?:vit\.)?"
HUGGING_FACE = Scheme(
    name="Hugging Face ViTMAE",
    sign=VIT + r"embeddings\.patch_embeddings\.projection\.weight",
    rules=(
        Rule(VIT + r"embeddings\.cls_token", "backbone/cls_token", same),
        Rule(VIT + r"embeddings\.position_embeddings", "positions/backbone", same),
        *linear(VIT + r"embeddings\.patch_embeddings\.projection", "backbone/embed", kernel=patch_kernel),
        *hugging_face_blocks(VIT + r"(?:layers|encoder\.layer)", BLOCKS),
        *hugging_face_biases(VIT + r"(?:layers|encoder\.layer)", BLOCKS),
        *norm(VIT + r"layernorm", "backbone/norm"),
    ),
    parts=(
        Part(
            r"decoder\.decoder_embed\.weight",
            (
                Rule(r"decoder\.mask_token", "decoder/mask_token", same),
                Rule(r"decoder\.decoder_pos_embed", "positions/decoder", same),
                *linear(r"decoder\.decoder_embed", "decoder/embed"),
                *hugging_face_blocks(r"decoder\.decoder_layers", "decoder/blocks/blocks"),
                *hugging_face_biases(r"decoder\.decoder_layers", "decoder/blocks/blocks"),
                *norm(r"decoder\.decoder_norm", "decoder/norm"),
                *linear(r"decoder\.decoder_pred", "decoder/predict"),
            ),
        ),
    ),
    epsilon=1e-12,
)

# models/beit/modeling_beit.py; pre-trained files end in a norm of all tokens, fine-tuned ones in a norm of their mean.
BEIT = r"(?:beit\.)?"
BEIT_BLOCKS = BEIT + r"(?:layers|encoder\.layer)"
BEIT_TABLE = r"relative_position_bias\.relative_position_bias_table"
HUGGING_FACE_BEIT = Scheme(
    name="Hugging Face BEiT",
    sign=BEIT_BLOCKS + NUMBER + r"lambda_1",
    rules=(
        Rule(BEIT + r"embeddings\.cls_token", "backbone/cls_token", same),
        *linear(BEIT + r"embeddings\.patch_embeddings\.projection", "backbone/embed", kernel=patch_kernel),
        *hugging_face_blocks(BEIT_BLOCKS, BLOCKS),
        Rule(BEIT_BLOCKS + NUMBER + QUERY + r"\.bias", f"{BLOCKS}/attention/query_bias", same),
        Rule(BEIT_BLOCKS + NUMBER + VALUE + r"\.bias", f"{BLOCKS}/attention/value_bias", same),
        Rule(BEIT_BLOCKS + NUMBER + r"lambda_1", f"{BLOCKS}/gamma1", same),
        Rule(BEIT_BLOCKS + NUMBER + r"lambda_2", f"{BLOCKS}/gamma2", same),
    ),
    parts=tuple(
        Part(rules[0].pattern, rules)
        for rules in (
            (Rule(BEIT_BLOCKS + NUMBER + r"(?:attention\.attention\.)?" + BEIT_TABLE,
                  f"{BLOCKS}/relative_bias/table", same),),
            (Rule(BEIT + r"(?:encoder\.)?" + BEIT_TABLE, "backbone/encoder/relative_bias/table", same),),
            (Rule(BEIT + r"embeddings\.mask_token", "backbone/mask_token", same),),
            (Rule(BEIT + r"embeddings\.position_embeddings", "positions/backbone", same),),
            norm(BEIT + r"layernorm", "backbone/norm"),
            norm(BEIT + r"pooler\.layernorm", "pooled_norm"),
        )
    ),
    ignored=r"(?:classifier|lm_head)\..*|.*relative_position_index",
    epsilon=1e-12,
    pixels=INCEPTION,
)  # fmt: skip

SCHEMES = (  # the first one that fits is taken
    DINOV2_SWIGLU, DINOV2, beit("BEiT", "", pixels=INCEPTION), beit("SimMIM", r"encoder\."), HUGGING_FACE_BEIT,
    IJEPA, TIMM, HUGGING_FACE,
)  # fmt: skip
