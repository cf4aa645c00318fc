"""The reader of `tf.train.Example` against TensorFlow's own writer."""

import io

import numpy as np
import pytest
import tensorflow as tf

from jax_ssl.data import example


def written(**features):
    """A serialised Example. features: bytes, floats or integers."""
    kinds = {bytes: ("bytes_list", tf.train.BytesList), int: ("int64_list", tf.train.Int64List)}
    kinds[float] = ("float_list", tf.train.FloatList)
    made = {}
    for name, values in features.items():
        values = values if isinstance(values, list) else [values]
        field, kind = kinds[type(values[0])]
        made[name] = tf.train.Feature(**{field: kind(value=values)})
    return tf.train.Example(features=tf.train.Features(feature=made)).SerializeToString()


@pytest.mark.parametrize("label", [0, 1, 127, 128, 999, 2**40, -1])
@pytest.mark.parametrize("size", [1, 127, 128, 70_000])
def test_image_and_label_are_found_among_others(label, size):
    image = np.random.RandomState(0).bytes(size)
    data = written(image=image, label=label, name=b"x" * 200, boxes=[0.5] * 40, numbers=[3, 4, 5])
    start, end, found = example.image_and_label(data, 0, len(data), b"image", b"label")
    assert data[start:end] == image and found == label


def test_without_a_label():
    data = written(image=b"abc")
    assert example.image_and_label(data, 0, len(data), b"image", b"")[2] == -1


def test_unpacked_integers():
    """Protocol buffers also allow a list of numbers as one field a number; 0x08 is field 1, a varint."""
    feature = b"\x1a\x02\x08\x07"  # int64_list {value: 7}, unpacked
    entry = b"\x0a\x05label\x12" + bytes([len(feature)]) + feature
    picture = b"\x0a\x05image\x12\x05\x0a\x03\x0a\x01z"
    features = b"".join(b"\x0a" + bytes([len(part)]) + part for part in (entry, picture))
    data = b"\x0a" + bytes([len(features)]) + features
    assert tf.train.Example.FromString(data).features.feature["label"].int64_list.value[0] == 7
    start, end, label = example.image_and_label(data, 0, len(data), b"image", b"label")
    assert (data[start:end], label) == (b"z", 7)


def test_records_of_a_file(tmp_path):
    contents = [b"a", b"bc" * 100, b"", b"d" * 1000]
    with tf.io.TFRecordWriter(str(tmp_path / "x")) as writer:
        for content in contents:
            writer.write(content)
    data = (tmp_path / "x").read_bytes()
    assert [data[start:end] for start, end in example.records(data)] == contents
    for cut in (5, 15, len(data) - 1):
        with pytest.raises(ValueError, match="ends inside"):
            list(example.records(data[:cut]))


def test_foreign_bytes_are_damaged_and_nothing_else():
    random = np.random.RandomState(0)
    good = np.frombuffer(written(image=b"abc" * 20, label=3), np.uint8)
    for _ in range(500):
        bad = good.copy()
        bad[random.randint(0, len(bad), 3)] = random.randint(0, 256, 3)
        file = io.BytesIO(bad).getvalue()
        try:
            start, end, _ = example.image_and_label(file, 0, len(file), b"image", b"label")
            assert 0 <= start <= end <= len(file)
        except example.DAMAGED:
            pass
