"""Merchants: countries, trades, sizes, and how customers come to choose one."""

import numpy as np

from streamer.batch import Float64, Int64
from streamer.simulator import places, trades
from streamer.simulator.draws import pick, salt, stream, unit
from streamer.simulator.rows import DAY
from streamer.simulator.scenario import Scenario

ANYWHERE = places.HOMES  # a region beside the countries
_FAVOURITES = np.cumsum(1 / np.arange(1, 13)) / np.sum(1 / np.arange(1, 13))


class Choice:
    """Chooses shops by weight, within one country or anywhere."""

    def __init__(self, weights: Float64, bounds: Int64) -> None:
        total = np.concatenate(([0.0], np.cumsum(weights)))
        low, high = total[bounds[:-1]], total[bounds[1:]]
        empty = high <= low  # a country without such shops buys anywhere
        self._low = np.append(np.where(empty, 0.0, low), 0.0)
        self._high = np.append(np.where(empty, total[-1], high), total[-1])
        self._cumulative: Float64 = total[1:]

    def pick(self, draws: Float64, regions: Int64) -> Int64:
        """Turn draws in [0, 1) into shops of the regions."""
        return pick(self._cumulative, self._low[regions] + draws * (self._high - self._low)[regions])


class Shops:
    """All merchants, ordered by country."""

    def __init__(self, scenario: Scenario) -> None:
        rng = stream(scenario.seed, "shops", 0)
        count = scenario.merchants
        self._seed, self._start = scenario.seed, scenario.start
        country = np.sort(pick(places.PEOPLE, rng.random(count)))
        self.country = country.astype(np.uint8)
        bounds = np.searchsorted(country, np.arange(places.HOMES + 1))
        # Many small restaurants, few big supermarkets: the number of shops follows the square root.
        shares = np.sqrt(trades.WEIGHT)
        self.trade = pick(np.cumsum(shares) / shares.sum(), rng.random(count))
        self.price = np.exp(0.25 * rng.standard_normal(count)) * places.PRICES[country]
        self.median = trades.MEDIAN[self.trade] * self.price
        size = 1 / (1 + rng.permutation(count)) ** 0.9
        weight = self._shares_of_trades(size)
        online = trades.ONLINE[self.trade]
        self.tills = 1 + np.minimum((size * count / 20).astype(np.int64), 30)
        self.local = Choice(weight, bounds)
        self.remote = Choice(weight * online, bounds)
        self.recurring = Choice(weight * trades.marked("r")[self.trade] + weight * 1e-9, bounds)
        self.valuable = Choice(weight * trades.marked("h")[self.trade] + weight * 1e-9, bounds)
        # Small shops check less, so those who try out cards prefer them.
        self.lax = Choice(trades.marked("t")[self.trade] / np.sqrt(weight) + 1e-9, bounds)

    def _shares_of_trades(self, size: Float64) -> Float64:
        """Scale sizes so that each trade has its share of payments."""
        total = np.bincount(self.trade, size, len(trades.WEIGHT))
        weight: Float64 = size * (trades.WEIGHT / np.maximum(total, 1e-12))[self.trade]
        return weight

    def favourite(self, who: Int64, times: Int64, rank: Float64) -> tuple[Float64, Float64]:
        """Recall which shop a person likes: two draws that stay the same for some months."""
        slot = who * 16 + pick(_FAVOURITES, rank)
        phase = unit(slot, salt(self._seed, "taste")) * 120 * DAY
        epoch = (times - self._start + phase.astype(np.int64)) // (120 * DAY)
        liking = slot * 1024 + epoch
        return unit(liking, salt(self._seed, "favourite")), unit(liking, salt(self._seed, "abroad shop"))
