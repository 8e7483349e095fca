"""The numbers that the paper reports, as tables.

Source: Eric Martin and Chris Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence
Length", ICLR 2018, arXiv:1709.04057. The authors measured on one NVIDIA K80 (one GK210 die).

    table1_kernel_speedup   serial over parallel time of the kernel alone, minibatch 1
    table2_rnn_speedup      training throughput, parallel kernel over serial kernel
    table3_convergence      iterations and hours until problem 2b is learned
    heatmap_throughput      training throughput of two models (poster and paper source)
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

HARDWARE = "NVIDIA K80"


def table(name: str) -> pandas.DataFrame:
    """One of the tables above, by name; a column a quantity, units in the names."""
    import pandas

    with (files(__name__) / f"{name}.csv").open(encoding="utf-8") as file:
        return pandas.read_csv(file)


def heatmap() -> pandas.DataFrame:
    """The heat map with the columns of :func:`lrscan.experiments.lstm_throughput.summarise`.

    The LSTM's rows have no T, since its throughput does not depend on it.
    """
    names = {
        "sequence_length": "T",
        "minibatch": "B",
        "thousand_events_per_second": "thousand_events_per_s",
    }
    found = table("heatmap_throughput").rename(columns=names)
    found["model"] = found["model"].str.removeprefix("cuDNN ")
    lstm = found[found["model"] == "LSTM"].set_index("B")["thousand_events_per_s"]
    return found.assign(ratio=found["thousand_events_per_s"] / found["B"].map(lstm))
