"""Users' own aggregates: what their windows held is handed to them after the kernels."""

from typing import Final

import numpy as np

from streamer.batch import Float64, Int64
from streamer.features.layout import Work
from streamer.features.plan import Compiled

FIRST: Final = 1 << 16
"""Numbers for which there is room to begin with; it doubles where not even one payment's windows fit."""


class Collector:
    """Computes the custom features of an entity from what the kernels collected of its windows."""

    def __init__(self, compiled: Compiled) -> None:
        self._windows = len(compiled.plan.collected)
        self._features = [
            (place, int(compiled.plan.outputs[place, 1]), feature.custom, feature.column.scale)
            for place, feature in enumerate(compiled.entity.features)
            if feature.custom is not None and feature.column is not None
        ]
        self._caught = np.empty(FIRST if self._windows else 1, np.int64)

    def work(self, work: Work, payments: int) -> Work:
        """The kernels' work with room for the windows of so many payments."""
        if not self._windows:
            return work
        return work._replace(caught=self._caught, ends=np.zeros(payments * self._windows, np.int64))

    def fill(self, work: Work, times: Int64, payments: range, out: Float64, stride: int) -> None:
        """Compute the features of payments of which `out` has the others already."""
        if not self._windows:
            return
        if not payments:
            self._caught = np.empty(2 * len(self._caught), np.int64)
            return
        caught = work.caught.reshape(-1, 2)
        bounds = np.concatenate(([0], work.ends[: len(payments) * self._windows])).tolist()
        for number, payment in enumerate(payments):
            for place, window, custom, scale in self._features:
                at = number * self._windows + window
                rows = caught[bounds[at] : bounds[at + 1]]
                try:
                    value = custom.compute(rows[:, 0].copy(), rows[:, 1] / scale, int(times[payment]))
                    out[payment * stride + place] = float(value)
                except Exception:  # noqa: BLE001 - whatever a user's code does, the stream goes on
                    out[payment * stride + place] = np.nan
