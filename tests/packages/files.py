"""Files of many types: made here, or taken from the repository and from Python's own installation."""

import bz2
import csv
import gzip
import io
import json
import lzma
import pathlib
import pickle
import py_compile
import sqlite3
import sys
import tarfile
import wave
import zipfile

import numpy as np
from PIL import Image, ImageDraw

ROOT = pathlib.Path(__file__).resolve().parents[2]


def write_types(folder):
    """Writes files of some 30 types into `folder`; answers their paths."""
    folder.mkdir(parents=True)
    text = (ROOT / "ARCHITECTURE.md").read_bytes()
    picture = photo(320)
    made = {
        "a.gz": gzip.compress(text), "a.bz2": bz2.compress(text), "a.xz": lzma.compress(text),
        "a.pickle": pickle.dumps({"text": text, "numbers": list(range(500))}),
        "a.json": json.dumps([{"id": i, "name": f"row {i}", "values": [i, i * 2]} for i in range(80)], indent=2).encode(),
        "a.svg": b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9">\n'
                 + b'<circle cx="4" cy="4" r="3" fill="red"/>\n' * 30 + b"</svg>\n",
        "a.html": b"<!DOCTYPE html>\n<html><head><title>page</title></head><body>\n"
                  + b"<p>Some <a href='x.html'>text</a>.</p>\n" * 40 + b"</body></html>\n",
        "a.sql": b"CREATE TABLE job (id INTEGER PRIMARY KEY, name TEXT NOT NULL);\n"
                 + b"".join(b"INSERT INTO job (id, name) VALUES (%d, 'job %d');\n" % (i, i) for i in range(60)),
        "a.css": b"".join(b".row-%d { color: #%06x; margin: 0 auto; padding: 4px; }\n" % (i, i * 999) for i in range(60)),
    }
    for kind, options in {"png": {}, "jpeg": {}, "gif": {}, "bmp": {}, "webp": {}, "tiff": {}, "pdf": {}, "ico": {}}.items():
        buffer = io.BytesIO()
        picture.save(buffer, format=kind, **options)
        made[f"a.{kind}"] = buffer.getvalue()
    for name, content in made.items():
        (folder / name).write_bytes(content)
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("text.md", text)
    with tarfile.open(folder / "a.tar", "w") as archive:
        archive.add(ROOT / "Makefile", "Makefile")
    with wave.open(str(folder / "a.wav"), "wb") as sound:
        sound.setparams((1, 2, 8000, 0, "NONE", ""))
        sound.writeframes((np.sin(np.arange(8000) / 9) * 9e3).astype("<i2").tobytes())
    with sqlite3.connect(folder / "a.sqlite") as base:
        base.executescript(made["a.sql"].decode())
    with open(folder / "a.csv", "w", newline="") as table:
        csv.writer(table).writerows([["id", "name", "share"]] + [[i, f"name {i}", i / 7] for i in range(90)])
    np.save(folder / "a.npy", np.arange(2000.0))
    np.savez(folder / "a.npz", a=np.arange(2000.0))
    library = pathlib.Path(json.__file__).parent
    py_compile.compile(str(library / "decoder.py"), cfile=str(folder / "a.pyc"), doraise=True)
    found = [library / "decoder.py", pathlib.Path(sys.executable).resolve(), ROOT / "Makefile", ROOT / "Cargo.toml",
             ROOT / "docker-compose.yml", ROOT / "src/lib.rs", ROOT / "scripts/lib.sh", ROOT / "docs/models.md",
             ROOT / "deploy/Dockerfile", ROOT / "models/topic/1/model.onnx"]
    return sorted(folder.iterdir()) + [path for path in found if path.is_file()]


def photo(size):
    """A picture with smooth and sharp parts, the same every time."""
    x, y = np.meshgrid(np.linspace(0, 1, size), np.linspace(0, 1, size))
    planes = [np.sin(9 * x * y), np.cos(7 * x + 3 * y), np.sin(5 * y) * np.cos(11 * x)]
    picture = Image.fromarray(((np.stack(planes, -1) + 1) * 127.5).astype("uint8"))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((size // 5, size // 4, size // 2, size // 2), fill=(240, 200, 40))
    draw.rectangle((size // 2, size // 2, size - 9, size - 30), outline=(0, 0, 0), width=5)
    return picture


def write_pictures(folder):
    """Square pictures, 256 pixels a side, as PNG: real ones and made ones."""
    folder.mkdir(parents=True)
    shown = [Image.open(path).convert("RGB").resize((256, 256)) for path in sorted((ROOT / "tests/fixtures/images").glob("*.[jp]*g"))]
    noise = np.random.default_rng(1).integers(0, 256, (256, 256, 3), dtype="uint8")
    shown += [Image.open(path).convert("RGB").resize((256, 256)) for path in sorted((ROOT / "models/topic/1").glob("*.png"))]
    shown += [photo(256), Image.fromarray(noise), Image.new("RGB", (256, 256), (210, 140, 110))]
    return saved(folder, shown)


def write_lines(folder):
    """Lines of text, 192 x 48 pixels, every other one upside down."""
    folder.mkdir(parents=True)
    lines = []
    for index, words in enumerate(["Invoice 2024", "a small job", "QUEUE 17", "total 38.20", "to be signed", "page 3 of 9"]):
        line = Image.new("RGB", (192, 48), "white")
        ImageDraw.Draw(line).text((6, 8), words, fill="black", font_size=28)
        lines.append(line.rotate(180) if index % 2 else line)
    return saved(folder, lines)


def saved(folder, pictures):
    paths = [folder / f"{index}.png" for index in range(len(pictures))]
    for path, picture in zip(paths, pictures):
        picture.save(path)
    return paths
