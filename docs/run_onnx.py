"""Accuracy of an exported network, with ONNX Runtime alone: no PyTorch, no zerosum.

    pip install onnxruntime numpy pillow
    python run_onnx.py quantized.onnx IMAGES

IMAGES holds one folder a class, named by the class's WordNet id where the file knows them, or else by its index. The
file itself says how pictures become its input.
"""

import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image


def load(path):
    """A session for the file, and what its metadata says."""
    options = onnxruntime.SessionOptions()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    about = session.get_modelmeta().custom_metadata_map
    if about["kernels"] == "float32":  # none for its grids: unpack the weights once, not in every run
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return session, about


def prepare(picture, about):
    """A picture → (1, channels, height, width): shorter side to ``resize`` and the centre cut out, unless it is of the
    size already; mean and std taken off."""
    mean, std = (np.array(about[key].split(), np.float32) for key in ("mean", "std"))
    picture = picture.convert("RGB" if len(mean) == 3 else "L")
    height, width = (int(side) for side in about["size"].split())
    if picture.size != (width, height):
        scale = int(about["resize"]) / min(picture.size)
        method = getattr(Image.Resampling, about["interpolation"].upper())
        picture = picture.resize([int(side * scale) for side in picture.size], method)
    left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
    pixels = np.asarray(picture.crop((left, top, left + width, top + height)), np.float32) / 255
    return ((pixels.reshape(height, width, -1) - mean) / std).transpose(2, 0, 1)[None]


def main(path, images):
    session, about = load(path)
    classes = about["classes"].splitlines() if "classes" in about else []
    right = []
    for folder in sorted(folder for folder in Path(images).iterdir() if folder.is_dir()):
        label = classes.index(folder.name) if classes else int(folder.name)
        for file in sorted(folder.iterdir()):
            logits = session.run(None, {"images": prepare(Image.open(file), about)})[0]
            right.append(logits.argmax() == label)
    print(f"top-1 {100 * np.mean(right):.2f} % of {len(right)} images")


if __name__ == "__main__":
    main(*sys.argv[1:])
