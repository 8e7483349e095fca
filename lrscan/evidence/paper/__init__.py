"""The numbers that the paper reports, as tables.

The tables, by name::

    table1_kernel_speedup   serial over parallel time of the kernel alone, minibatch 1
    table2_rnn_speedup      training throughput, parallel kernel over serial kernel
    table3_convergence      iterations and hours until problem 2b is learned
    heatmap_throughput      training throughput of two models (poster and paper source)

Source: Eric Martin and Chris Cundy, "Parallelizing Linear Recurrent Neural Nets Over Sequence
Length", ICLR 2018, arXiv:1709.04057. The authors measured on one NVIDIA K80 (one GK210 die).
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

HARDWARE = "NVIDIA K80"


def table(name: str) -> pandas.DataFrame:
    """Return one of the paper's tables by its name; the columns' names contain the units.

    Example:
        >>> from lrscan.evidence import paper
        >>> longest = paper.table("table1_kernel_speedup").query("sequence_length == 65536")
        >>> dict(zip(longest["features"], longest["speedup"]))
        {4: 38.5, 32: 41.8, 128: 17.5}
    """
    import pandas

    with (files(__name__) / f"{name}.csv").open(encoding="utf-8") as file:
        return pandas.read_csv(file)


def heatmap() -> pandas.DataFrame:
    """Return the paper's heat map of training throughput, with a column of ratios to the LSTM.

    The columns are those of :func:`lrscan.experiments.lstm_throughput.summarise`. The LSTM's rows
    have no T, because its throughput does not depend on T.

    Example:
        >>> from lrscan.evidence import paper
        >>> best = paper.heatmap().nlargest(1, "ratio").iloc[0]
        >>> print(best["model"], best["T"], best["B"], round(best["ratio"], 1))
        GILR-LSTM 16384.0 1 35.7
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
