"""The table as Markdown and CSV, and its plot."""
import csv
import math
import shutil
import subprocess

from rows import CALIBRATIONS, FLOAT, SECTIONS

COLUMNS = ("name", "label", "section", "calibration", "bits_per_weight", "perplexity", "kl", "kl_standard_error",
           "flips", "top5_overlap", "on_front")


def pareto_front(points):
    """Names of those for which no other costs no more and errs no more, and less in one of the two.

    points: {name: (cost, error)}
    """
    def beaten(point, other):
        return other != point and other[0] <= point[0] and other[1] <= point[1]

    return {name for name, point in points.items() if not any(beaten(point, other) for other in points.values())}


def front_of(results):
    return pareto_front({name: (found["bits_per_weight"], found["perplexity"])
                         for name, found in results.items() if name != FLOAT.name})


def kl_text(result):
    error = result["kl_standard_error"]
    return f"{result['kl']:.4f}" + ("" if error is None else f" +- {error:.4f}")


def number_text(value):
    return f"{value:.2f}" if value < 1000 else f"{value:.3g}"


def markdown(rows, results):
    """A table of the rows that are measured; those on the Pareto front have their perplexity in bold."""
    front = front_of(results)
    lines = ["| method | calibrated on | bits/weight | perplexity | KL from float | likeliest token changes |",
             "|---|---|---|---|---|---|"]
    shown = None
    for row in sorted(rows, key=lambda row: SECTIONS.index(row.section)):
        if row.name not in results:
            continue
        r = results[row.name]
        if row.section != shown and row != FLOAT:
            lines.append(f"| **{row.section}** | | | | | |")
        shown = row.section
        perplexity = number_text(r["perplexity"])
        if row.name in front:
            perplexity = f"**{perplexity}**"
        lines.append(f"| {row.label} | {CALIBRATIONS[row.calibration]} | {r['bits_per_weight']:.3f} | {perplexity} "
                     f"| {kl_text(r)} | {100 * r['flips']:.1f} % |")
    return "\n".join(lines) + "\n"


def write_csv(path, rows, results):
    front = front_of(results)
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in rows:
            if row.name in results:
                known = {**results[row.name], "name": row.name, "label": row.label, "section": row.section,
                         "calibration": row.calibration, "on_front": row.name in front}
                writer.writerow([known[column] for column in COLUMNS])


def series_of(row):
    """Rows with one sign and colour in the plot."""
    kind = CALIBRATIONS[row.calibration]
    label = row.label.split(", groups of")[0]
    return f"{label} ({kind})" if kind and "ggml" not in label else label


def quoted(text):
    return "'" + str(text).replace("'", "''") + "'"


def gnuplot_script(rows, results, target):
    """Perplexity against bits per weight, one series for each way to quantize, and the Pareto front with its names."""
    shown = [row for row in rows if row.name in results and row != FLOAT]
    places = {row.name: (results[row.name]["bits_per_weight"], results[row.name]["perplexity"]) for row in shown}
    blocks, plots = [], []

    def add(name, lines, style):
        blocks.append(f"${name} << EOD\n" + "".join(line + "\n" for line in lines) + "EOD\n")
        plots.append(f"${name} {style}")

    for number, series in enumerate(dict.fromkeys(map(series_of, shown)), 1):
        points = [f"{places[row.name][0]} {places[row.name][1]}" for row in shown if series_of(row) == series]
        add(f"points_{number}", points,
            f"using 1:2 with points lc {number} pt {number % 13 + 1} ps 0.8 title {quoted(series)}")
    front = sorted((*places[name], name) for name in front_of(results))
    add("front", [f'{bits} {perplexity} "{name}"' for bits, perplexity, name in front],
        "using 1:2 with lines lc 'black' lw 1.2 title 'Pareto front'")
    plots.append("$front using 1:2:3 with labels right offset -0.8,-0.5 font ',8' notitle")
    least = min(perplexity for _, perplexity in places.values())
    floor = results.get(FLOAT.name, {}).get("perplexity")
    if floor is not None:
        plots.append(f"{floor} with lines lc 'gray50' dt 2 title 'float'")
        least = min(least, floor)
    most = min(max(perplexity for _, perplexity in places.values()), 20 * least)  # what is worse is of no use
    return ("set terminal svg size 1400,900 dynamic noenhanced font 'sans,12' background rgb 'white'\n"
            f"set output {quoted(target)}\n" + "".join(blocks) +
            "set logscale y\n"
            "set ytics (5, 6, 7, 8, 10, 12, 15, 18, 20, 25, 30, 40, 50, 70, 100, 150, 200, 300, 500, 1000)\n"
            "set grid\nset key outside right\nset offsets graph 0.12, 0.02, 0, 0\n"
            "set xlabel 'bits per weight, all stored bits counted'\nset ylabel 'perplexity'\n"
            f"set yrange [{0.97 * least}:{1.1 * most}]\n"
            f"plot {', '.join(plots)}\n")


def draw(rows, results, target):
    """Draws the plot; says why, if it cannot."""
    if not any(name != FLOAT.name and math.isfinite(r["perplexity"]) for name, r in results.items()):
        return "no points to draw"
    if shutil.which("gnuplot") is None:
        return "no gnuplot (Debian: apt install gnuplot-nox)"
    done = subprocess.run(["gnuplot"], input=gnuplot_script(rows, results, target), text=True, capture_output=True)
    return f"gnuplot: {done.stderr.strip()}" if done.returncode != 0 else ""
