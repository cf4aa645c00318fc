"""How the image towers of CLIP are named: by openai/CLIP and open_clip, and by Hugging Face."""

from jax_ssl.weights.rules import (
    BLOCKS,
    NUMBER,
    Rule,
    Scheme,
    linear,
    norm,
    patch_kernel,
    same,
    token_row,
    transpose,
    vector,
)

OF_CLIP = dict(
    epsilon=1e-5,
    pixels=dict(mean=(0.48145466, 0.4578275, 0.40821073), std=(0.26862954, 0.26130258, 0.27577711)),
    model=dict(pre_norm=True, mlp="quick_gelu"),
    heads={512: 8, 640: 10, 896: 14, 1664: 16},
    question="CLIP's names do not say which GELU the network has: give --as=clip (OpenAI's) or --as=open_clip",
)

# openai/CLIP, clip/model.py; mlfoundations/open_clip, src/open_clip/transformer.py
BLOCK = r"transformer\.resblocks" + NUMBER
CLIP = Scheme(
    name="CLIP",
    sign=r"ln_pre\.weight",
    rules=(
        Rule(r"class_embedding", "backbone/cls_token", vector),
        Rule(r"positional_embedding", "positions/backbone", token_row),
        Rule(r"conv1\.weight", "backbone/embed/kernel", patch_kernel),
        *norm(r"ln_pre", "backbone/pre_norm"),
        *norm(BLOCK + r"ln_1", f"{BLOCKS}/norm1"),
        Rule(BLOCK + r"attn\.in_proj_weight", f"{BLOCKS}/attention/qkv/kernel", transpose),
        Rule(BLOCK + r"attn\.in_proj_bias", f"{BLOCKS}/attention/qkv/bias", same),
        *linear(BLOCK + r"attn\.out_proj", f"{BLOCKS}/attention/out"),
        *norm(BLOCK + r"ln_2", f"{BLOCKS}/norm2"),
        *linear(BLOCK + r"mlp\.c_fc", f"{BLOCKS}/mlp/fc1"),
        *linear(BLOCK + r"mlp\.c_proj", f"{BLOCKS}/mlp/fc2"),
        *norm(r"ln_post", "backbone/norm"),
    ),
    ignored=r"proj",
    **OF_CLIP,
)

# models/clip/modeling_clip.py
LAYER = r"encoder\.layers" + NUMBER
LETTERS = ("q", "k", "v")
HUGGING_FACE = Scheme(
    name="Hugging Face CLIP",
    sign=r"embeddings\.class_embedding",
    rules=(
        Rule(r"embeddings\.class_embedding", "backbone/cls_token", vector),
        Rule(r"embeddings\.position_embedding\.weight", "positions/backbone", token_row),
        Rule(r"embeddings\.patch_embedding\.weight", "backbone/embed/kernel", patch_kernel),
        *norm(r"pre_layrnorm", "backbone/pre_norm"),
        *norm(LAYER + r"layer_norm1", f"{BLOCKS}/norm1"),
        *(Rule(LAYER + rf"self_attn\.{letter}_proj\.weight", f"{BLOCKS}/attention/qkv/kernel", transpose, i)
          for i, letter in enumerate(LETTERS)),
        *(Rule(LAYER + rf"self_attn\.{letter}_proj\.bias", f"{BLOCKS}/attention/qkv/bias", same, i)
          for i, letter in enumerate(LETTERS)),
        *linear(LAYER + r"self_attn\.out_proj", f"{BLOCKS}/attention/out"),
        *norm(LAYER + r"layer_norm2", f"{BLOCKS}/norm2"),
        *linear(LAYER + r"mlp\.fc1", f"{BLOCKS}/mlp/fc1"),
        *linear(LAYER + r"mlp\.fc2", f"{BLOCKS}/mlp/fc2"),
        *norm(r"post_layernorm", "backbone/norm"),
    ),
    ignored=r"embeddings\.position_ids",
    **OF_CLIP,
)  # fmt: skip
SCHEMES = (CLIP, HUGGING_FACE)
