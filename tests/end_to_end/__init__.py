"""The real command on both logs, held against a naive oracle."""
