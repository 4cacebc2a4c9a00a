"""Realistic payments and their outcomes, seeded and streaming, for demos, files and load."""

from streamer.simulator.encoded import Encoded
from streamer.simulator.scenario import Scenario
from streamer.simulator.simulator import Chunk, Simulator

__all__ = ["Chunk", "Encoded", "Scenario", "Simulator"]
