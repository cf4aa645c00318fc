"""A network as a SavedModel of TensorFlow, with the normalisation of its images inside.

It holds the StableHLO program that JAX exports, for CPUs, CUDA and TPUs, in TensorFlow's operation for such programs.
jax2tf wraps the same operation, but writes a program that TensorFlow 2.21 cannot read: its dialect is newer, and erf
stands in it as a composite whose shapes are never refined for a batch. TensorFlow is imported here alone in this room.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.mlir import ir, passmanager
from jax.extend.mlir.dialects import stablehlo
from jax.interpreters.mlir import make_ir_context

from jax_ssl import paths
from jax_ssl.encoder import check_size
from jax_ssl.models.features import Features
from jax_ssl.views.sizes import Size, sides
from jax_ssl.weights.network import Network

PLATFORMS = ("cpu", "cuda", "tpu")
DIALECT = "1.0.0"  # the version of StableHLO that is written, of 2024: what reads this op of JAX reads it
SIGNATURE = "serving_default"


def write(network: Network, folder, size: Size | None = None) -> list[str]:
    """Writes the folder, which has to be empty or new, in a bucket too; returns lines about it. Raises UserError.

    Its signature takes `images`, uint8 (B, H, W, 3) in RGB of any B, and gives `pooled` (B, D), `patches`
    (B, N, D) and, where there are some, `registers` (B, R, D), float32. size: by default the network's own; positions
    are made for one grid, so another size is another SavedModel.
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    size = size or network.size
    check_size(network.backbone, size)
    exported, (height, width) = exported_for(network, size), sides(size)
    kinds = [tf.as_dtype(x.dtype) for x in exported.out_avals]
    shapes = [(None, *x.shape[1:]) for x in exported.out_avals]
    module = tf.Module()  # its weights are variables: as constants they could not be larger than 2 GB
    module.weights = [tf.Variable(np.asarray(x), trainable=False) for x in jax.tree.leaves(network.variables)]

    @tf.function(input_signature=[tf.TensorSpec((None, height, width, 3), tf.uint8, name="images")], autograph=False)
    def encode(images):
        given = [*module.weights, images]
        outputs = xla.call_module(
            [given[i] for i in exported.module_kept_var_idx], version=exported.calling_convention_version,
            module=portable(exported.mlir_module()), platforms=[name.upper() for name in PLATFORMS], Tout=kinds,
            Sout=shapes,
        )  # fmt: skip
        return jax.tree.unflatten(exported.out_tree, outputs)

    tf.saved_model.save(module, str(paths.resolve(folder)), signatures={SIGNATURE: encode})
    names = jax.tree.unflatten(exported.out_tree, shapes)
    about = ", ".join(f"{name} (B, {', '.join(map(str, shape[1:]))})" for name, shape in names.items())
    return [f"signature {SIGNATURE}: images uint8 (B, {height}, {width}, 3) -> {about}"]


def exported_for(network: Network, size: Size) -> jax.export.Exported:
    """The program (weights, uint8 images) -> {name: features} for any number of images of this size."""
    backbone = network.backbone
    if hasattr(backbone, "attention"):
        backbone = backbone.clone(attention="plain")  # a kernel is for one platform
    mean, std = (jnp.asarray(network.pixels[name], jnp.float32) for name in ("mean", "std"))

    def of_one(weights, image) -> Features:  # for it, the networks count a batch of one, which is a known number
        x = (image[None].astype(jnp.float32) / 255 - mean) / std
        return jax.tree.map(lambda y: y[0].astype(jnp.float32), backbone.apply(weights, x))

    def of_many(weights, images) -> dict:
        features = jax.vmap(of_one, (None, 0))(weights, images)._asdict()
        return {name: value for name, value in features.items() if value.shape[1]}

    (batch,) = jax.export.symbolic_shape("batch")
    weights = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), network.variables)
    images = jax.ShapeDtypeStruct((batch, *sides(size), 3), jnp.uint8)
    return jax.export.export(jax.jit(of_many), platforms=PLATFORMS)(weights, images)


def portable(program: str) -> bytes:
    """The text of a StableHLO program as bytes of DIALECT, with composites as calls of what they stand for."""
    with make_ir_context():
        stablehlo.register_stablehlo_passes()
        module = ir.Module.parse(program)
        passes = passmanager.PassManager.parse("builtin.module(func.func(stablehlo-legalize-composite-to-call))")
        passes.run(module.operation)
        return stablehlo.serialize_portable_artifact_str(str(module), DIALECT)
