"""What the analyses share: the command line, the JSON file, and figures that read well without colour."""

import argparse
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before pyplot: a figure is a file, there may be no screen

from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

STYLES: dict[str, dict[str, Any]] = {
    "sft": {"color": "#000000", "linestyle": (0, (1, 1.2))},
    "reinforce": {"color": "#E69F00", "linestyle": (0, (4, 1.5))},
    "ppo": {"color": "#D55E00", "linestyle": "-"},
    "ppo-unclipped": {"color": "#D55E00", "linestyle": (0, (2, 1.5))},
    "lco-kld": {"color": "#0072B2", "linestyle": "-"},
    "lco-lch": {"color": "#009E73", "linestyle": (0, (5, 1, 1, 1))},
    "lco-mse": {"color": "#CC79A7", "linestyle": (0, (4, 1.5))},
}
"""One look per objective: Okabe and Ito's colours, which the colour-blind can tell apart, and a dash pattern each."""
TITLES = {
    "sft": "SFT",
    "reinforce": "REINFORCE",
    "ppo": "PPO",
    "ppo-unclipped": "PPO, no clip",
    "lco-kld": "LCO-KLD",
    "lco-lch": "LCO-LCH",
    "lco-mse": "LCO-MSE",
}
_RC: Any = {
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 9,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 8,
    "legend.framealpha": 0.85,
    "legend.edgecolor": "none",
    "lines.linewidth": 1.7,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "svg.hashsalt": "lco",  # the same numbers give the same file
    "svg.fonttype": "none",
}


def parser(description: str) -> argparse.ArgumentParser:
    """The part of the command line that every analysis has."""
    found = argparse.ArgumentParser(description=description)
    found.add_argument("out_dir", type=Path, help="directory for the figures (PNG, SVG) and the numbers (JSON)")
    found.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    return found


def panels(num_rows: int, num_columns: int, title: str) -> tuple[Figure, list[Axes]]:
    """A figure of equal panels, row by row."""
    plt.rcParams.update(_RC)
    size = (3.9 * num_columns, 2.75 * num_rows + 0.45)
    figure, axes = plt.subplots(num_rows, num_columns, figsize=size, squeeze=False, layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    return figure, list(axes.flat)


def line(axes: Axes, name: str, x: Sequence[float], y: Sequence[float], label: str | None = None, **more: Any) -> None:
    """An objective's curve in its own look."""
    axes.plot(x, y, label=TITLES[name] if label is None else label, **(STYLES[name] | more))


def describe(axes: Axes, title: str, x: str, y: str, *, legend: bool = True) -> None:
    """A panel's title, axes and legend."""
    axes.set(title=title, xlabel=x, ylabel=y)
    if legend:
        axes.legend()


def write(out_dir: Path, name: str, numbers: Mapping[str, Any], figures: Mapping[str, Figure]) -> None:
    """Writes `NAME.json` and every figure as PNG and SVG, and says so."""
    out_dir.mkdir(parents=True, exist_ok=True)
    paths = [out_dir / f"{name}.json"]
    paths[0].write_text(json.dumps(_plain(numbers), indent=1, allow_nan=False) + "\n")
    for stem, figure in figures.items():
        for suffix, extra in ((".png", {"dpi": 150}), (".svg", {"metadata": {"Date": None}})):
            paths.append(out_dir / f"{stem}{suffix}")
            figure.savefig(paths[-1], **extra)
        plt.close(figure)
    print("wrote " + ", ".join(os.fspath(path) for path in paths))


def _plain(value: Any) -> Any:
    """The value as JSON has it: numbers that are not finite become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value
