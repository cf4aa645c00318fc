"""What the record of a cell says: numbers of the better network."""

from jax_ssl.study import cell


def test_numbers_are_of_the_better_network_and_of_the_last_line():
    lines = [{"step": 1, "knn": 0.9, "rankme": 3.0, "loss": 2.0}, {"step": 2, "loss": None}]
    result = lambda task, value, k=None, of="student": {"task": task, "value": value, "k": k, "weights": of}
    results = [
        result("knn", 0.5, 10), result("knn", 0.2, 20), result("knn", 0.3, 20), result("linear", 0.4),
        result("linear", 0.45, of="teacher"), result("finetune", 0.6),
    ]  # fmt: skip
    names = ("knn", "linear", "finetune", "weights", "rankme", "loss", "images", "collapsed", "absent")
    expected = {"knn": 0.3, "linear": 0.45, "finetune": 0.6, "weights": "teacher", "rankme": 3.0, "loss": None}
    expected |= {"images": 64, "collapsed": True, "absent": None}
    log = "simsiam looks collapsed at step 30"
    assert cell.collect_numbers(lines, log, results, names, {"images": 64}) == expected
    assert cell.collect_numbers(lines, "", [], names)["collapsed"] is False
    assert cell.better(results[:3] + [result("knn", 0.6, 20, "teacher")]) == "teacher"
    pixels = cell.collect_numbers([], "", [result("knn", 0.4, 20, "pixels")], names)
    assert pixels["knn"] == 0.4 and pixels["weights"] is None and pixels["images"] is None
