"""Compares what inferq answered with onnxruntime and with the packages, prints a table, fails where they differ: judge.py FOLDER."""

import json
import pathlib
import sys

import magika

SERVED = ("magika", "opennsfw", "effnet-lite0", "direction")
# How far a probability may be from onnxruntime's.
MOST = 1e-3
# Fewer types of files would say little.
TYPES = 20


def main(work):
    read = lambda name: json.loads((work / "cases" / f"{name}.json").read_text())
    cases, answers, report = read("cases"), read("answers"), read("report")
    faults = [f"{name} is not served: {report[name].get('refused')}" for name in SERVED if name not in cases]
    rows = []
    for name, own in cases.items():
        alike, worst = 0, 0.0
        labels = (work / "repository" / name / "1/labels.txt").read_text().splitlines()
        for case, answer in zip(own, answers[name], strict=True):
            scores = answer["outputs"]["probabilities"]
            worst = max([worst] + [abs(a - b) for a, b in zip(scores, case["scores"], strict=True)])
            best = labels[max(range(len(labels)), key=case["scores"].__getitem__)]
            found = answer["outputs"]["label"]
            if "package" in case:
                best, found = case["package"]["label"], thresholds(found, max(scores))
            alike += found == best
            if found != best:
                faults.append(f"{name}: {pathlib.Path(case['path']).name} is {best}, inferq says {found}")
        if worst > MOST:
            faults.append(f"{name}: a probability differs by {worst:.1e}")
        median = lambda numbers: sorted(numbers)[len(numbers) // 2]
        here, there = median([a["run_us"] / 1e3 for a in answers[name]]), median([case["ms"] for case in own])
        rows.append(f"| {name} | {len(own)} | {alike} of {len(own)} | {worst:.0e} | {here:.1f} | {there:.1f} | {here / there:.1f} |")
    types = {case["package"]["label"] for case in cases.get("magika", [])}
    if len(types) < TYPES:
        faults.append(f"magika: only {len(types)} types of files: {sorted(types)}")
    lines = ["| model | files | same label | probabilities differ by | ms a row | onnxruntime | ratio |",
             "|---|---|---|---|---|---|---|", *rows, "", f"magika tells {len(types)} types: {', '.join(sorted(types))}.", "",
             "| added as tensors | ms a row alone | in a batch of 8 |", "|---|---|---|"]
    for name, told in report.items():
        if name in SERVED:
            continue
        if "refused" in told:
            lines.append(f"| {name} | refused | {told['refused'].splitlines()[0]} |")
        else:
            sampled = told["added"]["sampled"]
            batch = sampled["row_in_batch_ms"]
            lines.append(f"| {name} | {sampled['row_ms']:.2f} | {sampled['batch_fault'] if batch is None else f'{batch:.2f}'} |")
    (work / "table.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for fault in faults:
        print(f"test-models: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


def thresholds(label, score, own=magika.Magika()):
    """What the package makes of a label of the model's."""
    decide = own._get_output_label_from_dl_label_and_score
    return str(decide(magika.ContentTypeLabel(label), score)[0])


main(pathlib.Path(sys.argv[1]))
