"""Records ready to be sent or written, with the truth beside them."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from streamer.batch import Bool
from streamer.simulator import rows


@dataclass(frozen=True, slots=True)
class Encoded:
    """Records in the order in which they arrive; the lists are parallel.

    `times` are event times in ms. The ground truth is for payments only: `scenario` holds indices of
    `rows.SCENARIOS` (uint8), and `fraud` is whether it is not the genuine one.
    """

    keys: list[bytes]
    values: list[bytes]
    times: list[int]
    scenario: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))

    @property
    def fraud(self) -> Bool:
        """Which payments are fraudulent, friendly fraud included; shape (n,)."""
        return np.not_equal(self.scenario, rows.GENUINE)

    def __len__(self) -> int:
        return len(self.values)
