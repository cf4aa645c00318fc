"""One table behind several tasks: the number of each that decides, of each network, and how long it took."""

from jax_ssl.study import overview


def record(task, weights, metric, value, k=None, **protocol):
    return dict(task=task, weights=weights, metric=metric, value=value, k=k, protocol=protocol)


FOUND = {
    "knn, linear": [
        *(record("knn", "pixels", "top1", k / 1000, k) for k in (10, 20, 100)),
        record("linear", "student", "top1", 0.5),
        record("linear", "untrained", "top1", 0.3),
        record("linear", "untrained", "top1", 0.4, batch_statistics="statistics adapted"),
    ],
    "copies": [record("copies", "student", "map", 0.9), record("copies", "student", "micro_ap", 0.2)],
    "layers": [record("layers", "student", "top1", value) for value in (0.1, 0.2)],
    "finetune": [record("finetune", "scratch", "top1", 0.25), record("finetune", "student", "top1", 0.75)],
    "lowshot": [
        record("lowshot", "student", "top1_1_percent", 0.4), record("lowshot", "student", "scratch_1_percent", 0.2),
    ],
    "pretext": [
        record("pretext", "linear on pixels", "accuracy", 0.3, decides=True),
        record("pretext", "student", "loss", 2.0, decides=False),
        record("pretext", "student", "accuracy", 0.6, decides=True),
    ],
    "emergence": [],
}
NAMES = ("pixels", "untrained", "student")


def test_each_task_shows_the_number_that_decides():
    lines = overview.table(FOUND, dict.fromkeys(FOUND, 61.4), NAMES)
    assert [line.split() for line in lines] == [
        ["all", "tasks", "number", "that", "decides", "pixels", "untrained", "adapted", "student", "seconds"],
        ["knn", "top1,", "k", "20", "0.02", "-", "-", "-", "61"],
        ["linear", "top1", "-", "0.3", "0.4", "0.5"],
        ["copies", "micro_ap", "-", "-", "-", "0.2", "61"],
        ["layers", "top1", "-", "-", "-", "0.2", "61"],
        ["finetune", "top1", "-", "0.25", "-", "0.75", "61"],
        ["lowshot", "top1_1_percent", "-", "0.2", "-", "0.4", "61"],
        ["pretext", "accuracy", "-", "-", "-", "0.6", "61"],
        ["emergence", "not", "measured", "-", "-", "-", "-", "61"],
    ]
    assert len({len(line) for line in lines if line.endswith(("61", "seconds"))}) == 1


def test_a_long_name_keeps_its_column():
    (head, row) = overview.table({"linear": [record("linear", "a_long_name_of_a_file", "top1", 0.5)]}, {"linear": 1},
                                 ("pixels", "a_long_name_of_a_file"))  # fmt: skip
    assert head.index("a_long_name_of_a_file") + len("a_long_name_of_a_file") == row.index("0.5") + 3
    assert "pixels" not in head
