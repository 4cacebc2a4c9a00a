"""Everything that is promised about kills, restarts and scale-out, measured by the real commands."""
