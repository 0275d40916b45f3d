"""Find targets with a file of `sam-spl export`: python onnx_detect.py FILE.onnx IMAGE [IMAGE ...]."""

import json
import sys

import cv2
import numpy as np
import onnxruntime

session = onnxruntime.InferenceSession(sys.argv[1])
about = json.loads(session.get_modelmeta().custom_metadata_map["sam_spl"])

for name in sys.argv[2:]:
    image = cv2.imread(name, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH)
    x = image.astype(np.float32) / np.iinfo(image.dtype).max  # (H, W) in [0, 1]; normalised in the file
    height, width = x.shape
    if side := about["image_size"]:  # squeezed to a square, as in training
        shrinks = side < max(height, width)
        x = cv2.resize(x, (side, side), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    rows, columns = x.shape
    x = np.pad(x, ((0, -rows % 32), (0, -columns % 32)), mode="edge")
    x = np.repeat(x[None, None], about["in_channels"], axis=1)  # (1, C, H, W)
    if about.get("padding") == "zeros":  # after normalisation, which takes the mean off
        mean = np.array(about["mean"], np.float32).reshape(-1, 1, 1)
        x[:, :, rows:], x[..., columns:] = mean, mean

    logits = session.run(["logits"], {"image": x})[0][0, 0, :rows, :columns]
    logits = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR)
    prob = 1 / (1 + np.exp(-logits))
    mask = (prob > about["threshold"]).astype(np.uint8)
    count, labels, stats, centroids = cv2.connectedComponentsWithStats(mask, connectivity=8)
    for k in range(1, count):
        (column, row), area, peak = centroids[k], stats[k, cv2.CC_STAT_AREA], prob[labels == k].max()
        print(f"{name}: row {row:.1f} column {column:.1f} area {area} peak {peak:.2f}")
