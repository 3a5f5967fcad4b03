"""The reference model's file after `inferq models optimize`, beside itself before, in onnxruntime: optimised.py FOLDER INFERQ."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import onnxruntime

MODEL = pathlib.Path("models/topic/1/model.onnx")
# The ids of posts, as the training script has written them.
POSTS = pathlib.Path("models/topic/samples/ids.json")
# How far an output may be from what it was: absolute up to 1, relative beyond. For weights of half the size, the bound of the command.
EXACT, HALF = 1e-4, 0.05
FORMS = {"fold": EXACT, "embedding": EXACT, "half": HALF, "fold embedding half": HALF}
# A step is dropped where it is slower, which on a busy machine it may seem to be.
TRIES = 3
BATCH = 16


def optimise(inferq, steps, output):
    """What `inferq models optimize` says; nothing where it kept less than all steps."""
    chosen = [word for step in steps for word in ("--step", step)]
    for _ in range(TRIES):
        output.unlink(missing_ok=True)
        command = [inferq, "models", "optimize", str(MODEL), "--output", str(output), "--json", *chosen]
        ran = subprocess.run(command, capture_output=True, text=True)
        if ran.returncode == 0:
            told = json.loads(ran.stdout)
            if all(step["verdict"] == "kept" for step in told["steps"]):
                return told
    return None


def answers(path, rows):
    """The answers to `rows`: each alone, then all in padded batches."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    model = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    run = lambda ids: model.run(None, {model.get_inputs()[0].name: ids})[0]
    alone = [run(np.array([row], "int64"))[0] for row in rows]
    for start in range(0, len(rows), BATCH):
        some = rows[start:start + BATCH]
        padded = np.zeros((len(some), max(map(len, some))), "int64")
        for place, row in enumerate(some):
            padded[place, :len(row)] = row
        alone.extend(run(padded))
    return np.array(alone, "f8")


def main(work, inferq):
    rows = list(json.loads(POSTS.read_text()).values())
    before = answers(MODEL, rows)
    lines = ["| steps | bytes | outputs differ by | bound | same class |", "|---|---|---|---|---|",
             f"| none | {MODEL.stat().st_size} | | | |"]
    faults = []
    for form, bound in FORMS.items():
        path = work / f"optimised-{form.replace(' ', '-')}.onnx"
        if optimise(inferq, form.split(), path) is None:
            faults.append(f"{form} was not kept in {TRIES} tries")
            continue
        after = answers(path, rows)
        worst = float(np.max(np.abs(after - before) / np.maximum(1.0, np.abs(before))))
        alike = int(np.sum(after.argmax(1) == before.argmax(1)))
        lines.append(f"| {form} | {path.stat().st_size} | {worst:.1e} | {bound:g} | {alike} of {len(before)} |")
        # Not "worse than the bound": what is no number is no answer either.
        if not worst <= bound:
            faults.append(f"{form}: an output differs by {worst:.1e}, at most {bound:g} is allowed")
    (work / "optimised.md").write_text("\n".join(lines) + "\n")
    print("\n".join(lines))
    for fault in faults:
        print(f"test-models: {fault}", file=sys.stderr)
    sys.exit(bool(faults))


main(pathlib.Path(sys.argv[1]), sys.argv[2])
