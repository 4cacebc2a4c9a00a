"""The storm of WORKLOADS.md on the real command, killed again and again, and judged by a naive oracle."""
