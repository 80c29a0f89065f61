"""Rows of results in JSON files, and the tables of RESULTS.md made from them.

python benchmarks/results.py          writes the tables into RESULTS.md
"""

from __future__ import annotations

import datetime
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "RESULTS.md"


def rows(name: str) -> list[dict[str, Any]]:
    """The rows of results/NAME.json, none if there is no such file."""
    path = HERE / "results" / f"{name}.json"
    return json.loads(path.read_text())["rows"] if path.exists() else []


def add(name: str, row: dict[str, Any]) -> None:
    """Write a row at once, in the place of an earlier one of the same name.

    The date is added, and where the row doesn't say them, the device and versions of this process.
    """
    if "versions" not in row:
        from metashot import runs  # jax, which a page of tables does not need

        versions = runs.versions()
        row = {**row, "device": versions["device"], "versions": versions}
    row = {**row, "date": datetime.date.today().isoformat()}
    old = rows(name)
    names = [r["name"] for r in old]
    kept = [row if r["name"] == row["name"] else r for r in old]
    path = HERE / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    temporary = path.with_suffix(".tmp")
    whole = kept if row["name"] in names else [*kept, row]
    temporary.write_text(json.dumps({"rows": whole}, indent=1) + "\n")
    os.replace(temporary, path)


def accuracies(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of accuracies, and one of validation accuracy while training."""
    lines = [
        "| row | accuracy, % | published, % | training episodes | training, minutes | seed |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        published = f"{100 * row['paper']:.1f}" if row.get("paper") else "–"
        trained = f"{row['episodes']:,}" if row["episodes"] else "–"
        if row.get("batch"):
            trained += f" batches of {row['batch']}"
        minutes = f"{row['seconds'] / 60:.1f}" if row["seconds"] else "–"
        lines.append(
            f"| `{row['name']}` | {100 * row['value']:.2f} ± {100 * row['interval']:.2f} "
            f"| {published} | {trained} | {minutes} | {row['seed']} |"
        )
    return lines + _curves([row for row in found if row.get("curve")])


def compared(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of accuracies, with the sizes of the episodes that a row was trained on."""
    lines = [
        "| row | accuracy, % | published, % | trained on | training episodes | training, minutes |",
        "|---|---|---|---|---|---|",
    ]
    for row in found:
        published = f"{100 * row['paper']:.2f}" if row.get("paper") else "–"
        lines.append(
            f"| `{row['name']}` | {100 * row['value']:.2f} ± {100 * row['interval']:.2f} "
            f"| {published} | {row['trained']} | {row['episodes']:,} | {row['seconds'] / 60:.1f} |"
        )
    return lines


def many_sizes(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of each training's accuracies at several sizes."""
    tests = list(found[0]["reached"])
    lines = [
        f"| row | {' | '.join(f'{test}, %' for test in tests)} | trained on | training, minutes |",
        "|---" * (3 + len(tests)) + "|",
    ]
    for row in found:
        figures = (row["reached"][test] for test in tests)
        cells = (f"{100 * value:.2f} ± {100 * half:.2f}" for value, half in figures)
        lines.append(
            f"| `{row['name']}` | {' | '.join(cells)} | {row['trained']} "
            f"| {row['seconds'] / 60:.1f} |"
        )
    return lines


def growing(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of time and memory against the size of the support."""
    lines = [
        "| support | way | shot | adapt, ms | 75 queries, ms | adapting, temporary MB "
        "| scan with its gradient, temporary MB |",
        "|---" * 7 + "|",
    ]
    for row in found:
        times = f"{row['value']:,.1f} | {row['predict_ms']:,.1f}"
        sizes = f"{row['adapt_bytes'] / 1e6:,.1f} | {row['scan_bytes'] / 1e6:,.1f}"
        examples = row["way"] * row["shot"]
        lines.append(f"| {examples:,} | {row['way']} | {row['shot']} | {times} | {sizes} |")
    return lines


def _curves(found: list[dict[str, Any]]) -> list[str]:
    """Validation accuracy against the episodes seen; rows of one training have one curve."""
    if not found:
        return []
    lines = ["", "| row | validation accuracy, %, after so many training episodes |", "|---|---|"]
    for row in found:
        points = [f"{seen:,}: {100 * value:.1f}" for seen, value in row["curve"]]
        lines.append(f"| `{row['name']}` | {', '.join(points)} |")
    return lines


def statistics(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of validation accuracy by the statistics that answer the queries."""
    lines = ["| statistics | validation accuracy, % |", "|---|---|"]
    for row in found:
        figure = f"{100 * row['value']:.2f} ± {100 * row['interval']:.2f}"
        lines.append(f"| `{row['name']}` | {figure} |")
    return lines


def memory(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of the memory of one dispatch."""
    lines = [
        "| row | inner steps T | meta-steps in the dispatch | temporary memory, MB |",
        "|---|---|---|---|",
    ]
    for row in found:
        size = f"{row['value'] / 1e6:.1f}"
        lines.append(f"| `{row['name']}` | {row['inner_steps']} | {row['meta_steps']} | {size} |")
    return lines


def speed(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of milliseconds, beside PyTorch's or what stands in brackets."""
    lines = [
        "| row | ours, ms | PyTorch, ms | PyTorch / ours (range of the rounds) "
        "| compiling, s | temporary memory, MB |",
        "|---|---|---|---|---|---|",
    ]
    for row in sorted(found, key=lambda row: row["name"]):
        beside = "" if row["peer"].startswith("PyTorch") else f" ({row['peer']})"
        ratio = "{ratio:.2f} ({ratio_low:.2f} to {ratio_high:.2f})".format(**row)
        lines.append(
            f"| `{row['name']}` | {1e3 * row['seconds']:,.2f} "
            f"| {1e3 * row['peer_seconds']:,.2f}{beside} | {ratio} "
            f"| {row['compile_seconds']:.1f} | {row['temporary_bytes'] / 1e6:,.0f} |"
        )
    return lines


def starts(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of seconds to the first meta-step."""
    lines = [
        "| config | first start, s | second start, s |",
        "|---|---|---|",
    ]
    for row in found:
        lines.append(f"| `{row['name']}` | {row['value']:.1f} | {row['again']:.1f} |")
    return lines


def imprinting_speed(found: list[dict[str, Any]]) -> list[str]:
    """Markdown tables of pictures a second beside PyTorch, and of answers among many classes."""
    lines = [
        "| row | ours, pictures/s | PyTorch, pictures/s | PyTorch / ours (range of the rounds) "
        "| first start, s |",
        "|---|---|---|---|---|",
    ]
    for row in (row for row in found if "ratio" in row):
        ratio = "{ratio:.2f} ({ratio_low:.2f} to {ratio_high:.2f})".format(**row)
        first = f"{row['first_seconds']:.1f}" if "first_seconds" in row else "–"
        theirs = row["images"] / row["peer_seconds"]
        lines.append(f"| `{row['name']}` | {row['value']:.1f} | {theirs:.1f} | {ratio} | {first} |")
    kinds = {"imprinted": "columns", "neighbors": "five neighbours a class"}
    heads = [f"{told}: one picture, ms | 32, ms | resident, MB" for told in kinds.values()]
    lines += ["", f"| size | classes | {' | '.join(heads)} |", "|---" * 8 + "|"]
    for row in (row for row in found if "classes" in row):
        cells = [f"{row['size']}", f"{row['classes']:,}"]
        for kind in kinds:
            cells += [f"{1e3 * row[f'{kind}_{n}']:,.0f}" for n in ("one", "many")]
            cells.append(f"{row[f'{kind}_bytes'] / 1e6:,.0f}")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def imprinted(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of accuracies among five classes, and among all of a set."""
    shots = list(found[0]["all_classes"])
    lines = [
        "| row | classes | 5-way 1-shot, % | 5-way 5-shot, % | all classes, % by shots: "
        + " | ".join(shots)
        + " |",
        "|---" * (4 + len(shots)) + "|",
    ]
    for row in found:
        pairs = ((row["value"], row["interval"]), row["five_shot"])
        five = " | ".join(f"{100 * value:.1f} ± {100 * half:.1f}" for value, half in pairs)
        every = " | ".join(f"{100 * row['all_classes'][shot]:.1f}" for shot in shots)
        lines.append(f"| `{row['name']}` | {row['classes']} | {five} | {every} |")
    return lines


def from_scratch(found: list[dict[str, Any]]) -> list[str]:
    """Markdown tables of accuracy by shots: one for each way of asking, and one while tuning."""
    titles = {
        "novel": "Novel classes, among all classes, %",
        "all": "All classes, %",
        "transfer": "Novel classes among themselves, %",
    }
    lines = []
    for kind, title in titles.items():
        told = [row for row in found if kind in row]
        shots = list(told[0][kind])
        lines += [
            f"| {title} | " + " | ".join(shots) + " | seeds |",
            "|---" * (len(shots) + 2) + "|",
        ]
        for row in told:
            cells = (
                f"{100 * mean:.1f}" + (f" ± {100 * deviation:.1f}" if row["seeds"] > 1 else "")
                for mean, deviation in (row[kind][n] for n in shots)
            )
            lines.append(f"| `{row['name']}` | {' | '.join(cells)} | {row['seeds']} |")
        lines.append("")
    lines += ["| while tuning | shots | novel, % (all, %), after so many steps |", "|---|---|---|"]
    for row in (row for row in found if "curve" in row):
        for n, curve in row["curve"].items():
            points = (f"{s}: {100 * novel:.1f} ({100 * every:.1f})" for s, novel, every in curve)
            lines.append(f"| `{row['name']}` | {n} | {', '.join(points)} |")
    return lines


def refused(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of the shares of pictures that were refused."""
    lines = [
        "| row | known refused, % | unknown refused, % | the same by the one-shot threshold, % "
        "| AUROC |",
        "|---|---|---|---|---|",
    ]
    for row in found:
        lines.append(
            f"| `{row['name']}` | {100 * row['known']:.1f} "
            f"| {100 * row['value']:.1f} ± {100 * row['interval']:.1f} "
            f"| {100 * row['by_one_shot']:.1f} | {row['auroc']:.3f} |"
        )
    return lines


def matched(found: list[dict[str, Any]]) -> list[str]:
    """Markdown tables of error rates of matching problems, and of seconds to learn a character."""
    lines = [
        "| row | random problems, error % | the same after 2 million pairs | published, % "
        "| official runs, error % | pairs, millions | training, minutes |",
        "|---|---|---|---|---|---|---|",
    ]
    percent = lambda both: f"{100 * both[0]:.2f} ± {100 * both[1]:.2f}" if both else "–"
    timed = [row for row in found if row["name"] == "adapt"]
    for row in (row for row in found if row not in timed):
        # A row of the official runs has its figure from these.
        own = row["value"], row["interval"]
        of_runs = "official" in row["name"]
        both = (row.get("random"), own) if of_runs else (own, row.get("official"))
        published = f"{100 * row['paper']:.1f}" if row.get("paper") else "–"
        pairs = f"{row['pairs'] / 1e6:.2f}" if row.get("pairs") else "–"
        equal = row.get("equal") or (own if pairs == "2.00" else None)
        minutes = f"{row['seconds'] / 60:.1f}" if row.get("seconds") else "–"
        lines.append(
            f"| `{row['name']}` | {percent(both[0])} | {percent(equal)} | {published} "
            f"| {percent(both[1])} | {pairs} | {minutes} |"
        )
    for row in timed:
        times = (f"{1e3 * s:,.1f}" for name in ("learnet", "sgd") for s in row["seconds_of"][name])
        lines += [
            "",
            "| row | learnet: adapt, ms | 1,000 scores, ms | SGD: fine-tune, ms | 1,000 scores, ms "
            "| steps of SGD | SGD / learnet |",
            "|---|---|---|---|---|---|---|",
            f"| `adapt` | {' | '.join(times)} | {row['steps_of_sgd']} | {row['ratio']:.1f} |",
        ]
    return lines


def segmented(found: list[dict[str, Any]]) -> list[str]:
    """Markdown tables of mean IoU, a row a method and a column a fold, for each number of shots."""
    by_name = {row["name"]: row for row in found}
    lines = list[str]()
    for shot in (1, 5):
        folds = [f"{shot}shot_fold{i}" for i in range(4)]
        names = (f"fold {i}" for i in range(4))
        methods = [n.removesuffix(f"_{folds[0]}") for n in by_name if n.endswith(folds[0])]
        heads = ("mean", "without classes of few pictures", "published", "training a fold, minutes")
        lines += [
            "",
            f"| {shot}-shot mean IoU, % | " + " | ".join((*names, *heads)) + " |",
            "|---" * 9 + "|",
        ]
        for method in methods:
            mean = by_name.get(f"{method}_{shot}shot_mean")
            rows = [by_name.get(f"{method}_{fold}") for fold in folds]
            cells = [_share(row) for row in (*rows, mean)]
            cells += [_share(mean and {"value": mean[key]}) for key in ("without_few", "paper")]
            minutes = max(row["seconds"] for row in rows if row) / 60
            lines.append(f"| `{method}` | {' | '.join(cells)} | {minutes:.1f} |")
    if best := by_name.get("best_baseline_1shot_mean"):
        told = f"{100 * best['value']:.1f} % (`{best['of']}`)"
        lines += ["", f"Best of the paper's four baselines, one shot: {told}."]
    return lines


def _share(row: dict[str, Any] | None) -> str:
    """A figure in percent, with its interval if it has one."""
    if not row or row["value"] is None:
        return "–"
    half = f" ± {100 * row['interval']:.1f}" if "interval" in row else ""
    return f"{100 * row['value']:.1f}{half}"


def videos(found: list[dict[str, Any]]) -> list[str]:
    """A Markdown table of mean IoU over the frames of videos."""
    lines = ["| row | mean IoU, % | frames |", "|---|---|---|"]
    return [*lines, *(f"| `{r['name']}` | {_share(r)} | {r['pairs']} |" for r in found)]


def segmentation_speed(found: list[dict[str, Any]]) -> list[str]:
    """Markdown tables of the time of a query, and of queries a second of one support."""
    lines = ["| row | ms (range of rounds) | logistic regression / this (range) |", "|---|---|---|"]
    for row in (row for row in found if "range" in row):
        low, high = (1e3 * seconds for seconds in row["range"])
        ratio = "–"
        if "ratio" in row:
            least, most = row["ratio_range"]
            ratio = f"{row['ratio']:.1f} ({least:.1f} to {most:.1f})"
        time = f"{1e3 * row['value']:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| `{row['name']}` | {time} | {ratio} |")
    lines += ["", "| row | queries/s |", "|---|---|"]
    return lines + [f"| `{r['name']}` | {r['value']:.0f} |" for r in found if "range" not in r]


TABLES = {
    "omniglot_learnet": matched,
    "omniglot_meta_lstm": accuracies,
    "tinyimagenet_meta_lstm": accuracies,
    "omniglot_mmnet": compared,
    "omniglot_mixed": many_sizes,
    "omniglot_mmnet_ablations": many_sizes,
    "memory_matching_cost": growing,
    "segmentation_pascal": segmented,
    "segmentation_fashion": segmented,
    "segmentation_davis": videos,
    "segmentation_speed": segmentation_speed,
    "batch_norm": statistics,
    "memory": memory,
    "speed_cpu": speed,
    "speed_gpu": speed,
    "starts_cpu": starts,
    "imprinting_pretrained": imprinted,
    "imprinting_speed": imprinting_speed,
    "imprinting_caltech101": from_scratch,
    "imprinting_tinyimagenet": from_scratch,
    "imprinting_reject": refused,
}


def table(name: str) -> str:
    """The rows of a file as a Markdown table, with when, on what and how they were made."""
    found = rows(name)
    made = {_made(row): None for row in found}
    commands = {row["command"]: None for row in found}
    return "\n".join([*TABLES[name](found), "", *made, "", "```", *commands, "```"])


def _made(row: dict[str, Any]) -> str:
    versions = ", ".join(f"{k} {v}" for k, v in row["versions"].items() if k != "device")
    return f"{row['date']}, on {row['device']}; {versions}."


def fill(page: str) -> str:
    """The page with each table between its markers made anew."""
    return re.sub(
        r"(<!-- table (\w+) -->).*?(<!-- end -->)",
        lambda m: f"{m[1]}\n{table(m[2])}\n{m[3]}",
        page,
        flags=re.S,
    )


if __name__ == "__main__":
    PAGE.write_text(fill(PAGE.read_text()))
    sys.exit(0)
