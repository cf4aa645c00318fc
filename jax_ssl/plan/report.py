"""The reports of a plan as a table for a terminal, and as a plot over topologies."""

import json

from jax_ssl import paths
from jax_ssl.plan.compile import SCALES


def show(spec: str, reports: list[dict], top: bool = False, out=None, plot=None) -> None:
    """Prints the table. spec: what the user called the config. top: and the operations that move most bytes.

    out: path of a JSON file for the reports; plot: of a PNG file of the bound against chips.
    """
    print(table(spec, reports))
    if top:
        print(heaviest(reports))
    if out:
        save(reports, out)
    if plot:
        draw(reports, plot)


def save(reports: list[dict], out) -> None:
    """Writes reports, or what was published beside them, as JSON to the path `out`."""
    out.write_text(json.dumps(reports, indent=1) + "\n")


def table(spec: str, reports: list[dict]) -> str:
    """One column a topology, one row a quantity."""
    cells = lambda write: [write(report) for report in reports]
    rows = [
        ("topology", cells(lambda r: r["topology"])),
        ("verdict", cells(lambda r: "fits" if r["fits"] else "does not fit")),
        *([("scaling", cells(lambda r: r["scaling"]))] if len({r.get("scaling") for r in reports}) > 1 else []),
        ("devices", cells(lambda r: f"{r['devices']} {r['device_kind']}")),
        ("images a step, a device", cells(lambda r: f"{r['batch_size'] / r['devices']:g}")),
        *attention_rows(reports),
        *memory_rows(cells),
        ("FLOPs a step", cells(lambda r: f"{r['flops'] / r['devices'] / 1e9:,.2f} G")),
        ("bytes moved a step", cells(lambda r: size(r["bytes"]))),
    ]
    for kind in sorted({kind for report in reports for kind in report["collectives"]}):
        entry = lambda r, kind=kind: r["collectives"].get(kind, {"count": 0, "bytes": 0})
        rows.append((kind, cells(lambda r, entry=entry: f"{entry(r)['count']} x, {size(entry(r)['bytes'])}")))
    rows.append(("compiled in", cells(lambda r: f"{r['compile_seconds']:.0f} s")))
    rows += bound_rows(cells) if any(r.get("bound") for r in reports) else []
    return "\n".join([spec, *aligned(rows), "", "memory, FLOPs and bytes are per device", *remarks(reports)])


def attention_rows(reports: list[dict]) -> list[tuple[str, list[str]]]:
    """Which implementation each shape of attention has: a row for each shape."""
    taken = [{(a["tokens"], a["width"]): a["kernel"] for a in r.get("attention", ())} for r in reports]
    shapes = sorted({shape for kernels in taken for shape in kernels})
    return [
        (f"attention, {tokens} tokens of {width}", [kernels.get((tokens, width), "-") for kernels in taken])
        for tokens, width in shapes
    ]


def memory_rows(cells) -> list[tuple[str, list[str]]]:
    """What lies in memory, and what of it stays there between steps."""
    names = ("arguments", "outputs", "temporaries", "alias", "total", "usable")
    rows = [(f"memory: {name}", cells(lambda r, name=name: size(r["memory"].get(name)))) for name in names]
    parts = ("params", "optimizer", "teacher", "extra")
    return rows + [(f"of it {name}", cells(lambda r, name=name: size(r["state"][name]))) for name in parts]


def bound_rows(cells) -> list[tuple[str, list[str]]]:
    """What the data sheet allows at most; a dash for what does not fit."""

    def row(name, key, write):
        return name, cells(lambda r: "-" if r.get(key) is None else write(r[key]))

    parts = ("compute", "memory", "interconnect", "data centre")
    times = [
        row(f"bound: {part}", "bound", lambda b, part=part: f"{1000 * b['seconds'][part]:,.2f} ms") for part in parts
    ]
    dollars = lambda c: "no price" if c["money"] is None else f"{c['money']:,.0f}"
    return [
        *times,
        row("bound: images/s a chip", "bound", lambda b: f"{b['images_per_second_per_chip']:,.0f} by {b['by']}"),
        row("bound: utilisation", "bound", lambda b: f"{100 * b['utilisation']:.0f} %"),
        row("a host feeds, images/s", "host", lambda h: f"{h['images_per_second']:,.0f}"),
        row("of its cores, host mode", "host", lambda h: f"{h['cores_host']:,.0f} of {h['cores']}"),
        row("of its cores, hybrid", "host", lambda h: f"{h['cores_hybrid']:,.0f} of {h['cores']}"),
        row("whole run, at least", "cost", lambda c: f"{c['hours']:,.1f} h"),
        row("chip-hours, at least", "cost", lambda c: f"{c['chip_hours']:,.0f}"),
        row("list price, at least", "cost", dollars),
    ]


def heaviest(reports: list[dict]) -> str:
    """The operations that move most bytes between chip and memory, a table for each topology."""
    lines = []
    for r in reports:
        lines += ["", f"{r['topology']}: of {size(r['bytes'])} a step"]
        lines += [f"{size(e['bytes']):>12} in {e['times']:>4} x  {e['source']}" for e in r["heaviest"]]
    return "\n".join(lines)


def remarks(reports: list[dict]) -> list[str]:
    """What the compiler says, and what would help."""
    lines = []
    if any(r.get("quick") for r in reports):
        lines.append("compiled quickly: a run's own program may need 6 % more memory, and move two fifths fewer bytes")
    if any(r.get("bound") for r in reports):
        lines.append("a bound is what the chip's data sheet allows, not a prediction: no step is faster")
    for r in reports:
        for attention in r.get("attention", ()):
            if attention["reason"]:
                what = f"plain attention of {attention['tokens']} tokens of {attention['width']}"
                lines.append(f"{r['topology']}: {what}: {attention['reason']}")
        if r["compiler_says"]:
            lines.append(f"{r['topology']}: {r['compiler_says']}")
        if r.get("remedy"):
            used = size(r["remedy"]["memory"]["total"])
            lines.append(f"{r['topology']}: fits with {' '.join(r['remedy']['overrides'])}, in {used}")
        elif "remedy" in r:
            lines.append(f"{r['topology']}: nothing that was tried makes it fit: take more chips or fewer images")
    return lines


def size(count: float | None) -> str:
    """Bytes as a person reads them: `3.21 GiB`."""
    if count is None:
        return "-"
    for letter, scale in SCALES.items():
        if count >= scale:
            return f"{count / scale:.2f} {letter}iB"
    return f"{count:.0f} B"


def aligned(rows) -> list[str]:
    """Lines of (name, cells): names to the left, cells to the right."""
    first = max(len(name) for name, _ in rows)
    widths = [max(len(cells[column]) for _, cells in rows) for column in range(len(rows[0][1]))]
    return [
        "  ".join([name.ljust(first), *(cell.rjust(width) for cell, width in zip(cells, widths, strict=True))])
        for name, cells in rows
    ]


def draw(reports: list[dict], path) -> None:
    """Images per second and chip at the bound against chips, one curve for each way to scale, as a PNG file."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
    for name in dict.fromkeys(r["scaling"] for r in reports):
        fits = [r for r in reports if r.get("bound") and r["scaling"] == name]
        chips = [r["chips"] for r in fits]
        axes.plot(chips, [r["bound"]["images_per_second_per_chip"] for r in fits], marker="o", label=name)
        for r in fits:
            place = (r["chips"], r["bound"]["images_per_second_per_chip"])
            axes.annotate(r["bound"]["by"], place, textcoords="offset points", xytext=(0, 6), fontsize=7, ha="center")
    axes.margins(y=0.12)
    axes.set(xlabel="chips", ylabel="images/s a chip, bound", ylim=(0, None))
    axes.set_xscale("log", base=2)
    axes.legend(frameon=False)
    axes.grid(alpha=0.3)
    paths.save_picture(figure, path, dpi=150)
    plt.close(figure)
