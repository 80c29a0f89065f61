"""The work of `metashot bench` in eager PyTorch: yardsticks for our own speed.

    printf '5\n5\n5\n' | python benchmarks/torch_yardsticks.py conv4_step --way 20 --query 5

Needs only torch. Builds the work, warms up and prints a line about itself; then each number read
from stdin is so many steps to run, answered by {"seconds": ...}, until stdin ends.

  conv4_step  a training step of a prototypical network: forward, backward, Adam
  meta_lstm   a meta-step of the Meta-Learner LSTM, of first order: episodes one after another with
              their gradients added up, clipped, Adam
  evaluate    a pass over --episodes episodes by a prototypical network, one by one

Each is written as such networks usually are: a block is convolution, batch norm, ReLU, pool, and
the cell of the Meta-Learner LSTM has coordinates as rows, as `torch.nn.LSTMCell` has them. With
--fastest they are as eager PyTorch did most of them fastest on a CPU. Pictures are random and stay
where they are: nothing is sampled or copied while the clock runs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

import torch  # pyright: ignore[reportMissingImports]
from torch.nn import functional  # pyright: ignore[reportMissingImports]

Step = Callable[[], Any]
WARM_SECONDS = 2.0
INNER_STEPS, HIDDEN = 12, 20  # of the Meta-Learner LSTM
POOL = 100  # distinct episodes of the evaluation, used in turn


def conv4_weights(channels: int, filters: int) -> list[torch.Tensor]:
    """Kernel, bias, scale and shift of each of four blocks."""
    weights = []
    for seen in (channels, filters, filters, filters):
        bound = 1 / math.sqrt(9 * seen)
        kernel = torch.empty(filters, seen, 3, 3).uniform_(-bound, bound)
        bias, shift = torch.zeros(2, filters)
        weights += [kernel, bias, torch.ones(filters), shift]
    return weights


def conv4(
    images: torch.Tensor, weights: list[torch.Tensor], fastest: bool, stored: Any = None
) -> torch.Tensor:
    """Features [n, d] of images [n, C, H, W]; `stored` (mean, variance) replace the batch's own."""
    mean, variance = stored or (None, None)
    for i in range(0, 16, 4):
        kernel, bias, scale, shift = weights[i : i + 4]
        x = functional.conv2d(images, kernel, bias, padding=1)
        x = functional.batch_norm(x, mean, variance, scale, shift, stored is None, eps=1e-3)
        if fastest:
            images = functional.relu(functional.max_pool2d(x, 2))  # a quarter to rectify
        else:
            images = functional.max_pool2d(functional.relu(x), 2)
    return images.flatten(1)


def prototype_logits(features: torch.Tensor, way: int, shot: int) -> torch.Tensor:
    """[queries, way] of features by class, support first; what all classes share is left out."""
    support, query = features[: way * shot], features[way * shot :]
    means = support.view(way, shot, -1).mean(1)
    return torch.addmm(means.square().sum(1), query, means.T, beta=-1, alpha=2)


def pictures(args: argparse.Namespace, *counts: int) -> torch.Tensor:
    """Random ones [*counts, C, H, W]."""
    flat = torch.rand(math.prod(counts), args.channels, args.size, args.size)
    if args.channels_last:
        flat = flat.contiguous(memory_format=torch.channels_last)
    return flat.unflatten(0, counts)


def network(args: argparse.Namespace) -> list[torch.Tensor]:
    """The weights of a Conv4-64 in the layout of the pictures."""
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    return [
        w.contiguous(memory_format=layout) if w.dim() == 4 else w
        for w in conv4_weights(args.channels, 64)
    ]


def by_class(way: int, each: int) -> torch.Tensor:
    return torch.arange(way).repeat_interleave(each)


def conv4_step(args: argparse.Namespace) -> Step:
    weights = [w.requires_grad_() for w in network(args)]
    images = pictures(args, args.way * (args.shot + args.query))
    targets = by_class(args.way, args.query)
    optimizer = torch.optim.Adam(weights, lr=1e-3, foreach=True)

    def loss_of(images: torch.Tensor) -> torch.Tensor:
        logits = prototype_logits(conv4(images, weights, args.fastest), args.way, args.shot)
        return functional.cross_entropy(logits, targets)

    loss_of = torch.compile(loss_of) if args.compile else loss_of

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(images).backward()
        optimizer.step()

    return step


def preprocess(x: torch.Tensor, p: float = 10.0) -> torch.Tensor:
    """[2, ...]: log|x| / p and the sign, or -1 and exp(p) x where x is tiny."""
    size = x.abs()
    large = size >= math.exp(-p)
    log = torch.where(large, size.log() / p, -1.0)
    return torch.stack([log, torch.where(large, x.sign(), math.exp(p) * x)])


def rows_cell(params: Any, state: Any, loss: torch.Tensor, grad: torch.Tensor) -> Any:
    """One update of all P coordinates, each a row [features] as in `torch.nn.LSTMCell`."""
    kernel, bias, gate_kernel, gate_bias = params
    theta, gates, hidden, memory = state
    seen = preprocess(loss)[:, None].expand(2, len(grad))
    x = torch.cat([seen, preprocess(grad)]).T
    z = torch.addmm(torch.addmm(bias, x, kernel[:, :4].T), hidden, kernel[:, 4:].T)
    write, keep, out = torch.sigmoid(z[:, : 3 * HIDDEN]).split(HIDDEN, 1)
    memory = torch.addcmul(write * torch.tanh(z[:, 3 * HIDDEN :]), keep, memory)
    hidden = out * torch.tanh(memory)
    affine = torch.addmm(gate_bias, hidden, gate_kernel[:, :HIDDEN].T)
    gates = affine + theta[:, None] * gate_kernel[:, HIDDEN] + gates * gate_kernel[:, HIDDEN + 1]
    forget, take = torch.sigmoid(gates).unbind(1)
    return torch.addcmul(forget * theta, take, grad, value=-1), gates, hidden, memory


def columns_cell(params: Any, state: Any, loss: torch.Tensor, grad: torch.Tensor) -> Any:
    """One update of all P coordinates; features first, so that gates are contiguous rows."""
    kernel, bias, gate_kernel, gate_bias = params
    theta, gates, hidden, memory = state
    bias = torch.addmv(bias, kernel[:, :2], preprocess(loss))[:, None]  # equal for all coordinates
    z = torch.addmm(bias, kernel[:, 2:], torch.cat([preprocess(grad), hidden]))
    write, keep, out = torch.sigmoid(z[: 3 * HIDDEN]).view(3, HIDDEN, -1).unbind()
    memory = torch.addcmul(write * torch.tanh(z[3 * HIDDEN :]), keep, memory)
    hidden = out * torch.tanh(memory)
    affine = torch.addmm(gate_bias[:, None], gate_kernel[:, :HIDDEN], hidden)
    gates = affine + gate_kernel[:, HIDDEN, None] * theta + gate_kernel[:, HIDDEN + 1, None] * gates
    forget, take = torch.sigmoid(gates)
    return torch.addcmul(forget * theta, take, grad, value=-1), gates, hidden, memory


def meta_lstm(args: argparse.Namespace) -> Step:
    features = 32 * (args.size // 16) ** 2
    bound = 1 / math.sqrt(features)
    head = [torch.empty(args.way, features).uniform_(-bound, bound), torch.zeros(args.way)]
    start = [*conv4_weights(args.channels, 32), *head]
    shapes, sizes = [w.shape for w in start], [w.numel() for w in start]
    initial = torch.cat([w.flatten() for w in start])
    small = lambda *shape: torch.empty(shape).uniform_(-0.01, 0.01)
    gate_bias = torch.tensor([4.5, -4.5])
    params = [small(4 * HIDDEN, 4 + HIDDEN), small(4 * HIDDEN), small(2, HIDDEN + 2), gate_bias]
    trained = [w.requires_grad_() for w in (initial, *params)]
    optimizer = torch.optim.Adam(trained, lr=1e-3, foreach=True)
    support = pictures(args, args.episodes, args.way * args.shot)
    query = pictures(args, args.episodes, args.way * args.query)
    targets, answers = by_class(args.way, args.shot), by_class(args.way, args.query)
    count = len(initial)
    cell = columns_cell if args.fastest else rows_cell
    zeros = [torch.zeros((n, count) if args.fastest else (count, n)) for n in (2, HIDDEN, HIDDEN)]
    update = torch.compile(cell) if args.compile else cell

    def pupil_loss(
        theta: torch.Tensor, images: torch.Tensor, targets: torch.Tensor
    ) -> torch.Tensor:
        parts = zip(theta.split(sizes), shapes, strict=True)
        *weights, kernel, bias = [part.view(shape) for part, shape in parts]
        logits = functional.linear(conv4(images, weights, args.fastest), kernel, bias)
        return functional.cross_entropy(logits, targets)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        for images, asked in zip(support, query, strict=True):
            state = initial, *zeros
            for _ in range(INNER_STEPS):
                theta = state[0].detach().requires_grad_()
                loss = pupil_loss(theta, images, targets)
                (grad,) = torch.autograd.grad(loss, theta)
                state = update(params, state, loss.detach(), grad)
            (pupil_loss(state[0], asked, answers) / args.episodes).backward()
        torch.nn.utils.clip_grad_norm_(trained, 0.25, foreach=True)
        optimizer.step()

    return step


def evaluate(args: argparse.Namespace) -> Step:
    weights = network(args)
    pool = pictures(args, POOL, args.way * (args.shot + args.query))
    targets = by_class(args.way, args.query)
    stored = None if args.batch_statistics else (torch.zeros(64), torch.ones(64))

    def logits_of(images: torch.Tensor) -> torch.Tensor:
        return prototype_logits(conv4(images, weights, args.fastest, stored), args.way, args.shot)

    logits_of = torch.compile(logits_of) if args.compile else logits_of

    @torch.inference_mode()
    def step() -> float:
        right = torch.zeros((), dtype=torch.int64, device=targets.device)
        for i in range(args.episodes):
            right += (logits_of(pool[i % POOL]).argmax(1) == targets).sum()
        return right.item() / (args.episodes * len(targets))

    return step


def seconds(step: Step, steps: int, device: str) -> float:
    """That so many steps took, to the end of what they started."""
    start = time.perf_counter()
    for _ in range(steps):
        step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    work = {"conv4_step": conv4_step, "meta_lstm": meta_lstm, "evaluate": evaluate}
    parser.add_argument("work", choices=work)
    sizes = {"size": 28, "channels": 1, "way": 5, "shot": 1, "query": 15, "threads": 2}
    for name, value in {**sizes, "episodes": 1}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, meaning in {
        "channels-last": "layout of the pictures, and of the weights of conv4_step and evaluate",
        "fastest": "channels-last; pools before ReLU; meta_lstm: coordinates on the last axis",
        "batch-statistics": "evaluate: normalise by each episode, not by what is stored",
        "compile": "torch.compile, which needs a C++ compiler",
    }.items():
        parser.add_argument(f"--{name}", action="store_true", help=meaning)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    args = parser.parse_args()
    args.channels_last |= args.fastest
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    if args.device == "cuda":  # as XLA does: TensorFloat-32, and a trial of convolutions
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.benchmark = True
    with torch.device(args.device):
        step = work[args.work](args)
    began = time.perf_counter()
    while seconds(step, 1, args.device) and time.perf_counter() - began < WARM_SECONDS:
        pass
    told = {"torch": torch.__version__, "threads": torch.get_num_threads(), "device": args.device}
    print(json.dumps(told), flush=True)
    for line in sys.stdin:
        print(json.dumps({"seconds": seconds(step, int(line), args.device)}), flush=True)


if __name__ == "__main__":
    main()
