"""The test cases of single operators in the package onnx: written out (conformance.py FOLDER cases), and what came of them as a
page (conformance.py FOLDER page PAGE)."""

import collections
import json
import pathlib
import sys
import warnings

import numpy as np
import onnx
from onnx import numpy_helper

WORDS = {"bool": "BOOL", "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64", "uint8": "UINT8",
         "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64", "float16": "FP16", "float32": "FP32", "float64": "FP64"}
UNSIGNED = {"float16": "uint16", "float32": "uint32", "float64": "uint64"}


def held(value):
    return numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def written(name, value):
    array = held(value)
    kind = str(array.dtype)
    bits = array.astype("uint8") if kind == "bool" else np.ascontiguousarray(array).view(UNSIGNED.get(kind, kind))
    return {"name": name, "datatype": WORDS[kind], "shape": list(array.shape), "bits": bits.ravel().tolist()}


def operator(model):
    """The operator that a case is for: its only node, or what its name says."""
    kinds = {node.op_type for node in model.graph.node}
    return kinds.pop() if len(kinds) == 1 else None


def write_cases(work):
    warnings.simplefilter("ignore")
    from onnx.backend.test.case import node
    folder = work / "operators"
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for case in node.collect_testcases(None):
        model, kind = case.model, operator(case.model)
        # Decompositions into functions are of operators that have a case of their own.
        if kind is None or model.graph.node[0].domain not in ("", "ai.onnx"):
            continue
        inputs, outputs = case.data_sets[0]
        names = [value.name for value in model.graph.input], [value.name for value in model.graph.output]
        told = {"name": case.name, "operator": kind, "rtol": case.rtol, "atol": case.atol}
        try:
            given = [written(*own) for own in zip(names[0], inputs, strict=True)]
            told["outputs"] = [written(*own) for own in zip(names[1], outputs, strict=True)]
        except (KeyError, TypeError, ValueError, AttributeError):
            cases.append({**told, "unheld": True})
            continue
        # As the file is, and with all inputs but the first as constants: shapes, axes and weights are those in real models.
        fixed = onnx.ModelProto()
        fixed.CopyFrom(model)
        for value, array in list(zip(model.graph.input, inputs))[1:]:
            fixed.graph.initializer.append(numpy_helper.from_array(held(array), value.name))
        del fixed.graph.input[1:]
        for form, own, values in (("open", model, given), ("fixed", fixed, given[:1])):
            path = folder / f"{case.name}-{form}.onnx"
            path.write_bytes(own.SerializeToString())
            cases.append({**told, "form": form, "path": str(path), "inputs": values})
    (work / "operators.json").write_text(json.dumps(cases))


def is_right(case, answer):
    for wanted, found in zip(case["outputs"], answer["outputs"], strict=True):
        kind = next(own for own, word in WORDS.items() if word == wanted["datatype"])
        arrays = [np.array(own["bits"], UNSIGNED.get(kind, kind)).view(kind).reshape(own["shape"]) for own in (wanted, found)]
        if arrays[0].shape != arrays[1].shape:
            return False
        if not np.allclose(*[own.astype("f8") for own in arrays], case["rtol"], max(case["atol"], 1e-6), equal_nan=True):
            return False
    return True


def page(work, path):
    cases, answers = (json.loads((work / name).read_text()) for name in ("operators.json", "operator-answers.json"))
    verdicts, reasons, own_operator = collections.defaultdict(dict), {}, {}
    for case, answer in zip(cases, answers, strict=True):
        own_operator[case["name"]] = case["operator"]
        form = case.get("form", "open")
        if case.get("unheld"):
            verdicts[case["name"]][form] = "unheld"
        elif "refused" in answer:
            verdicts[case["name"]][form] = "refused"
            reasons.setdefault(case["operator"], answer["refused"])
        else:
            verdicts[case["name"]][form] = "right" if is_right(case, answer) else "wrong"
    counts = collections.defaultdict(collections.Counter)
    for name, forms in verdicts.items():
        found = set(forms.values())
        # The better of both, but a wrong answer is a wrong answer.
        verdict = next(own for own in ("wrong", "right", "refused", "unheld") if own in found)
        counts[own_operator[name]][verdict] += 1
    total = sum(counts.values(), collections.Counter())
    lines = [
        "# Operators", "",
        f"The {sum(total.values())} test cases of single operators in the package onnx {onnx.__version__}, read and run as inferq reads and "
        "runs a", "model, each as it is and with all inputs but the first as constants. `make operators` writes this page.", "",
        "- right: the answer is that of the case, within its tolerance, in at least one of both forms, and never another one.",
        "- wrong: in one of both forms it is another one, and nothing says so. Golden answers find that when a model is loaded.",
        "- refused: the runtime says no when the model is loaded, or fails when it runs.",
        "- not held: texts, sequences, optional values, floats of 8 bits or fewer: the protocol has no word for them.", "",
        f"All in all {total['right']} right, {total['wrong']} wrong, {total['refused']} refused, {total['unheld']} not held.", "",
        "| operator | right | wrong | refused | not held | first refusal |", "|---|---|---|---|---|---|"]
    for kind in sorted(counts):
        own = counts[kind]
        reason = reasons.get(kind, "") if own["refused"] else ""
        reason = " ".join(reason.replace("|", "/").replace("`", "'").split())[:110]
        numbers = " | ".join(str(own[word]) if own[word] else "" for word in ("right", "wrong", "refused", "unheld"))
        lines.append(f"| {kind} | {numbers} | {reason} |")
    pathlib.Path(path).write_text("\n".join(lines) + "\n")
    print(next(line for line in lines if line.startswith("All in all")))


work = pathlib.Path(sys.argv[1])
if sys.argv[2] == "cases":
    write_cases(work)
else:
    page(work, sys.argv[3])
